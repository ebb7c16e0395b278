"""One line of the drill's table, how certain it is, and the line of several attempts: pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from mobile_vla_ros.drill.catalog import PROMISED_MS


@dataclass(frozen=True)
class Row:
    """
    One line of the drill's table.

    :param kept: whether the promise was kept; None: undecided.
    :param certain: broken in a way that no waiting for a CPU explains.
    :param zero_ms: from when the fault is observable to the promised command (zero, except after
        a takeover); negative: before it; None: never.
    :param rolled_m: from the fault until the base stood; None if it did not, or need not.
    :param observable_ms: from the fault until it is observable.
    :param largest_mps: largest speed commanded after that.
    :param gap_ms: longest time without a command meanwhile.
    :param guard: the guard's own report of the stop.
    :param late_ms: worst lateness of the drill itself meanwhile.
    :param waited_ms: how long the nodes that had to stop it waited for a CPU until they did.
    :param attempts: how many measurements were made.
    :param stops_before: the guard's reports of stops before the fault.
    :param promised_ms: the time in which the promise has to be kept.
    """

    fault: str
    title: str
    observable: str
    promise: str
    kept: bool | None = None
    certain: bool = False
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
    promised_ms: float = PROMISED_MS

    def as_dict(self) -> dict:
        """Return the row as a JSON object."""
        return asdict(self)


def sure(row: Row) -> bool:
    """
    Return whether the verdict holds on a busy machine.

    A promise is only kept if it is so with the drill's own lateness added; and only broken if it
    would also be without the nodes' waiting for a CPU.
    """
    if row.kept is None:
        return False
    if row.certain or row.zero_ms is None:
        return True
    if row.kept:
        return row.zero_ms + row.late_ms <= row.promised_ms
    return row.zero_ms - max(row.late_ms, row.waited_ms) > row.promised_ms


def last_of(rows: Sequence[Row]) -> Row:
    """
    Return one row for all attempts at a fault.

    It is the last one, since only an undecided attempt is followed by another. Its note lists the
    results of the others, so that a lucky attempt does not hide them.
    """
    row = rows[-1]
    if row.kept is not None and not sure(row):
        row = replace(row, kept=None, note=in_short(row))
    before = ', '.join(
        dict.fromkeys(short for short in map(in_short, rows[:-1]) if short != row.note)
    )
    note = '; '.join(filter(None, (row.note, before and f'before: {before}')))
    return replace(row, attempts=len(rows), note=note)


def in_short(row: Row) -> str:
    """Return the result of an undecided attempt, and why it is undecided."""
    if row.kept is None:
        return '; '.join(filter(None, (row.guard, row.note)))
    if row.kept:
        return f'kept ({row.zero_ms:.0f} ms) with the drill itself {row.late_ms:.0f} ms late'
    name, waited_ms = max(
        ('the drill', row.late_ms), ('a node', row.waited_ms), key=lambda one: one[1]
    )
    return f'broken ({row.zero_ms:.0f} ms) while {name} waited {waited_ms:.0f} ms for a CPU'
