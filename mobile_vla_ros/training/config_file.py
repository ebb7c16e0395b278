"""Reads the settings of a training run from a YAML file."""

from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import yaml

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.training.config import CONFIGS


def read_config(path: Path) -> dict:
    """Return the values of a YAML file; raises UserError for a name that no configuration has."""
    if not path.is_file():
        raise UserError(f'no configuration at {path}', expected='a YAML file')
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise UserError(f'{path} is not YAML', got=' '.join(str(error).split())) from error
    if not isinstance(values, dict):
        raise UserError(
            f'{path} holds no settings',
            got=type(values).__name__,
            expected='lines such as "epochs: 20"',
        )
    hints = {name: hint for config in CONFIGS for name, hint in get_type_hints(config).items()}
    for name in values:
        if name not in hints:
            raise UserError(
                f'{path} has an unknown name',
                got=repr(name),
                remedy=did_you_mean(str(name), hints),
            )
    wrong = []
    for name, value in values.items():
        try:
            values[name] = _typed(value, hints[name])
        except (TypeError, ValueError):
            wrong.append(f'{name} is {value!r}, not {_word(hints[name])}')
    if wrong:
        raise UserError(f'{path} has values of the wrong type', got='; '.join(wrong))
    return values


def _typed(value, hint):
    """Return a value of a YAML file as a field's type; raises TypeError or ValueError."""
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise TypeError
        return [_typed(one, get_args(hint)[0]) for one in value]
    options = get_args(hint)
    if options:  # X | None
        return None if value is None else _typed(value, options[0])
    if hint is float and type(value) in (int, float, str):
        return float(value)  # YAML takes 1e-4 for a text
    if type(value) is not hint:
        raise TypeError
    return value


def _word(hint) -> str:
    """Return a type as a person says it."""
    words = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text'}
    if get_origin(hint) is list:
        return f'a list, each {_word(get_args(hint)[0])}'
    return words.get(hint) or f'{_word(get_args(hint)[0])} or nothing'
