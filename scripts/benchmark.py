#!/usr/bin/env python3
"""
Drive a policy, the expert and all controls through all suites, and print a Markdown table.

Finished trials are kept in --out: the same command continues after an interruption.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.strip().splitlines()[0],
        epilog='example: .venv/bin/python scripts/benchmark.py --demo runs/demo',
    )
    parser.add_argument('--policy', default='builtin:demo', help='bundle (%(default)s)')
    parser.add_argument(
        '--demo', type=Path, help='folder of a demo, to drive its trained controls too'
    )
    parser.add_argument('--trials', type=int, default=100, help='trials of each suite (100)')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('runs/benchmark'),
        help='folder of the trials and pages (%(default)s)',
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse(argv)
    sys.path.insert(0, str(ROOT))
    from mobile_vla_ros.errors import UserError
    from mobile_vla_ros.rollout.demo import TRAINED_CONTROLS, drive_jobs
    from mobile_vla_ros.text_table import markdown

    jobs = [('expert', ['all'], []), ('policy', ['all'], ['--policy', args.policy])]
    for name, control in (
        ('image blanked', 'image'),
        ('instruction blanked', 'instruction'),
        ('zero action', 'zero'),
        ('mean action', 'mean_action'),
    ):
        jobs.append((name, ['all'], ['--policy', args.policy, '--control', control]))
    if args.demo:
        jobs += [
            (
                f'trained with {name}',
                ['all'],
                ['--policy', str(args.demo / 'training' / name.replace(' ', '_') / 'best')],
            )
            for name in TRAINED_CONTROLS
        ]
    try:
        results = drive_jobs(jobs, args.trials, args.out)
    except UserError as error:
        print(f'benchmark: error: {error}', file=sys.stderr)
        return 2
    suites = list(results['expert'])
    rows = []
    for name, result in results.items():
        rows.append([name])
        for suite in suites:
            low, high = result[suite]['success_interval']
            rows[-1].append(
                f'{result[suite]["success_rate"]:.0%} ({low:.0%}–{high:.0%}), '
                f'{result[suite]["collision_rate"]:.0%}'
            )
    print(markdown(['', *suites], rows))
    ratios = ', '.join(
        f'{suite} {entry["time_s"]["ratio"]:.2f} and {entry["length_m"]["ratio"]:.2f}'
        for suite, entry in results['policy'].items()
        if entry['time_s']['ratio']
    )
    print(
        f'\nSuccess (95 % interval), collisions; {args.trials} trials a cell. Time and length '
        f"of the policy's successful drives against the expert's: {ratios}."
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
