"""`mobile_vla replay`: run a recorded episode through the real inference path, and compare."""

import argparse
import json
import sys
from pathlib import Path

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.replay.settings import MAX_THREADS, Settings

EXAMPLE = 'example: mobile_vla replay takes/20260101T120000Z_0123abcd.h5 --policy runs/first/best'
PRECISIONS = ('fp32', 'bf16', 'fp16')
LIVE_TOLERANCE = 1e-5  # m/s or rad/s: between the node and the same path in one process


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'replay',
        help='show a policy a recorded episode, and compare',
        description='Show a policy the frames of an episode at the times at which they came, and '
        'compare what it commands with what was driven then, beside predictors that '
        'see nothing. With --ros the live inference node is shown them too; exit '
        'status 1 when it says something else. Nothing is sent to a robot.',
        epilog=EXAMPLE,
    )
    parser.add_argument('episode', type=Path, help='an episode (.h5)')
    parser.add_argument('--policy', type=Path, required=True, help='policy bundle')
    parser.add_argument('--instruction', metavar='TEXT', help="instead of the episode's own")
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    parser.add_argument(
        '--precision',
        default='fp32',
        choices=PRECISIONS,
        help='as the inference node has it (fp32)',
    )
    parser.add_argument(
        '--threads',
        type=int,
        default=1,
        metavar='N',
        help='cores that torch may use, as torch_threads of the node (1)',
    )
    parser.add_argument('--offline', action='store_true', help='never ask the hub')
    parser.add_argument(
        '--ros',
        action='store_true',
        help='show the episode to the live inference node as well, and compare',
    )
    parser.add_argument(
        '--plot', type=Path, metavar='FILE.png', help='draw predicted and driven over time'
    )
    parser.add_argument(
        '--store-golden',
        action='store_true',
        help="only write the bundle's golden frames anew, from the episode's first "
        'window; look at what the policy says of the episode before',
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay and print; 1 when the live node says something else."""
    _check(args)
    settings = Settings(
        episode=args.episode,
        policy=args.policy,
        instruction=args.instruction,
        device=args.device,
        precision=args.precision,
        threads=args.threads,
        offline=args.offline,
        quiet=args.json,
    )
    settings.check()
    if args.store_golden:
        from mobile_vla_ros.replay.golden import store

        path = store(args.episode, args.policy, args.instruction)
        print(json.dumps({'golden': str(path)}) if args.json else f'golden frames: {path}')
        return 0
    from tqdm import tqdm

    from mobile_vla_ros.replay.compare import summary, text
    from mobile_vla_ros.replay.run import replay

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
        'device': policy.network.action_token.device.type,
        'precision': args.precision,
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
    """Raise UserError for arguments that make no sense, or not together."""
    if not 1 <= args.threads <= MAX_THREADS:
        raise UserError(
            'torch cannot use that number of cores',
            got=f'--threads {args.threads}',
            expected=f'1 to {MAX_THREADS}',
        )
    if args.plot and (not args.plot.parent.is_dir() or args.plot.suffix.lower() != '.png'):
        raise UserError(
            'the plot cannot be written there',
            got=args.plot,
            expected='--plot FILE.png in a folder that is there',
        )
    if args.store_golden and (args.ros or args.plot):
        raise UserError(
            'golden frames are stored without replaying the episode',
            got='--store-golden with --ros or --plot',
            expected='one at a time',
        )


def _plot(path: Path, found, spec, result: dict) -> None:
    from mobile_vla_ros.report.figures.replay_plot import write_png

    seconds = (found.now_ns - found.now_ns[0]) / 1e9
    actions = spec.actions
    try:
        write_png(
            path,
            f'{result["episode"]}: {found.instruction}',
            seconds,
            {
                axis: (unit, found.twist[:, column], found.driven[:, column])
                for axis, column, unit in zip(
                    actions.axes, actions.columns, actions.units, strict=True
                )
            },
        )
    except OSError as error:
        raise UserError(f'the plot {path} cannot be written', got=error.strerror) from error
    print(f'plot: {path}', file=sys.stderr)
