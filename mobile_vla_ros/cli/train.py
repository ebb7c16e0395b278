"""`mobile_vla train`: the configuration's dataclasses as YAML and as flags."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import yaml

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig

DESCRIPTION = 'Fine-tune Kosmos-2 (LoRA and the LSTM head) on recorded takes; writes a policy.'
EXAMPLE = (
    'example: mobile_vla train --data takes --out runs/first --epochs 20; with what was '
    'corrected while it drove: mobile_vla train --init runs/first/best --data drives '
    '--corrections 10 --out runs/second'
)
CONFIGS = (ModelConfig, DataConfig, TrainConfig)


def register(subparsers) -> None:
    """Add the subcommand; its flags are read by transformers' parser in `run`."""
    parser = subparsers.add_parser(
        'train', help='fine-tune a policy on recorded takes', add_help=False
    )
    parser.set_defaults(run=run, takes_rest=True)


def parse(argv: list[str]) -> tuple[ModelConfig, DataConfig, TrainConfig]:
    """
    Read flags over a YAML file over defaults; with ``--init``, over what that policy decides.

    :raises UserError: for a file that is missing or holds an unknown key, or a policy that cannot
        be gone on from as asked.
    """
    from transformers import HfArgumentParser

    parser = HfArgumentParser(
        CONFIGS,
        prog='mobile_vla train',
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument('--config', type=Path, help='YAML file of these names; flags win over it')
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument('--config', type=Path)
    given, values = early.parse_known_args(argv)[0].config, {}
    if given is not None:
        values = read_config(given)
        for action in parser._actions:
            if action.dest in values:
                action.required = False
        parser.set_defaults(**values)
    *configs, _, rest = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    if rest:
        flags = {flag for action in parser._actions for flag in action.option_strings}
        raise UserError(
            'unknown arguments',
            got=' '.join(rest),
            expected='what mobile_vla train --help lists',
            remedy=did_you_mean(rest[0].partition('=')[0], flags),
        )
    model, data, config = configs
    if model.init:
        from mobile_vla_ros.training.initial_weights import settled

        for action in parser._actions:
            action.default = argparse.SUPPRESS  # what is left is what was given
        flags = vars(parser.parse_known_args(argv)[0])
        model, data = settled(model, data, {*values, *flags})
    return model, data, config


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


def say(text: str) -> None:
    """Print a line above the progress bar, at once also into a pipe."""
    from tqdm import tqdm

    tqdm.write(text)
    sys.stdout.flush()


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Train, write the report and say where both are; 130 after Ctrl-C."""
    configs = parse(argv)
    from mobile_vla_ros.training.loop import Trained, train
    from mobile_vla_ros.training.stop import TrainingStopped

    page = Path(configs[2].out) / 'report.html'

    def report(trained: Trained) -> None:
        from mobile_vla_ros.report.build import training as train_report

        train_report.write(
            page,
            trained.policy,
            trained.scored,
            trained.takes,
            history=trained.history,
            config={name: value for config in configs for name, value in asdict(config).items()},
        )

    try:
        trained = train(*configs, say=say, report=report)
    except TrainingStopped as stopped:
        if str(stopped):  # the main process speaks for all
            print(f'mobile_vla: {stopped}', file=sys.stderr)
        return 130
    if trained is not None:
        print(
            f'policy: {trained.best}\nreport: {page}\n'
            f'next: mobile_vla evaluate --data {configs[1].data} --policy {trained.best}'
        )
    return 0
