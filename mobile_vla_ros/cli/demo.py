"""`mobile_vla demo`: record, train and drive in the arena, and compare with controls."""

import argparse
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.rollout.demo import POLICY, TRAIN_CONFIG, Demo


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'demo',
        help='record, train and drive in the arena',
        description='Record episodes of the expert through the recorder node, fine-tune a policy '
        'and two controls without images or without instructions, drive them through suites '
        'of scenes that no episode has, and the policy also through the inference and '
        'guard nodes.',
        epilog='example: mobile_vla demo --out runs/demo',
    )
    parser.add_argument('--out', type=Path, help='new folder (runs/demo_TIME)')
    parser.add_argument('--base', choices=('omni', 'diff'), default='omni', help='of the robot')
    parser.add_argument('--takes', type=int, default=100, help='episodes to record (100)')
    parser.add_argument('--trials', type=int, default=30, help='trials of each suite (30)')
    parser.add_argument(
        '--live', type=int, default=10, help='scenes to drive through the live nodes (10)'
    )
    parser.add_argument(
        '--epochs', type=int, help=f'passes over the episodes (as in {TRAIN_CONFIG})'
    )
    parser.add_argument(
        '--speed',
        type=float,
        default=4.0,
        metavar='FACTOR',
        help="the arena's time against real time while recording (4); half of it while "
        'driving live',
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo; return 1 if the policy is no better on `swap` than the best control."""
    if args.takes < 2 or args.trials < 1 or args.live < 1:
        raise UserError(
            'nothing to do',
            got=f'--takes {args.takes} --trials {args.trials} --live {args.live}',
            expected='at least 2 episodes, and 1 of each other',
        )
    demo = Demo.prepare(args.out, args.speed, args.base)
    seconds: dict[str, float] = {}
    with _timed(seconds, 'all'):
        with _timed(seconds, 'record'):
            demo.record(args.takes)
        with _timed(seconds, 'train'):
            policies = demo.train(args.epochs)
        policy = policies[POLICY]
        with _timed(seconds, 'drive'):
            results = demo.drive(policies, args.trials)
        with _timed(seconds, 'drive live'):
            live = demo.drive_live(policy, args.live)
    from mobile_vla_ros.report.builders.demo import best_control, table, write_report

    report = write_report(
        demo.out / 'report.html',
        policy=policy,
        episodes=demo.episodes,
        results=results,
        live=live,
        seconds=seconds,
        speeds=(demo.speed, demo.drive_speed),
    )
    print('\n' + table(policy, results, live))
    print(
        f'\npolicy: {policy}\nreport: {report}\n'
        f'drive it: ros2 launch mobile_vla_ros drive.launch.py sim:=true base:={args.base} '
        f'policy:={policy}'
    )
    if results[POLICY]['swap']['success_rate'] > best_control(results):
        return 0
    print('The policy is no better on the suite swap than the best control.')
    return 1


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Store the duration of a block."""
    started = time.monotonic()
    try:
        yield
    finally:
        seconds[name] = time.monotonic() - started
