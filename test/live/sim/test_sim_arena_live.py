"""The speed of the arena."""

import time

import pytest

from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import (
    Arena,
)
from velocities import twist


@pytest.fixture
def arena():
    one = Arena(96, 96)
    yield one
    one.close()


@pytest.mark.quiet_machine
def test_the_arena_is_at_least_ten_times_faster_than_real_time(arena, capsys):
    """Without images; the time of an image is printed, since it depends on the machine's GL."""
    scene = suites.scene('train', 0)
    arena.reset(scene)
    began = time.perf_counter()
    arena.step(twist(0.01), 10_000_000_000)
    elapsed = time.perf_counter() - began
    arena.render()
    began = time.perf_counter()
    for _ in range(20):
        arena.render()
    image_s = (time.perf_counter() - began) / 20
    with capsys.disabled():
        print(f' [arena {10 / elapsed:.0f} x real time, a 96 px image {image_s * 1e3:.1f} ms]')
    assert elapsed < 1.0
