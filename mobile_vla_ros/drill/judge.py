"""Whether a promise was kept, from what was heard of a drive: pure."""

from dataclasses import dataclass, replace

from mobile_vla_ros.drill.catalog import (
    BASE,
    ENDS,
    HELD,
    LATE,
    LETS_GO,
    LIMITED,
    NOTHING,
    PROMISED_MS,
    SPEED_MPS,
    STOPS,
    TAKEN,
    Fault,
)
from mobile_vla_ros.drill.measure import (
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

# Float32 is nowhere on the way, but a limit may be reached by a sum of steps.
WITHIN = 1e-6
MS = 1e6
# Who refuses an image for its age reports one of these.
OLD = {StopReason.CAMERA_STAMP_OLD.value, StopReason.OBSERVATION_OLD.value}
NOT_ON = 'the drive did not go on'


@dataclass(frozen=True)
class Heard:
    """
    What was heard of one drive; times in nanoseconds of the steady clock.

    :param injected_ns: when the fault was made.
    :param seen_ns: from when on it could be known of; None: at no time.
    :param until_ns: when it was undone.
    :param commands: what the base was told, as all lists in the order it came; also from after
        the fault.
    :param odom: (ns, x, y, speed).
    :param status: (ns, ``GuardStatus``).
    :param health: (ns, whether inference proposes).
    :param person: m/s and rad/s, (6,), of the person who takes over.
    :param hold_ns: how long the policy stays out after a person's last command.
    :param late_ns: how late the drill itself was at worst.
    :param refusals: of each try to arm during the fault, what refused it or ended the drive
        (``StopReason`` values and names of checks); empty of one that was neither.
    """

    injected_ns: int
    seen_ns: int | None
    until_ns: int
    commands: list
    odom: list
    status: list
    health: list
    person: tuple[float, ...]
    hold_ns: int
    late_ns: int
    refusals: tuple[tuple[str, ...], ...] = ()


def judge(fault: Fault, heard: Heard) -> Row:
    """Return the row of a fault."""
    found = first_report(heard, fault.promise)
    metres, stood_ns = rolled(heard.odom, heard.injected_ns)
    common = {
        'fault': fault.name,
        'title': fault.title,
        'observable': fault.observable,
        'promise': fault.promised,
        'guard': in_words(found) if fault.because else '',
        'late_ms': round(heard.late_ns / MS, 1),
    }
    if heard.seen_ns is None:
        return Row(**common, kept=None, note='it could not be made here')
    common['observable_ms'] = _ms(heard.seen_ns - heard.injected_ns)
    # A fault whose every command counts does so from the moment that it was made.
    since = heard.injected_ns if fault.promise == NOTHING else heard.seen_ns
    common['gap_ms'] = _ms(longest_gap(heard.commands, heard.injected_ns, heard.until_ns))
    common['largest_mps'] = largest(heard.commands, since, heard.until_ns)
    if stood_ns is not None and fault.promise not in (LIMITED, NOTHING, HELD, TAKEN):
        common['rolled_m'] = round(metres, 2)
    row = JUDGES[fault.promise](heard, common)
    if row.kept and fault.because and not _is_because_of(found, fault):
        # On a busy machine an image is soon too old: that shows nothing of this fault.
        return replace(
            row,
            kept=None,
            note='; '.join(
                filter(None, (row.note, f'for another reason than {" or ".join(fault.because)}'))
            ),
        )
    return row


def first_report(heard: Heard, promise: str) -> GuardStatus | None:
    """
    Return the guard's first report after the fault of why it stopped, else of who drives.

    Where nothing may be driven at all, this is the first fault.

    :returns: None when it reported nothing.
    """
    reports = [one for _, one in between(heard.status, heard.injected_ns, heard.until_ns)]
    if promise == NOTHING:
        wanted = [one for one in reports if one.state == State.FAULT]
    else:
        wanted = [one for one in reports if one.stop_reason != StopReason.NONE] or [
            one for one in reports if one.state != State.DRIVING
        ]
    return next(iter(wanted or reports[-1:]), None)


def in_words(status: GuardStatus | None) -> str:
    """Return state and sentence of a report (or, without one, who drives); '' of none."""
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


def _first_is_fault(heard: Heard, promise: str) -> bool:
    found = first_report(heard, promise)
    return found is not None and found.state == State.FAULT


def _ms(nanoseconds: float) -> float:
    return round(nanoseconds / MS, 1)


def _moves(twist: tuple[float, ...]) -> bool:
    return not is_zero(twist)


def _ends(heard: Heard, common: dict, until_ns: int | None = None) -> Row:
    """Judge the zero alone, which has to last until a moment: until the fault was undone."""
    until_ns = heard.until_ns if until_ns is None else until_ns
    zero = zero_from(heard.commands, heard.injected_ns, until_ns)
    if zero is not None:
        zero_ms = _ms(zero - heard.seen_ns)
        return Row(**common, kept=zero_ms <= PROMISED_MS, zero_ms=zero_ms)
    if not between(heard.commands, heard.injected_ns, until_ns):
        note = 'no command came after it'
    else:
        note = f'the command was not zero {(until_ns - heard.seen_ns) / 1e9:.1f} s later'
    return Row(**common, kept=False, note=note)


def _stops(heard: Heard, common: dict) -> Row:
    """Judge the zero, and that it lasts when the fault is gone: nobody has armed again."""
    row = _ends(heard, common)
    if row.zero_ms is None:
        return row
    again = first_where(heard.commands, heard.until_ns, _moves)
    status = between(heard.status, heard.until_ns)
    if again is not None:
        after_s = (again - heard.until_ns) / 1e9
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
        return replace(row, kept=None, note='the guard said nothing when the fault was gone')
    return row


def _late(heard: Heard, common: dict) -> Row:
    """Judge the silence before the first late image, and what is made of those that come."""
    row = _stops(heard, common)
    if not row.kept:
        return row
    refused_for_age = next((one for one in heard.refusals if OLD & {*one}), None)
    if refused_for_age is None or not all(heard.refusals):
        results = [', '.join(one) or 'nothing' for one in heard.refusals]
        return replace(
            row,
            kept=None,
            note=f'what refused arming with late images: {"; ".join(results) or "nothing"}',
        )
    return replace(
        row,
        note=f'armed with late images, tried {len(heard.refusals)} times, refused: '
        + ', '.join(refused_for_age),
    )


def _limited(heard: Heard, common: dict) -> Row:
    most = common['largest_mps']
    drove = most > 0.0
    if not drove and _first_is_fault(heard, LIMITED):
        return _not_on(heard, common)
    return Row(
        **common,
        kept=drove and most <= SPEED_MPS + WITHIN,
        note=f'{most:.3f} m/s at most' if drove else 'the base was stopped',
    )


def _nothing(heard: Heard, common: dict) -> Row:
    commands = between(heard.commands, heard.injected_ns, heard.until_ns)
    moving = sum(map(_moves, (twist for _, twist in commands)))
    # Without a fault it was never armed, or nothing was ever proposed: that shows nothing.
    refused = _first_is_fault(heard, NOTHING)
    return Row(
        **common,
        kept=False if moving else True if refused and commands else None,
        note=f'{moving} of {len(commands)} commands not zero',
    )


def _held(heard: Heard, common: dict) -> Row:
    zero = first_where(heard.commands, heard.injected_ns, is_zero)
    if zero is None:
        return Row(**common, kept=False, note='the old plan was played on')
    common['zero_ms'] = zero_ms = _ms(zero - heard.seen_ns)
    again = first_where(heard.commands, zero, _moves)
    if again is None:
        return _not_on(heard, common)
    held = next(
        (at for at, proposes in heard.health if at > heard.injected_ns and not proposes), None
    )
    planned = next(
        (at for at, proposes in heard.health if held is not None and at > held and proposes), None
    )
    if planned is None or again < planned:
        certain = planned is None or again + heard.late_ns < planned
        return Row(**common, kept=False, certain=certain, note='it went on without a new plan')
    return Row(
        **common,
        kept=zero_ms <= PROMISED_MS,
        note=f'went on {(again - heard.seen_ns) / MS:.0f} ms after it',
    )


def _lets_go(heard: Heard, common: dict) -> Row:
    """Judge the zero up to the end of the hold, and that the policy drives on after it."""
    hold_ns = heard.injected_ns + heard.hold_ns
    row = _ends(heard, common, hold_ns)
    if row.zero_ms is None:
        return row
    again = first_where(heard.commands, hold_ns, _moves)
    if again is None:
        return _not_on(heard, {**common, 'zero_ms': row.zero_ms})
    return replace(
        row,
        note=f'the policy went on {(again - heard.injected_ns) / MS:.0f} ms '
        'after the last message',
    )


def _not_on(heard: Heard, common: dict) -> Row:
    """
    Return the row of a drive that was to go on and did not: broken.

    But for one that ended in a fault: that is no part of what was tried, and of a busy machine
    often enough, so it is measured again.
    """
    reports = between(heard.status, heard.injected_ns, heard.until_ns)
    fault = next((one.sentence for _, one in reports if one.state == State.FAULT), None)
    if fault is not None:
        return Row(**common, kept=None, note=f'{NOT_ON}: {fault}')
    return Row(**common, kept=False, certain=True, note=NOT_ON)


def _taken(heard: Heard, common: dict) -> Row:
    def theirs(twist):
        return all(
            abs(value - wanted) < WITHIN for value, wanted in zip(twist, heard.person, strict=True)
        )

    taken = first_where(heard.commands, heard.injected_ns, theirs)
    if taken is None and _first_is_fault(heard, TAKEN):
        return _not_on(heard, common)
    if taken is None:
        return Row(**common, kept=False, note="the person's command never came out")
    common['zero_ms'] = taken_ms = _ms(taken - heard.seen_ns)
    others = [
        twist for _, twist in between(heard.commands, taken, heard.until_ns) if not theirs(twist)
    ]
    if any(map(_moves, others)):
        return Row(**common, kept=False, certain=True, note='then something else came out')
    if others:  # they fell silent: it is the drill that sends for them
        return Row(**common, kept=None, note='then it was stopped')
    return Row(**common, kept=taken_ms <= PROMISED_MS, note='to their command, not to zero')


def _base(heard: Heard, common: dict) -> Row:
    last = max((at for at, _ in heard.commands), default=heard.injected_ns)
    slows = slows_from(heard.odom, last)
    if common.get('rolled_m') is None or slows is None:
        return Row(**common, kept=False, note='the base has no timeout of its own: it rolls on')
    return Row(
        **common,
        kept=True,
        note='the base has a timeout of its own: it braked '
        f'{(slows - last) / 1e9:.2f} s after the last command',
    )


JUDGES = {
    STOPS: _stops,
    ENDS: _ends,
    LATE: _late,
    LIMITED: _limited,
    NOTHING: _nothing,
    HELD: _held,
    TAKEN: _taken,
    LETS_GO: _lets_go,
    BASE: _base,
}
