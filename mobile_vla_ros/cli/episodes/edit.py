"""`mobile_vla episodes edit`: mend what was recorded, in a list beside each episode."""

import argparse
import time
from pathlib import Path

SETS = (
    ('instruction', {'metavar': 'T', 'help': 'what the robot was told to do'}),
    ('outcome', {'metavar': 'O', 'help': 'success, failure or unknown'}),
    ('trim', {'metavar': ('START', 'END'), 'nargs': 2, 'type': float, 'help': 'keep these alone'}),
    ('split', {'metavar': 'AT', 'type': float, 'help': 'no training window spans this second'}),
    ('exclude', {'metavar': 'WHY', 'help': 'leave the episode out of training and evaluation'}),
)


def add(actions) -> None:
    """Add the action to those of `mobile_vla episodes`."""
    parser = actions.add_parser(
        'edit',
        help='mend words, ends or outcome, split or exclude; the recording stays as it is',
        description='Add to the list of edits beside each episode, which everything that reads '
        'the episode applies. Seconds are those of `episodes view`.',
        epilog='example: mobile_vla episodes edit takes/EPISODE.h5 --trim 0 8.5',
    )
    parser.add_argument('paths', type=Path, nargs='*', metavar='FILE', help='finished episodes')
    for name, how in SETS:
        parser.add_argument(f'--{name}', **how)
    parser.add_argument('--why', default='', metavar='TEXT', help='the reason for this edit')
    parser.add_argument('--undo', action='store_true', help='undo the last edit that stands')
    parser.add_argument('--log', action='store_true', help='print every edit')
    words = 'edit the files in rows of file,instruction,outcome'
    parser.add_argument('--from', dest='table', type=Path, metavar='CSV', help=words)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Edit every file or none; print a line for each."""
    from mobile_vla_ros.episode.catalog import edit

    given = {name: getattr(args, name) for name, _ in SETS if getattr(args, name) is not None}
    who = {'by': edit.user(), 'time_ns': time.time_ns(), 'why': args.why}
    for line in edit.act(args.paths, given, args.table, undo=args.undo, log=args.log, **who):
        print(line)
    return 0
