"""`mobile_vla bench train`: what training costs, each figure beside its promise."""

import argparse
from pathlib import Path

from mobile_vla_ros.bench.run import add_arguments, asked, refuse_full, run_parts
from mobile_vla_ros.errors import UserError

EXAMPLE = 'example: mobile_vla bench train encodes memory'
PARTS = ('encodes', 'tokens', 'decode', 'loader', 'memory', 'full')
BY_NAME = ('full',)
TAKES, TURNS = 3, 3


def add(benches) -> None:
    """Add the benchmark."""
    parser = benches.add_parser(
        'train',
        help='what training costs, and that nothing is computed twice',
        description='Train the same 18-frame takes with each frame encoded once and window by '
        'window (encodes); with image tokens kept and computed anew (tokens); decode '
        'JPEGs of 1280x720 whole and at a reduced scale (decode); train on such and '
        'see how long the network waits (loader); count what a GPU needs at full '
        'size (memory): all in one run, some minutes on two cores. By name or with '
        '--all: train the real architecture with random bfloat16 weights on a whole '
        'segment (full: 4 GB on disk, 10 GB of memory, up to ten minutes). Exit '
        'status 1 when a promise is broken.',
        epilog=EXAMPLE,
    )
    parser.add_argument(
        '--takes',
        type=int,
        default=TAKES,
        metavar='N',
        help=f'takes of the parts encodes and tokens, and four times as many but '
        f'two of the part loader ({TAKES})',
    )
    parser.add_argument(
        '--turns',
        type=int,
        default=TURNS,
        metavar='N',
        help=f'how often each way is timed, the fastest counts ({TURNS})',
    )
    parser.add_argument(
        '--batches',
        type=int,
        nargs='+',
        metavar='N',
        default=[1, 2, 4, 8],
        help='batch sizes that the part memory counts (1 2 4 8)',
    )
    add_arguments(parser, PARTS, 'takes, weights and runs', BY_NAME)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for; 1 when a promise is broken."""
    parts = asked(args, PARTS, BY_NAME)
    if args.takes < 1 or args.turns < 1 or min(args.batches) < 1:
        raise UserError(
            'there is nothing to measure',
            got=f'--takes {args.takes} --turns {args.turns} '
            f'--batches {" ".join(map(str, args.batches))}',
            expected='at least 1 of each',
        )
    refuse_full(args.out)
    return run_parts(
        parts, lambda part, folder: _measure(part, args, folder), args.out, as_json=args.json
    )


def _measure(part: str, args: argparse.Namespace, folder: Path) -> list:
    if part == 'encodes':
        from mobile_vla_ros.bench.train import encodes as bench_train_encodes

        return bench_train_encodes.measure(folder, args.takes, args.turns, quiet=args.json)
    if part == 'memory':
        from mobile_vla_ros.bench.train import memory as bench_train_memory

        return bench_train_memory.measure(folder, tuple(args.batches))
    if part == 'full':
        from mobile_vla_ros.bench.train import full_size as bench_train_full

        return bench_train_full.measure(folder)
    from mobile_vla_ros.bench.train import feed as bench_train_feed

    if part == 'tokens':
        return bench_train_feed.tokens(folder, args.takes, args.turns)
    if part == 'decode':
        return bench_train_feed.decoding(args.turns)
    return bench_train_feed.loader(folder, max(2, 4 * args.takes - 2))
