"""`mobile_vla demo`: record, train and drive in the arena, and set the policy beside controls."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.rollout.live import (
    LIVE_SUITE,
    POLICY,
    SPEEDS,
    drive_live,
    isolated,
    run_trials,
    successes,
)

EXAMPLE = 'example: mobile_vla demo --out runs/demo'
TRAIN_CONFIG = 'train_demo.yaml'
# The expert errs a little, so that the takes show how to come back.
WOBBLE_MPS = 0.08
# It stays for a while where it has to stop: a take that ended there would not show it.
HOLD_S = 1.5

# Trained in the same way but for what they are not given; and what needs no training.
TRAINED_CONTROLS = {'no image': 'image', 'no instruction': 'instruction'}
CONSTANT_CONTROLS = {'zero action': 'zero', 'mean action': 'mean_action'}
SUITES = ('unseen_layouts', 'unseen_pairs', 'unseen_wording', 'swap')
# The scenes that only one who sees and listens can drive: the blind are tried on these.
CONTROL_SUITES = ('swap',)
AT_ONCE = 2


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'demo',
        help='record, train and drive in the arena',
        description='Record takes from the expert through the recorder node, fine-tune a policy '
        'and two controls that are kept from seeing or hearing, drive them all '
        'through suites of scenes that none has seen, and the policy through the '
        'inference and guard nodes as well.',
        epilog=EXAMPLE,
    )
    parser.add_argument('--out', type=Path, help='new folder (runs/demo_TIME)')
    parser.add_argument('--takes', type=int, default=100, help='takes to record (100)')
    parser.add_argument('--trials', type=int, default=30, help='trials of each suite (30)')
    parser.add_argument(
        '--live', type=int, default=10, help='scenes to drive through the live nodes (10)'
    )
    parser.add_argument('--epochs', type=int, help=f'passes over the takes (as {TRAIN_CONFIG})')
    parser.add_argument(
        '--speed',
        type=float,
        default=4.0,
        metavar='FACTOR',
        help="the arena's time against real time while recording (4); driving, "
        'with a network in the loop, goes at half of it',
    )
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Setup:
    """
    What the steps of the demo share.

    :param speed: the arena's time against real time while recording.
    """

    out: Path
    env: dict[str, str]
    speed: float

    @property
    def drive_speed(self) -> float:
        """The arena's time against real time while a policy drives live."""
        return self.speed / 2


def run(args: argparse.Namespace) -> int:
    """Run the demo; 1 when the policy does no better on `swap` than the best control."""
    setup = _prepare(args)
    started = time.monotonic()
    seconds = {}
    takes = setup.out / 'takes'
    with _timed(seconds, 'record'):
        record(setup, takes, args.takes)
    with _timed(seconds, 'train'):
        policies = train_all(setup, takes, args.epochs)
    with _timed(seconds, 'drive'):
        results = drive_all(setup, policies, args.trials)
    with _timed(seconds, 'drive live'):
        live = drive_live(
            policy=policies[POLICY],
            suite=LIVE_SUITE,
            first=0,
            count=args.live,
            speed=setup.drive_speed,
            what='drive live',
            log=setup.out / 'log' / 'live',
            env=setup.env,
        )
    seconds['all'] = time.monotonic() - started
    from mobile_vla_ros.report.build.demo import best_control, table, write_report

    report = write_report(
        setup.out / 'report.html',
        policy=policies[POLICY],
        takes=takes,
        results=results,
        live=live,
        seconds=seconds,
        speeds=(setup.speed, setup.drive_speed),
    )
    print('\n' + table(policies[POLICY], results, live))
    print(
        f'\npolicy: {policies[POLICY]}\nreport: {report}\n'
        'drive it: ros2 launch mobile_vla_ros drive.launch.py sim:=true '
        f'policy:={policies[POLICY]}'
    )
    if results[POLICY]['swap']['success_rate'] > best_control(results):
        return 0
    print('The policy does no better on the suite swap than one that is blind or deaf.')
    return 1


def _prepare(args: argparse.Namespace) -> Setup:
    """Check everything that can be checked before an hour is lost; make the folder."""
    if args.takes < 2 or args.trials < 1 or args.live < 1:
        raise UserError(
            'there is nothing to do',
            got=f'--takes {args.takes} --trials {args.trials} --live {args.live}',
            expected='at least 2 takes and 1 of each other',
        )
    if not SPEEDS[0] <= args.speed <= SPEEDS[1]:
        raise UserError(
            'the speed is out of range', got=args.speed, expected=f'{SPEEDS[0]:g} to {SPEEDS[1]:g}'
        )
    from mobile_vla_ros.sim.arena import Arena
    from mobile_vla_ros.sim.suites import scene

    arena = Arena()
    arena.reset(scene(LIVE_SUITE, 0))
    arena.render()
    arena.close()
    out = args.out or Path('runs') / time.strftime('demo_%Y%m%dT%H%M%SZ', time.gmtime())
    if out.exists() and any(out.iterdir()):
        raise UserError(f'{out} is not empty', expected='a new folder for --out')
    out.mkdir(parents=True, exist_ok=True)
    return Setup(out.resolve(), isolated(), args.speed)


class _timed:
    """Keep how long a block took."""

    def __init__(self, seconds: dict[str, float], name: str):
        self.seconds, self.name = seconds, name

    def __enter__(self):
        self.started = time.monotonic()

    def __exit__(self, *_):
        self.seconds[self.name] = time.monotonic() - self.started


def record(setup: Setup, takes: Path, count: int) -> list[dict]:
    """
    Record takes of the expert: arena, guard and recorder as `record.launch.py` starts them.

    Every third take begins near its end, so that stopping is shown often enough.
    """
    from mobile_vla_ros.bringup.stacks import RECORD

    trials = []
    for suite, share in (('train', count - count // 3), ('near', count // 3)):
        if not share:
            continue
        nodes = RECORD.nodes(
            sim=True,
            console=False,
            suite=suite,
            data_dir=str(takes),
            operator='expert',
            robot='arena',
            image_transport='compressed',
            real_time_factor=setup.speed,
        )
        trials += run_trials(
            nodes,
            share,
            f'record {suite}',
            suite=suite,
            env=setup.env,
            log=setup.out / 'log' / f'record_{suite}',
            runner={'expert': True, 'wobble': WOBBLE_MPS, 'hold_s': HOLD_S},
        )
    failed = {trial['outcome'] for trial in trials} - {'success'}
    if failed:
        print(
            f'{count - successes(trials)} of {count} takes ended as ' + ', '.join(sorted(failed))
        )
    return trials


def train_all(setup: Setup, takes: Path, epochs: int | None) -> dict[str, Path]:
    """Train the policy, then its controls on the same takes, at once; return the best bundles."""
    from mobile_vla_ros.bringup.share import config_file

    folder = setup.out / 'training'

    def train(name: str, blank: str, threads: int, **options) -> Path:
        out = folder / name.replace(' ', '_')
        command = [
            sys.executable,
            '-m',
            'mobile_vla_ros.cli.main',
            'train',
            '--config',
            str(config_file(TRAIN_CONFIG)),
            '--data',
            str(takes),
            '--out',
            str(out),
            '--token_cache',
            str(setup.out / 'image_tokens'),
            '--blank',
            blank,
        ]
        if epochs is not None:
            command += ['--epochs', str(epochs)]
        done = subprocess.run(
            command, env={**os.environ, 'OMP_NUM_THREADS': str(threads)}, check=False, **options
        )
        if done.returncode:
            raise UserError(
                f'the training stopped ({name})', got=done.stderr or f'status {done.returncode}'
            )
        return out / 'best'

    policies = {POLICY: train(POLICY, '', os.cpu_count() or 1)}
    print(f'training, at once and unseen: {", ".join(TRAINED_CONTROLS)}', flush=True)
    threads = max(1, (os.cpu_count() or 1) // len(TRAINED_CONTROLS))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        policies.update(
            zip(
                TRAINED_CONTROLS,
                pool.map(
                    lambda control: train(*control, threads, capture_output=True, text=True),
                    TRAINED_CONTROLS.items(),
                ),
                strict=True,
            )
        )
    return policies


def drive_all(setup: Setup, policies: dict[str, Path], trials: int) -> dict[str, dict[str, dict]]:
    """Drive the policy in every suite, and each control in those that tell it apart."""
    jobs = [
        (name, CONTROL_SUITES if name != POLICY else SUITES, ['--policy', str(policy)])
        for name, policy in policies.items()
    ]
    jobs += [
        (name, CONTROL_SUITES, ['--policy', str(policies[POLICY]), '--control', control])
        for name, control in CONSTANT_CONTROLS.items()
    ]
    return drive_jobs(jobs, trials, setup.out / 'driven')


def drive_jobs(
    jobs: list[tuple[str, Sequence[str], list[str]]],
    trials: int,
    out: Path,
) -> dict[str, dict[str, dict]]:
    """
    Run `mobile_vla simulate` some times, a few at once.

    :param jobs: who drives, in which suites, and the options that make it so.
    :param trials: of each suite.
    :param out: folder with one folder for each who drives; what is there already is kept.
    :returns: who drove, to suite, to what `simulate --json` prints of it.
    """
    from tqdm import tqdm

    def drive(job: tuple) -> tuple[str, dict[str, dict]]:
        name, suites, options = job
        done = subprocess.run(
            [
                sys.executable,
                '-m',
                'mobile_vla_ros.cli.main',
                'simulate',
                '--json',
                '--suite',
                *suites,
                '--trials',
                str(trials),
                *options,
                '--out',
                str(out / name.replace(' ', '_')),
            ],
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UserError(f'the drives stopped ({name})', got=done.stderr.strip())
        said = json.loads(done.stdout)
        return name, said.get('suites') or {said['suite']: said}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(tqdm(pool.map(drive, jobs), total=len(jobs), desc='drive', unit='driver'))
