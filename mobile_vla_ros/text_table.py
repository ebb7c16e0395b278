"""Text tables: aligned columns for a terminal, and Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

GAP = '  '


def line(cells: Iterable[object], widths: Sequence[int], align: str = '<') -> str:
    """
    Return a row of cells padded to these widths; of a table whose rows are printed as they come.

    :param align: ``<`` or ``>`` for each column; the last one holds for all columns after it.
    """
    sides = zip_longest(align[: len(widths)], widths, fillvalue=align[-1])
    padded = (f'{cell!s:{side}{width}}' for cell, (side, width) in zip(cells, sides, strict=True))
    return GAP.join(padded).rstrip()


def table(rows: Iterable[Iterable[object]], align: str = '<') -> str:
    """Return rows, the heads among them, in columns as wide as their longest cell."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return '\n'.join(line(row, widths, align) for row in texts)


def markdown(head: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """Return a table as Markdown."""
    lines = [head, ['---'] * len(head), *rows]
    texts = ([str(cell).replace('|', '/') for cell in one] for one in lines)
    return '\n'.join(f'| {" | ".join(one)} |' for one in texts)


def grouped(
    names: Sequence[str], groups: Mapping[str, Sequence[Sequence[str]]], columns: int
) -> str:
    """
    Return groups of columns beside the names of their rows, each below its title.

    :param names: of the rows.
    :param groups: title to rows of cells, the heads first (``cells``).
    :param columns: width of the terminal; groups that do not fit go below the others.
    """
    left = [name.ljust(max(map(len, names))) for name in ('', '', *names)]
    tiers = [left]
    for title, rows in groups.items():
        block = [GAP + text for text in (title, *table(rows, '>').splitlines())]
        width = max(map(len, block))
        if tiers[-1] is not left and len(tiers[-1][0]) + width > columns:
            tiers.append(left)
        pairs = zip(tiers[-1], block, strict=True)
        tiers[-1] = [before + text.ljust(width) for before, text in pairs]
    return '\n\n'.join('\n'.join(text.rstrip() for text in tier if text.strip()) for tier in tiers)


def cells(rows: Iterable[Mapping], columns: Mapping[str, tuple[str, str]]) -> list[list[str]]:
    """
    Return the heads, and what each row has for each column.

    :param columns: key of a row to head and format.
    """
    return [
        [head for head, _ in columns.values()],
        *([number(row[key], form) for key, (_, form) in columns.items()] for row in rows),
    ]


def number(value: float | None, form: str) -> str:
    """Return a number as this format says, a dash for none."""
    return '–' if value is None else format(value, form)
