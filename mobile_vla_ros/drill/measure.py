"""What the drill reads from what it heard: pure, times in nanoseconds of one steady clock."""

import itertools
import math
from collections.abc import Sequence

Command = tuple[int, tuple[float, ...]]  # when it was received; (6,) m/s and rad/s
Pose = tuple[int, float, float, float]  # when; x, y in m; speed over the floor in m/s
Proposal = tuple[int, int]  # when it was received; when its image was taken

STANDS_MPS = 0.01


def is_zero(twist: Sequence[float]) -> bool:
    """Whether a command is zero on every axis; a number that is none is not zero."""
    return all(value == 0.0 for value in twist)


def between(rows: Sequence[tuple], since_ns: int, until_ns: float = math.inf) -> list:
    """Return the rows that were received after one moment and not after another."""
    return [row for row in rows if since_ns < row[0] <= until_ns]


def zero_from(
    commands: Sequence[Command],
    since_ns: int,
    until_ns: float = math.inf,
) -> int | None:
    """
    Return when the first command came after which, and with which, all are zero.

    :returns: None when the last one is not zero, or none came at all.
    """
    first = None
    for at_ns, twist in between(commands, since_ns, until_ns):
        if not is_zero(twist):
            first = None
        elif first is None:
            first = at_ns
    return first


def first_where(commands: Sequence[Command], since_ns: int, wanted) -> int | None:
    """Return when the first command came, after a moment, whose twist is as wanted."""
    return next((at_ns for at_ns, twist in between(commands, since_ns) if wanted(twist)), None)


def largest(commands: Sequence[Command], since_ns: int, until_ns: float = math.inf) -> float:
    """Return the largest speed commanded over the floor, m/s; inf for a number that is none."""
    speeds = [
        math.hypot(*twist[:2]) if all(map(math.isfinite, twist)) else math.inf
        for _, twist in between(commands, since_ns, until_ns)
    ]
    return max(speeds, default=0.0)


def longest_gap(commands: Sequence[Command], since_ns: int, until_ns: float = math.inf) -> int:
    """Return the longest time without a command, from the last one before a moment on."""
    times = [at_ns for at_ns, _ in commands if at_ns <= until_ns]
    return max(
        (later - earlier for earlier, later in itertools.pairwise(times) if later > since_ns),
        default=0,
    )


def rolled(poses: Sequence[Pose], since_ns: int) -> tuple[float, int | None]:
    """
    Return how far the base rolled from a moment until it stood, and when it stood.

    :param poses: one before the moment too, for where the base was then.
    :returns: metres along its way; None when it stood at no time.
    """
    start = _place_at(poses, since_ns)
    metres = 0.0
    for at_ns, x, y, speed in between(poses, since_ns):
        if start is not None:
            metres += math.dist(start, (x, y))
        start = (x, y)
        if speed < STANDS_MPS:
            return metres, at_ns
    return metres, None


def slows_from(poses: Sequence[Pose], since_ns: int, share: float = 0.95) -> int | None:
    """Return when the base was first slower than a share of its speed before the moment."""
    before = [speed for at_ns, _, _, speed in poses if at_ns <= since_ns]
    if not before:
        return None
    return next(
        (at_ns for at_ns, _, _, speed in between(poses, since_ns) if speed < share * before[-1]),
        None,
    )


def late_from(
    arrivals: Sequence[int],
    since_ns: int,
    period_ns: int,
    periods: float,
    until_ns: float = math.inf,
) -> int | None:
    """
    Return the moment at which something regular is first late.

    :param arrivals: when each came, in order; the last one before the moment counts as well.
    :param periods: how many of them may pass after the last one that came in time.
    :returns: None when it always came in time, as far as was looked.
    """
    most_ns = round(periods * period_ns)
    last = max((at_ns for at_ns in arrivals if at_ns <= since_ns), default=since_ns)
    for at_ns in [*(at_ns for at_ns in arrivals if since_ns < at_ns <= until_ns), until_ns]:
        if at_ns - last > most_ns:
            return max(last + most_ns, since_ns)
        last = at_ns
    return None


def silent_from(arrivals: Sequence[int], since_ns: int, period_ns: int) -> int:
    """Return the moment at which the first of those that never come is due."""
    return max(max(arrivals, default=since_ns) + period_ns, since_ns)


def starved_from(
    proposals: Sequence[Proposal],
    since_ns: int,
    period_ns: int,
    silent_ns: int,
    age_ns: int,
    until_ns: int,
) -> int | None:
    """
    Return the moment from which on it can be known that proposals come too seldom or too old.

    That is one period after the last one before a silence that the guard may not stand, or the
    moment at which the newest one's image passes the age limit, whichever comes first.
    """
    moments = []
    last_ns, image_ns = None, None
    for at_ns, stamp_ns in [*sorted(proposals), (until_ns, until_ns)]:
        if last_ns is not None and at_ns > since_ns:
            if at_ns - last_ns > silent_ns:
                moments.append(last_ns + period_ns)
            if at_ns > image_ns + age_ns:
                moments.append(image_ns + age_ns)
        last_ns, image_ns = at_ns, stamp_ns
    return max(min(moments), since_ns) if moments else None


def _place_at(poses: Sequence[Pose], at_ns: int) -> tuple[float, float] | None:
    """Return x and y at a moment, on the line between what was heard before and after it."""
    before = [pose for pose in poses if pose[0] <= at_ns]
    after = [pose for pose in poses if pose[0] > at_ns]
    if not before or not after:
        return None
    (t0, x0, y0, _), (t1, x1, y1, _) = before[-1], after[0]
    share = (at_ns - t0) / (t1 - t0)
    return x0 + share * (x1 - x0), y0 + share * (y1 - y0)
