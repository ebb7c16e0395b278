"""Metrics, baselines and the verdict on a policy."""

import json
import shutil

import numpy as np
import pytest
import torch

from arena_episodes import write_episodes
from changed_policies import changed_policy
from damaged_files import break_frame
from made_segments import SPEC, first_segments, segment_of, twists, write_worth
from many_episodes import drive
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.data.augment import Augmentation
from mobile_vla_ros.data.dataset import SegmentDataset
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.segments import Sampling, load_segments
from mobile_vla_ros.episode.catalog.edit import edit
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.ablations import shuffle_frames, swap_instructions
from mobile_vla_ros.evaluation.baselines import baselines, blind_means, targets
from mobile_vla_ros.evaluation.evaluate import evaluate
from mobile_vla_ros.evaluation.metrics import measure, motion_loss, motion_loss_sum
from mobile_vla_ros.evaluation.score import score
from mobile_vla_ros.evaluation.verdict import margin, refusal, sentences
from mobile_vla_ros.model.bundle import load_bundle
from mobile_vla_ros.report.builders.evaluation_text import text
from mobile_vla_ros.types import ImageSpec
from small_episodes import CREATED_NS


def test_metrics_are_physical_and_the_reference_run_s_loss_is_a_third():
    """Four padded zeros make the loss a third of the loss over the two real axes."""
    actions = np.zeros((1, 1, 2, 2), np.float32)
    predicted = actions + np.array([0.2, -0.4], np.float32)
    real = np.array([[[True, False]]])
    measured = measure(predicted, actions, real, SPEC)
    assert measured['loss'] == pytest.approx((0.02 + 0.08) / 2)
    assert measured['loss_arm_act'] == pytest.approx(measured['loss'] / 3)
    assert measured['linear_x']['mae'] == pytest.approx(0.2 * 0.5)
    assert measured['linear_y']['rmse'] == pytest.approx(0.4 * 0.25)
    assert measured['linear_y']['unit'] == 'm/s'
    padded = np.concatenate([predicted, np.zeros((1, 1, 2, 4), np.float32)], -1)
    assert measure(padded, actions, real, SPEC) == measured


def test_the_training_loss_is_the_metrics_loss():
    """The optimised loss is the reported loss, without masked steps."""
    rng = np.random.default_rng(0)
    predicted = rng.normal(0, 1, (3, 4, 5, 2)).astype(np.float32)
    actions = rng.normal(0, 1, (3, 4, 5, 2)).astype(np.float32)
    real = rng.random((3, 4, 5)) < 0.7
    loss = motion_loss(*map(torch.from_numpy, (predicted, actions, real)))
    assert float(loss) == pytest.approx(measure(predicted, actions, real, SPEC)['loss'], rel=1e-5)
    six = np.concatenate([predicted, np.zeros((3, 4, 5, 4), np.float32)], -1)
    padded_loss = motion_loss(*map(torch.from_numpy, (six, actions, real)))
    assert float(padded_loss) == pytest.approx(
        measure(predicted, actions, real, SPEC)['loss_arm_act'], rel=1e-5
    )


def test_sign_agreement_counts_the_steps_that_were_driven():
    """Speeds below a twentieth of the scale have no sign; a prediction of zero never agrees."""
    actions = np.zeros((1, 1, 6, 2), np.float32)
    actions[0, 0, :, 0] = [0.8, -0.8, 0.8, -0.8, 0.04, 0.8]
    predicted = np.zeros_like(actions)
    predicted[0, 0, :, 0] = [0.1, -0.1, -0.1, 0.0, -1.0, -1.0]
    real = np.array([[[True] * 5 + [False]]])
    measured = measure(predicted, actions, real, SPEC)
    assert measured['linear_x']['sign_agreement'] == pytest.approx(2 / 4)
    assert measured['linear_x']['per_step']['sign_agreement'] == [1, 1, 0, 0, None, None]
    assert measured['linear_y']['sign_agreement'] is None, 'never driven'


def test_every_chunk_step_is_measured_by_itself():
    """The metrics of a step equal those measured on that step alone."""
    rng = np.random.default_rng(1)
    predicted = rng.normal(0, 1, (5, 4, 3, 2)).astype(np.float32)
    actions = rng.normal(0, 1, (5, 4, 3, 2)).astype(np.float32)
    real = rng.random((5, 4, 3)) < 0.7
    measured = measure(predicted, actions, real, SPEC)
    for step in range(3):
        alone = measure(predicted[:, :, [step]], actions[:, :, [step]], real[:, :, [step]], SPEC)
        for axis in SPEC.axes:
            for name, steps in measured[axis]['per_step'].items():
                assert steps[step] == pytest.approx(alone[axis][name]), (axis, name)


def test_r2_is_the_explained_share_and_none_without_variance():
    """Perfect is 1, the mean is 0, and a constant has no variance to explain."""
    actions = np.zeros((1, 1, 4, 2), np.float32)
    actions[0, 0, :, 0] = [0.2, 0.4, 0.6, 0.8]
    actions[0, 0, :, 1] = 0.3
    real = np.ones((1, 1, 4), bool)
    assert measure(actions, actions, real, SPEC)['linear_x']['r2'] == pytest.approx(1)
    mean = np.broadcast_to(np.float32([0.5, 0.5]), actions.shape)
    measured = measure(mean, actions, real, SPEC)
    assert measured['linear_x']['r2'] == pytest.approx(0, abs=1e-9)
    assert measured['linear_y']['r2'] is None


@pytest.mark.parametrize('broken', ['no real step', 'a NaN prediction'])
def test_undefined_metrics_are_none_in_strict_json(broken):
    """NaN is invalid JSON, and the mean of nothing is not 0."""
    actions = np.zeros((1, 1, 2, 2), np.float32)
    predicted, real = actions.copy(), np.ones((1, 1, 2), bool)
    if broken == 'no real step':
        real[:] = False
    else:
        predicted[..., 0] = np.nan
    measured = measure(predicted, actions, real, SPEC)
    assert measured['loss'] is None and measured['linear_x']['rmse'] is None
    json.dumps(measured, allow_nan=False)


def test_losses_of_parts_add_up_to_the_loss_of_the_whole():
    """Sums over batches of unequal size add up to the loss."""
    rng = np.random.default_rng(2)
    predicted, actions = (
        torch.from_numpy(rng.normal(0, 2, (6, 4, 5, 2)).astype(np.float32)) for _ in range(2)
    )
    real = torch.from_numpy(rng.random((6, 4, 5)) < 0.5)
    predicted[~real] = float('nan')
    parts = sum(
        motion_loss_sum(predicted[part], actions[part], real[part])
        for part in (slice(0, 1), slice(1, 6))
    )
    assert float(parts / real.sum()) == pytest.approx(
        float(motion_loss(predicted, actions, real)), rel=1e-6
    )
    assert float(motion_loss(predicted, actions, torch.zeros_like(real))) == 0


def test_baselines_match_their_definition():
    """Means come from the training side; repeat_last holds the command before each frame."""
    training = [segment_of(twists([0.5, 0.5, 0.0, 0.0], [0, 0, 0.25, 0.25]), window=2)]
    val = [segment_of(twists([0.1, 0.2, 0.3], [0.0, 0.1, 0.2]), window=2)]
    found = baselines(training, val, SPEC)
    assert not found['zero'].any()
    actions, real, _ = targets(training, SPEC)
    np.testing.assert_allclose(found['mean_action'][0, 0, 0], actions[real].mean(0), rtol=1e-6)
    step_one = actions[:, :, 1][real[:, :, 1]].mean(0)
    np.testing.assert_allclose(found['mean_per_step'][1, 1, 1], step_one, rtol=1e-6)
    at = actions[:, 1, 0][real[:, 1, 0]].mean(0)
    np.testing.assert_allclose(found['mean_per_position_and_step'][0, 1, 0], at, rtol=1e-6)
    # Window 0 holds frames 0 and 1, window 1 frames 1 and 2; before frame 0 there was nothing.
    np.testing.assert_allclose(
        found['repeat_last'][:, :, 0, 0] * 0.5, [[0, 0.1], [0.1, 0.2]], rtol=1e-6
    )


def test_evaluation_obeys_the_verdict(tmp_path):
    """Bad episodes are not measured unless accepted."""
    for number in range(4):
        write_worth(tmp_path, 'good', number)
    bad = write_worth(tmp_path, 'bad', 9)
    settings = {'sampling': Sampling(), 'axes': ['linear_x'], 'val_share': 0.5, 'split_seed': 0}
    found = evaluate(tmp_path, None, **settings).summary
    assert sum(found['episodes'].values()) == 4 and list(found['skipped']) == [str(bad)]
    found = evaluate(tmp_path, None, **settings, accept_verdicts=['good', 'poor', 'bad']).summary
    assert sum(found['episodes'].values()) == 5 and not found['skipped']


def test_swapping_gives_every_segment_another_instruction(episode_folder):
    """All instructions change; with only one the result is None."""
    segments, _ = load_segments(find_episodes(episode_folder), Sampling())
    swapped = swap_instructions(segments)
    assert all(a.instruction != b.instruction for a, b in zip(segments, swapped, strict=True))
    alike = [segment for segment in segments if segment.instruction == segments[0].instruction]
    assert swap_instructions(alike) is None
    assert swap_instructions(alike, segments)[0].instruction != alike[0].instruction


def test_shuffling_moves_every_frame_and_no_command(episode_folder):
    """Shuffling is deterministic, keeps an episode's own images, and moves every one."""
    segments = first_segments(episode_folder)
    for segment, shuffled in zip(segments, shuffle_frames(segments), strict=True):
        assert sorted(shuffled.frames) == segment.frames.tolist()
        assert not (shuffled.frames == segment.frames).any()
        assert shuffled.ahead is segment.ahead and shuffled.instruction == segment.instruction
    again = shuffle_frames(segments)
    assert all(
        (a.frames == b.frames).all() for a, b in zip(again, shuffle_frames(segments), strict=True)
    )
    assert any(
        (a.frames != b.frames).any()
        for a, b in zip(again, shuffle_frames(segments, seed=1), strict=True)
    )


@pytest.mark.parametrize('overtaken', [False, True])
def test_shuffled_tokens_are_those_of_the_shuffled_frames(episode_folder, tmp_path, overtaken):
    """Also for an episode whose frames were received out of order."""
    image = ImageSpec(16, (0, 0, 0), (1, 1, 1))
    tokens = ImageTokens(
        lambda pixels: pixels.flatten(2).transpose(1, 2),
        'weights',
        image,
        Augmentation(),
        tmp_path,
    )
    segments = first_segments(episode_folder, 1)
    if overtaken:
        segments[0].frames[:2] = segments[0].frames[1::-1].copy()
    tokens.prepare(segments)
    words = {segments[0].instruction: torch.zeros(1)}
    shuffled = shuffle_frames(segments)
    seen = [
        SegmentDataset(shuffled, SPEC, image, 9, words, tokens=some) for some in (None, tokens)
    ]
    for pixels, given in zip(*seen, strict=True):
        torch.testing.assert_close(
            given.frames, pixels.frames.flatten(2).transpose(1, 2), atol=2e-3, rtol=0
        )


def test_the_margin_is_over_episodes_and_not_over_windows():
    """Thousands of windows of two disagreeing episodes are no more evidence than two episodes."""
    steps = np.array([4000.0, 4000.0])
    torn = margin(np.array([40.0, 120.0]), np.array([120.0, 40.0]), steps)
    assert torn['difference'] == 0 and torn['low'] == pytest.approx(-0.02)
    assert torn['takes'] == 2 and torn['high'] == pytest.approx(0.02)
    rng = np.random.default_rng(0)
    blind = rng.uniform(1, 3, 20)
    sure = margin(0.5 * blind, blind, np.full(20, 10.0))
    assert sure['low'] < sure['difference'] < sure['high'] < 0
    assert sure == margin(0.5 * blind, blind, np.full(20, 10.0)), 'seeded'


def test_a_margin_needs_episodes_with_steps():
    """One episode gives a difference without an interval; episodes without steps do not count."""
    found = margin(np.array([1.0, 0.0]), np.array([3.0, 0.0]), np.array([4.0, 0.0]))
    assert found == {'difference': -0.5, 'low': None, 'high': None, 'takes': 1}


def entry(loss, low=1e-4, takes=9):
    """Return a control in the format of `score`."""
    return {
        'loss': loss,
        'margin': {'takes': takes, 'low': low, 'high': None if low is None else 1.0},
    }


def verdict_on(baselines=None, blank='', **policy):
    """Return the verdict on a policy of loss 0.1, whose controls are worse by default."""
    beaten = {'zero': {'loss': 0.5}, 'repeat_last': {'loss': 0.2}}
    controls = ('image_blanked', 'frames_shuffled', 'instruction_swapped')
    return ' '.join(
        sentences(
            {
                'loss': 0.1,
                'trained_on': False,
                'best_baseline': 'repeat_last',
                'better': True,
                'better_than': list(beaten),
                'change_share': dict.fromkeys(controls, 0.5),
                'margin': {'takes': 9, 'difference': -0.1, 'low': -0.2, 'high': -0.05},
                **dict.fromkeys(controls, entry(0.3)),
                **policy,
            },
            baselines or beaten,
            blank,
        )
    )


@pytest.mark.parametrize(
    ('case', 'expected', 'never'),
    [
        (
            {},
            [
                'The policy is better than every',
                'It is significant',
                'It uses the image',
                'It distinguishes the images',
                'It uses the instruction',
            ],
            ['does not', 'NOT'],
        ),
        (
            {'better': False, 'best_baseline': 'zero', 'better_than': []},
            [
                'NOT better than a baseline that sees no image: its loss is 0.10000, that of zero',
                'Nor is it better than repeat_last',
            ],
            ['is better than every'],
        ),
        (
            {'margin': {'takes': 9, 'low': -0.2, 'high': 0.1}},
            ['It may be chance'],
            ['significant'],
        ),
        (
            {'margin': {'takes': 3, 'low': -0.2, 'high': -0.1}},
            ['Only 3 episodes validate: too few'],
            ['significant'],
        ),
        ({'image_blanked': entry(0.1)}, ['It does not use the image'], ['It uses the image']),
        (
            {'image_blanked': entry(0.12, low=-0.01)},
            ['It is uncertain whether it uses the image'],
            ['It uses the image', 'It does not use the image'],
        ),
        (
            {'frames_shuffled': entry(0.09)},
            ['It does not distinguish the images'],
            ['It distinguishes'],
        ),
        (
            {'instruction_swapped': entry(0.1)},
            ['It does not use the instruction'],
            ['It uses the instruction'],
        ),
        (
            {'instruction_swapped': None},
            ['all episodes have the same one'],
            ['It uses the instruction'],
        ),
        ({'trained_on': True}, ['trained on all of these episodes'], []),
        ({'blank': 'image'}, ['trained without images'], ['uses the image', 'distinguishes']),
        ({'blank': 'instruction'}, ['trained without instructions'], ['uses the instruction']),
        ({'loss': None}, ['predicts NaN or inf'], ['better', 'uses']),
    ],
)
def test_the_verdict_explains_the_metrics(case, expected, never):
    """Each case has its sentence and not the opposite one."""
    printed = verdict_on(**case)
    assert all(part in printed for part in expected), printed
    assert not any(part in printed for part in never), printed


@pytest.mark.parametrize(
    ('loss', 'low', 'takes', 'share', 'answer'),
    [
        (0.3, 1e-4, 9, 0.5, True),
        (0.3, -0.1, 9, 0.5, None),
        (0.1, 1e-4, 9, 0.5, False),
        (0.3, 1e-4, 3, 0.5, None),
        (0.1, 1e-4, 3, 0.5, None),
        (0.3, None, 1, 0.5, None),
        (0.3, 1e-4, 9, 0.009, False),
        (0.3, None, 1, 0.009, False),
        (None, None, 9, None, True),
        (None, None, 1, None, True),
        (None, None, 0, None, None),
    ],
)
def test_fewer_episodes_never_make_a_verdict_surer(loss, low, takes, share, answer):
    """Regression: with one to four episodes the verdict was certain, with nine uncertain."""
    words = {
        True: 'It uses the image',
        False: 'It does not use the image',
        None: 'It is uncertain whether it uses the image',
    }
    printed = verdict_on(
        image_blanked=entry(loss, low, takes),
        change_share={'image_blanked': share, 'frames_shuffled': 0.5, 'instruction_swapped': 0.5},
    )
    assert [found for found, text in words.items() if text in printed] == [answer]


def without_inputs(policy):
    """Return the policy with a head that ignores image and instruction."""
    for name, weights in policy.network.head.named_parameters():
        if 'weight_ih_l0' in name:
            torch.nn.init.zeros_(weights)
    return policy


def test_a_policy_that_ignores_its_inputs_is_recognised(small_run, episode_folder):
    """No control changes its action, and the verdict reports that."""
    policy = without_inputs(load_bundle(small_run / 'best'))
    segments = first_segments(episode_folder, 6)
    found = score(policy, segments[:1], segments[1:]).summary['policy']
    assert not found['better'] and found['best_baseline'] not in found['better_than']
    for name in ('image_blanked', 'frames_shuffled', 'instruction_swapped'):
        assert found['change_share'][name] < 1e-3
        assert found[name]['loss'] == pytest.approx(found['loss'], rel=1e-3)
    printed = ' '.join(found['verdict'])
    for part in (
        'NOT better',
        'does not use the image',
        'does not distinguish the images',
        'does not use the instruction',
    ):
        assert part in printed


def test_a_policy_that_uses_image_and_instruction_is_recognised(tmp_path):
    """The shipped policy on unseen episodes beats the baselines and uses both inputs."""
    write_episodes(tmp_path, 7, first=900, size=112, frames=32)
    segments = first_segments(tmp_path, 7)
    scored = score(load_bundle('builtin:demo'), segments[:2], segments[2:])
    found = scored.summary['policy']
    assert found['better'] and set(found['better_than']) == set(scored.summary['baselines'])
    assert found['margin']['takes'] == 5
    assert found['margin']['low'] < found['margin']['difference'] < found['margin']['high']
    printed = ' '.join(found['verdict'])
    for part in (
        'better than every',
        'It uses the image',
        'It distinguishes the images',
        'It uses the instruction',
    ):
        assert part in printed
    json.dumps(scored.summary, allow_nan=False)


def break_frames(path, indices):
    """Break these frames of an episode in place; None: all."""
    with Episode.open(path) as episode:
        count = len(episode)
    for index in range(count) if indices is None else indices:
        break_frame(path, index)


def test_policy_and_baselines_are_measured_on_the_same_steps(small_run, episode_folder, tmp_path):
    """An unreadable frame removes its steps from the policy and the baselines."""
    shutil.copytree(episode_folder, tmp_path / 'episodes')
    policy = load_bundle(small_run / 'best')
    paths = find_episodes(tmp_path / 'episodes')
    break_frames(paths[0], [5])
    segments = first_segments(tmp_path / 'episodes', 6)
    scored = score(policy, segments[3:], segments[:3])
    assert scored.real.sum() < sum(segment.real[segment.windows].sum() for segment in segments[:3])
    assert str(paths[0]) in ' '.join(scored.summary['policy']['broken'])
    means = policy.spec.data['blind_means']
    for name, prediction in baselines(
        segments[3:], segments[:3], policy.spec.actions, means
    ).items():
        assert scored.summary['baselines'][name] == measure(
            prediction, scored.actions, scored.real, policy.spec.actions
        )
    only = score(policy, segments[3:], segments[1:3])
    assert only.summary['policy']['broken'] == []
    break_frames(paths[0], None)
    with pytest.raises(UserError, match=f'no frame of the episodes.*{paths[0].stem}'):
        score(policy, segments[3:], segments[:1])


def test_the_printed_page_fits_the_terminal(episode_folder, small_run, monkeypatch):
    """Tables, steps, controls and the verdict fit the width."""
    found = evaluate(
        episode_folder,
        small_run / 'best',
        sampling=Sampling(),
        axes=[],
        val_share=0.2,
        split_seed=0,
    ).summary
    for columns in (80, 100, 120):
        monkeypatch.setenv('COLUMNS', str(columns))
        page = text(found)
        assert max(map(len, page.splitlines())) <= columns
        for part in (
            'linear_x, m/s',
            'sign',
            'seconds ahead',
            'policy, frames shuffled',
            'policy, instruction swapped',
            'The policy is',
            'Only 1 episode validates',
        ):
            assert part in page, part


def test_a_script_can_require_a_better_policy(episode_folder, small_run, capsys):
    """Status 1 with a reason, after the verdict; status 2 without a policy."""
    status = main(
        [
            'evaluate',
            '--data',
            str(episode_folder),
            '--policy',
            str(small_run / 'best'),
            '--json',
            '--require-better',
        ]
    )
    out, err = capsys.readouterr()
    policy = json.loads(out)['policy']
    assert not policy['better'], 'two epochs of random weights'
    assert status == 1 and 'not better than' in err
    assert any('NOT better' in sentence for sentence in policy['verdict'])
    assert main(['evaluate', '--data', str(episode_folder), '--require-better']) == 2
    assert '--policy' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('policy', 'reason'),
    [
        ({'better': True, 'trained_on': False}, None),
        ({'better': False, 'trained_on': False}, 'not better than zero'),
        ({'better': True, 'trained_on': True}, 'trained on all of these episodes'),
    ],
)
def test_better_on_episodes_that_were_trained_on_is_not_enough(policy, reason):
    """Only held-out episodes show that a policy is better."""
    printed = refusal({'policy': {'best_baseline': 'zero', **policy}, 'blind': {'warning': None}})
    assert printed is None if reason is None else reason in printed


def test_evaluating_on_training_episodes_is_reported(episode_folder, small_run, tmp_path):
    """Regression: they were split, and a part counted as held out."""
    trained = load_bundle(small_run / 'best').spec.data['train_episodes']
    for path in find_episodes(episode_folder):
        if path.stem in trained:
            shutil.copy(path, tmp_path)
    found = evaluate(
        tmp_path, small_run / 'best', sampling=Sampling(), axes=[], val_share=0.2, split_seed=0
    ).summary
    assert found['policy']['trained_on'] and 'trained on all of these' in ' '.join(
        found['policy']['verdict']
    )
    assert found['episodes'] == {'train': len(trained), 'val': len(trained)}
    held_out = evaluate(
        episode_folder,
        small_run / 'best',
        sampling=Sampling(),
        axes=[],
        val_share=0.2,
        split_seed=0,
    ).summary
    assert not held_out['policy']['trained_on']


def training_segments(small_run, episode_folder):
    """Return the segments and the spec of a policy's training."""
    spec = load_bundle(small_run / 'best').spec
    paths = [
        path for path in find_episodes(episode_folder) if path.stem in spec.data['train_episodes']
    ]
    return load_segments(paths, Sampling())[0], spec


def new_episodes(folder, count=3):
    """Write episodes that no policy of these tests was trained on; return their folder."""
    write_episodes(folder, count, first=500, size=64, frames=32)
    return folder


PLAIN = {'sampling': Sampling(), 'axes': [], 'val_share': 0.2, 'split_seed': 0}


def test_blind_means_of_a_bundle_are_those_of_its_training_episodes(small_run, episode_folder):
    """Stored as JSON or fitted again, they give the same predictions."""
    segments, spec = training_segments(small_run, episode_folder)
    means = json.loads(json.dumps(blind_means(segments, spec.actions), allow_nan=False))
    assert np.shape(means['mean_per_position_and_step']) == (4, 10, 2)
    fitted = baselines(segments, segments[:1], spec.actions)
    carried = baselines([], segments[:1], spec.actions, means)
    assert list(fitted) == list(carried)
    for name, prediction in fitted.items():
        np.testing.assert_array_equal(prediction, carried[name])
    for wrong in (
        {**means, 'mean_action': [0.0]},
        {**means, 'mean_action': [float('nan')] * 2},
        {**means, 'mean_per_step': [[0.0], [0.0, 1.0]]},
        {'mean_action': [0.0, 0.0]},
        [1.0],
    ):
        with pytest.raises(UserError, match=r'data\.blind_means'):
            baselines([], segments[:1], spec.actions, wrong)


def test_new_episodes_are_all_measured_beside_means_of_the_training_episodes(
    small_run, episode_folder, tmp_path
):
    """Regression: a fifth of new episodes was measured, beside means fitted to the others."""
    segments, spec = training_segments(small_run, episode_folder)
    means = blind_means(segments, spec.actions)
    policy = changed_policy(small_run / 'best', tmp_path / 'policy', data={'blind_means': means})
    new = new_episodes(tmp_path / 'new')
    edit({find_episodes(new)[0]: {'instruction': 'go to the crimson box'}}, by='anna', time_ns=0)
    found = evaluate(new, policy, **PLAIN)
    assert any('does not know: ' in note and 'crimson' in note for note in found.summary['notes'])
    assert found.summary['episodes'] == {'train': 0, 'val': 3}
    assert found.summary['blind'] == {
        'source': 'bundle',
        'warning': None,
        'takes': len(spec.data['train_episodes']),
    }
    for name, prediction in baselines(segments, found.episodes.val, spec.actions).items():
        assert found.summary['baselines'][name] == measure(
            prediction, found.scored.actions, found.scored.real, spec.actions
        )
    json.dumps(found.summary, allow_nan=False)
    printed = ' '.join(text(found.summary).split())
    assert 'measured on 3 episodes (' in printed
    assert f"the policy's bundle, of the {len(spec.data['train_episodes'])} episodes" in printed
    shutil.copy(segments[0].path, new)
    found = evaluate(new, policy, **PLAIN)
    assert found.summary['episodes'] == {'train': 1, 'val': 3}
    assert found.summary['blind']['source'] == 'bundle'
    page = tmp_path / 'page.html'
    (new / segments[0].path.name).unlink()
    assert (
        main(['evaluate', '--data', str(new), '--policy', str(policy), '--report', str(page)]) == 0
    )
    assert 'training episodes is here' in page.read_text()


def test_without_stored_baselines_new_episodes_prove_nothing(small_run, tmp_path, capsys):
    """An older bundle is measured, with a warning, and fails --require-better."""
    policy = changed_policy(small_run / 'best', tmp_path / 'policy', data={'blind_means': None})
    new, page = new_episodes(tmp_path / 'new'), tmp_path / 'page.html'
    assert (
        main(
            [
                'evaluate',
                '--data',
                str(new),
                '--policy',
                str(policy),
                '--require-better',
                '--report',
                str(page),
            ]
        )
        == 1
    )
    printed = ' '.join(capsys.readouterr().out.split())
    trained = len(load_bundle(policy).spec.data['train_episodes'])
    warning = (
        f'baselines are fitted to 2 of the episodes here; the policy was trained on {trained}'
    )
    assert (
        warning in printed and 'measured on 1 episode (' in printed and warning in page.read_text()
    )
    better = {'policy': {'better': True, 'trained_on': False}, 'blind': {'warning': warning}}
    assert 'fitted to other episodes' in refusal(better)


def test_an_older_bundle_beside_its_training_episodes_needs_no_warning(
    small_run, episode_folder, tmp_path
):
    """Its training episodes are there, so the baselines are fitted to the same data."""
    policy = changed_policy(small_run / 'best', tmp_path / 'policy', data={'blind_means': None})
    found = evaluate(episode_folder, policy, **PLAIN).summary
    assert found['blind'] == {
        'source': 'folder',
        'takes': found['episodes']['train'],
        'warning': None,
    }


def test_near_identical_episodes_are_in_the_json(tmp_path):
    """Groups and those on both sides of the split are listed; grouping leaves none."""
    for number, keys in enumerate(('wwwwwwww', 'aaaaaaaa') * 4):
        drive(tmp_path, keys, first_image=number, created_ns=CREATED_NS + number * 60_000_000_000)
    settings = {
        'sampling': Sampling(5.0),
        'axes': ['linear_x', 'linear_y'],
        'val_share': 0.5,
        'split_seed': 0,
    }
    found = evaluate(tmp_path, None, **settings).summary
    repeats = found['near_identical']
    assert (repeats['takes'], repeats['distinct']) == (8, 2)
    assert sorted(map(len, repeats['groups'])) == [4, 4]
    found = evaluate(tmp_path, None, **settings, group_duplicates=True).summary
    assert found['near_identical']['across'] == [] and found['episodes'] == {'train': 4, 'val': 4}
    assert '2 distinct sequences of commands in 8 episodes' in found['notes'][0]


def test_the_report_can_be_made_for_any_episodes(small_run, episode_folder, tmp_path):
    """`--report FILE` writes a training's report without curves; bad use is refused."""
    page = tmp_path / 'page.html'
    settings = [
        'evaluate',
        '--data',
        str(episode_folder),
        '--policy',
        str(small_run / 'best'),
        '--report',
    ]
    assert main([*settings, str(page)]) == 0
    assert '<title>Evaluation' in page.read_text()
    assert main([*settings, str(tmp_path / 'nowhere' / 'page.html')]) == 2
    assert main(['evaluate', '--data', str(episode_folder), '--report', str(page)]) == 2
