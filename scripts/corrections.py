#!/usr/bin/env python3
"""
Correct a policy while it drives in the arena, train it on the episodes, and measure the gain.

The policy drives through the live nodes (`drive.launch.py record:=true sim:=true`); the expert
takes over on teleop/cmd_vel where it goes wrong. The result is measured on other scenes. Finished
parts are kept in --out: the same command continues after an interruption.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_DRIVES = 20
Z = 1.96  # of a 95 % interval


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.strip().splitlines()[0],
        epilog='example: .venv/bin/python scripts/corrections.py --out runs/corrections',
    )
    parser.add_argument('--policy', default='builtin:demo', help='bundle (%(default)s)')
    parser.add_argument('--suite', default='disturbed', help='suite of scenes (%(default)s)')
    parser.add_argument(
        '--kind', default='pass', help="only scenes of this task (%(default)s); '' for all"
    )
    parser.add_argument(
        '--drives',
        type=int,
        default=MAX_DRIVES,
        help=f'drives to correct, at most {MAX_DRIVES} (%(default)s)',
    )
    parser.add_argument(
        '--weight', type=float, default=10.0, help='weight of the corrections (%(default)s)'
    )
    parser.add_argument('--epochs', type=int, default=6, help='(%(default)s)')
    parser.add_argument('--learning-rate', type=float, default=2e-4, help='(%(default)s)')
    parser.add_argument(
        '--scenes', type=int, default=300, help='scenes to measure on (%(default)s)'
    )
    parser.add_argument(
        '--first',
        type=int,
        default=2000,
        help='index of the first of these in the suite (%(default)s)',
    )
    parser.add_argument(
        '--plain',
        action='store_true',
        help='also measure a training on the same episodes without --corrections',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('runs/corrections'),
        help='folder of episodes, trainings and drives (%(default)s)',
    )
    return parser.parse_args(argv)


def record(args: argparse.Namespace, episodes: Path) -> list[dict]:
    """Drive, correct and record; return the runner's report of each drive."""
    from mobile_vla_ros.bringup.domain import isolated
    from mobile_vla_ros.bringup.stacks import DRIVE
    from mobile_vla_ros.model.builtin import bundle_folder
    from mobile_vla_ros.rollout.live import run_trials

    kept = args.out / 'drives.json'
    if kept.exists():
        return json.loads(kept.read_text())
    nodes = DRIVE.nodes(
        policy=str(bundle_folder(args.policy).resolve()),
        sim=True,
        suite=args.suite,
        next_scene_after_s=0.0,
        image_transport='compressed',
        real_time_factor=1.0,
        record=True,
        data_dir=str(episodes),
        operator='expert',
        robot='arena',
    )
    for node in nodes:
        if node.name == 'guard':  # the expert releases on purpose: no need to wait
            node.parameters['takeover_hold_s'] = 0.3
        if node.name == 'recorder':  # the arena runner starts and ends the episodes
            node.parameters['follow_guard'] = False
    trials = run_trials(
        nodes,
        args.drives,
        'correct',
        suite=args.suite,
        env=isolated(),
        log=args.out / 'log',
        runner={'correct': True, 'kind': args.kind, 'hold_s': 1.5},
    )
    kept.write_text(json.dumps(trials))
    return trials


def train(args: argparse.Namespace, episodes: Path, weight: float, out: Path) -> Path:
    """Train the policy further on the episodes; return the newest bundle."""
    bundle = out / 'last'
    if bundle.exists() and not (out / 'state.safetensors').exists():
        return bundle
    from mobile_vla_ros.bringup.share import config_file

    subprocess.run(
        [
            sys.executable,
            '-m',
            'mobile_vla_ros.cli.main',
            'train',
            '--config',
            str(config_file('train_demo.yaml')),
            '--init',
            str(args.policy),
            '--data',
            str(episodes),
            '--out',
            str(out),
            '--token_cache',
            str(args.out / 'image_tokens'),
            '--corrections',
            str(weight),
            '--epochs',
            str(args.epochs),
            '--learning_rate',
            str(args.learning_rate),
            '--lora_learning_rate',
            str(args.learning_rate * 0.3),
            '--val_share',
            '0.1',
        ],
        check=True,
    )
    return bundle


def drive(args: argparse.Namespace, policy: str, log: Path) -> dict[int, bool]:
    """Drive the scenes in process, as `mobile_vla simulate` does; return scene → success."""
    from tqdm import tqdm

    from mobile_vla_ros.rollout.drivers import make_driver
    from mobile_vla_ros.rollout.trials import drive_scene
    from mobile_vla_ros.sim import suites
    from mobile_vla_ros.sim.arena import Arena

    wanted, index = [], args.first
    while len(wanted) < args.scenes:
        if args.kind in ('', suites.scene(args.suite, index).task.kind):
            wanted.append(index)
        index += 1
    done = {}
    if log.exists():
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        done = {row['scene']: row['outcome'] == 'success' for row in rows}
    remaining = [index for index in wanted if index not in done]
    if remaining:
        arena = Arena()
        driver = make_driver(policy, '', 'cpu', arena)
        with log.open('a') as file:
            for index in tqdm(remaining, desc=log.stem, unit='drive', disable=None):
                one = drive_scene(arena, args.suite, index, driver)
                done[index] = one.outcome == 'success'
                file.write(json.dumps({'scene': index, 'outcome': one.outcome}) + '\n')
                file.flush()
        arena.close()
    return {index: done[index] for index in wanted}


def compare(before: dict[int, bool], after: dict[int, bool]) -> tuple[float, float, float]:
    """Return the gain in the success rate and its paired 95 % interval."""
    count = len(before)
    won = sum(after[index] and not before[index] for index in before)
    lost = sum(before[index] and not after[index] for index in before)
    rise = (won - lost) / count
    spread = Z * math.sqrt(max(won + lost - (won - lost) ** 2 / count, 1)) / count
    return rise, rise - spread, rise + spread


def main(argv=None) -> int:
    args = parse(argv)
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    from mobile_vla_ros.errors import UserError
    from mobile_vla_ros.rollout.trials import wilson

    if not 1 <= args.drives <= MAX_DRIVES:
        print(
            f'corrections: error: --drives {args.drives}; expected 1 to {MAX_DRIVES}',
            file=sys.stderr,
        )
        return 2
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    episodes = args.out / 'takes'
    try:
        trials = record(args, episodes)
        policies = {
            'before': args.policy,
            'corrected': train(args, episodes, args.weight, args.out / 'corrected'),
        }
        if args.plain:
            policies['plain'] = train(args, episodes, 0.0, args.out / 'unweighed')
        ends = {
            name: drive(args, policy, args.out / f'{name}.jsonl')
            for name, policy in policies.items()
        }
    except UserError as error:
        print(f'corrections: error: {error}', file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode
    print(
        f'{len(trials)} drives of {args.suite} {args.kind}, corrected '
        f'{sum(one["takeovers"] for one in trials)} times in '
        f'{sum(one["takeovers"] > 0 for one in trials)} of them; measured on {args.scenes} '
        f'other scenes (95 % interval):'
    )
    for name, one in ends.items():
        good = sum(one.values())
        low, high = wilson(good, len(one))
        print(f'{name:>10}: {good} of {len(one)}, {good / len(one):.1%} ({low:.1%} to {high:.1%})')
    significant = False
    for name in list(ends)[1:]:
        rise, low, high = compare(ends['before'], ends[name])
        significant |= name == 'corrected' and low > 0
        print(
            f'{name:>10}: {100 * rise:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f}, '
            'paired over the same scenes'
        )
    return 0 if significant else 1


if __name__ == '__main__':
    sys.exit(main())
