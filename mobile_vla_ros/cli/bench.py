"""`mobile_vla bench`: measure the package's promises on this machine."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mobile_vla_ros.bench import run as benchmark
from mobile_vla_ros.bench import table
from mobile_vla_ros.files import refuse_full


def register(subparsers) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'bench',
        help='measure the promises on this machine',
        description='Measure this package on this machine and print each figure beside its '
        'promise. Exit status 1 if a promise is broken.',
        epilog='example: mobile_vla bench record',
    )
    benches = parser.add_subparsers(title='benchmarks', metavar='', required=True)
    _add_record(benches)
    _add_train(benches)
    _add_drive(benches)


def _add_record(benches) -> None:
    parser = benches.add_parser(
        'record',
        help='cost of recording, and what it survives',
        description='Record 1280x720 at 30 Hz and 60 Hz over DDS and count losses (load); kill '
        'the recorder during an episode and let the next one recover it (kill); fill a file '
        'system (disk); compare the writer with the JPEG encoder alone and with the '
        "reference run's layout (encode). Exit status 1 if a promise is broken.",
        epilog='example: mobile_vla bench record load encode --seconds 60',
    )
    words = 'length of the episode at 30 Hz ({:g}); a tenth of it at 60 Hz'
    _add_number(parser, '--seconds', benchmark.RECORD_S, words, 'S')
    _add_number(parser, '--kills', benchmark.KILLS, 'recorders to kill ({})')
    parser.add_argument(
        '--seed', type=int, default=0, help='random seed of the moments of the kills (0)'
    )
    _add_common(parser, benchmark.RECORD_PARTS, 'episodes and logs (ten minutes are 3 GB)')
    parser.set_defaults(run=run_record)


def _add_train(benches) -> None:
    parser = benches.add_parser(
        'train',
        help='cost of training, and that nothing is computed twice',
        description='Train on 18-frame episodes with each frame encoded once and window by window '
        '(encodes), and with image tokens cached and computed anew (tokens); decode '
        'JPEGs of 1280x720 whole and at a reduced scale (decode); train on them and '
        'measure the time spent waiting for data (loader); count the GPU memory of '
        'full size (memory). Some minutes on two cores. By name or with --all: train '
        'the full-size architecture with random bfloat16 weights on a whole segment '
        '(full: 4 GB on disk, 10 GB of memory, up to ten minutes). Exit status 1 if a '
        'promise is broken.',
        epilog='example: mobile_vla bench train encodes memory',
    )
    words = 'episodes of the parts encodes and tokens; loader uses 4 N - 2 ({})'
    _add_number(parser, '--takes', benchmark.EPISODES, words)
    words = 'repetitions of each timing, of which the fastest counts ({})'
    _add_number(parser, '--turns', benchmark.TURNS, words)
    parser.add_argument(
        '--batches',
        type=int,
        nargs='+',
        metavar='N',
        default=[1, 2, 4, 8],
        help='batch sizes of the part memory (1 2 4 8)',
    )
    parser.add_argument('--device', default='cpu', help='of the part full: cpu, cuda … (cpu)')
    _add_common(
        parser, benchmark.TRAIN_PARTS, 'episodes, weights and runs', benchmark.TRAIN_BY_NAME
    )
    parser.set_defaults(run=run_train)


def _add_drive(benches) -> None:
    parser = benches.add_parser(
        'drive',
        help='cost of driving: the guard, the latency, a step at full size',
        description='Start the guard, measure its memory, and its period while every core is '
        'loaded (guard); send raw 1280x720 at 30 Hz through the inference node with a policy '
        'that computes nothing, and measure the latency from camera to proposal '
        '(latency). About two minutes. By name or with --all: a driving step with the '
        'full-size architecture and random bfloat16 weights, against a bare forward of '
        'its backbone and encoding the whole window (step: 4 GB on disk, up to 8 GB of memory, '
        'some minutes); its loading (load: 10 GB on disk). Exit status 1 if a promise is broken.',
        epilog='example: mobile_vla bench drive guard latency',
    )
    parser.add_argument('--device', default='cpu', help='of step and load: cpu, cuda … (cpu)')
    _add_common(parser, benchmark.DRIVE_PARTS, 'weights and logs', benchmark.DRIVE_BY_NAME)
    parser.set_defaults(run=run_drive)


def _add_number(parser, flag: str, default: float, words: str, metavar: str = 'N') -> None:
    """Add a number of the default's type; its help has the default in the place of {}."""
    words, kind = words.format(default), type(default)
    parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=words)


def _add_common(
    parser: argparse.ArgumentParser, parts: Sequence[str], keeps: str, by_name: Sequence[str] = ()
) -> None:
    """
    Add the arguments of every benchmark.

    :param keeps: content of the folder of --out, in words.
    :param by_name: parts that run only by name or with --all.
    """
    usual = f'all but {", ".join(by_name)}' if by_name else 'all of them'
    parser.add_argument(
        'parts', nargs='*', metavar='PART', help=f'any of {", ".join(parts)} ({usual})'
    )
    if by_name:
        parser.add_argument('--all', action='store_true', help='every part')
    parser.add_argument('--out', type=Path, metavar='DIR', help=f'keep {keeps} in this new folder')
    parser.add_argument('--json', action='store_true', help='print JSON')


def run_record(args: argparse.Namespace) -> int:
    """Measure recording; return 1 if a promise is broken."""
    parts = benchmark.chosen(args.parts, benchmark.RECORD_PARTS, benchmark.RECORD_PARTS)
    benchmark.check_counts(seconds=args.seconds, kills=args.kills)
    return _run(
        args,
        parts,
        partial(
            benchmark.measure_record,
            seconds=args.seconds,
            kills=args.kills,
            seed=args.seed,
            quiet=args.json,
        ),
    )


def run_train(args: argparse.Namespace) -> int:
    """Measure training; return 1 if a promise is broken."""
    parts = _requested(args, benchmark.TRAIN_PARTS, benchmark.TRAIN_BY_NAME)
    benchmark.check_counts(takes=args.takes, turns=args.turns, batches=min(args.batches))
    return _run(
        args,
        parts,
        partial(
            benchmark.measure_train,
            episodes=args.takes,
            turns=args.turns,
            batches=args.batches,
            device=args.device,
            quiet=args.json,
        ),
    )


def run_drive(args: argparse.Namespace) -> int:
    """Measure driving; return 1 if a promise is broken."""
    return _run(
        args,
        _requested(args, benchmark.DRIVE_PARTS, benchmark.DRIVE_BY_NAME),
        partial(benchmark.measure_drive, device=args.device, quiet=args.json),
    )


def _requested(
    args: argparse.Namespace, parts: Sequence[str], by_name: Sequence[str]
) -> list[str]:
    """Return the parts to measure."""
    usual = [part for part in parts if args.all or part not in by_name]
    return benchmark.chosen(() if args.all else args.parts, parts, usual)


def _run(
    args: argparse.Namespace,
    parts: Sequence[str],
    measure: Callable[[str, Path], list[table.Figure]],
) -> int:
    """Measure and print; return 1 if a promise is broken."""

    def done(part: str) -> None:
        if not args.json:
            print(f'{part}: done', file=sys.stderr, flush=True)

    refuse_full(args.out)
    figures = benchmark.run_parts(parts, measure, args.out, done)
    kept = all(one.kept is not False for one in figures)
    if args.json:
        rows = table.as_json(figures)
        print(json.dumps({'kept': kept, 'cpus': os.cpu_count(), 'figures': rows}))
    else:
        print(table.table(figures))
    return 0 if kept else 1
