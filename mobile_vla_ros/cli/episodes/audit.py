"""`mobile_vla episodes audit`: what a training would really learn from."""

import argparse
import json
from pathlib import Path

from mobile_vla_ros.types import ACCEPTED_VERDICTS, TWIST_AXES


def add(actions) -> None:
    """Add the action."""
    summary = 'what a training would learn from: kept, lost, scales, words'
    parser = actions.add_parser(
        'audit',
        help=summary,
        description=summary.capitalize() + '. Exit status 1 if over half of what was driven is '
        'lost or taught as standing still, which train refuses.',
        epilog='example: mobile_vla episodes audit ~/mobile_vla_takes',
    )
    parser.add_argument('path', type=Path, metavar='DIR|FILE', help='a folder of episodes')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    for name, default, words in (
        ('rate_hz', 10.0, 'frames a second of the policy'),
        ('window', 4, 'frames of its window'),
        ('chunk', 10, 'actions that it predicts'),
        ('camera', '', 'its camera, as in mobile_vla train'),
    ):
        words += f' (default {default})' if default else ''
        parser.add_argument(f'--{name}', type=type(default), default=default, help=words)
    parser.add_argument('--command_max_age_s', type=float, help='as in mobile_vla train')
    parser.add_argument('--axes', nargs='+', default=['linear_x', 'linear_y'], choices=TWIST_AXES)
    parser.add_argument('--accept_verdicts', nargs='+', default=list(ACCEPTED_VERDICTS))
    parser.add_argument(
        '--backbone', metavar='ID|FOLDER', help='check the words with its tokenizer, offline'
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the audit; return 1 if its verdict is bad."""
    from mobile_vla_ros.data.segments import Sampling
    from mobile_vla_ros.episode.storage.reader import episodes_at
    from mobile_vla_ros.evaluation import audit

    paths, sampling = episodes_at(args.path), Sampling.of(args)
    found = audit.audit_paths(paths, sampling, args.axes, args.accept_verdicts, args.backbone)
    print(json.dumps(found) if args.json else '\n'.join(audit.lines(found)))
    return 1 if found['verdict'] == 'bad' else 0
