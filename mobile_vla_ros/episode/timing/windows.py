"""
Choose the frames of a policy's windows: one rule for driving and for training.

A window ends in a frame and goes back in steps of the policy's period; each place takes the frame
nearest to it, at most half a period away. A frame without such a window gives no plan.
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
    :returns: (M, window) int64 rows, oldest first; (M,) bool: each place has a frame of its own
        within half a period. The rows of a window without are the nearest ones.
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


def frame_chains(
    time_ns: np.ndarray, rate_hz: float, accepted: np.ndarray | None = None
) -> list[np.ndarray]:
    """
    Sample frames at a rate; return the rows of each chain.

    Each frame of a chain is the one nearest to a step of a grid, which starts at the first frame
    and slips along with a camera that is slower: at most half a period from its step, or one and a
    half from the frame before. Without such a frame there is a gap, and a new chain starts.

    :param time_ns: (N,) int64 times of the frames, not decreasing.
    :param rate_hz: greater than 0.
    :param accepted: (N,) bool: frames that are preferred to others between two gaps, since a
        window ends in them (``window_rows``).
    :returns: one (T,) int64 array of strictly increasing rows for each chain.
    """
    if not rate_hz > 0:
        raise UserError('a rate must be greater than zero', got=rate_hz)
    period_ns = NANOSECONDS / rate_hz
    low = np.searchsorted(time_ns, time_ns + 0.5 * period_ns, side='right')
    high = np.searchsorted(time_ns, time_ns + 1.5 * period_ns, side='right')
    worse = (low == high).astype(int) * 2  # a frame that none follows
    if accepted is not None:
        worse += ~accepted
    times, first, order = time_ns.tolist(), low.tolist(), worse.tolist()
    chains, row = [], 0
    while row < len(time_ns):
        rows, row = _chain(times, first, order, row, period_ns)
        chains.append(np.array(rows, dtype=np.int64))
    return chains


def _chain(
    times: list[int], low: list[int], worse: list[int], first: int, period_ns: float
) -> tuple[list[int], int]:
    """
    Return the rows of the chain that starts at ``first``, and the start of the next one.

    :param low: (N,) the first frame that may follow each; worse: the lowest are taken first.
    """
    rows, due_ns, tolerance_ns = [first], float(times[first]), TOLERANCE_PERIODS * period_ns
    while True:
        row, time_ns = rows[-1], times[rows[-1]]
        due_ns = min(max(due_ns, time_ns - tolerance_ns), time_ns + tolerance_ns) + period_ns
        until_ns = max(due_ns + tolerance_ns, time_ns + 1.5 * period_ns)
        high = bisect.bisect_right(times, until_ns, low[row])
        if low[row] == high:
            break
        # At equal distance the newer frame.
        rows.append(
            min(range(low[row], high), key=lambda i: (worse[i], abs(times[i] - due_ns), -i))
        )
    # The newest frame before the gap may still lie within a window's tolerance of the next one.
    if high < len(times) and times[high] - times[high - 1] <= 1.5 * period_ns:
        high -= 1
    return rows, max(high, row + 1)
