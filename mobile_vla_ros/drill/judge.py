"""Judges whether a promise was kept, from the messages of a drive: pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mobile_vla_ros.drill.catalog import (
    BASE,
    ENDS,
    GRAPH,
    HELD,
    LATE,
    LIMITED,
    NOTHING,
    RELEASE,
    SPEED_MPS,
    STOPS,
    TAKEOVER,
    Fault,
)
from mobile_vla_ros.drill.measure import (
    Command,
    Pose,
    Report,
    between,
    first_where,
    is_zero,
    largest,
    longest_gap,
    rolled,
    slows_from,
    zero_from,
)
from mobile_vla_ros.drill.row import Row
from mobile_vla_ros.safety.status import GuardStatus, State, StopReason

# Float64 all the way, but a sum of steps may reach a limit.
TOLERANCE = 1e-6
MS = 1e6
# Whoever refuses an image for its age reports one of these.
OLD = {StopReason.CAMERA_STAMP_OLD.value, StopReason.OBSERVATION_OLD.value}
NOT_CONTINUED = 'the drive did not go on'


@dataclass(frozen=True)
class DriveLog:
    """
    One drive with a fault; times in nanoseconds of the steady clock.

    :param injected_ns: when the fault was made.
    :param seen_ns: from when on it is observable; None: never.
    :param until_ns: when it was undone.
    :param commands: to the base, in order of receipt as all lists; also from after the fault.
    :param health: (ns, whether inference proposes).
    :param person: command of the person who takes over, (6,) m/s and rad/s.
    :param resumed_ns: when a person handed back to the policy.
    :param late_ns: worst lateness of the drill itself.
    :param refusals: of each attempt to arm during the fault, the reasons that refused it or ended
        the drive (``StopReason`` values and names of checks); empty without either.
    """

    injected_ns: int
    seen_ns: int | None
    until_ns: int
    commands: Sequence[Command]
    odom: Sequence[Pose]
    status: Sequence[Report]
    health: Sequence[tuple[int, bool]]
    person: tuple[float, ...]
    resumed_ns: int
    late_ns: int
    refusals: tuple[tuple[str, ...], ...] = ()

    def seen_ms(self, at_ns: int) -> float:
        """Return milliseconds from when the fault is observable to a time."""
        assert self.seen_ns is not None
        return _ms(at_ns - self.seen_ns)


def judge(fault: Fault, log: DriveLog) -> Row:
    """Return the row of a fault."""
    report = first_report(log, fault.promise)
    metres, stood_ns = rolled(log.odom, log.injected_ns)
    row = Row(
        fault=fault.name,
        title=fault.title,
        observable=fault.observable,
        promise=fault.promised,
        promised_ms=fault.promised_ms,
        guard=in_words(report) if fault.because else '',
        late_ms=round(log.late_ns / MS, 1),
    )
    if log.seen_ns is None:
        return replace(row, note='it could not be made here')
    # Where no command may move the base, those before the fault is observable count as well.
    since = log.injected_ns if fault.promise == NOTHING else log.seen_ns
    stops = fault.promise not in (LIMITED, NOTHING, HELD, TAKEOVER)
    row = JUDGES[fault.promise](
        log,
        replace(
            row,
            observable_ms=_ms(log.seen_ns - log.injected_ns),
            gap_ms=_ms(longest_gap(log.commands, log.injected_ns, log.until_ns)),
            largest_mps=largest(log.commands, since, log.until_ns),
            rolled_m=round(metres, 2) if stops and stood_ns is not None else None,
        ),
    )
    if row.kept and fault.because and not _is_because_of(report, fault):
        # On a busy machine an image is soon too old: that proves nothing about this fault.
        reason = f'for another reason than {" or ".join(fault.because)}'
        return replace(row, kept=None, note='; '.join(filter(None, (row.note, reason))))
    return row


def first_report(log: DriveLog, promise: str) -> GuardStatus | None:
    """
    Return the guard's first report after the fault with a stop reason, else with its driver.

    Where nothing may drive at all, return the first FAULT.

    :returns: None without any report.
    """
    reports = [one for _, one in between(log.status, log.injected_ns, log.until_ns)]
    if promise == NOTHING:
        wanted = [one for one in reports if one.state == State.FAULT]
    else:
        wanted = [one for one in reports if one.stop_reason != StopReason.NONE] or [
            one for one in reports if one.state != State.DRIVING
        ]
    return next(iter(wanted or reports[-1:]), None)


def in_words(status: GuardStatus | None) -> str:
    """Return state and sentence of a report (without a sentence: the source); '' for None."""
    if status is None:
        return ''
    text = status.sentence
    if not text and status.source != 'none':
        text = status.source
    return f'{status.state}: {text}' if text else str(status.state)


def _is_because_of(status: GuardStatus | None, fault: Fault) -> bool:
    return status is not None and any(
        one in fault.because for one in (status.stop_reason, status.state, status.source)
    )


def _first_is_fault(log: DriveLog, promise: str) -> bool:
    report = first_report(log, promise)
    return report is not None and report.state == State.FAULT


def _ms(nanoseconds: float) -> float:
    return round(nanoseconds / MS, 1)


def _moves(twist: tuple[float, ...]) -> bool:
    return not is_zero(twist)


def _ends(log: DriveLog, row: Row, until_ns: int | None = None) -> Row:
    """Judge only the zero, which has to last until ``until_ns`` (default: the fault's end)."""
    until_ns = log.until_ns if until_ns is None else until_ns
    zero_ns = zero_from(log.commands, log.injected_ns, until_ns)
    if zero_ns is not None:
        zero_ms = log.seen_ms(zero_ns)
        return replace(row, kept=zero_ms <= row.promised_ms, zero_ms=zero_ms)
    if not between(log.commands, log.injected_ns, until_ns):
        note = 'no command arrived after it'
    else:
        note = f'the command was not zero {log.seen_ms(until_ns) / 1e3:.1f} s later'
    return replace(row, kept=False, note=note)


def _stops(log: DriveLog, row: Row) -> Row:
    """Judge the zero, and that it lasts after the fault: nobody has armed again."""
    row = _ends(log, row)
    if row.zero_ms is None:
        return row
    again_ns = first_where(log.commands, log.until_ns, _moves)
    status = between(log.status, log.until_ns)
    if again_ns is not None:
        after_s = (again_ns - log.until_ns) / 1e9
        return replace(
            row,
            kept=False,
            certain=True,
            note=f'it drove again by itself {after_s:.1f} s after the fault was gone',
        )
    if any(one.armed for _, one in status):
        return replace(
            row,
            kept=False,
            certain=True,
            note='it was armed when the fault was gone, and nobody had armed it',
        )
    if row.kept and not status:
        return replace(row, kept=None, note='the guard did not report after the fault was gone')
    return row


def _late(log: DriveLog, row: Row) -> Row:
    """Judge the silence before the first late image, and arming with late images."""
    row = _stops(log, row)
    if not row.kept:
        return row
    refused_for_age = next((one for one in log.refusals if OLD & {*one}), None)
    if refused_for_age is None or not all(log.refusals):
        results = [', '.join(one) or 'nothing' for one in log.refusals]
        return replace(
            row,
            kept=None,
            note=f'arming with late images was refused for: {"; ".join(results) or "nothing"}',
        )
    return replace(
        row,
        note=f'armed with late images, tried {len(log.refusals)} times, refused: '
        + ', '.join(refused_for_age),
    )


def _limited(log: DriveLog, row: Row) -> Row:
    fastest = row.largest_mps or 0.0
    drove = fastest > 0.0
    if not drove and _first_is_fault(log, LIMITED):
        return _not_continued(log, row)
    return replace(
        row,
        kept=drove and fastest <= SPEED_MPS + TOLERANCE,
        note=f'{fastest:.3f} m/s at most' if drove else 'the base was stopped',
    )


def _nothing(log: DriveLog, row: Row) -> Row:
    commands = between(log.commands, log.injected_ns, log.until_ns)
    moving = sum(map(_moves, (twist for _, twist in commands)))
    # Without a fault it was never armed, or nothing was ever proposed: that proves nothing.
    refused = _first_is_fault(log, NOTHING)
    return replace(
        row,
        kept=False if moving else True if refused and commands else None,
        note=f'{moving} of {len(commands)} commands not zero',
    )


def _held(log: DriveLog, row: Row) -> Row:
    zero_ns = first_where(log.commands, log.injected_ns, is_zero)
    if zero_ns is None:
        return replace(row, kept=False, note='the old plan was played on')
    row = replace(row, zero_ms=log.seen_ms(zero_ns))
    again_ns = first_where(log.commands, zero_ns, _moves)
    if again_ns is None:
        return _not_continued(log, row)
    held_ns = next(
        (at for at, proposes in log.health if at > log.injected_ns and not proposes), None
    )
    planned_ns = next(
        (at for at, proposes in log.health if held_ns is not None and at > held_ns and proposes),
        None,
    )
    if planned_ns is None or again_ns < planned_ns:
        certain = planned_ns is None or again_ns + log.late_ns < planned_ns
        return replace(row, kept=False, certain=certain, note='it went on without a new plan')
    return replace(
        row,
        kept=log.seen_ms(zero_ns) <= row.promised_ms,
        note=f'went on {log.seen_ms(again_ns):.0f} ms after it',
    )


def _release(log: DriveLog, row: Row) -> Row:
    """Judge the zero until a person hands back, and that the policy drives on after that."""
    row = _ends(log, row, log.resumed_ns)
    if row.zero_ms is None:
        return row
    again_ns = first_where(log.commands, log.resumed_ns, _moves)
    if again_ns is None:
        return _not_continued(log, row)
    after_ms = (again_ns - log.resumed_ns) / MS
    return replace(row, note=f'the policy went on {after_ms:.0f} ms after resume')


def _not_continued(log: DriveLog, row: Row) -> Row:
    """
    Return the row of a drive that had to go on and did not: broken.

    Undecided if it ended in a fault, which is no part of the test but common on a busy machine.
    """
    reports = between(log.status, log.injected_ns, log.until_ns)
    fault = next((one.sentence for _, one in reports if one.state == State.FAULT), None)
    if fault is not None:
        return replace(row, kept=None, note=f'{NOT_CONTINUED}: {fault}')
    return replace(row, kept=False, certain=True, note=NOT_CONTINUED)


def _takeover(log: DriveLog, row: Row) -> Row:
    def theirs(twist: tuple[float, ...]) -> bool:
        pairs = zip(twist, log.person, strict=True)
        return all(abs(value - wanted) < TOLERANCE for value, wanted in pairs)

    theirs_ns = first_where(log.commands, log.injected_ns, theirs)
    if theirs_ns is None and _first_is_fault(log, TAKEOVER):
        return _not_continued(log, row)
    if theirs_ns is None:
        return replace(row, kept=False, note="the person's command was never published")
    row = replace(row, zero_ms=log.seen_ms(theirs_ns))
    others = [
        twist for _, twist in between(log.commands, theirs_ns, log.until_ns) if not theirs(twist)
    ]
    if any(map(_moves, others)):
        return replace(row, kept=False, certain=True, note='then another command was published')
    if others:  # the person fell silent: it is the drill that sends for them
        return replace(row, kept=None, note='then it was stopped')
    kept = log.seen_ms(theirs_ns) <= row.promised_ms
    return replace(row, kept=kept, note='to their command, not to zero')


def _base(log: DriveLog, row: Row) -> Row:
    last_ns = max((at for at, _ in log.commands), default=log.injected_ns)
    slows_ns = slows_from(log.odom, last_ns)
    if row.rolled_m is None or slows_ns is None:
        return replace(row, kept=False, note='the base has no timeout of its own: it rolls on')
    return replace(
        row,
        kept=True,
        note='the base has a timeout of its own: it braked '
        f'{(slows_ns - last_ns) / 1e9:.2f} s after the last command',
    )


JUDGES: dict[str, Callable[[DriveLog, Row], Row]] = {
    STOPS: _stops,
    GRAPH: _stops,
    ENDS: _ends,
    LATE: _late,
    LIMITED: _limited,
    NOTHING: _nothing,
    HELD: _held,
    TAKEOVER: _takeover,
    RELEASE: _release,
    BASE: _base,
}
