"""The frames of a policy's windows: the same in driving and in training."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla_ros.episode.timing.windows import one_a_period, training_windows, window_rows
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.runtime.frame_buffer import FrameBuffer
from mobile_vla_ros.types import NANOSECONDS as S

RATE_HZ = 10.0
PERIOD_NS = S // 10

times = st.lists(st.integers(0, 20 * S), min_size=1, max_size=60).map(
    lambda values: np.array(sorted(values), dtype=np.int64)
)


class Stamp(NamedTuple):
    """All that the frame buffer needs of a frame."""

    stamp_ns: int


rates = st.sampled_from([1.0, 3.3, 10.0, 30.0])


@st.composite
def cameras(draw):
    """Return the times of a camera of 5 to 60 Hz with jitter and lost frames."""
    period_ns = S / draw(st.floats(5, 60))
    count = int(8 * S / period_ns)
    jitter = draw(st.floats(0, 0.4)) * period_ns
    random = np.random.default_rng(draw(st.integers(0, 999)))
    at = np.arange(count) * period_ns + random.uniform(-jitter, jitter, count)
    kept = random.uniform(size=count) >= draw(st.sampled_from([0.0, 0.02, 0.2]))
    return np.sort(at[kept]).astype(np.int64) + S


def windows(at, window=4):
    """Return the (M, window) rows of the windows that training learns from."""
    found = [rows[places] for rows, places, _ in training_windows(at, RATE_HZ, window)]
    return np.concatenate([np.zeros((0, window), int), *found])


@given(at=times, rate_hz=rates, window=st.integers(1, 6))
def test_each_place_takes_the_frame_nearest_to_it(at, rate_hz, window):
    """Of its own, at most half a period away; otherwise there is no window."""
    period_ns = round(S / rate_hz)
    rows, found = window_rows(at, np.arange(len(at)), rate_hz, window)
    for newest in range(len(at)):
        places = at[newest] - period_ns * np.arange(window)[::-1]
        apart = np.abs(at[None] - places[:, None])
        chosen = at[rows[newest]]
        assert np.array_equal(np.abs(chosen - places), apart.min(axis=1))
        fits = apart.min(axis=1).max() * 2 <= period_ns
        assert found[newest] == (fits and bool(np.all(np.diff(chosen) > 0)))


@settings(deadline=None)
@given(at=cameras(), window=st.integers(1, 6))
def test_training_has_the_windows_of_driving(at, window):
    """The same frames in the same order, and one wherever driving would plan, by two periods."""
    buffer, driven = FrameBuffer(RATE_HZ, window), {}
    for stamp_ns in at.tolist():
        buffer.add(Stamp(stamp_ns))
        shown = buffer.window()
        if shown is not None:
            driven[stamp_ns] = [frame.stamp_ns for frame in shown]
    taught = {int(row[-1]): row.tolist() for row in at[windows(at, window)]}
    assert taught.items() <= driven.items()
    ends = np.array([*taught, -9 * S])
    assert all(np.abs(ends - at_ns).min() <= 2 * PERIOD_NS for at_ns in driven)


@pytest.mark.parametrize('camera_hz', [8.9, 9.3, 9.7, 10.0, 10.3, 12.5, 15, 25, 29.97, 60])
def test_a_camera_at_another_rate_loses_no_windows(camera_hz):
    """A slower one gives a window for each frame, a faster one as many as the policy's rate."""
    at = (np.arange(round(60 * camera_hz)) * S / camera_hz).astype(np.int64)
    possible = 60 * min(camera_hz, RATE_HZ) - 3
    print(f'\nshown 3: {camera_hz} Hz: {len(windows(at)) / possible:.0%} of the windows')
    assert 0.95 * possible <= len(windows(at)) <= 1.06 * possible


@pytest.mark.parametrize(
    ('camera_hz', 'times'),
    [(10, 1.0), (12, 1.2), (15, 1.5), (18, 1.8), (20, 1.0), (25, 1.5), (28, 1.8), (30, 1.0)],
)
def test_a_faster_camera_costs_at_most_twice_the_frames(camera_hz, times):
    """None more at a whole multiple of the policy's rate."""
    at = (np.arange(60 * camera_hz) * S / camera_hz).astype(np.int64)
    assert len(np.unique(windows(at))) == pytest.approx(times * 600, rel=0.02)


def test_a_camera_too_slow_for_the_window_gives_none():
    """At 6 Hz nothing lies half a period from two periods back: driving would never plan."""
    at = np.arange(60) * S // 6
    _, accepted = window_rows(at, np.arange(60), RATE_HZ, 4)
    assert not accepted.any() and not len(windows(at))


@given(at=times, rate_hz=rates)
def test_one_frame_a_period_is_chosen(at, rate_hz):
    """More than half a period apart, and every other frame is less than a period from one."""
    period_ns = S / rate_hz
    chosen = at[one_a_period(at, rate_hz)]
    assert chosen[0] == at[0] and np.all(np.diff(chosen) > 0.5 * period_ns)
    assert np.all(np.abs(at[:, None] - chosen).min(axis=1) < period_ns)


@given(count=st.integers(2, 40), every=st.integers(1, 6), jitter=st.randoms())
def test_every_n_th_frame_of_a_faster_camera_is_chosen(count, every, jitter):
    """Of a camera at a multiple of the rate, which jitters by a tenth of its period."""
    period_ns = PERIOD_NS // every
    at = np.array(
        [i * period_ns + jitter.randint(0, period_ns // 5) for i in range(1, count * every + 1)]
    )
    found = one_a_period(at, RATE_HZ).tolist()
    assert found[:count] == list(range(0, count * every, every)) and len(found) <= count + 1


def test_missing_frames_end_a_part():
    """Two frames lost at 10 Hz: no window spans the gap, and the next part starts after it."""
    at = np.delete(np.arange(12) * PERIOD_NS, [5, 6])
    at[5:] += 30_000_000
    found = training_windows(at, RATE_HZ, 4)
    assert [rows.tolist() for rows, _, _ in found] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert [end_ns for _, _, end_ns in found] == [at[4], at[9]]
    assert [len(places) for _, places, _ in found] == [2, 2]


def test_a_rate_of_zero_is_refused():
    """Also other rates that give no period."""
    with pytest.raises(UserError, match='greater than zero'):
        one_a_period(np.arange(3), 0.0)
