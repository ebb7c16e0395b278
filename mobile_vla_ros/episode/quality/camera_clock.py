"""Tells a sane camera clock from one that stands, runs backwards, jumps or is set wrong."""

from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.types import NANOSECONDS

KINDS = ('sane', 'zero', 'backwards', 'jumps', 'apart')

# Longer than a transport delays a frame; as old as a command may be that still counts.
APART_S = 0.5
# Late frames come in a bunch: the first after a step are not asked, the next ten seconds are.
SETTLE_S = 0.5
LOOK_S = 10.0
# So many frames have to follow one whose stamp goes back before it is told what it was.
FOLLOWING = 3


@dataclass(frozen=True)
class ClockVerdict:
    """
    What a take's camera clock is like.

    :param kind: one of ``KINDS``.
    :param sentence: what is wrong with it, in words; empty when it is sane.
    """

    kind: str
    sentence: str

    @property
    def sane(self) -> bool:
        """Whether header stamps can be trusted."""
        return self.kind == 'sane'


def check(stamp_ns: np.ndarray, received_ns: np.ndarray) -> ClockVerdict:
    """
    Classify the camera's clock by what a take's frames say.

    A late frame is no fault of the clock, also not where newer ones have overtaken it; nor is a
    gap: there, stamps and receipts go on by the same amount. The clock jumps where the distance
    from stamp to receipt changes by over half a second at once and stays so. It is apart where
    that distance is over half a second in one quarter of the take or more.

    :param stamp_ns: (N,) int64 header stamps, in the order of receipt; likewise ``received_ns``.
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
    Say whether stamps that go back are those of late frames, which newer ones have overtaken.

    The frames after such a one are as fast as those before it. After a clock that was set back
    the distance from stamp to receipt stays larger, by as much as the stamps went back.
    """
    newest_ns = np.maximum.accumulate(stamp_ns)
    rows = np.flatnonzero(stamp_ns < newest_ns)
    back_ns = newest_ns[rows].astype(float) - stamp_ns[rows]
    if len(np.unique(stamp_ns)) < len(stamp_ns) or back_ns.max() > APART_S * NANOSECONDS:
        return False
    told = rows + FOLLOWING < len(stamp_ns)
    rows, back_ns = rows[told], back_ns[told]
    order_ns = np.maximum.accumulate(received_ns)
    look_ns = round(LOOK_S * NANOSECONDS)
    offset_ns = received_ns - stamp_ns
    before = _smallest(offset_ns, np.searchsorted(order_ns, order_ns[rows] - look_ns), rows)
    after = _smallest(
        offset_ns, rows + 1, np.searchsorted(order_ns, order_ns[rows] + look_ns, side='right')
    )
    return not (after - before > back_ns / 2).any()


def _jumps_s(stamp_ns: np.ndarray, received_ns: np.ndarray) -> np.ndarray:
    """
    Return every lasting step of the distance from stamp to receipt, seconds.

    What lasts is told by the smallest distance, which a late frame does not change: that of the
    frames up to ``LOOK_S`` before the step and after it, leaving out ``SETTLE_S`` around it,
    in which late frames may have come in a bunch.
    """
    limit_ns = round(APART_S * NANOSECONDS)
    offset_ns = received_ns - stamp_ns
    steps_ns = np.diff(offset_ns)
    # Receipts in order, so that they can be searched; a step of the receiving clock back by more
    # than the limit is a step of the distance as well.
    order_ns = np.maximum.accumulate(received_ns)
    back = np.diff(received_ns) < -limit_ns
    rows = np.flatnonzero((np.abs(steps_ns) > limit_ns) & ~back)
    settle_ns, look_ns = (round(span * NANOSECONDS) for span in (SETTLE_S, LOOK_S))
    last, first = order_ns[rows], order_ns[rows + 1]
    before = _smallest(
        offset_ns,
        np.searchsorted(order_ns, last - look_ns),
        np.searchsorted(order_ns, last - settle_ns, side='right'),
    )
    after = _smallest(
        offset_ns,
        np.searchsorted(order_ns, first + settle_ns),
        np.searchsorted(order_ns, first + look_ns, side='right'),
    )
    lasting_ns = after - before
    same_way = np.sign(lasting_ns) == np.sign(steps_ns[rows])
    lasting = (np.abs(lasting_ns) > limit_ns) & same_way  # NaN, where nothing is known, is not
    return np.concatenate([steps_ns[rows][lasting], steps_ns[back]]) / NANOSECONDS


def _smallest(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return the least of ``values[start:stop]`` for each pair, NaN where it holds none."""
    found = np.full(len(start), np.nan)
    some = np.flatnonzero(stop > start)
    if len(some):
        # reduceat takes the slices between the pairs as well, and no index beyond the last.
        edges = np.stack([start[some], stop[some]], axis=1).ravel()
        padded = np.append(values, np.iinfo(np.int64).max)
        found[some] = np.minimum.reduceat(padded, edges)[::2]
    return found


def _times(count: int) -> str:
    return 'once' if count == 1 else f'{count} times'
