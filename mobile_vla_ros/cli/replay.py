"""`mobile_vla replay`: run a recorded episode through the real inference path, and compare."""

import argparse
import json
import sys
from pathlib import Path

from mobile_vla_ros.cli import add_computing, computing
from mobile_vla_ros.errors import UserError

LIVE_TOLERANCE = 1e-5  # m/s or rad/s: between the node and the same path in one process


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'replay',
        help='compare a policy with a recorded episode',
        description='Give a policy the frames of an episode at their times of receipt and compare '
        'its commands with the driven ones, beside predictors without input. With '
        '--ros, also replay to the live inference node; exit status 1 if its proposals '
        'differ. Nothing is sent to a robot.',
        epilog='example: mobile_vla replay takes/20260101T120000Z_0123abcd.h5 --policy DIR',
    )
    parser.add_argument('episode', type=Path, help='an episode (.h5)')
    parser.add_argument('--policy', required=True, help='bundle, or module:Class')
    parser.add_argument('--instruction', metavar='TEXT', help="instead of the episode's own")
    add_computing(parser)
    parser.add_argument(
        '--threads',
        type=int,
        default=1,
        metavar='N',
        help='CPU threads for torch, as torch_threads of the node (1)',
    )
    parser.add_argument(
        '--ros',
        action='store_true',
        help='also replay to the live inference node, and compare',
    )
    parser.add_argument(
        '--plot', type=Path, metavar='FILE.png', help='draw predicted and driven over time'
    )
    parser.add_argument(
        '--store-golden',
        action='store_true',
        help="only replace the bundle's golden frames by the episode's first window; check "
        'the policy on this episode first',
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay and print; return 1 if the live node differs."""
    _check(args)
    from mobile_vla_ros.replay.run import Settings, replay

    settings = Settings(
        episode=args.episode,
        policy=args.policy,
        instruction=args.instruction,
        threads=args.threads,
        **computing(args),
        quiet=args.json,
    )
    settings.check()
    if args.store_golden:
        from mobile_vla_ros.replay.golden import store

        path = store(args.episode, args.policy, args.instruction, args.backbone)
        print(json.dumps({'golden': str(path)}) if args.json else f'golden frames: {path}')
        return 0
    from tqdm import tqdm

    from mobile_vla_ros.replay.compare import summary, text

    policy = settings.load()
    found = replay(
        args.episode,
        policy,
        args.instruction,
        lambda frames: tqdm(
            frames, desc='replay', unit='frame', leave=False, disable=True if args.json else None
        ),
    )
    result = {
        'episode': args.episode.stem,
        'policy': str(args.policy),
        'device': str(getattr(policy, 'device', 'its own device')),
        'precision': settings.computed_in,
        'threads': args.threads,
        **summary(found, policy.spec),
        'live': None,
    }
    if args.ros:
        from mobile_vla_ros.replay.live import replay_live

        result['live'] = replay_live(settings, found, policy.spec, LIVE_TOLERANCE)
    if args.plot:
        _plot(args.plot, found, policy.spec, result)
    print(json.dumps(result, indent=2, allow_nan=False) if args.json else text(result))
    return 1 if result['live'] and not result['live']['equal'] else 0


def _check(args: argparse.Namespace) -> None:
    """Raise UserError for invalid or incompatible arguments."""
    if args.plot and (not args.plot.parent.is_dir() or args.plot.suffix.lower() != '.png'):
        raise UserError(
            'cannot write the plot',
            got=args.plot,
            expected='--plot FILE.png in an existing folder',
        )
    if args.store_golden and (args.ros or args.plot):
        raise UserError(
            'golden frames are stored without replaying the episode',
            got='--store-golden with --ros or --plot',
            expected='one at a time',
        )


def _plot(path: Path, found, spec, result: dict) -> None:
    from mobile_vla_ros.replay.compare import traces
    from mobile_vla_ros.report.figures.replay_plot import write_png

    write_png(path, f'{result["episode"]}: {found.instruction}', *traces(found, spec.actions))
    print(f'plot: {path}', file=sys.stderr)
