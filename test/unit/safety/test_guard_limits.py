"""Limits keep the direction of motion, and every result is within bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.safety.limits import (
    Limits,
    limit_acceleration,
    limit_speed,
    max_speed_mps,
    stop_distance_m,
)

LIMITS = Limits(
    max_velocity=(0.8, 0.5, 1.0), max_planar_speed_mps=0.7, max_acceleration=(1.0, 2.0, 3.0)
)
twists = st.lists(st.floats(-100, 100), min_size=6, max_size=6).map(np.array)


def within(twist: np.ndarray, limits: Limits) -> bool:
    """Whether a twist is within the speed limits."""
    room = np.array(limits.max_velocity) + 1e-9
    return bool(
        np.isfinite(twist).all()
        and (np.abs(twist[[0, 1, 5]]) <= room).all()
        and np.hypot(twist[0], twist[1]) <= limits.max_planar_speed_mps + 1e-9
        and not twist[2:5].any()
    )


@given(twists)
def test_a_limited_twist_is_within_every_limit_and_keeps_its_heading(twist):
    """Clamping one axis alone would turn a diagonal into another direction."""
    limited = limit_speed(twist, LIMITS)
    assert within(limited, LIMITS)
    cross = twist[0] * limited[1] - twist[1] * limited[0]
    assert abs(cross) <= 1e-6 * max(1.0, np.abs(twist).max())
    assert twist[:2] @ limited[:2] >= 0


def test_a_twist_within_the_limits_passes_unchanged():
    """The guard changes no command that is within limits."""
    twist = np.array([0.3, -0.4, 0, 0, 0, 0.9])
    np.testing.assert_array_equal(limit_speed(twist, LIMITS), twist)


def test_an_axis_the_base_lacks_does_not_stop_the_others():
    """With max_velocity y = 0 a proposal with a little y still drives x."""
    limits = Limits(max_velocity=(1.0, 0.0, 1.0))
    np.testing.assert_allclose(
        limit_speed(np.array([0.5, 0.1, 0, 0, 0, 0]), limits), [0.5, 0, 0, 0, 0, 0]
    )


def test_a_number_too_large_to_square_gives_a_finite_twist():
    """The largest double is finite, its norm is not."""
    assert within(limit_speed(np.full(6, 1.7e308), LIMITS), LIMITS)


@given(twists, twists, st.floats(0, 0.2))
def test_acceleration_stays_within_its_limits_and_on_the_straight_line(wanted, previous, elapsed):
    """A base that starts, stops or reverses does not swerve."""
    wanted, previous = limit_speed(wanted, LIMITS), limit_speed(previous, LIMITS)
    reached = limit_acceleration(wanted, previous, LIMITS, elapsed)
    change = reached - previous
    assert (np.abs(change[[0, 1, 5]]) <= np.array(LIMITS.max_acceleration) * elapsed + 1e-9).all()
    assert within(reached, LIMITS)
    towards = wanted - previous
    assert abs(towards[0] * change[1] - towards[1] * change[0]) <= 1e-9
    assert np.linalg.norm(wanted - reached) <= np.linalg.norm(towards) + 1e-9


def test_full_speed_is_reached_in_speed_over_acceleration():
    """1 m/s at 2 m/s² takes 10 ticks of 50 ms, not 9 and not 11."""
    limits = Limits(max_acceleration=(2.0, 2.0, 4.0))
    wanted, twist = np.array([1.0, 0, 0, 0, 0, 0]), np.zeros(6)
    speeds = []
    for _ in range(11):
        twist = limit_acceleration(wanted, twist, limits, 0.05)
        speeds.append(twist[0])
    np.testing.assert_allclose(speeds, [*np.arange(0.1, 1.01, 0.1), 1.0])


positive = st.floats(1e-3, 1e3)


@given(positive, st.floats(0, 10), positive)
def test_the_maximum_speed_needs_exactly_the_stopping_distance(distance, reaction, braking):
    """Reaction and braking together cover the whole distance."""
    speed = max_speed_mps(distance, reaction, braking)
    assert stop_distance_m(speed, reaction, braking) == pytest.approx(distance)


@given(positive, st.floats(0, 10), positive, twists)
def test_no_twist_is_faster_than_the_stopping_distance_allows(distance, reaction, braking, twist):
    """In any direction, and never faster than without this limit."""
    asked = Limits(
        max_velocity=(0.8, 0.5, 1.0), stop_distance_m=distance, base_deceleration_mps2=braking
    )
    limits = asked.within_stop_distance(reaction)
    limited = limit_speed(twist, limits)
    assert stop_distance_m(np.hypot(*limited[:2]), reaction, braking) <= distance * (1 + 1e-6)
    assert limits.max_stop_distance_m(reaction) <= distance * (1 + 1e-6)
    assert limits.top_speed_mps <= asked.top_speed_mps


def test_without_a_stopping_distance_the_speed_is_unchanged():
    """stop_distance_m of 0.0 means no limit."""
    assert Limits(max_planar_speed_mps=3.0).within_stop_distance(1.0).max_planar_speed_mps == 3.0


def test_invalid_limits_are_refused_with_every_problem():
    """One sentence names five wrong parameters."""
    with pytest.raises(UserError) as refusal:
        Limits(
            max_velocity=(-1.0, 1.0, 1.0),
            max_planar_speed_mps=float('nan'),
            max_acceleration=(1.0, 0.0),
            stop_distance_m=-0.1,
            base_deceleration_mps2=0.0,
        )
    for name in (
        'max_velocity',
        'max_planar_speed_mps',
        'max_acceleration',
        'stop_distance_m',
        'base_deceleration_mps2',
    ):
        assert name in str(refusal.value)
