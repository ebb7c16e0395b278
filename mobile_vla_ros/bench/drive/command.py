"""`mobile_vla bench drive`: what driving costs, each figure beside its promise."""

import argparse
import importlib
from pathlib import Path

from mobile_vla_ros.bench.run import add_arguments, asked, refuse_full, run_parts

EXAMPLE = 'example: mobile_vla bench drive guard latency'
# Each part is a module of its own, cli/bench_drive_PART.py.
PARTS = ('guard', 'latency', 'step')
BY_NAME = ('step',)


def add(benches) -> None:
    """Add the benchmark."""
    parser = benches.add_parser(
        'drive',
        help='what driving costs: the guard, the way of a frame, a step at full size',
        description='Start the guard, weigh it, and watch its period while every core is loaded '
        '(guard); send raw 1280x720 at 30 Hz through the inference node with a policy '
        'that does nothing, and time the way from camera to proposal (latency): some '
        'two minutes. By name or with --all: a step of driving with the real '
        'architecture and random bfloat16 weights, beside a bare forward of its '
        'backbone and beside encoding the window anew (step: 4 GB on disk, up to 8 GB '
        'of memory, some minutes). Exit status 1 when a promise is broken.',
        epilog=EXAMPLE,
    )
    add_arguments(parser, PARTS, 'weights and logs', BY_NAME)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for; 1 when a promise is broken."""
    parts = asked(args, PARTS, BY_NAME)
    refuse_full(args.out)
    return run_parts(
        parts,
        lambda part, folder: _measure(part, folder, quiet=args.json),
        args.out,
        as_json=args.json,
    )


def _measure(part: str, folder: Path, *, quiet: bool) -> list:
    module = importlib.import_module(f'mobile_vla_ros.bench.drive.{part}')
    return module.measure(folder, quiet=quiet)
