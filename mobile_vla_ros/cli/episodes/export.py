"""`mobile_vla episodes export`: write episodes as plain files or as bags, for other tools."""

import argparse
import json
import sys
from pathlib import Path

from mobile_vla_ros.errors import UserError


def add(actions) -> None:
    """Add the action to those of `mobile_vla episodes`."""
    parser = actions.add_parser(
        'export',
        help='write episodes as plain files (csv) or as bags (rosbag2)',
        description='Write each episode into its own folder, for other tools. An episode whose '
        'folder exists is skipped, so an interrupted export continues.',
        epilog='example: mobile_vla episodes export ~/mobile_vla_takes --out bags '
        '--format rosbag2',
    )
    parser.add_argument(
        'path',
        type=Path,
        metavar='DIR|FILE',
        help='a folder of episodes, or one file (a .part as well)',
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='parent of the new folders'
    )
    parser.add_argument(
        '--format',
        choices=('csv', 'rosbag2'),
        required=True,
        help='csv: images as stored, tables of frames, commands and '
        'events, JSON; rosbag2: MCAP with CompressedImage, TwistStamped and '
        'String',
    )
    words = 'whose images csv has, as in train (default: the main one; rosbag2 has all)'
    parser.add_argument('--camera', default='', help=words)
    parser.add_argument('--json', action='store_true', help='print JSON, one object an episode')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export; return 1 if an episode could not be exported."""
    from tqdm import tqdm

    from mobile_vla_ros.episode.catalog.inspect import vetted
    from mobile_vla_ros.episode.storage.reader import episodes_at
    from mobile_vla_ros.interop.export import clear_away, export

    out = args.out.expanduser()
    if args.camera and args.format != 'csv':
        raise UserError('--camera goes with --format csv: a bag has every camera')
    paths = episodes_at(args.path)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot make the folder {out}', got=error.strerror) from None
    clear_away(out)
    counts = dict.fromkeys(('exported', 'skipped', 'failed'), 0)
    for one, fault in vetted(tqdm(paths, unit='episode', disable=None, leave=False)):
        try:
            if fault is not None:
                raise fault
            alone = args.path.expanduser().is_file()
            done = export(one, out, args.format, excluded=alone, camera=args.camera)
        except UserError as error:
            done = {'status': 'failed', 'reason': str(error)}
            print(f'mobile_vla: error: {error}', file=sys.stderr)
        counts[done['status']] += 1
        if args.json:
            print(json.dumps({'episode': str(one), **done}))
        elif done['status'] == 'skipped':
            print(f'{done["reason"]}: skipped')
    if not args.json:
        print(f'{out}: ' + ', '.join(f'{count} {status}' for status, count in counts.items()))
    return int(counts['failed'] > 0)
