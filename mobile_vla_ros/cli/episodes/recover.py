"""`mobile_vla episodes recover`: complete unfinished episodes, salvage damaged ones."""

import argparse
import json
import sys
import time
from pathlib import Path

from mobile_vla_ros.errors import UserError

SUMMARY = 'complete unfinished episodes, and salvage damaged files'
DESCRIPTION = (
    'Complete every .part that is not being written, and copy every .h5 that cannot be opened '
    '(the copy ends in _recovered.h5). Readable data is kept, the rest counted; a damaged file is '
    'never changed, and a .part is removed only if all of it was read. Exit status 1 if a file '
    'could not be recovered.'
)


def add(actions) -> None:
    """Add the action to `mobile_vla episodes`."""
    parser = actions.add_parser(
        'recover',
        help=SUMMARY,
        description=DESCRIPTION,
        epilog='example: mobile_vla episodes recover ~/mobile_vla_takes',
    )
    parser.add_argument(
        'path',
        type=Path,
        metavar='DIR|FILE',
        help='a folder of episodes, or one file (.h5.part or .h5)',
    )
    parser.add_argument('--json', action='store_true', help='print JSON, one object a line')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Recover the files that need it; return 1 if one could not be recovered."""
    from tqdm import tqdm

    from mobile_vla_ros.episode.storage import recovery

    path = args.path.expanduser()
    if not path.exists():
        raise UserError(f'no file or folder {path}')
    found, busy = _damaged(path) if path.is_dir() else ([path], [])
    for part in busy:
        _print(
            args,
            {'path': str(part), 'written': True},
            f'{part.name} is being written: skipped',
        )
    status = 0
    for one in tqdm(found, unit='episode', disable=None, leave=False):
        try:
            result = recovery.recover(one, now_ns=time.time_ns())
        except UserError as error:
            status = 1
            if args.json:
                print(json.dumps({'path': str(one), 'error': str(error)}))
            print(f'mobile_vla: error: {error}', file=sys.stderr)
            continue
        _print(
            args, {**vars(result), 'path': str(one), 'episode': str(result.path)}, result.sentence
        )
    if not found and not busy and not args.json:
        print(f'nothing to recover in {path}')
    return status


def _damaged(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files of a folder that need recovery, and the parts that are in use."""
    from tqdm import tqdm

    from mobile_vla_ros.episode.storage import recovery, schema

    parts = sorted(folder.glob(f'*{schema.PART_SUFFIX}'))
    whole = sorted(folder.glob(f'*{schema.SUFFIX}'))
    found = recovery.abandoned(folder)
    found += [
        path
        for path in tqdm(whole, unit='file', desc='checking', disable=None, leave=False)
        if recovery.is_damaged(path)
    ]
    return found, [part for part in parts if part.exists() and recovery.is_written(part)]


def _print(args: argparse.Namespace, values: dict, sentence: str):
    print(json.dumps({**values, 'sentence': sentence}) if args.json else sentence)
