"""The drill's rows as a table: for people, and for a page."""

import os
from collections.abc import Sequence

from mobile_vla_ros import text_table

HEAD = ('fault', 'observable', 'zero after (ms)', 'promise', '', 'rolled (m)', 'guard says')
MARKS = {True: 'kept', False: 'BROKEN', None: 'UNSURE'}
FOOT = (
    'Milliseconds are from the moment at which the fault can be known of to the moment at '
    'which DDS received the first command that is zero and after which all are; minus: before '
    'it. A stop counts when the guard says that it was for this fault, and when the base '
    'stays where it is after the fault is gone. Metres are from the fault to standstill, in '
    'an arena whose base brakes with at most 1.5 m/s^2.'
)


def cells(row: dict) -> tuple[str, ...]:
    """Return what the table shows of a row of the drill (`drill_row.Row`)."""
    zero, metres, attempts = row['zero_ms'], row['rolled_m'], row['attempts']
    mark = MARKS[row['kept']] + (f' (attempt {attempts})' if attempts > 1 else '')
    says = '; '.join(filter(None, (row['guard'], row['note'])))
    return (
        row['title'],
        row['observable'],
        '-' if zero is None else f'{zero:.0f}',
        row['promise'],
        mark,
        '-' if metres is None else f'{metres:.2f}',
        says,
    )


def table(rows: Sequence[dict]) -> str:
    """Return the rows as text in columns."""
    return text_table.table([HEAD, *map(cells, rows)])


def markdown(rows: Sequence[dict]) -> str:
    """Return the rows as a Markdown table."""
    return text_table.markdown(HEAD, map(cells, rows))


def foot(rows: Sequence[dict]) -> str:
    """Return what is to be known of the figures, and how far this run can be trusted."""
    worst = max((row['late_ms'] for row in rows), default=0.0)
    again = [row['fault'] for row in rows if row['attempts'] > 1]
    load = os.getloadavg()[0]
    waited = max((row['waited_ms'] for row in rows), default=0.0)
    lines = [
        FOOT,
        f'The drill itself was at most {worst:.0f} ms late in what it did, and the '
        f'nodes that were to stop waited at most {waited:.0f} ms for a CPU; '
        f'{os.cpu_count()} cores, load {load:.1f} in the last minute.',
    ]
    if again:
        lines.append(
            'Measured again, because an attempt could not tell (what it gave is in the '
            'last column): ' + ', '.join(again) + '.'
        )
    stops = [f'{row["fault"]} ({stop})' for row in rows for stop in row['stops_before']]
    if stops:
        lines.append(
            'The drive was stopped before the fault, and begun again: ' + ', '.join(stops) + '.'
        )
    return '\n'.join(lines)


def kept(rows: Sequence[dict]) -> bool:
    """Whether every promise was kept; one of which nothing can be said was not."""
    return all(row['kept'] is True for row in rows)
