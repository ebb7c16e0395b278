"""Detect a camera clock that stands still, runs backwards, jumps or is set wrong."""

from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.timing.receipts import MAX_STEPS, clock_steps
from mobile_vla_ros.types import NANOSECONDS

KINDS = ('sane', 'zero', 'backwards', 'jumps', 'apart')

# Longer than any transport delay; equal to the maximum age of a command.
APART_S = 0.5
# Late frames arrive in bursts: skip the first moments around a step, then examine ten seconds.
SETTLE_S = 0.5
SPAN_S = 10.0
# A stamp that goes back is classified only once this many frames have followed it.
FOLLOWING = 3
# Frames that were stamped before a step of the clock may be received for this long after it.
TRANSPORT_NS = NANOSECONDS


@dataclass(frozen=True)
class ClockVerdict:
    """
    The state of an episode's camera clock.

    :param kind: one of ``KINDS``.
    :param sentence: the defect in words; empty for a sane clock.
    """

    kind: str
    sentence: str

    @property
    def sane(self) -> bool:
        """Whether header stamps can be trusted."""
        return self.kind == 'sane'


def exposure_times(
    stamp_ns: np.ndarray, received_ns: np.ndarray, steady_ns: np.ndarray
) -> np.ndarray:
    """
    Return when each frame was exposed, by its header stamp, on the steady clock.

    What counts is the delay from stamp to receipt, so a step of the clock behind both of them, a
    wall clock or a simulator's, does not matter, except to frames that were on their way.

    :param stamp_ns: (N,) int64 header stamps; likewise ``received_ns``, on the same kind of clock,
        and ``steady_ns``, receipts on a clock that never steps.
    """
    delay_ns = received_ns - stamp_ns
    for row in clock_steps(received_ns, steady_ns)[:MAX_STEPS]:
        step_ns = (received_ns - steady_ns)[row] - (received_ns - steady_ns)[row - 1]
        on_the_way = np.arange(row, np.searchsorted(steady_ns, steady_ns[row] + TRANSPORT_NS))
        changed_ns = delay_ns[on_the_way] - delay_ns[row - 1]
        before = np.abs(changed_ns - step_ns) < np.abs(changed_ns)
        delay_ns[on_the_way[before]] -= step_ns
    exposed: np.ndarray = steady_ns - delay_ns
    return exposed


def check(stamp_ns: np.ndarray, received_ns: np.ndarray, steady_ns: np.ndarray) -> ClockVerdict:
    """
    Classify the camera's clock from the frames of an episode.

    A late frame is no clock fault, even if newer ones have overtaken it; nor is a gap, across
    which stamps and receipts advance equally. The clock jumps where the offset from stamp to
    receipt changes by over half a second at once, for good. It is apart where the median offset
    exceeds half a second in at least one quarter of the episode.

    :param stamp_ns: (N,) int64 header stamps, in order of receipt; likewise ``received_ns`` and
        ``steady_ns`` (``exposure_times``).
    """
    stamp_ns, received_ns, steady_ns = (
        np.asarray(column, dtype=np.int64) for column in (stamp_ns, received_ns, steady_ns)
    )
    count = len(stamp_ns)
    if not count:
        return ClockVerdict('sane', '')
    zeros = int((stamp_ns == 0).sum())
    if zeros == count or zeros > 1:
        return ClockVerdict(
            'zero', f'the camera clock stands at zero in {zeros} of {count} frames'
        )
    if count > 1 and not np.diff(stamp_ns).any():
        return ClockVerdict('zero', 'the camera clock stands still: all stamps are the same')
    goes_back = bool((np.diff(stamp_ns) <= 0).any())
    # From here on only the offset matters, and the steady clock takes the place of the other.
    stamp_ns, received_ns = exposure_times(stamp_ns, received_ns, steady_ns), steady_ns
    steps_ns = np.diff(stamp_ns)
    back = int((steps_ns <= 0).sum())
    if back and not _overtaken(stamp_ns, received_ns):
        if not goes_back:
            return _jumps(steps_ns[steps_ns <= 0] / NANOSECONDS)
        return ClockVerdict(
            'backwards',
            f'the camera clock does not go forward {_times(back)}; '
            f'its worst step is {steps_ns.min() / NANOSECONDS:.2f} s',
        )
    jumps_s = _jumps_s(stamp_ns, received_ns)
    if len(jumps_s):
        return _jumps(jumps_s)
    offset_s = (received_ns - stamp_ns) / NANOSECONDS
    quarters_s = [float(np.median(part)) for part in np.array_split(offset_s, min(4, count))]
    worst_s = max(quarters_s, key=abs)
    if abs(worst_s) > APART_S:
        side = 'behind' if worst_s > 0 else 'ahead of'
        return ClockVerdict(
            'apart', f'the camera clock is {abs(worst_s):.2f} s {side} the receiving clock'
        )
    return ClockVerdict('sane', '')


def _jumps(steps_s: np.ndarray) -> ClockVerdict:
    return ClockVerdict(
        'jumps',
        f'the camera clock jumps {_times(len(steps_s))} against the '
        f'receiving clock, by up to {np.abs(steps_s).max():.2f} s',
    )


def _overtaken(stamp_ns: np.ndarray, received_ns: np.ndarray) -> bool:
    """
    Whether stamps that go back belong to late frames, which newer ones have overtaken.

    The frames after a late one have the same offset as those before it. After a clock was set
    back, the offset from stamp to receipt stays larger, by as much as the stamps went back.
    """
    newest_ns = np.maximum.accumulate(stamp_ns)
    rows = np.flatnonzero(stamp_ns < newest_ns)
    back_ns = newest_ns[rows].astype(float) - stamp_ns[rows]
    if len(np.unique(stamp_ns)) < len(stamp_ns) or back_ns.max() > APART_S * NANOSECONDS:
        return False
    followed = rows + FOLLOWING < len(stamp_ns)
    rows, back_ns = rows[followed], back_ns[followed]
    span_ns = round(SPAN_S * NANOSECONDS)
    offset_ns = received_ns - stamp_ns
    before = _smallest(offset_ns, np.searchsorted(received_ns, received_ns[rows] - span_ns), rows)
    after = _smallest(
        offset_ns,
        rows + 1,
        np.searchsorted(received_ns, received_ns[rows] + span_ns, side='right'),
    )
    return not (after - before > back_ns / 2).any()


def _jumps_s(stamp_ns: np.ndarray, received_ns: np.ndarray) -> np.ndarray:
    """
    Return every lasting step of the offset from stamp to receipt, seconds.

    A step lasts if the smallest offset, which late frames do not change, differs between the
    frames up to ``SPAN_S`` before and after it. The ``SETTLE_S`` around the step are left out:
    late frames may have arrived in a burst there.
    """
    limit_ns = round(APART_S * NANOSECONDS)
    offset_ns = received_ns - stamp_ns
    steps_ns = np.diff(offset_ns)
    rows = np.flatnonzero(np.abs(steps_ns) > limit_ns)
    settle_ns, span_ns = (round(span * NANOSECONDS) for span in (SETTLE_S, SPAN_S))
    last, first = received_ns[rows], received_ns[rows + 1]
    before = _smallest(
        offset_ns,
        np.searchsorted(received_ns, last - span_ns),
        np.searchsorted(received_ns, last - settle_ns, side='right'),
    )
    after = _smallest(
        offset_ns,
        np.searchsorted(received_ns, first + settle_ns),
        np.searchsorted(received_ns, first + span_ns, side='right'),
    )
    lasting_ns = after - before
    same_way = np.sign(lasting_ns) == np.sign(steps_ns[rows])
    lasting = (np.abs(lasting_ns) > limit_ns) & same_way  # False for NaN
    jumps: np.ndarray = steps_ns[rows][lasting] / NANOSECONDS
    return jumps


def _smallest(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return the minimum of ``values[start:stop]`` for each pair, NaN for an empty slice."""
    found = np.full(len(start), np.nan)
    some = np.flatnonzero(stop > start)
    if len(some):
        # reduceat also reduces the slices between the pairs, and accepts no index past the end.
        edges = np.stack([start[some], stop[some]], axis=1).ravel()
        padded = np.append(values, np.iinfo(np.int64).max)
        found[some] = np.minimum.reduceat(padded, edges)[::2]
    return found


def _times(count: int) -> str:
    return 'once' if count == 1 else f'{count} times'
