"""`mobile_vla bench record`: load, kill, disk and encode, each figure beside its promise."""

import argparse
from pathlib import Path

from mobile_vla_ros.bench.run import add_arguments, asked, refuse_full, run_parts
from mobile_vla_ros.errors import UserError

EXAMPLE = 'example: mobile_vla bench record load encode --seconds 60'
PARTS = ('load', 'kill', 'disk', 'encode')
LOAD_S, KILLS = 600.0, 100


def add(benches) -> None:
    """Add the benchmark."""
    parser = benches.add_parser(
        'record',
        help='what recording costs, and what it survives',
        description='Record 1280x720 at 30 Hz over DDS and count what is lost (load: also at '
        '60 Hz); kill the recorder in mid-take and have the next one recover (kill); '
        'fill a file system (disk); set the writer beside the JPEG encoder alone and '
        "the seed's layout (encode). Exit status 1 when a promise is broken.",
        epilog=EXAMPLE,
    )
    parser.add_argument(
        '--seconds',
        type=float,
        default=LOAD_S,
        metavar='S',
        help=f'length of the take under load ({LOAD_S:g}); a tenth of it at 60 Hz',
    )
    parser.add_argument(
        '--kills', type=int, default=KILLS, metavar='N', help=f'takes that are killed ({KILLS})'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the moments of the kills (0)')
    add_arguments(parser, PARTS, 'takes and logs (ten minutes are 3 GB)')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for; 1 when a promise is broken."""
    parts = asked(args, PARTS)
    if args.seconds < 1 or args.kills < 1:
        raise UserError(
            'there is nothing to measure',
            got=f'--seconds {args.seconds:g} --kills {args.kills}',
            expected='at least 1 of each',
        )
    refuse_full(args.out)
    return run_parts(
        parts, lambda part, folder: _measure(part, args, folder), args.out, as_json=args.json
    )


def _measure(part: str, args: argparse.Namespace, folder: Path) -> list:
    if part == 'load':
        from mobile_vla_ros.bench.record import load as bench_record_load

        return bench_record_load.measure(folder, args.seconds, quiet=args.json)
    if part == 'kill':
        from mobile_vla_ros.bench.record import kill as bench_record_kill

        return bench_record_kill.measure(folder, args.kills, args.seed, quiet=args.json)
    if part == 'disk':
        from mobile_vla_ros.bench.record import disk as bench_record_disk

        return bench_record_disk.measure(folder)
    from mobile_vla_ros.bench.record import encode as bench_record_encode

    return bench_record_encode.measure(folder, quiet=args.json)
