"""`mobile_vla simulate`: drives the arena's suites in one process, faster than real time."""

import argparse
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.rollout.drivers import CONTROLS, fingerprint, make_driver, read_policy

EXAMPLE = 'example: mobile_vla simulate --policy runs/first/best --suite all --out runs/driven'
ALL = 'all'
# The live nodes are started anew after so many trials, and these are kept.
LIVE_BATCH = 20


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'simulate',
        help='drive a policy in the arena',
        description='Drive a policy, or without one the expert, through suites of scenes, and '
        'count how the trials end.',
        epilog=EXAMPLE,
    )
    parser.add_argument(
        '--policy', type=Path, help='policy bundle, or builtin:demo; without it the expert drives'
    )
    parser.add_argument(
        '--suite',
        nargs='+',
        default=['unseen_layouts'],
        metavar='SUITE',
        help=f'suites of scenes (unseen_layouts), or {ALL}',
    )
    parser.add_argument('--trials', type=int, default=100, help='how many of each suite (100)')
    parser.add_argument('--seed', type=int, default=0, help='number of the first trial (0)')
    parser.add_argument(
        '--control',
        choices=CONTROLS,
        default='',
        help='drive what should fail: the policy shown no image or told nothing, '
        'no command at all, or the mean action of its takes',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help='keep every trial there, go on with a run that was stopped, and write report.html',
    )
    parser.add_argument(
        '--ros', action='store_true', help='drive through the live inference and guard nodes'
    )
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Drive the trials and print how they ended; 130 after Ctrl-C."""
    names = _suites(args)
    from mobile_vla_ros.report.build import trials as simulate_report
    from mobile_vla_ros.report.figures.plots import wilson
    from mobile_vla_ros.rollout.trial_log import TrialLog
    from mobile_vla_ros.rollout.trials import scenes_of, summarise
    from mobile_vla_ros.sim.arena import Arena

    for name in names:
        scenes_of(name, args.seed)
        scenes_of(name, args.seed + args.trials - 1)
    with contextlib.ExitStack() as stack:
        arena = stack.enter_context(contextlib.closing(Arena()))
        spec = None if args.policy is None else read_policy(args.policy)
        driver = (
            None if args.ros else make_driver(args.policy, spec, args.control, args.device, arena)
        )
        if args.out is not None or (driver is not None and driver.wants_images):
            _look(arena, names[0], args.seed)
        policy = fingerprint(args.policy)
        logs = {}
        for name in names if args.out is not None else ():
            _folder(args.out)
            logs[name] = stack.enter_context(
                TrialLog(args.out / f'{name}.jsonl', _header(args, name, policy))
            )
        summaries, driven = {}, {}
        try:
            for name in names:
                driven[name], speeds = _drive(args, arena, name, driver, logs.get(name))
                summaries[name] = summarise(name, driven[name], wilson)
                if not args.json:
                    print(simulate_report.text(summaries[name], speeds), flush=True)
            if args.out is not None:
                report = simulate_report.write(
                    args.out / 'report.html', arena, summaries, driven, who=_who(args)
                )
                print(f'report: {report}', file=sys.stderr if args.json else sys.stdout)
        except KeyboardInterrupt:
            print(
                'mobile_vla: stopped'
                + (
                    f'; the finished trials are in {args.out}, and the same command goes on after '
                    'them'
                    if logs
                    else '; give --out DIR to be able to go on'
                ),
                file=sys.stderr,
            )
            return 130
    if args.json:
        print(json.dumps(_result(args, summaries)))
    return 0


def _suites(args: argparse.Namespace) -> list[str]:
    """Check what needs nothing loaded, and return the names of the suites to drive."""
    if args.trials < 1:
        raise UserError(
            'there is nothing to drive', got=f'--trials {args.trials}', expected='at least 1'
        )
    if args.control and args.control != 'zero' and args.policy is None:
        raise UserError(
            f'the control {args.control} is a policy with something taken away',
            got='no --policy',
            expected='the folder of a bundle',
        )
    from mobile_vla_ros.sim import suites

    if args.suite == [ALL]:
        return [name for name, suite in suites.SUITES.items() if suite.yardstick]
    for name in args.suite:
        suites.scene(name, 0)
    return list(dict.fromkeys(args.suite))


def _drive(args: argparse.Namespace, arena, suite: str, driver, log) -> tuple[list, tuple | None]:
    """Return the trials of a suite, and the speed without and with the driver, if any ran."""
    from tqdm import tqdm

    trials = list(log.trials[: args.trials]) if log else []
    left = range(args.seed + len(trials), args.seed + args.trials)
    source = (
        _live(args, arena, suite, left) if args.ros else _in_process(arena, suite, left, driver)
    )
    started, thought, moved_s = time.perf_counter(), driver.seconds if driver else 0.0, 0.0
    with tqdm(
        total=args.trials,
        initial=len(trials),
        desc=suite,
        unit='trial',
        disable=args.json or args.ros,
    ) as bar:  # the live drive has its own
        for trial in source:
            if log:
                log.add(trial)
            trials.append(trial)
            moved_s += sum(drive.elapsed_s for drive in trial.drives)
            bar.set_postfix(
                success=f'{sum(one.success for one in trials)}/{len(trials)}', refresh=False
            )
            bar.update()
    took = time.perf_counter() - started
    if args.ros or not moved_s:
        return trials, None
    return trials, (moved_s / (took - (driver.seconds - thought)), moved_s / took)


def _in_process(arena, suite: str, numbers: range, driver) -> Iterator:
    from mobile_vla_ros.rollout.trials import run_trial

    for number in numbers:
        yield run_trial(arena, suite, number, driver)


def _live(args: argparse.Namespace, arena, suite: str, numbers: range) -> Iterator:
    """Group the drives of the live stack into trials."""
    for first in range(numbers.start, numbers.stop, LIVE_BATCH):
        yield from _live_batch(
            args, arena, suite, range(first, min(first + LIVE_BATCH, numbers.stop))
        )


def _live_batch(args: argparse.Namespace, arena, suite: str, numbers: range) -> Iterator:
    from mobile_vla_ros.rollout.live import drive_live
    from mobile_vla_ros.rollout.trials import Trial, live_drive, scenes_of

    scenes = [scenes_of(suite, number) for number in numbers]
    records = iter(
        drive_live(
            policy=args.policy,
            suite=suite,
            first=scenes[0][0],
            count=scenes[-1][-1] + 1 - scenes[0][0],
            control=args.control,
            device=args.device,
            quiet=args.json,
        )
    )
    for number, wanted in zip(numbers, scenes, strict=True):
        drives = tuple(
            live_drive(arena, suite, record) for record in itertools.islice(records, len(wanted))
        )
        if len(drives) < len(wanted):
            raise UserError(
                'the live drive ended early',
                got=f'{number - numbers[0]} trials',
                expected=len(numbers),
            )
        yield Trial(number, drives)


def _look(arena, suite: str, trial: int) -> None:
    """Draw one picture: a machine that cannot says so before anything is written."""
    from mobile_vla_ros.rollout.trials import scenes_of
    from mobile_vla_ros.sim import suites

    arena.reset(suites.scene(suite, scenes_of(suite, trial)[0]))
    arena.render()


def _folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'{out} cannot be made', got=error.strerror, expected='a folder for --out'
        ) from error


def _header(args: argparse.Namespace, suite: str, policy: str | None) -> dict:
    from mobile_vla_ros.sim.suites import VERSION

    return {
        'suites_version': VERSION,
        'suite': suite,
        'policy': policy,
        'control': args.control,
        'seed': args.seed,
        'ros': args.ros,
    }


def _who(args: argparse.Namespace) -> str:
    """Return who drives, in words."""
    if args.control == 'zero':
        return 'no command at all'
    if args.policy is None:
        return 'the expert'
    what = {
        '': '',
        'image': ', shown no image',
        'instruction': ', told nothing',
        'mean_action': ', its mean action alone',
    }[args.control]
    return f'{args.policy}{what}' + (', live over ROS' if args.ros else '')


def _result(args: argparse.Namespace, summaries: dict) -> dict:
    from mobile_vla_ros.sim.suites import VERSION

    if len(summaries) == 1:
        return next(iter(summaries.values()))
    return {'suites_version': VERSION, 'suites': summaries}
