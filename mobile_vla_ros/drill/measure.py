"""Measures on the messages of a drive: pure, times in nanoseconds of one steady clock."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from mobile_vla_ros.safety.status import GuardStatus

Command = tuple[int, tuple[float, ...]]  # receipt; (6,) m/s and rad/s
Pose = tuple[int, float, float, float]  # receipt; x, y in m; speed over the floor in m/s
Report = tuple[int, GuardStatus]  # receipt; of the guard
Proposal = tuple[int, int]  # receipt; stamp of its image
ProposedSpeed = tuple[int, int, float]  # receipt; stamp of its image; m/s ahead
Row = TypeVar('Row', bound=tuple)

STANDS_MPS = 0.01


def is_zero(twist: Sequence[float]) -> bool:
    """Return whether a command is zero on every axis; NaN is not."""
    return all(value == 0.0 for value in twist)


def between(rows: Sequence[Row], since_ns: int, until_ns: float = math.inf) -> list[Row]:
    """Return the rows received in (since_ns, until_ns]."""
    return [row for row in rows if since_ns < row[0] <= until_ns]


def zero_from(
    commands: Sequence[Command],
    since_ns: int,
    until_ns: float = math.inf,
) -> int | None:
    """
    Return the receipt of the first command from which on all are zero.

    :returns: None if the last one is not zero, or there is none.
    """
    first = None
    for at_ns, twist in between(commands, since_ns, until_ns):
        if not is_zero(twist):
            first = None
        elif first is None:
            first = at_ns
    return first


def first_where(
    commands: Sequence[Command], since_ns: int, wanted: Callable[[tuple[float, ...]], bool]
) -> int | None:
    """Return the receipt of the first command after ``since_ns`` with a wanted twist."""
    return next((at_ns for at_ns, twist in between(commands, since_ns) if wanted(twist)), None)


def largest(commands: Sequence[Command], since_ns: int, until_ns: float = math.inf) -> float:
    """Return the largest commanded speed over the floor, m/s; inf for NaN and inf."""
    speeds = [
        math.hypot(*twist[:2]) if all(map(math.isfinite, twist)) else math.inf
        for _, twist in between(commands, since_ns, until_ns)
    ]
    return max(speeds, default=0.0)


def longest_gap(commands: Sequence[Command], since_ns: int, until_ns: float = math.inf) -> int:
    """Return the longest time without a command, from the last one before ``since_ns``."""
    times = [at_ns for at_ns, _ in commands if at_ns <= until_ns]
    return max(
        (later - earlier for earlier, later in itertools.pairwise(times) if later > since_ns),
        default=0,
    )


def rolled(poses: Sequence[Pose], since_ns: int) -> tuple[float, int | None]:
    """
    Return how far the base rolled from a time until it stood, and when it stood.

    :param poses: also one before that time, to interpolate the position then.
    :returns: metres along its path; None if it never stood.
    """
    start = _position_at(poses, since_ns)
    metres = 0.0
    for at_ns, x, y, speed in between(poses, since_ns):
        if start is not None:
            metres += math.dist(start, (x, y))
        start = (x, y)
        if speed < STANDS_MPS:
            return metres, at_ns
    return metres, None


def slows_from(poses: Sequence[Pose], since_ns: int) -> int | None:
    """Return when the base was first slower than 95 % of its speed at ``since_ns``."""
    before = [speed for at_ns, _, _, speed in poses if at_ns <= since_ns]
    if not before:
        return None
    return next(
        (at_ns for at_ns, _, _, speed in between(poses, since_ns) if speed < 0.95 * before[-1]),
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
    Return the time at which something regular is first late.

    :param arrivals: times of receipt, in order; the last one before ``since_ns`` counts as well.
    :param periods: how many may pass after an arrival.
    :returns: None if all were in time up to ``until_ns``.
    """
    limit_ns = round(periods * period_ns)
    last = max((at_ns for at_ns in arrivals if at_ns <= since_ns), default=since_ns)
    for at_ns in (at_ns for at_ns in arrivals if since_ns < at_ns <= until_ns):
        if at_ns - last > limit_ns:
            return max(last + limit_ns, since_ns)
        last = at_ns
    return max(last + limit_ns, since_ns) if until_ns - last > limit_ns else None


def silent_from(arrivals: Sequence[int], since_ns: int, period_ns: int) -> int:
    """Return when the first arrival that is missing was due."""
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
    Return when it can be known that proposals arrive too seldom or too old.

    That is one period after the last one before a silence of more than ``silent_ns``, or when the
    newest one's image exceeds the age ``age_ns``, whichever is first.
    """
    found = []
    rows = [*sorted(proposals), (until_ns, until_ns)]
    for (last_ns, image_ns), (at_ns, _) in itertools.pairwise(rows):
        if at_ns <= since_ns:
            continue
        if at_ns - last_ns > silent_ns:
            found.append(last_ns + period_ns)
        if at_ns > image_ns + age_ns:
            found.append(image_ns + age_ns)
    return max(min(found), since_ns) if found else None


def _position_at(poses: Sequence[Pose], at_ns: int) -> tuple[float, float] | None:
    """Return x and y at a time, interpolated between the poses before and after it."""
    before = [pose for pose in poses if pose[0] <= at_ns]
    after = [pose for pose in poses if pose[0] > at_ns]
    if not before or not after:
        return None
    (t0, x0, y0, _), (t1, x1, y1, _) = before[-1], after[0]
    share = (at_ns - t0) / (t1 - t0)
    return x0 + share * (x1 - x0), y0 + share * (y1 - y0)
