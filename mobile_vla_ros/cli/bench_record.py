"""`mobile_vla bench record`: load, kill, disk and encode, each figure beside its promise."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

from mobile_vla_ros.errors import UserError

EXAMPLE = 'example: mobile_vla bench record load encode --seconds 60'
PARTS = ('load', 'kill', 'disk', 'encode')
LOAD_S, KILLS = 600.0, 100


def add(benches) -> None:
    """Add the benchmark."""
    parser = benches.add_parser(
        'record', help='what recording costs, and what it survives',
        description='Record 1280x720 at 30 Hz over DDS and count what is lost (load: also at '
                    '60 Hz); kill the recorder in mid-take and have the next one recover (kill); '
                    'fill a file system (disk); set the writer beside the JPEG encoder alone and '
                    "the seed's layout (encode). Exit status 1 when a promise is broken.",
        epilog=EXAMPLE)
    parser.add_argument('parts', nargs='*', metavar='PART',
                        help=f'any of {", ".join(PARTS)} (all of them)')
    parser.add_argument('--seconds', type=float, default=LOAD_S, metavar='S',
                        help=f'length of the take under load ({LOAD_S:g}); a tenth of it at 60 Hz')
    parser.add_argument('--kills', type=int, default=KILLS, metavar='N',
                        help=f'takes that are killed ({KILLS})')
    parser.add_argument('--seed', type=int, default=0, help='of the moments of the kills (0)')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='keep takes and logs in this new folder (ten minutes are 3 GB)')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure what was asked for; 1 when a promise is broken."""
    parts = _check(args)
    from mobile_vla_ros.cli.bench_table import as_json, table
    figures = []
    with _folder(args.out) as folder:
        for part in parts:
            figures += _measure(part, args, folder / part)
            if not args.json:
                print(f'{part}: done', file=sys.stderr, flush=True)
    kept = all(one.kept is not False for one in figures)
    if args.json:
        print(json.dumps({'kept': kept, 'cpus': os.cpu_count(), 'figures': as_json(figures)}))
    else:
        print(table(figures))
    return 0 if kept else 1


def _measure(part: str, args: argparse.Namespace, folder: Path) -> list:
    folder.mkdir()
    if part == 'load':
        from mobile_vla_ros.cli import bench_record_load
        return bench_record_load.measure(folder, args.seconds, quiet=args.json)
    if part == 'kill':
        from mobile_vla_ros.cli import bench_record_kill
        return bench_record_kill.measure(folder, args.kills, args.seed, quiet=args.json)
    if part == 'disk':
        from mobile_vla_ros.cli import bench_record_disk
        return bench_record_disk.measure(folder)
    from mobile_vla_ros.cli import bench_record_encode
    return bench_record_encode.measure(folder, quiet=args.json)


def _check(args: argparse.Namespace) -> list[str]:
    from mobile_vla_ros.errors import did_you_mean
    for part in args.parts:
        if part not in PARTS:
            raise UserError('the benchmark has no such part', got=repr(part),
                            expected=', '.join(PARTS), remedy=did_you_mean(part, PARTS))
    if args.seconds < 1 or args.kills < 1:
        raise UserError('there is nothing to measure',
                        got=f'--seconds {args.seconds:g} --kills {args.kills}',
                        expected='at least 1 of each')
    if args.out is not None and args.out.exists() and any(args.out.iterdir()):
        raise UserError(f'{args.out} is not empty', expected='a new folder for --out')
    return [part for part in PARTS if part in args.parts] or list(PARTS)


@contextlib.contextmanager
def _folder(out: Path | None):
    """Give a folder to work in: the user's, or one that goes when it is over."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix='mobile_vla_bench_') as folder:
            yield Path(folder)
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{out} cannot be made', got=error.strerror,
                        expected='a folder for --out') from None
    yield out.resolve()
