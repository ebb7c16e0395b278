"""The schema of `policy.json`: each field's range, and the fields that must agree."""

import math
import re
import string
from collections.abc import Callable, Mapping
from typing import Any

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import BLANKS, TWIST_AXES, VERDICTS, ActionSpec

MAX_SHOWN = 60  # characters of a value that does not fit
# Bounds of everything in policy.json, known or not; the file's size is `MAX_JSON_BYTES`.
MAX_TEXT = 4096  # characters; also the length of a path
MAX_DEPTH = 16  # objects and lists in each other
MAX_WHOLE = 1 << 63
MAX_TEMPLATE = 500

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


def _matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and bool(re.fullmatch(pattern, value))


def _hashes(name: str) -> Rule:
    """Return the rule for an object of SHA-256 by the name of a file."""
    fits_name, fits_hash = _matches(name), _matches('[0-9a-f]{64}')
    return (
        'an object of 64 hexadecimal digits for each file, by its name in the folder',
        lambda value: (
            type(value) is dict
            and bool(value)
            and all(fits_name(one) and fits_hash(digest) for one, digest in value.items())
        ),
    )


def _is_proof(value: Any) -> bool:
    """Whether an object has what the proof of int8 weights is made of."""
    counts = ('trials', 'worse', 'better')
    return (
        type(value) is dict
        and all(type(value.get(name)) is int and value[name] >= 0 for name in counts)
        and all(_is_text(value.get(name)) for name in ('golden', 'suite'))
    )


def _is_template(value: Any) -> bool:
    """Whether a short text has one `{instruction}`, at most one `{image}` before it, no other."""
    if type(value) is not str or len(value) > MAX_TEMPLATE:
        return False
    try:
        places = [place[1:] for place in string.Formatter().parse(value) if place[1] is not None]
    except ValueError:
        return False
    names = [*['image'] * min(value.count('{image}'), 2), 'instruction']
    return len(names) <= 2 and places == [(name, '', None) for name in names]


# Path in policy.json → its rule. The bounds are those of the training configuration.
REQUIRED: dict[str, Rule] = {
    'backbone.id': ('a name', _is_text),
    'backbone.revision': (
        'a commit of 40 hexadecimal digits or null',
        lambda value: value is None or _matches('[0-9a-f]{40}')(value),
    ),
    'backbone.sha256': ('64 hexadecimal digits', _matches('[0-9a-f]{64}')),
    'head.features': whole(1, 65536),
    'head.motion_dims': whole(1, 64),
    'head.chunk': whole(1, 1000),
    'head.hidden': whole(1, 8192),
    'head.layers': whole(1, 16),
    'head.dropout': number(0, 0.9),
    'image.size': whole(1, 4096),
    'image.mean': _list_of('numbers', _is_number, 3),
    'image.std': _list_of('numbers above 0', lambda value: _is_number(value, 1e-9), 3),
    'actions.axes': (
        f'a list of at most {len(TWIST_AXES)} names',
        lambda value: (
            type(value) is list and len(value) <= len(TWIST_AXES) and all(map(_is_text, value))
        ),
    ),
    'actions.scale': _list_of('numbers above 0', lambda value: _is_number(value, 1e-9)),
    'rate_hz': number(0.1, 1000),
    'window': whole(1, 64),
    'chunk': whole(1, 1000),
    'command_max_age_s': (
        'a number from 0 to 60 or null',
        lambda value: value is None or _is_number(value, 0, 60),
    ),
    'instruction_template': (
        f'a text of at most {MAX_TEMPLATE} characters with one {{instruction}}, and at most one '
        '{image} before it',
        _is_template,
    ),
    'blank': (f'one of {list(BLANKS)}', lambda value: type(value) is str and value in BLANKS),
    'data': ('an object', lambda value: type(value) is dict),
    'metrics': ('an object', lambda value: type(value) is dict),
}
# Older bundles lack some of these.
OPTIONAL: dict[str, Rule] = {
    'camera': ('the name of a camera', _is_text),
    'files': _hashes(r'(adapter/)?\w[\w.-]{0,254}'),
    'backbone.files': _hashes(r'\w[\w.-]{0,254}'),
    'int8': ('the proof that mobile_vla quantise writes', _is_proof),
    'data.train_episodes': _list_of('names', _is_text),
    'data.val_episodes': _list_of('names', _is_text),
    'data.mean_action': _list_of('numbers', _is_number),
    'data.accept_verdicts': _list_of('verdicts', lambda value: value in VERDICTS),
    'data.camera_sizes': _list_of('[width, height]', _is_size),
}
ABSENT = object()


def rhythm_problems(values: Mapping[str, Any]) -> list[str]:
    """Return which of ``rate_hz``, ``window`` and ``chunk`` no policy may have."""
    names = [
        name for name in ('rate_hz', 'window', 'chunk') if not REQUIRED[name][1](values[name])
    ]
    return [mismatch(name, values[name], REQUIRED[name][0]) for name in names]


def _at(content: object, path: str) -> Any:
    for name in path.split('.'):
        content = content.get(name, ABSENT) if isinstance(content, dict) else ABSENT
    return content


def manifest_problems(content: Mapping[str, Any]) -> list[str]:
    """Return everything in the content of `policy.json` that breaks the schema; never raises."""
    problems = _unbounded(content)
    if problems:  # what has no bound is not shown either
        return problems
    for path, (what, fits) in {**REQUIRED, **OPTIONAL}.items():
        value = _at(content, path)
        if value is ABSENT:
            problems += [] if path in OPTIONAL else [f'no {path}']
        elif not fits(value):
            problems.append(mismatch(path, value, what))
    return problems or _contradictions(content)


def _unbounded(content: Mapping[str, Any]) -> list[str]:
    """Return the first text, number or nesting, by its place, that is beyond all bounds."""
    left: list[tuple[str, Any, int]] = [('', content, 0)]
    while left:
        place, value, depth = left.pop()
        where = place[1 : MAX_SHOWN + 1] or 'it'
        if isinstance(value, str) and len(value) > MAX_TEXT:
            return [f'{where} has {len(value)} characters, not at most {MAX_TEXT}']
        if type(value) is int and abs(value) > MAX_WHOLE:
            return [f'{where} is a whole number beyond {MAX_WHOLE}']
        if type(value) is float and place.startswith('.data') and not math.isfinite(value):
            return [f'{where} contains NaN or inf']
        if isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                return [f'{where} is nested more than {MAX_DEPTH} deep']
            if isinstance(value, dict):
                left += [(place, key, depth) for key in value if len(key) > MAX_TEXT]
                left += [
                    (f'{place}.{key[:MAX_SHOWN]}', one, depth + 1) for key, one in value.items()
                ]
            else:
                left += [(place, one, depth + 1) for one in value]
    return []


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
