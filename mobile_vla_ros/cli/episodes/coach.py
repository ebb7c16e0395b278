"""`mobile_vla episodes coach`: what a set of episodes lacks, and what to record next."""

import argparse
import json
from pathlib import Path


def add(actions) -> None:
    """Add the action."""
    summary = 'what to record next: balance, repetition and gaps of a set'
    parser = actions.add_parser(
        'coach',
        help=summary,
        description=summary.capitalize() + '.',
        epilog='example: mobile_vla episodes coach ~/mobile_vla_takes',
    )
    parser.add_argument('path', type=Path, metavar='DIR|FILE', help='a folder of episodes')
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the set covers and at most five things to record next."""
    from mobile_vla_ros.cli.episodes.index import indexed
    from mobile_vla_ros.episode.catalog import coach
    from mobile_vla_ros.report.builders import coaching

    with indexed(args.path) as index:
        traces = {name: (signature, view) for name, signature, view in index.traces()}
        found = coach.survey(index.rows(), traces)
    advice = coach.advise(found)
    if args.json:
        print(json.dumps(coaching.as_json(found, advice)))
    else:
        print(coaching.text(found, advice))
    return 0
