"""Detect a camera clock that stands still, runs backwards, jumps or is set wrong."""

from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.types import NANOSECONDS

KINDS = ('sane', 'zero', 'backwards', 'jumps', 'apart')

# Longer than any transport delay; equal to the maximum age of a command.
APART_S = 0.5
# Late frames arrive in bursts: skip the first moments around a step, then examine ten seconds.
SETTLE_S = 0.5
SPAN_S = 10.0
# A stamp that goes back is classified only once this many frames have followed it.
FOLLOWING = 3


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


def check(stamp_ns: np.ndarray, received_ns: np.ndarray) -> ClockVerdict:
    """
    Classify the camera's clock from the frames of an episode.

    A late frame is no clock fault, even if newer ones have overtaken it; nor is a gap, across
    which stamps and receipts advance equally. The clock jumps where the offset from stamp to
    receipt changes by over half a second at once, for good. It is apart where the median offset
    exceeds half a second in at least one quarter of the episode.

    :param stamp_ns: (N,) int64 header stamps, in order of receipt; likewise ``received_ns``.
    """
    stamp_ns = np.asarray(stamp_ns, dtype=np.int64)
    received_ns = np.asarray(received_ns, dtype=np.int64)
    count = len(stamp_ns)
    if not count:
        return ClockVerdict('sane', '')
    steps_ns = np.diff(stamp_ns)
    zeros = int((stamp_ns == 0).sum())
    if zeros == count or zeros > 1:
        return ClockVerdict(
            'zero', f'the camera clock stands at zero in {zeros} of {count} frames'
        )
    if count > 1 and not steps_ns.any():
        return ClockVerdict('zero', 'the camera clock stands still: all stamps are the same')
    back = int((steps_ns <= 0).sum())
    if back and not _overtaken(stamp_ns, received_ns):
        return ClockVerdict(
            'backwards',
            f'the camera clock does not go forward {_times(back)}; '
            f'its worst step is {steps_ns.min() / NANOSECONDS:.2f} s',
        )
    jumps_s = _jumps_s(stamp_ns, received_ns)
    if len(jumps_s):
        largest = jumps_s[np.argmax(np.abs(jumps_s))]
        return ClockVerdict(
            'jumps',
            f'the camera clock jumps {_times(len(jumps_s))} against the '
            f'receiving clock, by up to {abs(largest):.2f} s',
        )
    offset_s = (received_ns - stamp_ns) / NANOSECONDS
    quarters_s = [float(np.median(part)) for part in np.array_split(offset_s, min(4, count))]
    worst_s = max(quarters_s, key=abs)
    if abs(worst_s) > APART_S:
        side = 'behind' if worst_s > 0 else 'ahead of'
        return ClockVerdict(
            'apart', f'the camera clock is {abs(worst_s):.2f} s {side} the receiving clock'
        )
    return ClockVerdict('sane', '')


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
    order_ns = np.maximum.accumulate(received_ns)
    span_ns = round(SPAN_S * NANOSECONDS)
    offset_ns = received_ns - stamp_ns
    before = _smallest(offset_ns, np.searchsorted(order_ns, order_ns[rows] - span_ns), rows)
    after = _smallest(
        offset_ns, rows + 1, np.searchsorted(order_ns, order_ns[rows] + span_ns, side='right')
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
    # Sorted receipts, for searching; where the receiving clock steps back by more than the limit,
    # the offset steps as well.
    order_ns = np.maximum.accumulate(received_ns)
    back = np.diff(received_ns) < -limit_ns
    rows = np.flatnonzero((np.abs(steps_ns) > limit_ns) & ~back)
    settle_ns, span_ns = (round(span * NANOSECONDS) for span in (SETTLE_S, SPAN_S))
    last, first = order_ns[rows], order_ns[rows + 1]
    before = _smallest(
        offset_ns,
        np.searchsorted(order_ns, last - span_ns),
        np.searchsorted(order_ns, last - settle_ns, side='right'),
    )
    after = _smallest(
        offset_ns,
        np.searchsorted(order_ns, first + settle_ns),
        np.searchsorted(order_ns, first + span_ns, side='right'),
    )
    lasting_ns = after - before
    same_way = np.sign(lasting_ns) == np.sign(steps_ns[rows])
    lasting = (np.abs(lasting_ns) > limit_ns) & same_way  # False for NaN
    return np.concatenate([steps_ns[rows][lasting], steps_ns[back]]) / NANOSECONDS


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
