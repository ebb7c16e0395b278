"""`mobile_vla simulate`: drives the arena's suites in process, faster than real time."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_vla_ros.cli import add_computing, computing
from mobile_vla_ros.rollout.drivers import CONTROLS

if TYPE_CHECKING:  # it imports MuJoCo
    from mobile_vla_ros.rollout.simulation import Settings

ALL = 'all'


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'simulate',
        help='drive a policy in the arena',
        description='Drive a policy, or without one the expert, through suites of scenes, and '
        'count the outcomes.',
        epilog='example: mobile_vla simulate --policy runs/first/best --suite all '
        '--out runs/driven',
    )
    parser.add_argument('--policy', help='bundle or module:Class; without it the expert drives')
    parser.add_argument(
        '--control',
        choices=CONTROLS,
        default='',
        help='drive a control that should fail: the policy without images or without '
        'instructions, no command, or the mean action of its episodes',
    )
    parser.add_argument(
        '--ros', action='store_true', help='drive through the live inference and guard nodes'
    )
    add_scenes(parser)
    parser.set_defaults(run=run)


def add_scenes(parser: argparse.ArgumentParser) -> None:
    """Add which scenes are driven, and how."""
    parser.add_argument(
        '--suite',
        nargs='+',
        default=['unseen_layouts'],
        metavar='SUITE',
        help=f'suites of scenes (unseen_layouts), or {ALL}',
    )
    parser.add_argument('--trials', type=int, default=100, help='trials of each suite (100)')
    parser.add_argument('--seed', type=int, default=0, help='number of the first trial (0)')
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help='keep the trials there, continue an interrupted run, and write report.html',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        metavar='N',
        help='processes that drive, each with the policy in its memory (one a core)',
    )
    add_computing(parser)
    parser.add_argument('--json', action='store_true', help='print JSON')


def scenes(
    args: argparse.Namespace, policies: Sequence[str] = (), **other
) -> 'tuple[Settings, list[str]]':
    """Return the checked settings and the suites of `add_scenes`, for these policies."""
    from mobile_vla_ros.rollout.simulation import Settings, named

    settings = Settings(
        **{'policy': None, **other},
        trials=args.trials,
        seed=args.seed,
        **computing(args),
        out=args.out,
        quiet=args.json,
        jobs=args.jobs,
    )
    settings.check()
    names = [] if args.suite == [ALL] else args.suite
    return settings, named(names, settings.policy, *policies)


def stopped(out: Path | None) -> int:
    """Say after Ctrl-C how to go on; return the exit status."""
    hint = (
        f'; the finished trials are in {out}, and the same command continues there'
        if out
        else '; use --out DIR to be able to continue'
    )
    print(f'mobile_vla: stopped{hint}', file=sys.stderr)
    return 130


def run(args: argparse.Namespace) -> int:
    """Drive the trials and print the outcomes; return 130 after Ctrl-C."""
    settings, names = scenes(args, policy=args.policy, control=args.control, live=args.ros)
    from mobile_vla_ros.report.builders import trials as report
    from mobile_vla_ros.rollout.simulation import Simulation
    from mobile_vla_ros.rollout.trials import summarise

    with Simulation(settings, names) as simulation:
        summaries, driven = {}, {}
        try:
            for name in names:
                driven[name], speeds = simulation.drive(name)
                summaries[name] = summarise(name, driven[name])
                if not args.json:
                    print(report.text(summaries[name], speeds), flush=True)
            if args.out is not None:
                page = report.write(
                    args.out / 'report.html',
                    simulation.arena,
                    summaries,
                    driven,
                    who=settings.who,
                )
                print(f'report: {page}', file=sys.stderr if args.json else sys.stdout)
        except KeyboardInterrupt:
            return stopped(args.out)
    if args.json:
        one = next(iter(summaries.values()))
        result = {'suites_version': one['suites_version'], 'suites': summaries}
        print(json.dumps(one if len(summaries) == 1 else result))
    return 0
