"""`mobile_vla train`: the configuration's dataclasses as flags, over a YAML file."""

import argparse
import sys
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.training.config import (
    CONFIGS,
    DataConfig,
    ModelConfig,
    TrainConfig,
    configs_of,
    default_of,
)

DESCRIPTION = 'Fine-tune Kosmos-2 (LoRA and the LSTM head) on recorded takes; writes a policy.'
EXAMPLE = (
    'example: mobile_vla train --data takes --out runs/first --epochs 20; with what was '
    'corrected while it drove: mobile_vla train --init runs/first/best --data drives '
    '--corrections 10 --out runs/second'
)
YES, NO = ('yes', 'true', 't', 'y', '1'), ('no', 'false', 'f', 'n', '0')


def register(subparsers) -> None:
    """Add the subcommand; `run` reads its flags, so that it can name the one that was meant."""
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
    parser = argparse.ArgumentParser(
        prog='mobile_vla train',
        usage='%(prog)s --data DATA --out OUT [--config FILE] [--SETTING VALUE ...]',
        description=DESCRIPTION,
        epilog=EXAMPLE,
        argument_default=argparse.SUPPRESS,  # what is left is what was given
    )
    settings = {one.name: one for config in CONFIGS for one in fields(config)}
    hints = {name: hint for config in CONFIGS for name, hint in get_type_hints(config).items()}
    for name, one in settings.items():
        _add_flag(parser, name, hints[name], one.metadata)
    parser.add_argument(
        '--config', type=Path, metavar='FILE', help='YAML file of these names; flags win over it'
    )
    namespace, rest = parser.parse_known_args(argv)
    if rest:
        raise UserError(
            'unknown arguments',
            got=' '.join(rest),
            expected='what mobile_vla train --help lists',
            remedy=did_you_mean(rest[0].partition('=')[0], [f'--{name}' for name in settings]),
        )
    values = vars(namespace)
    if 'config' in values:
        from mobile_vla_ros.training.config_file import read_config

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
        from mobile_vla_ros.training.initial_weights import settled

        model, data = settled(model, data, values)
    return model, data, config


def _add_flag(parser: argparse.ArgumentParser, name: str, hint, metadata) -> None:
    """Add a setting's flag, spelled with underscores and with dashes."""
    kind, *_ = get_args(hint) or (hint,)  # of list[X] and of X | None
    how = {'type': kind}
    if get_origin(hint) is list:
        how['nargs'] = '+'
    elif kind is bool:
        how = {'type': _yes_or_no, 'nargs': '?', 'const': True}
    parser.add_argument(
        *dict.fromkeys((f'--{name}', f'--{name.replace("_", "-")}')),
        help=metadata['help'],
        choices=metadata.get('choices') or None,
        **how,
    )


def _yes_or_no(text: str) -> bool:
    if text.lower() not in YES + NO:
        raise argparse.ArgumentTypeError(f'{text!r} is not yes/no, true/false, t/f, y/n or 1/0')
    return text.lower() in YES


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
