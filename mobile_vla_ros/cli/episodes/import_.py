"""`mobile_vla episodes import`: convert recordings of other layouts to episodes."""

import argparse
import json
import sys
from pathlib import Path

from mobile_vla_ros.errors import UserError


def add(actions) -> None:
    """Add the action to those of `mobile_vla episodes`."""
    parser = actions.add_parser(
        'import',
        help='import HDF5 files of raw images, rosbag2 folders and MCAP files',
        description='Import recordings of other layouts, each as a complete episode or not at '
        'all: HDF5 files with an image (BGR) and an action in each row, and rosbag2 folders, '
        '.mcap and .db3 files with Image or CompressedImage and Twist or TwistStamped '
        'topics. Sources imported before are skipped, or get the instruction given now. '
        'Whatever is not imported is named. Exit status 1 if a source could not be imported.',
        epilog='example: mobile_vla episodes import ~/old_takes --out ~/mobile_vla_takes --rate 2 '
        '--instruction "go to the box on the left"',
    )
    parser.add_argument(
        'source',
        type=Path,
        metavar='SRC',
        help='a file, a bag, or a folder, searched recursively',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='DIR',
        help='folder of the episodes, created if missing',
    )
    parser.add_argument(
        '--rate',
        type=float,
        metavar='HZ',
        help='rows per second of HDF5 files, which have no times',
    )
    parser.add_argument(
        '--image-format',
        choices=('jpeg', 'png'),
        default='jpeg',
        help='format for raw images; png is lossless (default: %(default)s)',
    )
    parser.add_argument(
        '--jpeg-quality',
        type=int,
        default=90,
        metavar='1-100',
        help='JPEG quality (default: %(default)s)',
    )
    parser.add_argument(
        '--base_command_timeout_s',
        type=float,
        metavar='S',
        help='the base stops this long after a command, 0: it holds the last one '
        '(default: by the images)',
    )
    colours = "colours of a bag's images of encoding 8UC3 and the like, which names none: bgr8, …"
    for name, metavar, words in (
        ('instruction', 'TEXT', 'of recordings that have none'),
        ('image-topic', 'TOPIC', 'image topic of a bag with several'),
        ('command-topic', 'TOPIC', 'command topic of a bag with several'),
        ('encoding', 'NAME', colours),
        ('extra_topics', '/A,/B', 'other topics of a bag to keep'),
    ):
        parser.add_argument(f'--{name}', default='', metavar=metavar, help=words)
    parser.add_argument('--json', action='store_true', help='print JSON, one object a source')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import; return 1 if a source could not be imported."""
    from tqdm import tqdm

    try:
        from mobile_vla_ros.interop.imports import (
            FAILED,
            IMPORTED,
            SKIPPED,
            ImportOptions,
            find_sources,
            ignored,
            import_episodes,
        )
    except ModuleNotFoundError as error:
        raise UserError(
            f'importing needs the library {error.name}', remedy='pip install -r requirements.txt'
        ) from None
    options = ImportOptions(
        args.instruction,
        args.rate,
        args.image_format,
        args.jpeg_quality,
        args.image_topic,
        args.command_topic,
        args.base_command_timeout_s,
        args.encoding,
        tuple(args.extra_topics.split(',') if args.extra_topics else ()),
    )
    source, out = args.source.expanduser(), args.out.expanduser()
    counts = dict.fromkeys((IMPORTED, SKIPPED, FAILED), 0)
    for outcome in ignored(source, out):
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
        _print(outcome, args.json)
    sources = find_sources(source, out)
    with tqdm(total=len(sources), unit='episode', disable=None, leave=False) as bar:

        def progress(source: Path, frames: int):
            bar.set_postfix_str(f'{source.name}: {frames} frames')

        for outcome in import_episodes(sources, out, options, progress):
            bar.update()
            counts[outcome.status] = counts.get(outcome.status, 0) + 1
            with bar.external_write_mode():
                _print(outcome, args.json)
    if not args.json:
        print(f'{out}: ' + ', '.join(f'{count} {status}' for status, count in counts.items()))
    return int(counts[FAILED] > 0)


def _print(outcome, as_json: bool):
    failed = outcome.status in ('failed', 'ignored') and not as_json
    text = json.dumps(outcome.as_json()) if as_json else outcome.text
    print(text, file=sys.stderr if failed else sys.stdout)
