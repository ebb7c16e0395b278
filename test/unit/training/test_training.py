"""Training: its files, metrics, settings, learning rate and refusals."""

import errno
import json
import os
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from arena_episodes import write_episodes
from damaged_files import break_frame
from made_segments import write_worth
from mobile_vla_ros.data.preprocess import preprocess
from mobile_vla_ros.data.segments import Sampling, load_segments
from mobile_vla_ros.episode.catalog.edit import edit
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.evaluate import evaluate
from mobile_vla_ros.evaluation.predict import policy_dataset, predict
from mobile_vla_ros.model.builtin import bundle_folder
from mobile_vla_ros.model.bundle import load_bundle
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.flags import parse
from mobile_vla_ros.training.loop import train
from mobile_vla_ros.training.optimise import learning_rate
from mobile_vla_ros.training.prepare import episodes_of
from mobile_vla_ros.training.run_folder import RunFolder
from mobile_vla_ros.types import Frame

pytestmark = pytest.mark.usefixtures('fresh_accelerate')

CONFIG = Path(__file__).resolve().parents[3] / 'config'


def test_training_and_driving_have_the_same_input(small_run, episode_folder):
    """Law 3: the same frames give the same action in evaluation and in the driving policy."""
    loaded = load_bundle(small_run / 'best')
    runs, _ = load_segments(find_episodes(episode_folder)[:1], Sampling())
    motion = predict(
        loaded.network, policy_dataset(runs, loaded.spec, loaded.tokenizer, 18)
    ).motion
    policy = VlaPolicy(loaded)
    with Episode.open(runs[0].path) as episode:
        frames = [episode.frame(int(index)) for index in runs[0].frames[:12]]
        pixels = preprocess(frames[0].image, loaded.spec.image)
    data = policy_dataset(runs, loaded.spec, loaded.tokenizer, 18)
    assert torch.equal(data[0].frames[0], pixels)
    for window in range(9):
        plan = policy.infer(frames[window : window + 4], runs[0].instruction)
        np.testing.assert_allclose(
            loaded.spec.actions.normalise(plan.twists), motion[window, -1], atol=1e-5
        )


def test_a_run_writes_best_last_and_history(small_run):
    """Best and last bundles, a history under the reference run's names, the configuration."""
    history = json.loads((small_run / 'history.json').read_text())
    assert [row['epoch'] for row in history] == [0, 1]
    assert {
        'train_loss_arm_act',
        'val_loss_arm_act',
        'train_loss_gripper_act',
        'val_loss_gripper_act',
        'acc_gripper_act',
    } <= set(history[0])
    assert all(np.isfinite(row['val_loss']) for row in history)
    best = min(history, key=lambda row: row['val_loss'])
    assert (small_run / 'best').resolve().name.startswith(f'epoch={best["epoch"]:03d}-')
    assert (small_run / 'last').resolve().name.startswith('epoch=001-')
    assert (small_run / 'config.yaml').is_file()
    assert list((small_run / 'tensorboard').iterdir())


def test_training_lowers_the_loss(small_backbone, tmp_path):
    """A few epochs on two episodes lower the training loss well below its first value."""
    write_episodes(tmp_path / 'episodes', 2, size=64)
    train(
        ModelConfig(
            backbone=small_backbone, lora_r=8, lora_dropout=0.0, head_hidden=128, head_layers=1
        ),
        DataConfig(data=str(tmp_path / 'episodes'), val_share=0.5),
        TrainConfig(
            out=str(tmp_path / 'out'), epochs=6, accumulate=1, device='cpu', learning_rate=2e-3
        ),
        log=lambda _: None,
    )
    history = json.loads((tmp_path / 'out' / 'history.json').read_text())
    assert history[-1]['train_loss'] < 0.5 * history[0]['train_loss']


def test_the_six_padded_values_of_the_reference_run_train(
    small_backbone, episode_folder, tmp_path
):
    """The reference run's layout (motion_dims 6) trains, is evaluated and drives."""
    best = train(
        ModelConfig(
            backbone=small_backbone, lora_r=2, head_hidden=16, head_layers=1, motion_dims=6
        ),
        DataConfig(data=str(episode_folder), scale=[1.15, 1.15]),
        TrainConfig(out=str(tmp_path / 'out'), epochs=1, device='cpu', precision='bf16'),
        log=lambda _: None,
    ).best
    policy = VlaPolicy.load(best)
    assert policy.spec.head.motion_dims == 6
    assert policy.spec.actions.scale == (1.15, 1.15)
    frames = [np.full((8, 8, 3), i, np.uint8) for i in range(4)]
    window = [Frame(image, i * 100_000_000, 0) for i, image in enumerate(frames)]
    assert policy.infer(window, 'go').twists.shape == (10, 6)


def test_skipped_episodes_are_logged_and_stored_in_the_bundle(small_backbone, tmp_path):
    """The log names the file and the count; the bundle has both and the fingerprint."""
    data, lines = tmp_path / 'episodes', []
    for number in range(4):
        good = write_worth(data, 'good', number)
    bad = write_worth(data, 'bad', 9)
    edit({bad: {'outcome': 'failure'}, good: {'outcome': 'failure'}}, by='anna', time_ns=0)
    best = train(
        ModelConfig(backbone=small_backbone, lora_r=4, head_hidden=16, head_layers=1),
        DataConfig(data=str(data)),
        TrainConfig(out=str(tmp_path / 'out'), epochs=1, device='cpu'),
        log=lines.append,
    ).best
    assert any(bad.name in line and 'stood still' in line for line in lines)
    assert '1 of 5 episodes left out' in lines
    known = load_bundle(best).spec.data
    assert known['accept_verdicts'] == ['good', 'poor']
    assert list(known['left_out']) == [bad.name] and list(known['edits']) == [good.stem]
    assert len(known['train_episodes']) + len(known['val_episodes']) == 4


def test_unreadable_frames_are_named_and_training_continues(
    small_backbone, episode_folder, tmp_path
):
    """Only the pieces with a broken frame are left out, in training and validation."""
    mine, lines = shutil.copytree(episode_folder, tmp_path / 'episodes'), []
    configs = (
        ModelConfig(backbone=small_backbone, lora_r=2, head_hidden=16, head_layers=1),
        DataConfig(data=str(mine)),
    )
    split = episodes_of(configs[1], lambda _: None)
    for runs in (split.train, split.val):
        break_frame(runs[0].path, 20, 'image')
    best = train(
        *configs, TrainConfig(out=str(tmp_path / 'out'), epochs=2, device='cpu'), log=lines.append
    ).best
    broken = load_bundle(best).spec.data['broken_frames']
    for runs in (split.train, split.val):
        (sentence,) = {line for line in broken if runs[0].path.name in line}
        assert 'frame 20' in sentence
        assert lines.count(f'left out: {sentence}') == 1
    row = json.loads((tmp_path / 'out' / 'history.json').read_text())[-1]
    assert 0 < row['val_loss'] < 1 and 0 < row['train_loss'] < 1


def test_the_bundle_has_the_settings_of_its_data(small_backbone, episode_folder, tmp_path):
    """Every flag that changes the training data is in policy.json."""
    augmentation = {'mirror': True, 'light': 0.1, 'colour': 0.05, 'shift': 0.04}
    best = train(
        ModelConfig(backbone=small_backbone, lora_r=2, head_hidden=16, head_layers=1),
        DataConfig(
            data=str(episode_folder),
            idle_keep=0.25,
            balance_instructions=True,
            group_duplicates=True,
            val_share=0.4,
            split_seed=7,
            **augmentation,
        ),
        TrainConfig(out=str(tmp_path / 'out'), epochs=1, device='cpu'),
        log=lambda _: None,
    ).best
    known = load_bundle(best).spec.data
    assert known['augmentation'] == augmentation
    assert (known['idle_keep'], known['balance_instructions']) == (0.25, True)
    split = known['split']
    assert (split['seed'], split['val_share'], split['group_duplicates']) == (7, 0.4, True)
    assert set(known['train_episodes']).isdisjoint(known['val_episodes'])


def test_the_recipe_of_the_reference_run_is_complete():
    """config/train_seed.yaml has every setting; flags change rates and epochs."""
    argv = ['--config', str(CONFIG / 'train_seed.yaml'), '--data', 'x', '--out', 'y']
    model, data, config = parse(argv)
    assert model.backbone == 'microsoft/kosmos-2-patch14-224'
    assert (model.lora_r, model.lora_alpha, model.lora_dropout, model.lora_scope) == (
        32,
        16,
        0.1,
        'all',
    )
    assert (model.head_hidden, model.head_layers, model.motion_dims) == (512, 4, 6)
    assert (data.window, data.chunk, data.axes) == (4, 10, ['linear_x', 'linear_y'])
    assert (data.scale, data.val_share) == ([1.15, 1.15], 0.2)
    assert (config.learning_rate, config.weight_decay, config.grad_clip) == (1e-4, 0.01, 1.0)
    assert (config.warmup_ratio * config.epochs, config.min_lr) == (0.1, 1e-7)
    assert (model.backbone_dtype, model.activation_checkpointing) == ('float32', True)
    assert (config.batch_size, config.accumulate, config.piece_frames) == (1, 8, 18)
    assert (config.epochs, config.precision, config.gripper_weight) == (20, 'fp16', 0.0)
    model, _, _ = parse([*argv, '--prompt', 'robovlms'])
    assert model.instruction_template == '<grounding>An image of a robot {instruction}</s>'
    _, _, config = parse([*argv, '--epochs', '100', '--learning-rate', '1e-5'])
    assert (config.epochs, config.learning_rate) == (100, 1e-5)


def test_tensorboard_has_the_reference_run_s_names_and_the_baselines(small_run):
    """One point per epoch, and a line for every baseline."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(small_run / 'tensorboard')).Reload()
    names = set(board.Tags()['scalars'])
    assert {
        'train_loss_arm_act',
        'val_loss_arm_act',
        'train_loss_gripper_act',
        'val_loss_gripper_act',
        'acc_gripper_act',
        'val_mae_linear_x',
        'val_loss_arm_act of repeat_last',
    } <= names
    history = json.loads((small_run / 'history.json').read_text())
    points = board.Scalars('val_loss_arm_act')
    assert [point.step for point in points] == [0, 1]
    assert points[1].value == pytest.approx(history[1]['val_loss_arm_act'], rel=1e-5)


@pytest.mark.parametrize('accept', [['good', 'poor'], ['poor']])
def test_without_usable_episodes_every_reason_is_named(tmp_path, accept):
    """By training and evaluation: every file with its reason, and the remedy."""
    paths = [write_worth(tmp_path / 'episodes', 'bad', number) for number in range(3)]
    reasons = '.*'.join(f'{path.stem}.*stood still' for path in paths) + '.*accept.verdicts'
    with pytest.raises(UserError, match=reasons):
        train(
            ModelConfig(),
            DataConfig(data=str(tmp_path / 'episodes'), accept_verdicts=accept),
            TrainConfig(out=str(tmp_path / 'out'), device='cpu'),
            log=lambda _: None,
        )
    assert not (tmp_path / 'out').exists()
    with pytest.raises(UserError, match=reasons):
        evaluate(
            tmp_path / 'episodes',
            None,
            sampling=Sampling(),
            axes=['linear_x'],
            val_share=0.5,
            split_seed=0,
            accept_verdicts=accept,
        )


@pytest.mark.parametrize(
    ('model', 'data', 'config', 'expected'),
    [
        ({}, {'data': '/no/such/folder'}, {}, 'no folder of episodes'),
        ({}, {}, {'precision': 'fp16', 'device': 'cpu'}, 'fp16'),
        ({'motion_dims': 1}, {}, {}, 'fewer motion dimensions'),
        ({}, {'window': 64, 'rate_hz': 100.0}, {}, 'no usable episode'),
        ({'backbone': 'builtin:huge'}, {}, {}, 'unknown built-in backbone'),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    small_backbone, episode_folder, tmp_path, model, data, config, expected
):
    """A refused run leaves no file."""
    with pytest.raises(UserError, match=expected):
        train(
            ModelConfig(**{'backbone': small_backbone, **model}),
            DataConfig(**{'data': str(episode_folder), **data}),
            TrainConfig(**{'out': str(tmp_path / 'out'), 'device': 'cpu', **config}),
            log=lambda _: None,
        )
    assert not (tmp_path / 'out').exists()


def test_instructions_that_become_equal_tokens_are_refused(tmp_path):
    """Both are named, with the words that `builtin:tiny` does not know; nothing is written."""
    data, lines = tmp_path / 'episodes', []
    for number, colour in enumerate(['빨간', '파란', '빨간', '파란']):
        path = write_worth(data, 'good', number)
        edit({path: {'instruction': f'{colour} 상자로 가'}}, by='anna', time_ns=0)
    with pytest.raises(
        UserError, match=r"'빨간 상자로 가' = '파란 상자로 가'; .* know: 가, 빨간, 상자로, 파란"
    ):
        train(
            ModelConfig(),
            DataConfig(data=str(data), accept_losses=True),
            TrainConfig(out=str(tmp_path / 'out'), device='cpu'),
            log=lines.append,
        )
    assert 'words that the tokenizer does not know: 가, 빨간, 상자로, 파란' in lines
    assert not (tmp_path / 'out').exists()


def test_a_configuration_reports_every_mistake():
    """All mismatches at once."""
    with pytest.raises(UserError, match=r'epochs is 0.*batch_size is -1'):
        TrainConfig(out='x', epochs=0, batch_size=-1)
    with pytest.raises(UserError, match=r'min_lr is 0\.01, more than the learning rate 0\.001'):
        TrainConfig(out='x', learning_rate=0.1, lora_learning_rate=1e-3, min_lr=0.01)
    for verdicts in ([], ['fine']):
        with pytest.raises(UserError, match='accept_verdicts'):
            DataConfig(data='x', accept_verdicts=verdicts)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('epochs: 1.5', r'epochs is 1\.5, not an integer'),
        ('axes: linear_x', 'axes is .linear_x., not a list, each a string'),
        ('mirror: 1', 'mirror is 1, not true or false'),
        ('- a', 'contains no settings'),
        ('axes: [linear_x, foo]', 'axes has .foo., not one of linear_x'),
        ('scale: [fast]', 'scale is .*, not a list, each a number'),
    ],
)
def test_a_settings_file_is_checked_like_flags(tmp_path, text, expected):
    """A wrong type is an error, never a run with other settings."""
    (tmp_path / 'c.yaml').write_text(text)
    with pytest.raises(UserError, match=expected):
        parse(['--config', str(tmp_path / 'c.yaml'), '--data', 'x', '--out', 'y'])


def test_numbers_that_yaml_reads_as_strings_are_numbers(tmp_path):
    """YAML reads 1e-4, which has no point, as a string; an integer is a valid rate."""
    (tmp_path / 'c.yaml').write_text('learning_rate: 1e-5\nrate_hz: 5\nrevision: null\n')
    model, data, config = parse(
        ['--config', str(tmp_path / 'c.yaml'), '--data', 'x', '--out', 'y']
    )
    assert (config.learning_rate, data.rate_hz, model.revision) == (1e-5, 5.0, None)


def test_a_flag_accepts_every_form_of_its_value():
    """Underscores or dashes; a switch alone or with a value; lists; the start of a name."""
    flags = (
        '--data x --out y --learning-rate 1e-5 --lora_learning_rate 1e-6 --mirror --epoch 3 '
        '--activation-checkpointing no --offline TRUE --axes linear_x angular_z --scale 1 0.5 '
        '--blank image'
    )
    model, data, config = parse(flags.split())
    assert (config.learning_rate, config.lora_learning_rate, config.epochs) == (1e-5, 1e-6, 3)
    assert (data.mirror, model.activation_checkpointing, model.offline) == (True, False, True)
    assert (data.axes, data.scale) == (['linear_x', 'angular_z'], [1.0, 0.5])
    assert (data.blank, model.revision, config.workers) == ('image', None, 2)


@pytest.mark.parametrize(
    ('flags', 'expected'),
    [
        ('', 'required: --data, --out'),
        ('--data x', 'required: --out'),
        ('--data x --out y --epochs many', "--epochs: invalid int value: 'many'"),
        ('--data x --out y --mirror perhaps', "--mirror: 'perhaps' is not yes/no"),
        ('--data x --out y --precision fp8', "--precision: invalid choice: 'fp8'"),
        ('--data x --out y --scale', '--scale: expected at least one argument'),
    ],
)
def test_a_wrong_value_of_a_flag_is_refused(flags, expected, capsys):
    """By argparse, after one line of usage; status 2."""
    with pytest.raises(SystemExit) as ended:
        parse(flags.split())
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_mistyped_flag_is_named():
    """With the nearest known flag."""
    with pytest.raises(UserError, match=r"learning_rte.*mean '--learning.rate'"):
        parse(['--data', 'x', '--out', 'y', '--learning_rte', '10'])


@pytest.mark.parametrize('place', ['file', 'file/below', '/proc/nowhere'])
def test_an_invalid_run_folder_is_reported(small_backbone, episode_folder, tmp_path, place):
    """With a sentence, not a traceback."""
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r'is not a folder|cannot create'):
        train(
            ModelConfig(backbone=small_backbone, lora_r=2, head_hidden=16, head_layers=1),
            DataConfig(data=str(episode_folder)),
            TrainConfig(out=str(tmp_path / place), device='cpu'),
            log=lambda _: None,
        )


def test_two_trainings_do_not_share_a_folder(small_backbone, episode_folder, tmp_path):
    """The second is refused while the first is running, and changes nothing."""

    def train_again(_):
        if not train_again.called:
            train_again.called = True
            with pytest.raises(UserError, match='another training run is writing into'):
                RunFolder(tmp_path / 'out', lambda _: None, writes=True).begin({}, 0, {})

    train_again.called = False
    train(
        ModelConfig(backbone=small_backbone, lora_r=2, head_hidden=16, head_layers=1),
        DataConfig(data=str(episode_folder)),
        TrainConfig(out=str(tmp_path / 'out'), epochs=1, device='cpu'),
        log=lambda text: text.startswith('epoch') and train_again(text),
    )
    assert train_again.called


def test_a_disk_without_links_is_served(small_backbone, episode_folder, tmp_path, monkeypatch):
    """As exFAT: best and last are files that name their folders, for whoever takes a policy."""

    def refuse(*_args, **_more):
        raise PermissionError(errno.EPERM, 'Operation not permitted')

    monkeypatch.setattr(os, 'symlink', refuse)
    monkeypatch.setattr(Path, 'symlink_to', refuse)
    lines, out = [], tmp_path / 'run'
    data = DataConfig(data=str(episode_folder))
    model = ModelConfig(backbone=small_backbone, lora_r=2, head_hidden=16, head_layers=1)
    settings = {'epochs': 2, 'device': 'cpu', 'learning_rate': 1e-3}
    trained = train(model, data, TrainConfig(out=str(out), **settings), log=lines.append)
    told = next(row for row, line in enumerate(lines) if 'no links' in line)
    assert told < next(row for row, line in enumerate(lines) if line.startswith('epoch '))
    assert (out / 'best').read_text().startswith('checkpoints/epoch=')
    assert trained.policy.metrics == read_spec(out / 'best').metrics
    assert {'epoch', 'policy'} <= read_spec(out / 'best').metrics.keys()
    kept = {bundle_folder(out / name).name for name in ('best', 'last')}
    assert {folder.name for folder in (out / 'checkpoints').iterdir()} == kept
    again = TrainConfig(out=str(tmp_path / 'again'), **{**settings, 'epochs': 1})
    train(replace(model, init=str(out / 'best')), data, again, log=lines.append)


def test_the_rate_falls_along_a_cosine_to_zero():
    """The rate at the start, half of it in the middle, 0 at the end, and never negative."""
    rates = [learning_rate(2.0, done, 40) for done in (0, 20, 40, 41)]
    assert [round(rate, 6) for rate in rates] == [2, 1, 0, 0]


def test_the_rate_rises_before_it_falls_to_its_lowest():
    """A tenth of forty steps rises; no step has rate zero, and the first to fall has all of it."""
    rates = [learning_rate(1.0, done, 40, warmup=0.1, lowest=0.01) for done in range(41)]
    assert [round(rate, 6) for rate in rates[:5]] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert all(before > after for before, after in pairwise(rates[4:]))
    assert (round(rates[22], 6), rates[40]) == (0.505, 0.01)
    # A part of a step counts as one: 0.1 epochs of the reference run, six steps an epoch.
    assert learning_rate(1.0, 0, 120, warmup=0.005) == 0.5
    assert learning_rate(1.0, 1, 120, warmup=0.005) == 1.0
    assert learning_rate(1.0, 0, 1, warmup=0.9) == 0.5
