"""`mobile_vla compare`: several policies in the same scenes, in pairs and beside controls."""

import argparse
import json
import sys

from mobile_vla_ros.cli.simulate import add_scenes, scenes, stopped


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'compare',
        help='show which of several policies drives better',
        description='Drive policies through the same scenes, each also without images and without '
        'instructions, and compare them in pairs.',
        epilog='example: mobile_vla compare --policies builtin:demo runs/first/best --suite swap '
        '--out runs/compared',
    )
    parser.add_argument(
        '--policies',
        nargs='+',
        required=True,
        metavar='POLICY',
        help='bundles, builtin:demo, module:Class, or expert',
    )
    add_scenes(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Drive and compare; return 130 after Ctrl-C."""
    settings, names = scenes(args, args.policies)
    from mobile_vla_ros.report.builders import comparison
    from mobile_vla_ros.rollout.compare import drive, drivers, result

    those = drivers(args.policies)
    try:
        drive(those, names, settings, lambda name: print(f'{name}:', file=sys.stderr))
    except KeyboardInterrupt:
        return stopped(args.out)
    found = result(those)
    print(json.dumps(found) if args.json else comparison.text(found))
    if args.out is not None:
        page = comparison.write(args.out / 'report.html', those, found)
        print(f'report: {page}', file=sys.stderr if args.json else sys.stdout)
    return 0
