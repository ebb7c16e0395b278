"""Whether a promise was kept, from what was heard of a drive: pure."""

from dataclasses import asdict, dataclass, field

from mobile_vla_ros.bringup.drill import (
    BASE,
    HELD,
    LIMITED,
    NOTHING,
    PROMISED_MS,
    SPEED_MPS,
    STOPS,
    TAKEN,
    Fault,
)
from mobile_vla_ros.nodes.drill_measure import (
    between,
    first_where,
    is_zero,
    largest,
    longest_gap,
    rolled,
    slows_from,
    zero_from,
)

# Float32 is nowhere on the way, but a limit may be reached by a sum of steps.
WITHIN = 1e-6
MS = 1e6
FAULT = 'fault'  # the guard's state


@dataclass(frozen=True)
class Heard:
    """
    What was heard of one drive; times in nanoseconds of the steady clock.

    :param injected_ns: when the fault was made.
    :param seen_ns: from when on it could be known of; None: at no time.
    :param until_ns: when it was undone.
    :param commands: what the base was told, as all lists in the order it came.
    :param odom: (ns, x, y, speed), also from after the fault.
    :param status: (ns, state, {key: value}) of the guard.
    :param health: (ns, whether inference proposes).
    :param person: m/s and rad/s, (6,), of the person who takes over.
    :param hold_ns: how long the policy stays out after a person's last command.
    :param late_ns: how late the drill itself was at worst.
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


@dataclass(frozen=True)
class Row:
    """
    One line of the drill's table.

    :param zero_ms: from when the fault could be known of to the command that is promised (zero but
        for a takeover); negative when it came before; None when it never came.
    :param kept: None when nothing can be said.
    :param rolled_m: from the fault until the base stood; None when it did not, or need not.
    :param observable_ms: from the fault until it could be known of.
    :param largest_mps: largest speed commanded after it could be known of.
    :param gap_ms: longest time without a command meanwhile.
    :param guard: what the guard said first.
    :param note: what else there is to say.
    :param late_ms: how late the drill itself was at worst meanwhile.
    :param waited_ms: how long the nodes that were to stop it waited for a CPU until they did.
    :param attempts: how often it was measured.
    :param stops_before: what the guard said where it stopped the drive before the fault.
    """

    fault: str
    title: str
    observable: str
    promise: str
    kept: bool | None
    zero_ms: float | None = None
    rolled_m: float | None = None
    observable_ms: float | None = None
    largest_mps: float | None = None
    gap_ms: float | None = None
    guard: str = ''
    note: str = ''
    late_ms: float = 0.0
    waited_ms: float = 0.0
    attempts: int = 1
    stops_before: list[str] = field(default_factory=list)

    def as_dict(self) -> dict:
        """Return the row as JSON holds it."""
        return asdict(self)


def judge(fault: Fault, heard: Heard) -> Row:
    """Return the row of a fault."""
    metres, stood_ns = rolled(heard.odom, heard.injected_ns)
    common = {
        'fault': fault.name, 'title': fault.title, 'observable': fault.observable,
        'promise': fault.promised,
        'guard': '' if fault.name.startswith('guard_') else says(
            heard, (FAULT,) if fault.promise == NOTHING else ()),
        'late_ms': round(heard.late_ns / MS, 1)}
    if heard.seen_ns is None:
        return Row(**common, kept=None, note='it could not be made here')
    common['observable_ms'] = _ms(heard.seen_ns - heard.injected_ns)
    # A fault whose every command counts does so from the moment that it was made.
    since = heard.injected_ns if fault.promise == NOTHING else heard.seen_ns
    common['gap_ms'] = _ms(longest_gap(heard.commands, heard.injected_ns, heard.until_ns))
    common['largest_mps'] = largest(heard.commands, since, heard.until_ns)
    if stood_ns is not None and fault.promise in (STOPS, BASE):
        common['rolled_m'] = round(metres, 2)
    return JUDGES[fault.promise](heard, common)


def sure(row: Row) -> bool:
    """
    Whether a busy machine leaves the answer as it is.

    A promise is only kept if it is so with the drill's own lateness added; and only broken if it
    would be had the nodes never waited for a CPU.
    """
    if row.kept is None or row.zero_ms is None:
        return True
    if row.kept:
        return row.zero_ms + row.late_ms <= PROMISED_MS
    return row.zero_ms - max(row.late_ms, row.waited_ms) > PROMISED_MS


def says(heard: Heard, states: tuple[str, ...] = ()) -> str:
    """
    Return what the guard said first after the fault that it had not said before it.

    :param states: those that are looked for; none: every one but driving.
    :returns: state and reason (or, without one, who drives); '' when it said nothing.
    """
    told = [(state, values.get('reason', ''), values.get('source', ''))
            for _, state, values in between(heard.status, heard.injected_ns, heard.until_ns)]
    wanted = [one for one in told
              if (one[0] in states if states else one[0] != 'driving')] or told[-1:]
    if not wanted:
        return ''
    state, reason, source = wanted[0]
    if not reason and source != 'none':
        reason = source
    return f'{state}: {reason}' if reason else state


def _ms(nanoseconds: float) -> float:
    return round(nanoseconds / MS, 1)


def _stops(heard: Heard, common: dict) -> Row:
    until_ns = heard.until_ns
    note = ''
    lets_go = common['fault'] == 'teleop_lets_go'
    if lets_go:
        # The command for the policy's return is wished for; until then there is none.
        until_ns = heard.injected_ns + heard.hold_ns
        again = first_where(heard.commands, until_ns, lambda twist: not is_zero(twist))
        note = 'the policy did not go on' if again is None else (
            f'the policy went on {(again - heard.injected_ns) / MS:.0f} ms after the last message')
    zero = zero_from(heard.commands, heard.injected_ns, until_ns)
    if zero is None:
        return Row(**common, kept=False, note=_why_not(heard, until_ns))
    zero_ms = _ms(zero - heard.seen_ns)
    return Row(**common, kept=zero_ms <= PROMISED_MS, zero_ms=zero_ms, note=note)


def _why_not(heard: Heard, until_ns: int) -> str:
    if not between(heard.commands, heard.injected_ns, until_ns):
        return 'no command came after it'
    return f'the command was not zero {(until_ns - heard.seen_ns) / 1e9:.1f} s later'


def _limited(heard: Heard, common: dict) -> Row:
    most = common['largest_mps']
    drove = most > 0.0
    return Row(**common, kept=drove and most <= SPEED_MPS + WITHIN,
               note=f'{most:.3f} m/s at most' if drove else 'the base was stopped')


def _nothing(heard: Heard, common: dict) -> Row:
    commands = between(heard.commands, heard.injected_ns, heard.until_ns)
    moving = sum(not is_zero(twist) for _, twist in commands)
    # Without a fault it was never armed, or nothing was ever proposed: that shows nothing.
    refused = common['guard'].startswith(FAULT)
    return Row(**common, kept=refused and bool(commands) and not moving,
               note=f'{moving} of {len(commands)} commands not zero')


def _held(heard: Heard, common: dict) -> Row:
    zero = first_where(heard.commands, heard.injected_ns, is_zero)
    if zero is None:
        return Row(**common, kept=False, note='the old plan was played on')
    zero_ms = _ms(zero - heard.seen_ns)
    again = first_where(heard.commands, zero, lambda twist: not is_zero(twist))
    held = next((at for at, proposes in heard.health
                 if at > heard.injected_ns and not proposes), None)
    planned = next((at for at, proposes in heard.health
                    if held is not None and at > held and proposes), None)
    if again is None:
        return Row(**common, kept=zero_ms <= PROMISED_MS, zero_ms=zero_ms,
                   note='the drive did not go on')
    early = planned is None or again < planned
    return Row(**common, kept=zero_ms <= PROMISED_MS and not early, zero_ms=zero_ms,
               note='it went on without a new plan' if early else
               f'went on {(again - heard.seen_ns) / MS:.0f} ms after it')


def _taken(heard: Heard, common: dict) -> Row:
    taken = first_where(heard.commands, heard.injected_ns, lambda twist: all(
        abs(value - wanted) < WITHIN
        for value, wanted in zip(twist, heard.person, strict=True)))
    if taken is None:
        return Row(**common, kept=False, note="the person's command never came out")
    taken_ms = _ms(taken - heard.seen_ns)
    return Row(**common, kept=taken_ms <= PROMISED_MS, zero_ms=taken_ms,
               note='to their command, not to zero')


def _base(heard: Heard, common: dict) -> Row:
    last = max((at for at, _ in heard.commands), default=heard.injected_ns)
    slows = slows_from(heard.odom, last)
    if common.get('rolled_m') is None or slows is None:
        return Row(**common, kept=False,
                   note='the base has no timeout of its own: it rolls on')
    return Row(**common, kept=True, note='the base has a timeout of its own: it braked '
               f'{(slows - last) / 1e9:.2f} s after the last command')


JUDGES = {STOPS: _stops, LIMITED: _limited, NOTHING: _nothing, HELD: _held, TAKEN: _taken,
          BASE: _base}
