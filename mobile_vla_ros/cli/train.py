"""`mobile_vla train`: fine-tune a policy, and write its report."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path


def register(subparsers) -> None:
    """Add the subcommand; `run` parses its flags, to suggest the flag that was meant."""
    parser = subparsers.add_parser(
        'train', help='fine-tune a policy on recorded episodes', add_help=False
    )
    parser.set_defaults(run=run, parses_rest=True)


def log(text: str) -> None:
    """Print a line above the progress bar, and flush it for pipes."""
    from tqdm import tqdm

    tqdm.write(text)
    sys.stdout.flush()


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Train, write the report and print where both are; return 130 after Ctrl-C."""
    from mobile_vla_ros.training.flags import parse

    configs = parse(argv)
    from mobile_vla_ros.training.loop import Trained, TrainingStopped, train

    page = Path(configs[2].out) / 'report.html'

    def report(trained: Trained) -> None:
        from mobile_vla_ros.report.builders import training as train_report

        train_report.write(
            page,
            trained.policy,
            trained.scored,
            trained.episodes,
            history=trained.history,
            config={name: value for config in configs for name, value in asdict(config).items()},
        )

    try:
        trained = train(*configs, log=log, report=report)
    except TrainingStopped as stopped:
        if str(stopped):  # empty in all processes but the main one
            print(f'mobile_vla: {stopped}', file=sys.stderr)
        return 130
    if trained is not None:
        print(
            f'policy: {trained.best}\nreport: {page}\n'
            f'next: mobile_vla evaluate --data {configs[1].data} --policy {trained.best}'
        )
    return 0
