"""`mobile_vla episodes import`: convert recordings of other layouts to episodes."""

import argparse
import json
import sys
from pathlib import Path

from mobile_vla_ros.errors import UserError

# Fields of `ImportOptions`, which has the defaults.
OPTIONS = (
    ('rate', 'HZ', float, 'rows or poses a second, of files without times'),
    ('images', 'PATH', str, 'images of HDF5 or LeRobot: of an unknown layout or several cameras'),
    ('actions', 'A', str, 'PATH of three columns, or linear_x=PATH[0],…; LeRobot: NAME*FACTOR'),
    ('colour', 'C', str, 'order of the colours there: rgb or bgr'),
    ('scale', 'S', str, 'm/s and rad/s at full deflection: linear_x=1.0,angular_z=2.0'),
    ('wheelbase', 'M', float, 'metres between the axles of a base that steers'),
    ('image-format', 'F', str, 'of raw images: jpeg, or png, which is lossless (default: jpeg)'),
    ('jpeg-quality', '1-100', int, 'default: 90'),
    ('base_command_timeout_s', 'S', float, 'the base stops this long after a command; 0: never'),
    ('instruction', 'TEXT', str, 'of recordings that have none'),
    ('image-topic', 'TOPIC', str, 'image topic of a bag with several'),
    ('command-topic', 'TOPIC', str, 'of several in a bag; or of Odometry, Ackermann or Joy'),
    ('encoding', 'NAME', str, "colours of a bag's images of 8UC3 and the like, as bgr8"),
    ('extra_topics', '/A,/B', lambda text: text.split(','), 'topics of a bag to keep'),
)


def add(actions) -> None:
    """Add the action to those of `mobile_vla episodes`."""
    parser = actions.add_parser(
        'import',
        help='import bags of ROS 1 and 2, HDF5, LeRobot sets, tubs, GNM trajectories',
        description='Import recordings of other layouts (docs/recording.md has an example of '
        'each), each episode completely or not at all. Those imported before are skipped, or get '
        'the instruction given now. Whatever is not imported is named. Exit status 1 if a source '
        'could not be imported.',
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
    for name, metavar, kind, words in OPTIONS:
        parser.add_argument(f'--{name}', metavar=metavar, type=kind, help=words)
    words = 'table of file,instruction,outcome, or pattern of names: {instruction}_{outcome}_{}'
    parser.add_argument('--labels', default='', metavar='CSV|PATTERN', help=words)
    parser.add_argument('--json', action='store_true', help='print JSON, one object a source')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Import; return 1 if a source could not be imported."""
    from tqdm import tqdm

    try:
        from mobile_vla_ros.interop.importers import check_options, find_sources, nothing_at
        from mobile_vla_ros.interop.imports import (
            FAILED,
            IGNORED,
            IMPORTED,
            SKIPPED,
            ImportResult,
            import_episodes,
        )
        from mobile_vla_ros.interop.labels import Labels
        from mobile_vla_ros.interop.source import ImportOptions
    except ModuleNotFoundError as error:
        raise UserError(
            f'importing needs the library {error.name}', remedy='pip install -r requirements.txt'
        ) from None
    given = {name: getattr(args, name.replace('-', '_')) for name, *_ in OPTIONS}
    given |= {'rate_hz': given.pop('rate'), 'wheelbase_m': given.pop('wheelbase')}
    options = ImportOptions(
        **{name.replace('-', '_'): one for name, one in given.items() if one is not None}
    )
    source, out = args.source.expanduser(), args.out.expanduser()
    counts = dict.fromkeys((IMPORTED, SKIPPED, FAILED), 0)
    sources, others = find_sources(source, out)
    for path, reason in others:
        counts[IGNORED] = counts.get(IGNORED, 0) + 1
        _print(ImportResult(path, IGNORED, reason=reason), args.json)
    if not sources:
        raise nothing_at(source)
    check_options(sources, options)
    labels = Labels(args.labels)
    with tqdm(total=len(sources), unit='episode', disable=None, leave=False) as bar:

        def progress(source: Path, frames: int):
            bar.set_postfix_str(f'{source.name}: {frames} frames')

        for outcome in import_episodes(sources, out, options, progress, labels):
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
