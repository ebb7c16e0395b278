"""The result of `mobile_vla compare`: lines for the terminal, and a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobile_vla_ros import __version__
from mobile_vla_ros.report.pages.trials_page import span
from mobile_vla_ros.rollout.compare import Driver, verdicts
from mobile_vla_ros.text_table import number, table

HEAD = ('driver', 'success', '95 %', 'collisions', '95 %', 'SPL', 'time', 'change of command')
AGAINST = (
    *('b − a', 'success, points', 'only a, b', 'p', 'collisions, points'),
    *('SPL', 'time, s', 'change of command, m/s²'),
)
NOTES = (
    'A trial succeeds if all its drives do; intervals of shares are Wilson’s, at 95 %.',
    'SPL is the success weighted by path length, with the expert’s path as the shortest; tasks '
    'that only stop do not count. Time is that of a successful drive. Change of command is how '
    'much the commanded velocity changes a second (m/s², and rad/s² of the turn), after the '
    'guard: less is smoother.',
    'Differences are of the same scenes, with 95 % intervals: of shares by Tango’s score, of '
    'means by a bootstrap of ten trials or more. p is McNemar’s exact test of the trials that '
    'only one drives well; between policies it is raised for the number of pairs (Holm). Times '
    'compare the trials that both drive well.',
    'A control drives without an input. A policy that is not shown to drive better than that may '
    'not use the input.',
)


def rows(found: Mapping[str, Any], suite: str) -> list[list[str]]:
    """Return the cells of each driver in a suite, as ``HEAD``."""
    cells = []
    for driver in found['drivers']:
        one = driver['suites'][suite]
        name = f'  without {driver["control"]}' if driver['control'] else driver['name']
        cells.append(
            [
                name,
                f'{one["success_rate"]:.1%}',
                span(one['success_interval']),
                f'{one["collision_rate"]:.1%}',
                span(one['collision_interval']),
                number(one['spl'], '.3f'),
                f'{number(one["time_s"]["mean"], ".1f")} s',
                f'{number(one["change_mps2"], ".2f")}, {number(one["change_radps2"], ".2f")}',
            ]
        )
    return cells


def pairs(found: Mapping[str, Any], suite: str) -> list[list[str]]:
    """Return the cells of each pair in a suite, as ``AGAINST``."""
    return [
        [
            f'{row["b"]} − {row["a"]}',
            _more(row['more']['success'], 100, '.1f'),
            f'{row["only_a"]}, {row["only_b"]}',
            f'{row.get("p_holm", row["p"]):.2g}',
            _more(row['more']['collision'], 100, '.1f'),
            _more(row['more']['spl'], 1, '.3f'),
            _more(row['more']['time_s'], 1, '.2f'),
            _more(row['more']['change_mps2'], 1, '.2f'),
        ]
        for row in (*found['pairs'], *found['controls'])
        if row['suite'] == suite
    ]


def _more(more: Mapping[str, Any] | None, factor: int, form: str) -> str:
    """Return a difference with its interval; of shares in points of 100."""
    if more is None:
        return '–'
    value, *interval = (factor * one for one in (more['value'], *(more['interval'] or ())))
    ends = ' to '.join(f'{end:+{form}}' for end in interval)
    return f'{value:+{form}}' + (f' ({ends})' if ends else '')


def text(found: Mapping[str, Any]) -> str:
    """Return the tables of each suite, and what they show."""
    lines = []
    for suite, summary in found['drivers'][0]['suites'].items():
        lines += [f'{suite}, {summary["trials"]} trials', table([HEAD, *rows(found, suite)])]
        if differences := pairs(found, suite):
            lines.append(table([AGAINST, *differences]))
    return '\n\n'.join([*lines, '\n'.join(verdicts(found))]).rstrip()


def write(path: Path, those: Sequence[Driver], found: Mapping[str, Any]) -> Path:
    """
    Write the page, replacing an existing one atomically.

    :param those: the drivers with their trials, as the comparison ``found``.
    """
    from mobile_vla_ros.report.pages import page

    suites = [
        {
            'name': name,
            'trials': len(those[0].driven[name]),
            'rows': rows(found, name),
            'pairs': pairs(found, name),
            'differing': _differing([one for one in those if not one.control], name),
        }
        for name in those[0].driven
    ]
    return page.write(
        path,
        page.render(
            'comparison.html',
            title='Compared in the arena',
            subtitle=f'mobile_vla compare; suites of version {found["suites_version"]}, '
            f'mobile_vla_ros {__version__}',
            head=HEAD,
            against=AGAINST,
            differing_head=[
                'trial',
                'instruction',
                *(one.label for one in those if not one.control),
            ],
            suites=suites,
            verdicts=verdicts(found),
            notes=NOTES,
        ),
    )


def _differing(policies: Sequence[Driver], suite: str) -> list[list[str]]:
    """Return number, instructions and each policy's outcomes of trials that only some do well."""
    cells = []
    for trials in zip(*(one.driven[suite] for one in policies), strict=True):
        if len({trial.success for trial in trials}) > 1:
            said = ' / '.join(drive.instruction for drive in trials[0].drives)
            ends = (' / '.join(drive.outcome for drive in trial.drives) for trial in trials)
            cells.append([str(trials[0].number), said, *ends])
    return cells
