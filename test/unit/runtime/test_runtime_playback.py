"""Playback modes newest, temporal_ensemble and receding, anchored to the observation time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_plans import MS, plan
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.runtime.playback import MODES, Playback


def test_newest_drops_the_earlier_plan():
    """The newest observation decides; its first step starts at its stamp."""
    playback = Playback('newest')
    playback.add(plan(1000, 0.1))
    playback.add(plan(1100, 0.5))
    found = playback.at(1250 * MS)
    assert found.twist[0] == pytest.approx(0.51)
    assert found.stamp_ns == 1100 * MS
    assert playback.at(2100 * MS) is None


def test_the_ensemble_weighs_the_oldest_plan_most():
    """exp(-0.01 i) over the plans that cover the instant, i counted from the oldest (ACT)."""
    playback = Playback('temporal_ensemble')
    for stamp, first in ((1000, 0.0), (1100, 0.3), (1200, 0.6)):
        playback.add(plan(stamp, first))
    found = playback.at(1200 * MS)
    weights = np.exp(-0.01 * np.arange(3))
    assert found.twist[0] == pytest.approx(weights @ [0.02, 0.31, 0.6] / weights.sum())
    assert found.stamp_ns == 1200 * MS  # the newest image that was used


def test_the_ensemble_ignores_an_exhausted_plan():
    """Neither its actions nor its stamp are used."""
    playback = Playback('temporal_ensemble')
    playback.add(plan(1000, 0.0, chunk=10))
    playback.add(plan(1100, 0.5, chunk=2))
    assert playback.at(1250 * MS).twist[0] == pytest.approx(
        np.average([0.02, 0.51], weights=[1, np.exp(-0.01)])
    )
    late = playback.at(1350 * MS)
    assert (late.twist[0], late.stamp_ns) == (pytest.approx(0.03), 1000 * MS)
    assert playback.at(2000 * MS) is None


def test_receding_keeps_a_plan_for_its_steps():
    """Three steps of a plan are driven before the newest one, with its stamp, replaces it."""
    playback = Playback('receding', 3)
    playback.add(plan(1000, 0.1))
    assert playback.at(1000 * MS).stamp_ns == 1000 * MS
    playback.add(plan(1100, 0.5))
    playback.add(plan(1200, 0.8))
    kept = playback.at(1299 * MS)
    assert (kept.twist[0], kept.stamp_ns) == (pytest.approx(0.12), 1000 * MS)
    after = playback.at(1300 * MS)
    assert (after.twist[0], after.stamp_ns) == (pytest.approx(0.81), 1200 * MS)


def test_receding_uses_a_late_plan_although_its_first_steps_are_over():
    """It is still the newest plan."""
    playback = Playback('receding', 2)
    playback.add(plan(1000, 0.1))
    assert playback.at(1500 * MS).twist[0] == pytest.approx(0.15)
    playback.add(plan(1400, 0.5))
    assert playback.at(1600 * MS).stamp_ns == 1400 * MS


def test_receding_ends_with_a_short_chunk():
    """With more steps than the chunk has, the plan ends with the chunk."""
    playback = Playback('receding', 8)
    playback.add(plan(1000, 0.1, chunk=2))
    playback.at(1000 * MS)
    playback.add(plan(1150, 0.5))
    assert playback.at(1200 * MS).stamp_ns == 1150 * MS


@pytest.mark.parametrize('mode', MODES)
def test_an_image_slightly_in_the_future_counts_as_now(mode):
    """The first step is driven up to the tolerance, and nothing beyond it."""
    playback = Playback(mode, ahead_s=0.1)
    playback.add(plan(1000, 0.1))
    assert playback.at(900 * MS).twist[0] == pytest.approx(0.1)
    assert playback.at(899 * MS) is None


@pytest.mark.parametrize('mode', MODES)
def test_a_cleared_plan_is_never_proposed(mode):
    """After a new instruction or a fault; also the plan that receding keeps."""
    playback = Playback(mode, 5)
    playback.add(plan(1000, 0.1))
    playback.at(1000 * MS)
    playback.clear()
    assert playback.at(1050 * MS) is None
    playback.add(plan(1100, 0.9))
    assert playback.at(1100 * MS).twist[0] == pytest.approx(0.9)


@given(
    st.sampled_from(MODES),
    st.integers(1, 12),
    st.lists(
        st.tuples(st.integers(1, 400), st.integers(1, 12), st.integers(0, 900)),
        min_size=1,
        max_size=20,
    ),
)
def test_a_proposal_lies_between_the_plans_and_has_one_of_their_stamps(mode, steps, events):
    """For random plans and times."""
    playback = Playback(mode, steps)
    plans, now = [], 1000
    for number, (gap, chunk, late) in enumerate(events):
        now += gap
        made = plan(now - late, number / 10, chunk)
        if not plans or made.stamp_ns > plans[-1].stamp_ns:
            plans.append(made)
        playback.add(made)
        found = playback.at(now * MS)
        covering = {
            one.stamp_ns: one.twists[(now * MS - one.stamp_ns) // (100 * MS)][0]
            for one in plans
            if 0 <= now * MS - one.stamp_ns < len(one.twists) * 100 * MS
        }
        if found is None:
            assert plans[-1].stamp_ns not in covering
            continue
        assert found.stamp_ns in covering
        assert min(covering.values()) - 1e-9 <= found.twist[0] <= max(covering.values()) + 1e-9


@pytest.mark.parametrize(
    ('mode', 'steps', 'expected'),
    [('newst', 1, "did you mean 'newest'"), ('receding', 0, 'at least one step')],
)
def test_invalid_settings_are_refused(mode, steps, expected):
    """With a UserError."""
    with pytest.raises(UserError, match='(?i)' + expected):
        Playback(mode, steps)


def test_receding_may_not_keep_a_plan_until_its_image_is_too_old():
    """The guard would stop its last steps; the other modes keep no plan."""
    Playback('receding', 2).check_age(10.0, 0.3)
    Playback('newest', 9).check_age(10.0, 0.3)
    with pytest.raises(UserError, match='receding_steps 3 at 10 Hz'):
        Playback('receding', 3).check_age(10.0, 0.3)
