"""The output of `mobile_vla episodes coach`: what a set of episodes covers and lacks."""

import dataclasses
from collections.abc import Iterator, Sequence

from mobile_vla_ros.episode.catalog.coach import Advice, Survey
from mobile_vla_ros.text_table import table

MAX_INSTRUCTIONS = 10
MAX_GROUPS = 5
MAX_NAMES = 3


def as_json(found: Survey, advice: Sequence[Advice]) -> dict:
    """Return the survey and the advice as JSON values."""
    shown = {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in dataclasses.asdict(found).items()
    }
    shown['directions'] = {name: round(share, 4) for name, share in found.directions.items()}
    shown['instructions'] = [
        # `takes` is a key of the JSON that users read.
        {'instruction': text, 'takes': count, 'minutes': round(minutes, 3)}
        for text, (count, minutes) in found.instructions.items()
    ]
    return shown | {'record_next': [dataclasses.asdict(one) for one in advice]}


def text(found: Survey, advice: Sequence[Advice]) -> str:
    """Return a table, and a line for each recommendation."""
    sentences = [one.sentence for one in advice] or ['nothing is missing by these measures']
    return '\n'.join([table(_rows(found)), *(f'record next: {one}' for one in sentences)])


def _rows(found: Survey) -> Iterator[tuple[str, str]]:
    """Yield name and text of each line of the table."""
    yield 'episodes', f'{found.takes} ({_counts(found.verdicts)})'
    yield 'to train on', f'{found.usable} episodes, {found.minutes:.1f} minutes'
    yield 'outcome', _counts(found.outcomes)
    instructions = list(found.instructions.items())
    for place, (sentence, (count, minutes)) in enumerate(instructions[:MAX_INSTRUCTIONS]):
        head = '' if place else 'instruction'
        yield head, f'{count:5} episodes  {minutes:6.1f} minutes  {sentence}'
    more = len(instructions) - MAX_INSTRUCTIONS
    if more > 0:
        yield '', f'and {more} more instructions'
    yield 'words', _counts(found.words)
    directions = ', '.join(
        f'{name.replace("_", " ")} {share:.0%}' for name, share in found.directions.items()
    )
    yield 'in motion', f'{found.moving_minutes:.1f} minutes: {directions}'
    yield 'idle', f'{found.idle_share:.0%} of the time'
    yield 'starts', f'{found.starts} places in the first images of {found.views} episodes'
    yield 'commands', f'{found.distinct} distinct of {found.driven} episodes that move'
    for place, names in enumerate(found.near_identical[:MAX_GROUPS]):
        head, rest = '' if place else 'alike', len(names) - MAX_NAMES
        others = f' and {rest} more' if rest > 0 else ''
        yield head, f'{len(names):5} episodes  {", ".join(names[:MAX_NAMES])}{others}'
    more = len(found.near_identical) - MAX_GROUPS
    if more > 0:
        yield '', f'and {more} more groups (listed by --json)'


def _counts(counts: dict[str, int]) -> str:
    return ', '.join(f'{name} {count}' for name, count in counts.items()) or 'none'
