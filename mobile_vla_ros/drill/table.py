"""The drill's rows as a table: as text, and as Markdown."""

import os
from collections.abc import Sequence

from mobile_vla_ros import text_table

HEAD = ('fault', 'observable', 'zero after (ms)', 'promise', '', 'rolled (m)', 'guard report')
MARKS = {True: 'kept', False: 'BROKEN', None: 'UNSURE'}
FOOT = (
    'Milliseconds count from when the fault is observable to when DDS received the first command '
    'from which on all are zero; negative: before it. A stop counts if the guard reports that it '
    'was for this fault, and if the base stays at rest after the fault is gone. Metres are from '
    'the fault to standstill, in an arena whose base brakes with at most 1.5 m/s^2.'
)


def cells(row: dict) -> tuple[str, ...]:
    """Return the cells of a row (`row.Row`)."""
    zero, metres, attempts = row['zero_ms'], row['rolled_m'], row['attempts']
    mark = MARKS[row['kept']] + (f' (attempt {attempts})' if attempts > 1 else '')
    report = '; '.join(filter(None, (row['guard'], row['note'])))
    return (
        row['title'],
        row['observable'],
        '-' if zero is None else f'{zero:.0f}',
        row['promise'],
        mark,
        '-' if metres is None else f'{metres:.2f}',
        report,
    )


def table(rows: Sequence[dict]) -> str:
    """Return the rows as aligned text."""
    return text_table.table([HEAD, *map(cells, rows)])


def markdown(rows: Sequence[dict]) -> str:
    """Return the rows as a Markdown table."""
    return text_table.markdown(HEAD, map(cells, rows))


def foot(rows: Sequence[dict]) -> str:
    """Return the notes below the table, with how certain this run is."""
    worst = max((row['late_ms'] for row in rows), default=0.0)
    again = [row['fault'] for row in rows if row['attempts'] > 1]
    load = os.getloadavg()[0]
    waited = max((row['waited_ms'] for row in rows), default=0.0)
    lines = [
        FOOT,
        f'The drill itself was at most {worst:.0f} ms late, and the nodes that had to stop '
        f'waited at most {waited:.0f} ms for a CPU; {os.cpu_count()} cores, load {load:.1f} in '
        'the last minute.',
    ]
    if again:
        lines.append(
            'Measured again after an undecided attempt (its result is in the last column): '
            + ', '.join(again)
            + '.'
        )
    stops = [f'{row["fault"]} ({stop})' for row in rows for stop in row['stops_before']]
    if stops:
        lines.append(
            'The drive stopped before the fault, and was restarted: ' + ', '.join(stops) + '.'
        )
    return '\n'.join(lines)


def kept(rows: Sequence[dict]) -> bool:
    """Return whether every promise was kept; an undecided one was not."""
    return all(row['kept'] is True for row in rows)
