"""Metrics, baselines and what they say of a policy."""

import numpy as np
import pytest
import torch
from made_runs import SPEC, run_of, twists, write_worth

from mobile_vla_ros.data.runs import Sampling, load_runs
from mobile_vla_ros.episode.reader import find_episodes
from mobile_vla_ros.training.baselines import baselines, targets
from mobile_vla_ros.training.evaluate import evaluate, swap_instructions
from mobile_vla_ros.training.metrics import measure, motion_loss


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
