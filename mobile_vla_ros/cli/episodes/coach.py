"""`mobile_vla episodes coach`: what a set of takes lacks, and what to record next."""

import argparse
import dataclasses
import json
from pathlib import Path

from mobile_vla_ros.text_table import table

MOST_LINES = 10
MOST_GROUPS = 5
MOST_NAMES = 3


def add(actions) -> None:
    """Add the action."""
    summary = 'what the set lacks: balance, repeats, and what to record next'
    parser = actions.add_parser(
        'coach',
        help=summary,
        description=summary.capitalize() + '.',
        epilog='example: mobile_vla episodes coach ~/mobile_vla_takes',
    )
    parser.add_argument('path', type=Path, metavar='DIR|FILE', help='a folder of episodes')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the set covers and at most five things to record next."""
    from mobile_vla_ros.cli.episodes.index import indexed
    from mobile_vla_ros.episode.catalog import coach

    with indexed(args.path) as index:
        traces = {name: trace for name, *trace in index.traces()}
        found = coach.survey(index.rows(), traces)
    advice = coach.advise(found)
    if args.json:
        print(json.dumps(_plain(found, advice)))
        return 0
    print(table(_lines(found)))
    for one in advice:
        print(f'record next: {one.sentence}')
    if not advice:
        print('record next: nothing is lacking by these measures')
    return 0


def _plain(found, advice: list) -> dict:
    shown = {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in dataclasses.asdict(found).items()
    }
    shown['directions'] = {name: round(share, 4) for name, share in found.directions.items()}
    shown['instructions'] = [
        {'instruction': text, 'takes': takes, 'minutes': round(minutes, 3)}
        for text, (takes, minutes) in found.instructions.items()
    ]
    return shown | {'record_next': [dataclasses.asdict(one) for one in advice]}


def _lines(found):
    """Give head and text of each line of the table."""
    yield 'takes', f'{found.takes} ({_counts(found.verdicts)})'
    yield 'to train on', f'{found.usable} takes, {found.minutes:.1f} minutes'
    yield 'outcome', _counts(found.outcomes)
    for head, (text, (takes, minutes)) in zip(
        _heads('instruction'), list(found.instructions.items())[:MOST_LINES], strict=False
    ):
        yield head, f'{takes:5} takes  {minutes:6.1f} minutes  {text}'
    more = len(found.instructions) - MOST_LINES
    if more > 0:
        yield '', f'and {more} more instructions'
    yield 'words', _counts(found.words)
    yield (
        'in motion',
        f'{found.moving_minutes:.1f} minutes: '
        + ', '.join(
            f'{name.replace("_", " ")} {share:.0%}' for name, share in found.directions.items()
        ),
    )
    yield 'idle', f'{found.idle_share:.0%} of the time'
    yield 'starts', f'{found.starts} places in the first pictures of {found.views} takes'
    yield 'commands', f'{found.distinct} distinct of {found.driven} takes that move'
    for head, names in zip(_heads('alike'), found.near_identical[:MOST_GROUPS], strict=False):
        rest = len(names) - MOST_NAMES
        yield (
            head,
            (
                f'{len(names):5} takes  {", ".join(names[:MOST_NAMES])}'
                + (f' and {rest} more' if rest > 0 else '')
            ),
        )
    more = len(found.near_identical) - MOST_GROUPS
    if more > 0:
        yield '', f'and {more} more groups (all of them: --json)'


def _heads(head: str):
    """Give a head once, then blanks."""
    yield head
    while True:
        yield ''


def _counts(counts: dict[str, int]) -> str:
    return ', '.join(f'{name} {count}' for name, count in counts.items()) or 'none'
