"""`mobile_vla evaluate`: a policy beside predictors that see no image."""

import argparse
import json
from pathlib import Path

EXAMPLE = 'example: mobile_vla evaluate --data takes --policy runs/first/best'

DEFAULT_RATE_HZ = 10.0


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'evaluate', help='measure a policy beside the baselines',
        description='Measure a policy on the validation takes beside predictors that see no '
                    'image; without a policy, those alone.', epilog=EXAMPLE)
    parser.add_argument('--data', type=Path, required=True, help='folder of takes')
    parser.add_argument('--policy', type=Path, help='policy bundle; it brings rate, window, chunk')
    parser.add_argument('--rate', type=float, metavar='HZ',
                        help='without a policy: frames and steps a second (10, or the rate of '
                             "the takes' own frames where that is lower)")
    parser.add_argument('--window', type=int, default=4, help='without a policy (4)')
    parser.add_argument('--chunk', type=int, default=10, help='without a policy (10)')
    parser.add_argument('--axes', nargs='+', default=['linear_x', 'linear_y'],
                        help='without a policy (linear_x linear_y)')
    parser.add_argument('--val-share', type=float, default=0.2,
                        help='share of takes that validate (0.2)')
    parser.add_argument('--split-seed', type=int, default=0, help='seed of the split (0)')
    parser.add_argument('--accept-verdicts', '--accept_verdicts', nargs='+', metavar='VERDICT',
                        help="takes to measure on: good, poor, bad (the policy's own, or "
                             'good poor)')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda')
    parser.add_argument('--offline', action='store_true', help='never ask the hub')
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    from mobile_vla_ros.data.runs import Sampling, rate_for
    from mobile_vla_ros.episode.reader import find_episodes
    from mobile_vla_ros.training.evaluate import evaluate
    rate_hz = args.rate
    if rate_hz is None:  # a policy brings its own
        rate_hz = DEFAULT_RATE_HZ if args.policy else rate_for(find_episodes(args.data),
                                                               DEFAULT_RATE_HZ)
    result = evaluate(
        args.data, args.policy, sampling=Sampling(rate_hz, args.window, args.chunk),
        axes=args.axes, val_share=args.val_share, split_seed=args.split_seed,
        device=args.device, offline=args.offline, accept_verdicts=args.accept_verdicts)
    print(json.dumps(result, indent=2) if args.json else text(result))
    return 0


def text(result: dict) -> str:
    """Return the result as a table and what it means."""
    rows = dict(result['baselines'])
    if 'policy' in result:
        rows['policy'] = result['policy']
        rows['policy, image blanked'] = result['policy']['image_blanked']
    axes = [name for name, value in rows['zero'].items() if isinstance(value, dict)]
    head = f'{"":28}{"loss_arm_act":>14}{"loss":>10}' + ''.join(
        f'{f"{axis} mae":>16}{"rmse":>8}{"r2":>8}' for axis in axes)
    lines = [head]
    for name, row in rows.items():
        cells = ''.join(f'{row[axis]["mae"]:>16.4f}{row[axis]["rmse"]:>8.4f}'
                        + (f'{row[axis]["r2"]:>8.3f}' if row[axis]['r2'] is not None
                           else f'{"–":>8}') for axis in axes)
        lines.append(f'{name:28}{row["loss_arm_act"]:>14.5f}{row["loss"]:>10.5f}{cells}')
    lines.append(f'{result["windows"]} windows of {result["episodes"]["val"]} takes; '
                 f'{result["episodes"]["train"]} takes on the training side; '
                 f'{result["rate_hz"]:.4g} steps a second; units '
                 + ', '.join(f'{axis} {rows["zero"][axis]["unit"]}' for axis in axes))
    if 'policy' in result:
        lines += verdict(result, axes)
    if result['skipped']:
        lines.append(f'takes left out: {len(result["skipped"])}')
    lines += [f'left out: {path}: {reason}' for path, reason in result['skipped'].items()]
    return '\n'.join(lines)


def verdict(result: dict, axes: list[str]) -> list[str]:
    """Say in words what the numbers mean."""
    lines = []
    for what, moved in result['policy']['change'].items():
        lines.append(f'{what.replace("_", " ")}: the action changes by ' + ', '.join(
            f'{moved[axis]:.3f} {result["baselines"]["zero"][axis]["unit"]} ({axis})'
            for axis in axes))
    unbeaten = sorted(set(result['baselines']) - set(result['policy']['better_than']))
    lines.append('The policy is better than every baseline that sees no image.' if not unbeaten
                 else f'The policy is NOT better than: {", ".join(unbeaten)}.')
    return lines
