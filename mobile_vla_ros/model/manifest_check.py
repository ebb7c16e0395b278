"""The schema of `policy.json`: each field's range, and the fields that must agree."""

import math
import re
import string
from collections.abc import Callable, Mapping
from typing import Any

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import BLANKS, VERDICTS, ActionSpec

MAX_SHOWN = 60  # characters of a value that does not fit

# What a value must be, in words, and the test for it.
Rule = tuple[str, Callable[[Any], bool]]


def whole(low: int, high: int) -> Rule:
    """Return the rule for an int in a range, bounds included; a bool does not fit."""
    return (
        f'a whole number from {low} to {high}',
        lambda value: type(value) is int and low <= value <= high,
    )


def number(low: float, high: float) -> Rule:
    """Return the rule for a finite number in a range, bounds included."""
    return f'a number from {low:g} to {high:g}', lambda value: _is_number(value, low, high)


def mismatch(name: str, value: object, what: str) -> str:
    """Return the sentence for a value that does not fit its rule."""
    return f'{name} is {repr(value)[:MAX_SHOWN]}, not {what}'


def _is_number(value: Any, low: float = -1e9, high: float = 1e9) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and low <= value <= high


def _list_of(what: str, fits: Callable[[Any], bool], length: int | None = None) -> Rule:
    count = 'a list' if length is None else f'{length}'
    return (
        f'{count} of {what}',
        lambda value: (
            type(value) is list and length in (None, len(value)) and all(map(fits, value))
        ),
    )


def _is_size(value: object) -> bool:
    return (
        type(value) is list
        and len(value) == 2
        and all(type(side) is int and 0 < side <= 65536 for side in value)
    )


def _is_text(value: object) -> bool:
    return type(value) is str and value.isprintable() and bool(value.strip())


def _is_template(value: Any) -> bool:
    """Whether a text has the placeholder `{instruction}` and no other."""
    try:
        places = [place[1:] for place in string.Formatter().parse(value) if place[1] is not None]
    except (TypeError, ValueError):
        return False
    return bool(places) and all(place == ('instruction', '', None) for place in places)


# Path in policy.json → its rule. The bounds are those of the training configuration.
REQUIRED: dict[str, Rule] = {
    'backbone.id': ('a name', _is_text),
    'backbone.revision': ('a name or null', lambda value: value is None or _is_text(value)),
    'backbone.sha256': (
        '64 hexadecimal digits',
        lambda value: type(value) is str and bool(re.fullmatch('[0-9a-f]{64}', value)),
    ),
    'head.features': whole(1, 65536),
    'head.motion_dims': whole(1, 64),
    'head.chunk': whole(1, 1000),
    'head.hidden': whole(1, 8192),
    'head.layers': whole(1, 16),
    'head.dropout': number(0, 0.9),
    'image.size': whole(1, 4096),
    'image.mean': _list_of('numbers', _is_number, 3),
    'image.std': _list_of('numbers above 0', lambda value: _is_number(value, 1e-9), 3),
    'actions.axes': _list_of('names', _is_text),
    'actions.scale': _list_of('numbers above 0', lambda value: _is_number(value, 1e-9)),
    'rate_hz': number(0.1, 1000),
    'window': whole(1, 64),
    'chunk': whole(1, 1000),
    'command_max_age_s': number(0.001, 60),
    'instruction_template': ('a text with {instruction}', _is_template),
    'blank': (f'one of {list(BLANKS)}', lambda value: type(value) is str and value in BLANKS),
    'data': ('an object', lambda value: type(value) is dict),
    'metrics': ('an object', lambda value: type(value) is dict),
}
# Older bundles lack some of these.
OPTIONAL: dict[str, Rule] = {
    'data.train_episodes': _list_of('names', _is_text),
    'data.val_episodes': _list_of('names', _is_text),
    'data.mean_action': _list_of('numbers', _is_number),
    'data.accept_verdicts': _list_of('verdicts', lambda value: value in VERDICTS),
    'data.camera_sizes': _list_of('[width, height]', _is_size),
}
ABSENT = object()


def _at(content: object, path: str) -> Any:
    for name in path.split('.'):
        content = content.get(name, ABSENT) if isinstance(content, dict) else ABSENT
    return content


def manifest_problems(content: Mapping[str, Any]) -> list[str]:
    """Return everything in the content of `policy.json` that breaks the schema; never raises."""
    problems = []
    for path, (what, fits) in {**REQUIRED, **OPTIONAL}.items():
        value = _at(content, path)
        if value is ABSENT:
            problems += [] if path in OPTIONAL else [f'no {path}']
        elif not fits(value):
            problems.append(mismatch(path, value, what))
    return problems or _contradictions(content)


def _contradictions(content: Mapping[str, Any]) -> list[str]:
    """Return which fields disagree, each of which fits its own rule."""
    problems = []
    axes, head = content['actions']['axes'], content['head']
    try:
        ActionSpec(tuple(axes), tuple(content['actions']['scale']))
    except UserError as error:
        problems.append(str(error).rstrip('.'))
    if content['chunk'] != head['chunk']:
        problems.append(f'chunk is {content["chunk"]} and head.chunk {head["chunk"]}')
    if head['motion_dims'] < len(axes):
        problems.append(
            f'head.motion_dims is {head["motion_dims"]} for {len(axes)} axes ({", ".join(axes)})'
        )
    mean = _at(content, 'data.mean_action')
    if mean is not ABSENT and len(mean) != len(axes):
        problems.append(f'data.mean_action has {len(mean)} numbers for {len(axes)} axes')
    return problems
