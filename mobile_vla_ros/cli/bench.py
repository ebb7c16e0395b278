"""`mobile_vla bench`: measures what the package promises, on this machine."""

import argparse

from mobile_vla_ros.bench.drive import command as bench_drive
from mobile_vla_ros.bench.record import command as bench_record
from mobile_vla_ros.bench.train import command as bench_train

EXAMPLE = 'example: mobile_vla bench record'
# Modules with `add(benches)`: one benchmark each.
BENCHES = (bench_record, bench_train, bench_drive)


def register(subparsers) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'bench',
        help='measure the promises on this machine',
        description='Measure what this package promises, on this machine, and print each figure '
        'beside its promise; 1 when one is broken.',
        epilog=EXAMPLE,
    )
    benches = parser.add_subparsers(title='benchmarks', metavar='', required=True)
    for module in BENCHES:
        module.add(benches)
