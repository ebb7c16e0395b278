"""`mobile_vla bench drive`: what driving costs, each figure beside its promise."""

import argparse
import importlib
from pathlib import Path

from mobile_vla_ros.cli.bench_run import chosen, refuse_full, run_parts

EXAMPLE = 'example: mobile_vla bench drive guard latency'
# Each part is a module of its own, cli/bench_drive_PART.py.
PARTS = ('guard', 'latency', 'step')
BY_NAME = ('step',)


def add(benches) -> None:
    """Add the benchmark."""
    parser = benches.add_parser(
        'drive', help='what driving costs: the guard, the way of a frame, a step at full size',
        description='Start the guard, weigh it, and watch its period while every core is loaded '
                    '(guard); send raw 1280x720 at 30 Hz through the inference node with a policy '
                    'that does nothing, and time the way from camera to proposal (latency): some '
                    'two minutes. By name or with --all: a step of driving with the real '
                    'architecture and random bfloat16 weights, beside a bare forward of its '
                    'backbone and beside encoding the window anew (step: 4 GB on disk, up to 8 GB '
                    'of memory, some minutes). Exit status 1 when a promise is broken.',
        epilog=EXAMPLE)
    parser.add_argument('parts', nargs='*', metavar='PART',
                        help=f'any of {", ".join(PARTS)} (all but {", ".join(BY_NAME)})')
    parser.add_argument('--all', action='store_true', help='every part')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='keep weights and logs in this new folder')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for; 1 when a promise is broken."""
    quick = [part for part in PARTS if part not in BY_NAME]
    parts = PARTS if args.all else chosen(args.parts, PARTS, quick)
    refuse_full(args.out)
    return run_parts(parts, lambda part, folder: _measure(part, folder, quiet=args.json),
                     args.out, as_json=args.json)


def _measure(part: str, folder: Path, *, quiet: bool) -> list:
    module = importlib.import_module(f'mobile_vla_ros.cli.bench_drive_{part}')
    return module.measure(folder, quiet=quiet)
