"""`mobile_vla episodes recover`: complete unfinished episodes, salvage damaged ones."""

import argparse
import json
import sys
import time
from functools import partial
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

    from mobile_vla_ros.episode.catalog.file_worker import FileWorker
    from mobile_vla_ros.episode.catalog.inspect import RECOVERY, need_recovery

    path = args.path.expanduser()
    if not path.exists():
        raise UserError(f'no file or folder {path}')
    status = 0
    with FileWorker() as worker:
        found, busy = [path], list[Path]()
        if path.is_dir():
            bar = partial(tqdm, unit='file', desc='checking', disable=None, leave=False)
            found, busy = need_recovery(path, worker, bar)
        for part in busy:
            _print(
                args,
                {'path': str(part), 'written': True},
                f'{part.name} is being written: skipped',
            )
        for one in tqdm(found, unit='episode', disable=None, leave=False):
            try:
                result = worker.call(f'{RECOVERY}:recover_plain', one, time.time_ns(), whole=True)
            except UserError as error:
                status = 1
                if args.json:
                    print(json.dumps({'path': str(one), 'error': str(error)}))
                print(f'mobile_vla: error: {error}', file=sys.stderr)
                continue
            values = {**result, 'path': str(one), 'episode': result['path']}
            _print(args, values, result['sentence'])
    if not found and not busy and not args.json:
        print(f'nothing to recover in {path}')
    return status


def _print(args: argparse.Namespace, values: dict, sentence: str):
    print(json.dumps({**values, 'sentence': sentence}) if args.json else sentence)
