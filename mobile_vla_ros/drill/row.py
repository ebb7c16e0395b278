"""One line of the drill's table, how far it can be trusted, and what becomes of several: pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from mobile_vla_ros.drill.catalog import PROMISED_MS


@dataclass(frozen=True)
class Row:
    """
    One line of the drill's table.

    :param zero_ms: from when the fault could be known of to the command that is promised (zero but
        for a takeover); negative when it came before; None when it never came.
    :param kept: None when nothing can be said.
    :param certain: it is broken in a way that no waiting for a CPU explains.
    :param rolled_m: from the fault until the base stood; None when it did not, or need not.
    :param observable_ms: from the fault until it could be known of.
    :param largest_mps: largest speed commanded after it could be known of.
    :param gap_ms: longest time without a command meanwhile.
    :param guard: what the guard stopped for, in its own words.
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

    def as_dict(self) -> dict:
        """Return the row as JSON holds it."""
        return asdict(self)


def sure(row: Row) -> bool:
    """
    Whether a busy machine leaves the answer as it is.

    A promise is only kept if it is so with the drill's own lateness added; and only broken if it
    would be had the nodes never waited for a CPU.
    """
    if row.kept is None:
        return False
    if row.certain or row.zero_ms is None:
        return True
    if row.kept:
        return row.zero_ms + row.late_ms <= PROMISED_MS
    return row.zero_ms - max(row.late_ms, row.waited_ms) > PROMISED_MS


def last_of(rows: Sequence[Row]) -> Row:
    """
    Return the row that stands for all attempts at a fault.

    It is the last one, since only what could not tell is followed by another. So that nobody takes
    a lucky attempt for the whole, what the others gave stands in its note.
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
    """Return what an attempt gave that could not tell, and why it could not."""
    if row.kept is None:
        return '; '.join(filter(None, (row.guard, row.note)))
    if row.kept:
        return f'kept ({row.zero_ms:.0f} ms) with the drill itself {row.late_ms:.0f} ms late'
    who, waited_ms = max(
        ('the drill', row.late_ms), ('a node', row.waited_ms), key=lambda one: one[1]
    )
    return f'broken ({row.zero_ms:.0f} ms) while {who} waited {waited_ms:.0f} ms for a CPU'
