"""`mobile_vla episodes export`: write episodes as plain files, as bags or as a LeRobot set."""

import argparse
import json
import sys
from pathlib import Path

from mobile_vla_ros.errors import UserError


def add(actions) -> None:
    """Add the action to those of `mobile_vla episodes`."""
    parser = actions.add_parser(
        'export',
        help='write episodes as plain files (csv), as bags (rosbag2) or as a LeRobot set',
        description='Write each episode into its own folder, or all into one LeRobot set. What '
        'exists is skipped, so an interrupted export continues.',
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
        '--out',
        type=Path,
        required=True,
        metavar='DIR',
        help='parent of the folders, or the set',
    )
    parser.add_argument(
        '--format',
        choices=('csv', 'rosbag2', 'lerobot'),
        required=True,
        help='csv: images as stored, tables of frames, commands and '
        'events, JSON; rosbag2: MCAP with CompressedImage, TwistStamped and '
        'String; lerobot: LeRobotDataset v3.0',
    )
    lerobot = parser.add_argument_group('of a LeRobot set')
    lerobot.add_argument('--video', choices=('h264', 'av1'), default='', help='instead of images')
    lerobot.add_argument('--fps', type=int, help='frames a second (default: of the cameras)')
    states = ('odom', 'command')
    lerobot.add_argument('--state', choices=states, default='', help='observation.state')
    lerobot.add_argument(
        '--actions',
        default='',
        metavar='AXIS=NAME,…',
        help='(default: x.vel, y.vel, theta.vel … of the axes that are used)',
    )
    words = 'whose images csv has, as in train (default: the main one; rosbag2 has all)'
    parser.add_argument('--camera', default='', help=words)
    parser.add_argument('--json', action='store_true', help='print JSON, one object an episode')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export; return 1 if an episode could not be exported."""
    from tqdm import tqdm

    from mobile_vla_ros.episode.storage.reader import episodes_at
    from mobile_vla_ros.interop.export import exported
    from mobile_vla_ros.interop.lerobot.library import load

    if args.camera and args.format != 'csv':
        raise UserError('--camera goes with --format csv: a bag has every camera')
    if args.format != 'lerobot' and {args.video, args.fps, args.state, args.actions} - {'', None}:
        raise UserError('--video, --fps, --state and --actions go with --format lerobot')
    out, paths = args.out.expanduser(), episodes_at(args.path)
    excluded = args.path.expanduser().is_file()
    notes: list[str] = []
    if args.format == 'lerobot':
        lerobot = load('export')
        wanted = lerobot.Wanted(args.video, args.fps, args.state, args.actions)
        results = lerobot.exported(paths, out, wanted, excluded=excluded, note=notes.append)
    else:
        results = exported(paths, out, args.format, excluded=excluded, camera=args.camera)
    counts = dict.fromkeys(('exported', 'skipped', 'failed'), 0)
    for one, done in tqdm(results, unit='episode', total=len(paths), disable=None, leave=False):
        counts[done['status']] += 1
        if done['status'] == 'failed':
            print(f'mobile_vla: error: {done["reason"]}', file=sys.stderr)
        if args.json:
            print(json.dumps({'episode': str(one), **done}))
        elif done['status'] == 'skipped':
            print(f'{done["reason"]}: skipped')
    if not args.json:
        print(f'{out}: ' + ', '.join(f'{count} {status}' for status, count in counts.items()))
        print(*notes, sep='\n', end='\n' * bool(notes))
    return int(counts['failed'] > 0)
