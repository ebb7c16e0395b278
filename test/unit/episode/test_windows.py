"""The frames of a policy's windows: the same in driving and in training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla_ros.episode.timing.windows import frame_chains, window_rows
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.runtime.frame_buffer import FrameBuffer
from mobile_vla_ros.types import NANOSECONDS as S
from mobile_vla_ros.types import Frame

RATE_HZ = 10.0
PERIOD_NS = S // 10

times = st.lists(st.integers(0, 20 * S), min_size=1, max_size=60).map(
    lambda values: np.array(sorted(values), dtype=np.int64)
)
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


def accepted(at, window=4, rate_hz=RATE_HZ):
    """Return in which frames a window ends."""
    return window_rows(at, np.arange(len(at)), rate_hz, window)[1]


def windows(at, window=4):
    """Return the rows of the windows that training learns from, as in `data.segments`."""
    good = accepted(at, window)
    chains = frame_chains(at, RATE_HZ, good)
    return [
        chain[end - window + 1 : end + 1]
        for chain in chains
        for end in range(window - 1, len(chain))
        if good[chain[end]]
    ]


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
def test_driving_plans_where_a_window_ends(at, window):
    """The frame buffer accepts the same frames and returns the same windows."""
    buffer = FrameBuffer(RATE_HZ, window)
    rows, found = window_rows(at, np.arange(len(at)), RATE_HZ, window)
    for row, stamp_ns in enumerate(at):
        buffer.add(Frame(np.zeros((1, 1, 3), np.uint8), int(stamp_ns), int(stamp_ns)))
        shown = buffer.window()
        assert (shown is not None) == found[row]
        if shown:
            assert [frame.stamp_ns for frame in shown] == at[rows[row]].tolist()


@settings(deadline=None)
@given(at=cameras(), window=st.integers(1, 6))
def test_training_keeps_what_driving_would_accept(at, window):
    """Wherever driving plans, training has a window that ends at most two periods away."""
    good = accepted(at, window)
    ends = at[[rows[-1] for rows in windows(at, window)]]
    starts = at[[chain[0] for chain in frame_chains(at, RATE_HZ, good)]]
    assert len(starts) - 1 <= (np.diff(at) > PERIOD_NS).sum()
    for time in at[good]:
        near = len(ends) and np.abs(ends - time).min() <= 2 * PERIOD_NS
        # After a gap a chain needs a whole window of its own.
        starting = (np.abs(time - starts) <= (window + 1) * PERIOD_NS).any()
        assert near or starting


@pytest.mark.parametrize('camera_hz', [8.9, 9.3, 9.7, 10.0, 10.3, 12.5, 15, 25, 29.97, 60])
def test_a_camera_at_another_rate_loses_no_windows(camera_hz):
    """A slower one gives a window for each frame, a faster one as many as the policy's rate."""
    at = (np.arange(round(60 * camera_hz)) * S / camera_hz).astype(np.int64)
    possible = 60 * min(camera_hz, RATE_HZ) - 3
    assert 0.95 * possible <= len(windows(at)) <= 1.06 * possible


def test_a_camera_too_slow_for_the_window_gives_none():
    """At 6 Hz nothing lies half a period from two periods back: driving would never plan."""
    at = np.arange(60) * S // 6
    assert not accepted(at).any() and not windows(at)


@given(at=times, rate_hz=rates)
def test_chains_step_by_a_period(at, rate_hz):
    """By half a period to two; between two chains no frame is half to one and a half away."""
    period_ns = S / rate_hz
    chains = frame_chains(at, rate_hz)
    assert chains[0][0] == 0
    for chain in chains:
        steps = np.diff(at[chain])
        assert np.all((0.5 * period_ns < steps) & (steps <= 2 * period_ns + 1))
        ahead = at[chain[-1] + 1 :] - at[chain[-1]]
        assert not np.any((0.5 * period_ns < ahead) & (ahead <= 1.5 * period_ns))
    starts = [chain[0] for chain in chains]
    assert np.all(np.diff(starts) > 0)


@given(count=st.integers(2, 40), every=st.integers(1, 6), jitter=st.randoms())
def test_a_camera_faster_than_the_policy_gives_one_chain(count, every, jitter):
    """A steady camera at a multiple of the rate is one chain of every n-th frame."""
    period_ns = PERIOD_NS // every
    at = np.array(
        [i * period_ns + jitter.randint(0, period_ns // 5) for i in range(1, count * every + 1)]
    )
    found = frame_chains(at, RATE_HZ)
    assert len(found[0]) in (count, count + 1)
    assert np.all(np.abs(np.diff(found[0]) - every) <= 1)


def test_missing_frames_end_a_chain():
    """Two frames lost at 10 Hz: a window never spans the gap, and a new chain starts after it."""
    at = np.delete(np.arange(12) * PERIOD_NS, [5, 6])
    at[5:] += 30_000_000
    found = [rows.tolist() for rows in frame_chains(at, RATE_HZ)]
    assert found == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_rate_of_zero_is_refused():
    """Also other rates that give no chain."""
    with pytest.raises(UserError, match='greater than zero'):
        frame_chains(np.arange(3), 0.0)
