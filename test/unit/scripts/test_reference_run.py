"""scripts/reference_run.py: the generated legacy episodes and the printed table."""

import re

import numpy as np
import yaml

import reference_run
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.catalog.inspect import judge_episode
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes

NAME = re.compile(
    r'episode_20251106_\d{6}_(1box|2box)_(vert|hori)_(left|right)_(core|variant)_'
    r'(close|medium|far)\.h5'
)


def test_there_are_as_many_drives_as_in_the_reference_run():
    """57 files of 18 rows, 16 distinct sequences, exactly 0 or ±1.15, the first row at rest."""
    scenarios = reference_run.scenarios(reference_run.FILES)
    drives = {reference_run.actions_of(*scenario[:4]).tobytes() for scenario in scenarios}
    assert (len(scenarios), len(drives)) == (57, 16)
    for scenario in scenarios[:16]:
        actions = reference_run.actions_of(*scenario[:4])
        assert actions.shape == (18, 3) and not actions[0].any()
        assert set(np.unique(np.abs(actions))) == {np.float32(0), np.float32(1.15)}
        assert np.sign(actions[:, 1].sum()) == (1 if scenario[2] == 'left' else -1)
    recipe = yaml.safe_load(reference_run.RECIPE.read_text())
    assert (recipe['epochs'], recipe['piece_frames'], recipe['rate_hz']) == (
        20,
        reference_run.ROWS,
        reference_run.RATE_HZ,
    )


def test_its_episodes_are_imported_with_their_instructions(tmp_path, monkeypatch):
    """Written in the legacy layout and names; every row is imported, and the images change."""
    monkeypatch.setattr(reference_run, 'SIZE', (96, 54))
    assert reference_run.write_legacy(tmp_path / 'legacy', 4) == 4
    assert all(NAME.fullmatch(path.name) for path in (tmp_path / 'legacy').iterdir())
    assert (
        main(
            [
                'episodes',
                'import',
                str(tmp_path / 'legacy'),
                '--out',
                str(tmp_path / 'episodes'),
                '--rate',
                '10',
                '--instruction',
                'go to the red box',
            ]
        )
        == 0
    )
    instructions = set()
    for path in find_episodes(tmp_path / 'episodes'):
        with Episode.open(path) as episode:
            instructions.add(episode.instruction)
            assert len(episode) == 18 and judge_episode(episode)['verdict'] != 'bad'
            first, last = (episode.frame(row).image.astype(int) for row in (0, 17))
            assert np.abs(first - last).mean() > 5
    assert instructions == {'go to the left of the red box', 'go to the right of the red box'}


def test_the_table_shows_every_epoch_and_every_baseline():
    """In Markdown: the reference run's log beside baselines without images."""
    axis = {'mae': 0.1}
    row = {'loss_arm_act': 0.02, 'linear_x': axis, 'linear_y': axis}
    history = [
        {
            'epoch': epoch,
            'train_loss_arm_act': 0.1,
            'val_loss_arm_act': 0.12,
            'val_mae_linear_x': 0.3,
            'val_mae_linear_y': 0.4,
        }
        for epoch in range(2)
    ]
    text = reference_run.table(
        history,
        {
            'baselines': {'zero': row, 'mean_per_step': row},
            'policy': {**row, 'image_blanked': row},
        },
    )
    assert '| 1 | 0.1000 | 0.1200 | 0.300 m/s | 0.400 m/s |' in text
    for name in (
        'zero',
        'mean_per_step',
        '**the policy** (best epoch)',
        'the policy, image blanked',
    ):
        assert f'| {name} | 0.0200 | 0.100 m/s | 0.100 m/s |' in text
