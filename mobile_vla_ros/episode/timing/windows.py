"""
Choose the frames of a policy's windows: one rule for driving and for training.

A window ends in a frame and goes back in steps of the policy's period; each place takes the frame
nearest to it, at most half a period away. A frame without such a window gives no plan. Training
has one window for each period, and takes the frames that driving takes.
"""

import bisect

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS

# A frame fills a place of the window if it lies within this share of a period of it.
TOLERANCE_PERIODS = 0.5


def window_rows(
    time_ns: np.ndarray, newest: np.ndarray, rate_hz: float, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the window that ends in each of some frames.

    :param time_ns: (N,) int64 times of the frames, not decreasing, N > 0.
    :param newest: (M,) int64 the rows in which the windows end.
    :returns: (M, window) int64 rows, oldest first; (M,) bool: True if every place has its own
        frame within half a period; otherwise the rows are merely the nearest.
    """
    period_ns = round(NANOSECONDS / rate_hz)
    back_ns = period_ns * np.arange(window - 1, -1, -1)
    place_ns = time_ns[newest][:, None] - back_ns
    after = np.minimum(np.searchsorted(time_ns, place_ns), len(time_ns) - 1)
    before = np.maximum(after - 1, 0)
    # At equal distance, the older frame.
    rows = np.where(place_ns - time_ns[before] <= time_ns[after] - place_ns, before, after)
    rows[:, -1] = newest
    near = np.abs(time_ns[rows] - place_ns) <= TOLERANCE_PERIODS * period_ns
    own = np.diff(time_ns[rows], axis=1) > 0
    return rows, near.all(1) & own.all(1)


def training_windows(
    time_ns: np.ndarray, rate_hz: float, window: int
) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """
    Return the windows to train on, for each part of some frames without a gap.

    One window for each period (``one_a_period``) of the frames in which driving would plan. Where
    no frame follows within one and a half periods there is a gap.

    :param time_ns: (N,) int64 times of the frames, not decreasing.
    :returns: for each part (T,) int64 the rows of its windows' frames, increasing, of all its
        frames if it has no window; (M, window) int64 the windows, as places in these rows; the
        time of its last frame.
    """
    if not len(time_ns):
        return []
    of_frame, accepted = window_rows(time_ns, np.arange(len(time_ns)), rate_hz, window)
    gaps = np.flatnonzero(np.diff(time_ns) > (1 + TOLERANCE_PERIODS) * NANOSECONDS / rate_hz) + 1
    found = []
    for part in np.split(np.arange(len(time_ns)), gaps):
        ends = part[accepted[part]]
        windows = of_frame[ends[one_a_period(time_ns[ends], rate_hz)]]
        rows = np.unique(windows) if len(windows) else part
        found.append((rows, np.searchsorted(rows, windows), int(time_ns[part[-1]])))
    return found


def one_a_period(time_ns: np.ndarray, rate_hz: float) -> np.ndarray:
    """
    Choose frames at a rate, more than half a period apart.

    Each is the one nearest to a step of a grid, which starts at the first frame and shifts to
    follow a slower camera. After a gap the grid starts again.

    :param time_ns: (N,) int64 times of the frames, not decreasing.
    :param rate_hz: greater than 0.
    :returns: (T,) int64 increasing rows; every other frame is less than a period from one.
    """
    if not rate_hz > 0:
        raise UserError('a rate must be greater than zero', got=rate_hz)
    period_ns = NANOSECONDS / rate_hz
    tolerance_ns = TOLERANCE_PERIODS * period_ns
    times = time_ns.tolist()
    following = np.searchsorted(time_ns, time_ns + tolerance_ns, side='right').tolist()
    rows = [0] if times else []
    due_ns = float(times[0]) if times else 0.0
    while rows and (first := following[rows[-1]]) < len(times):
        time = times[rows[-1]]
        due_ns = min(max(due_ns, time - tolerance_ns), time + tolerance_ns) + period_ns
        after = min(bisect.bisect_left(times, due_ns, first), len(times) - 1)
        before = max(after - 1, first)
        # At equal distance the newer frame.
        rows.append(after if times[after] - due_ns <= due_ns - times[before] else before)
    return np.array(rows, dtype=np.int64)


def median_rate_hz(times_ns: np.ndarray) -> float:
    """Return the rate by the median interval; 0 without one."""
    interval_ns = float(np.median(np.diff(times_ns))) if len(times_ns) > 1 else 0.0
    return NANOSECONDS / interval_ns if interval_ns > 0 else 0.0
