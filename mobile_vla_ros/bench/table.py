"""Figures of a benchmark beside their promises."""

from dataclasses import asdict, dataclass

from mobile_vla_ros import text_table


@dataclass(frozen=True)
class Figure:
    """
    One line of a benchmark's table.

    :param part: the part of the benchmark.
    :param name: the quantity measured.
    :param value: the figure for programs.
    :param shown: the figure for people, with its unit.
    :param promise: in words; empty for a figure without one.
    :param kept: whether the promise is kept; None without a promise.
    """

    part: str
    name: str
    value: float | int | str | None
    shown: str
    promise: str = ''
    kept: bool | None = None


def at_most(
    part: str, name: str, value: float, limit: float, unit: str = '', digits: int | None = 2
) -> Figure:
    """Return a figure promised to be at most the limit."""
    return Figure(
        part,
        name,
        value,
        _text(value, unit, digits),
        f'at most {_text(limit, unit, None)}',
        value <= limit,
    )


def at_least(part: str, name: str, value: float, limit: float, unit: str = '') -> Figure:
    """Return a figure promised to be at least the limit."""
    return Figure(
        part,
        name,
        value,
        _text(value, unit, 2),
        f'at least {_text(limit, unit, None)}',
        value >= limit,
    )


def none_of(part: str, name: str, count: int, of: int | None = None) -> Figure:
    """Return a count promised to be zero."""
    return Figure(
        part, name, count, f'{count}' if of is None else f'{count} of {of}', 'none', count == 0
    )


def all_of(part: str, name: str, count: int, of: int) -> Figure:
    """Return a count promised to be complete."""
    return Figure(part, name, count, f'{count} of {of}', 'all', count == of)


def plain(
    part: str, name: str, value: float | int | str | None, unit: str = '', digits: int | None = 2
) -> Figure:
    """Return a figure without a promise."""
    return Figure(part, name, value, _text(value, unit, digits))


def table(figures: list[Figure]) -> str:
    """Return the figures as a text table."""
    marks = {None: '', True: 'kept', False: 'BROKEN'}
    rows = [('part', 'figure', 'measured', 'promised', '')]
    rows += [(one.part, one.name, one.shown, one.promise, marks[one.kept]) for one in figures]
    return text_table.table(rows)


def as_json(figures: list[Figure]) -> list[dict]:
    """Return the figures as JSON values."""
    return [asdict(one) for one in figures]


def _text(value, unit: str, digits: int | None) -> str:
    if isinstance(value, float):
        value = f'{value:.3g}' if digits is None else f'{value:.{digits}f}'
    return f'{value} {unit}'.rstrip()
