"""`mobile_vla evaluate`: a policy beside predictors that see no image."""

import argparse
import json
import sys
from pathlib import Path

from mobile_vla_ros.cli import add_computing, computing
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.report.builders.evaluation_text import text

DEFAULT_RATE_HZ = 10.0


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'evaluate',
        help='measure a policy beside the baselines',
        description='Measure a policy on the validation episodes beside predictors that see no '
        'image; without a policy, those alone.',
        epilog='example: mobile_vla evaluate --data takes --policy runs/first/best',
    )
    parser.add_argument('--data', type=Path, required=True, help='folder of episodes')
    parser.add_argument('--policy', type=Path, help='policy bundle; it brings rate, window, chunk')
    parser.add_argument(
        '--rate',
        type=float,
        metavar='HZ',
        help='without a policy: frames and steps a second (10, or the rate of '
        "the episodes' own frames where that is lower)",
    )
    parser.add_argument('--window', type=int, default=4, help='without a policy (4)')
    parser.add_argument('--chunk', type=int, default=10, help='without a policy (10)')
    parser.add_argument(
        '--axes',
        nargs='+',
        default=['linear_x', 'linear_y'],
        help='without a policy (linear_x linear_y)',
    )
    parser.add_argument(
        '--val-share',
        type=float,
        default=0.2,
        help='validation share (0.2), without a policy, or with one whose bundle has neither '
        'predictors nor training episodes from this folder',
    )
    parser.add_argument('--split-seed', type=int, default=0, help='random seed of the split (0)')
    parser.add_argument(
        '--accept-verdicts',
        '--accept_verdicts',
        nargs='+',
        metavar='VERDICT',
        help="episodes to measure on: good, poor, bad (the policy's own, or good poor)",
    )
    add_computing(parser)
    parser.add_argument(
        '--group-duplicates',
        '--group_duplicates',
        action='store_true',
        help='keep episodes of nearly the same commands on one side of the split',
    )
    parser.add_argument(
        '--require-better',
        action='store_true',
        help='exit with status 1 unless the policy is better than every '
        'predictor that sees no image, on episodes that it was not trained '
        'on; the predictors must be fitted to its training episodes',
    )
    parser.add_argument(
        '--report',
        type=Path,
        metavar='FILE',
        help='also write the page of a training (needs --policy)',
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print; return 1 if --require-better is not met."""
    if (args.require_better or args.report) and not args.policy:
        raise UserError(
            '--require-better and --report need a policy', remedy='add --policy FOLDER'
        )
    if args.report and not args.report.parent.is_dir():
        raise UserError(
            f'no folder {args.report.parent} for the report',
            expected='--report FILE in an existing folder',
        )
    from mobile_vla_ros.data.segments import Sampling, rate_for
    from mobile_vla_ros.episode.storage.reader import find_episodes
    from mobile_vla_ros.evaluation.evaluate import evaluate
    from mobile_vla_ros.evaluation.verdict import refusal

    rate_hz = args.rate
    if rate_hz is None:  # a policy has its own
        rate_hz = (
            DEFAULT_RATE_HZ if args.policy else rate_for(find_episodes(args.data), DEFAULT_RATE_HZ)
        )
    evaluation = evaluate(
        args.data,
        args.policy,
        sampling=Sampling(rate_hz, args.window, args.chunk),
        axes=args.axes,
        val_share=args.val_share,
        split_seed=args.split_seed,
        group_duplicates=args.group_duplicates,
        **computing(args),
        accept_verdicts=args.accept_verdicts,
    )
    result = evaluation.summary
    print(json.dumps(result, indent=2, allow_nan=False) if args.json else text(result))
    if args.report:
        assert evaluation.policy and evaluation.scored  # --report needs --policy
        from mobile_vla_ros.report.builders import training as train_report

        path = train_report.write(
            args.report, evaluation.policy, evaluation.scored, evaluation.episodes
        )
        print(f'report: {path}', file=sys.stderr)
    reason = refusal(result) if args.require_better else None
    if reason:
        print(f'mobile_vla: {reason}', file=sys.stderr)
    return 1 if reason else 0
