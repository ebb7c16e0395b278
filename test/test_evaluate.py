"""Metrics, baselines and what they say of a policy."""

import json

import numpy as np
import pytest
import torch
from made_runs import SPEC, run_of, twists, write_worth

from mobile_vla_ros.data.runs import Sampling, load_runs
from mobile_vla_ros.episode.reader import find_episodes
from mobile_vla_ros.training.baselines import baselines, targets
from mobile_vla_ros.training.controls import swap_instructions
from mobile_vla_ros.training.evaluate import evaluate
from mobile_vla_ros.training.metrics import measure, motion_loss, motion_loss_sum


def test_metrics_are_physical_and_the_seed_s_loss_is_a_third():
    """SEED.md, 3: four padded zeros made the loss a third of what it was on the two real axes."""
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
    """One definition: what is optimised is what is reported, masked steps left out."""
    rng = np.random.default_rng(0)
    predicted = rng.normal(0, 1, (3, 4, 5, 2)).astype(np.float32)
    actions = rng.normal(0, 1, (3, 4, 5, 2)).astype(np.float32)
    real = rng.random((3, 4, 5)) < 0.7
    loss = motion_loss(*map(torch.from_numpy, (predicted, actions, real)))
    assert float(loss) == pytest.approx(measure(predicted, actions, real, SPEC)['loss'], rel=1e-5)
    six = np.concatenate([predicted, np.zeros((3, 4, 5, 4), np.float32)], -1)
    seed = motion_loss(*map(torch.from_numpy, (six, actions, real)))
    assert float(seed) == pytest.approx(
        measure(predicted, actions, real, SPEC)['loss_arm_act'], rel=1e-5)


def test_sign_agreement_counts_the_steps_that_were_driven():
    """Creeping below a twentieth of the scale has no sign; a prediction of zero agrees never."""
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
    """What is said of a step is what a measurement of that step alone says."""
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


def test_r2_is_one_less_the_unexplained_share_and_none_where_nothing_varies():
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


@pytest.mark.parametrize('broken', ['no real step', 'a prediction that is not a number'])
def test_what_cannot_be_measured_is_none_in_strict_json(broken):
    """A NaN is no JSON, and a mean of nothing is no 0."""
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
    """What accumulates over batches of unequal size is the sum, and its mean is the loss."""
    rng = np.random.default_rng(2)
    predicted, actions = (torch.from_numpy(rng.normal(0, 2, (6, 4, 5, 2)).astype(np.float32))
                          for _ in range(2))
    real = torch.from_numpy(rng.random((6, 4, 5)) < 0.5)
    predicted[~real] = float('nan')
    parts = sum(motion_loss_sum(predicted[part], actions[part], real[part])
                for part in (slice(0, 1), slice(1, 6)))
    assert float(parts / real.sum()) == pytest.approx(
        float(motion_loss(predicted, actions, real)), rel=1e-6)
    assert float(motion_loss(predicted, actions, torch.zeros_like(real))) == 0


def test_baselines_are_what_they_say():
    """Means come from the training side; repeat_last holds the command before each frame."""
    training = [run_of(twists([0.5, 0.5, 0.0, 0.0], [0, 0, 0.25, 0.25]))]
    val = [run_of(twists([0.1, 0.2, 0.3], [0.0, 0.1, 0.2]))]
    found = baselines(training, val, SPEC, window=2)
    assert not found['zero'].any()
    actions, real, _ = targets(training, SPEC, 2)
    np.testing.assert_allclose(found['mean_action'][0, 0, 0], actions[real].mean(0), rtol=1e-6)
    step_one = actions[:, :, 1][real[:, :, 1]].mean(0)
    np.testing.assert_allclose(found['mean_per_step'][1, 1, 1], step_one, rtol=1e-6)
    at = actions[:, 1, 0][real[:, 1, 0]].mean(0)
    np.testing.assert_allclose(found['mean_per_position_and_step'][0, 1, 0], at, rtol=1e-6)
    # Window 0 holds frames 0 and 1, window 1 frames 1 and 2; before frame 0 there was nothing.
    np.testing.assert_allclose(found['repeat_last'][:, :, 0, 0] * 0.5, [[0, 0.1], [0.1, 0.2]],
                               rtol=1e-6)


def test_evaluation_obeys_the_verdict(tmp_path):
    """Bad takes are in no number, unless they are asked for."""
    for number in range(4):
        write_worth(tmp_path, 'good', number)
    bad = write_worth(tmp_path, 'bad', 9)
    told = {'sampling': Sampling(), 'axes': ['linear_x'], 'val_share': 0.5, 'split_seed': 0}
    found = evaluate(tmp_path, None, **told)
    assert sum(found['episodes'].values()) == 4 and list(found['skipped']) == [str(bad)]
    found = evaluate(tmp_path, None, **told, accept_verdicts=['good', 'poor', 'bad'])
    assert sum(found['episodes'].values()) == 5 and not found['skipped']


def test_swapping_gives_every_run_another_instruction(takes):
    """The swap control really swaps, and says when it cannot."""
    runs, _ = load_runs(find_episodes(takes), Sampling())
    swapped = swap_instructions(runs)
    assert all(a.instruction != b.instruction for a, b in zip(runs, swapped, strict=True))
    alike = [run for run in runs if run.instruction == runs[0].instruction]
    assert swap_instructions(alike) is None
    assert swap_instructions(alike, runs)[0].instruction != alike[0].instruction
