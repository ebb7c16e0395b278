"""Read the settings of a training run from flags and from a YAML file."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.training.config import (
    CONFIGS,
    DataConfig,
    ModelConfig,
    TrainConfig,
    configs_of,
    default_of,
)

DESCRIPTION = 'Fine-tune Kosmos-2 (LoRA and the LSTM head) on recorded episodes; writes a policy.'
EXAMPLE = (
    'example: mobile_vla train --data takes --out runs/first --epochs 20; to learn from '
    'corrections of its drives: mobile_vla train --init runs/first/best --data drives '
    '--corrections 10 --out runs/second'
)
# Other names of settings, as flags and in files.
OTHER_NAMES = {'prompt': 'instruction_template'}
YES, NO = ('yes', 'true', 't', 'y', '1'), ('no', 'false', 'f', 'n', '0')
TYPE_NAMES = {int: 'an integer', float: 'a number', bool: 'true or false', str: 'a string'}


def parse(argv: Sequence[str]) -> tuple[ModelConfig, DataConfig, TrainConfig]:
    """
    Read flags over a YAML file over defaults; with ``--init``, over the settings of that policy.

    :raises UserError: for an unknown flag, an invalid file, or settings that contradict the
        policy.
    :raises SystemExit: after ``--help``, and for an invalid value.
    """
    parser = argparse.ArgumentParser(
        prog='mobile_vla train',
        usage='%(prog)s --data DATA --out OUT [--config FILE] [--SETTING VALUE ...]',
        description=DESCRIPTION,
        epilog=EXAMPLE,
        argument_default=argparse.SUPPRESS,  # so that the namespace has only the given flags
    )
    settings = {one.name: one for config in CONFIGS for one in fields(config)}
    hints = _hints()
    for name, one in settings.items():
        _add_flag(parser, name, hints[name], one.metadata)
    parser.add_argument(
        '--config', type=Path, metavar='FILE', help='YAML file of these names; flags override it'
    )
    namespace, rest = parser.parse_known_args(argv)
    if rest:
        raise UserError(
            'unknown arguments',
            got=' '.join(rest),
            expected='the flags that mobile_vla train --help lists',
            remedy=did_you_mean(rest[0].partition('=')[0], [f'--{name}' for name in settings]),
        )
    values = vars(namespace)
    if 'config' in values:
        values = {**read_config(values.pop('config')), **values}
    missing = [
        f'--{name}'
        for name, one in settings.items()
        if default_of(one) is MISSING and name not in values
    ]
    if missing:
        parser.error(f'the following arguments are required: {", ".join(missing)}')
    model, data, config = configs_of(values)
    if model.init:
        # Imported here because it imports torch, which --help can do without.
        from mobile_vla_ros.training.initial_policy import inherit_settings

        model, data = inherit_settings(model, data, values)
    return model, data, config


def _hints() -> dict[str, Any]:
    """Return the type of every setting, by name."""
    return {name: hint for config in CONFIGS for name, hint in get_type_hints(config).items()}


def _add_flag(
    parser: argparse.ArgumentParser, name: str, hint: Any, metadata: Mapping[str, Any]
) -> None:
    """Add a setting's flag, spelled with underscores and with dashes."""
    kind, *_ = get_args(hint) or (hint,)  # of list[X] and of X | None
    options: dict[str, Any] = {'type': kind}
    if get_origin(hint) is list:
        options['nargs'] = '+'
    elif kind is bool:
        options = {'type': _yes_or_no, 'nargs': '?', 'const': True}
    parser.add_argument(
        *dict.fromkeys((f'--{name}', f'--{name.replace("_", "-")}')),
        *(f'--{other}' for other, one in OTHER_NAMES.items() if one == name),
        help=metadata['help'],
        choices=metadata.get('choices') or None,
        **options,
    )


def _yes_or_no(text: str) -> bool:
    if text.lower() not in YES + NO:
        raise argparse.ArgumentTypeError(f'{text!r} is not yes/no, true/false, t/f, y/n or 1/0')
    return text.lower() in YES


def read_config(path: Path) -> dict[str, Any]:
    """
    Return the settings in a YAML file.

    :raises UserError: for a missing or invalid file, and for unknown names and wrong types.
    """
    if not path.is_file():
        raise UserError(f'no configuration at {path}', expected='a YAML file')
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise UserError(f'{path} is not YAML', got=' '.join(str(error).split())) from error
    if not isinstance(values, dict):
        raise UserError(
            f'{path} contains no settings',
            got=type(values).__name__,
            expected='lines such as "epochs: 20"',
        )
    hints = _hints()
    for other, name in OTHER_NAMES.items():
        if other in values and name in values:
            raise UserError(f'{path} has {other} and {name}, which are one', remedy='keep one')
    values = {OTHER_NAMES.get(name, name): value for name, value in values.items()}
    for name in values:
        if name not in hints:
            raise UserError(
                f'{path} has an unknown name',
                got=repr(name),
                remedy=did_you_mean(str(name), hints),
            )
    invalid = []
    for name, value in values.items():
        try:
            values[name] = _typed(value, hints[name])
        except (TypeError, ValueError):
            invalid.append(f'{name} is {value!r}, not {_type_name(hints[name])}')
    if invalid:
        raise UserError(f'{path} has values of the wrong type', got='; '.join(invalid))
    return values


def _typed(value: Any, hint: Any) -> Any:
    """Return a YAML value as a setting's type; raises TypeError or ValueError."""
    if get_origin(hint) is list:
        if not isinstance(value, list):
            raise TypeError
        return [_typed(one, get_args(hint)[0]) for one in value]
    options = get_args(hint)
    if options:  # X | None
        return None if value is None else _typed(value, options[0])
    if hint is float and type(value) in (int, float, str):
        return float(value)  # YAML reads 1e-4 as a string
    if type(value) is not hint:
        raise TypeError
    return value


def _type_name(hint: Any) -> str:
    """Return a type in words."""
    if get_origin(hint) is list:
        return f'a list, each {_type_name(get_args(hint)[0])}'
    return TYPE_NAMES.get(hint) or f'{_type_name(get_args(hint)[0])} or nothing'
