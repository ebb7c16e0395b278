"""The shipped policies use the image and the instruction."""

import numpy as np
import pytest
import torch

from mobile_vla_ros.files import sha256
from mobile_vla_ros.model.builtin import BACKBONES, POLICIES
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.expert import Expert
from mobile_vla_ros.types import NANOSECONDS, Frame

NAME = 'builtin:demo'
# Policy → the suite of its base, and the column of the axis by which it turns to an object.
SHIPPED = {NAME: ('swap', 1), 'builtin:demo_diff': ('diff_swap', 5)}


def drawn(name: str, count: int):
    """For some pairs of `swap`: the first frames, both instructions, and the expert's twists."""
    arena = Arena()
    found = []
    spec, suite = read_spec(name), SHIPPED[name][0]
    period_ns = round(NANOSECONDS / spec.rate_hz)
    number = 0
    while len(found) < count:
        one, other = (suites.scene(suite, 2 * number + place) for place in (0, 1))
        number += 1
        if 'stop' in (one.task.kind, other.task.kind):
            continue
        arena.reset(one)
        frames = []
        for _ in range(spec.window):
            frames.append(Frame(arena.render(), arena.time_ns, arena.time_ns))
            arena.step(np.array([0.2, 0, 0, 0, 0, 0]), period_ns)
        experts = [
            Expert(scene).command(arena.pose, arena.velocity, arena.time_ns)
            for scene in (one, other)
        ]
        found.append((frames, (one.instruction, other.instruction), experts))
    arena.close()
    return found


@pytest.fixture(scope='module')
def windows():
    """Those of 12 pairs."""
    return drawn(NAME, 12)


def planned(policy: VlaPolicy, windows, aside: int = 1) -> np.ndarray:
    """Return the mean of each plan: (pairs, 2 instructions, ahead and aside), m/s or rad/s."""
    plans = []
    for frames, instructions, _ in windows:
        row = []
        for text in instructions:
            policy.reset()
            row.append(policy.infer(frames, text).twists[:, [0, aside]].mean(0))
        plans.append(row)
    return np.array(plans)


@pytest.fixture(scope='module')
def plans(windows):
    """The plans of the shipped policy."""
    torch.set_num_threads(1)
    return planned(VlaPolicy.load(NAME), windows)


@pytest.mark.parametrize('name', SHIPPED)
def test_it_fits_the_shipped_backbone(name):
    """A new backbone needs a new policy."""
    spec = read_spec(name)
    assert spec.backbone.id == 'builtin:tiny'
    assert spec.backbone.sha256 == sha256(BACKBONES['builtin:tiny'] / 'model.safetensors')
    assert not spec.blank
    assert sum(file.stat().st_size for file in POLICIES[name].rglob('*')) < 12e6


def test_it_turns_as_instructed(windows, plans):
    """With the other instruction for the same images, the plan changes sides like the expert's."""
    assert_turns(windows, plans, 1)


def test_a_differential_base_turns_as_instructed():
    """By its angle, which no command of the other policy has."""
    windows = drawn('builtin:demo_diff', 10)
    policy = VlaPolicy.load('builtin:demo_diff')
    assert list(policy.spec.actions.axes) == ['linear_x', 'angular_z']
    assert_turns(windows, planned(policy, windows, 5), 5)


def assert_turns(windows, plans, aside):
    expected = np.array([[expert[aside] for expert in experts] for _, _, experts in windows])
    apart = np.abs(expected[:, 0] - expected[:, 1]) > 0.15
    assert apart.sum() >= 6
    moved = plans[:, 0, 1] - plans[:, 1, 1]
    same_side = np.sign(moved) == np.sign(expected[:, 0] - expected[:, 1])
    assert np.abs(moved[apart]).mean() > 0.08
    assert same_side[apart].mean() >= 0.75


def test_it_does_not_find_the_target_without_images(windows, plans):
    """With blank images the plan no longer distinguishes scenes."""
    blind = planned(VlaPolicy.load(NAME, blank='image'), windows)
    assert np.abs(blind - plans).mean() > 0.03
    expected = np.array([[expert[1] for expert in experts] for _, _, experts in windows])
    seeing, guessing = (np.abs(plan[..., 1] - expected).mean() for plan in (plans, blind))
    assert seeing < 0.75 * guessing


def test_it_does_not_distinguish_targets_without_an_instruction(windows):
    """The plans of both drives of a pair are the same."""
    without_instruction = planned(VlaPolicy.load(NAME, blank='instruction'), windows)
    np.testing.assert_allclose(without_instruction[:, 0], without_instruction[:, 1], atol=1e-6)
