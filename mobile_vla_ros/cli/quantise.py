"""`mobile_vla quantise`: prove that a policy drives as well with int8 weights."""

import argparse
import json
from pathlib import Path

from mobile_vla_ros.cli import add_computing, computing


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'quantise',
        help='allow a policy to drive with int8 weights',
        description='Drive the same scenes with and without int8 weights. If that is at most 2 '
        'points worse at 95 %% and golden frames are reproduced, write a copy of the bundle with '
        'the proof, which drives with precision int8. Exit status 1 if it is not shown.',
        epilog='example: mobile_vla quantise runs/first/best --out runs/first_int8',
    )
    parser.add_argument('policy', type=Path, metavar='BUNDLE', help='a bundle, or builtin:demo')
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='BUNDLE2',
        help='new bundle; the trials stay in BUNDLE2_trials, where an interrupted run continues',
    )
    parser.add_argument('--suite', default='unseen_layouts', help='scenes (unseen_layouts)')
    parser.add_argument('--trials', type=int, default=300, help='pairs of trials (300)')
    add_computing(parser)
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the result; return 1 if int8 may be worse."""
    from mobile_vla_ros.rollout.quantise import prove, words
    from mobile_vla_ros.rollout.simulation import Settings

    settings = Settings(args.policy, args.trials, 0, quiet=args.json, **computing(args))
    proved, proof = prove(settings, args.suite, args.out)
    result = {'policy': str(args.out) if proved else None, **proof}
    print(json.dumps(result) if args.json else words(proof, args.out if proved else None))
    return 0 if proved else 1
