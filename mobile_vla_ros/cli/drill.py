"""`mobile_vla drill`: inject faults into a live drive and report how it stops."""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mobile_vla_ros.files import refuse_full

EXAMPLE = 'example: mobile_vla drill inference_killed estop'
POLICY = 'builtin:demo'


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'drill',
        help='inject faults into a live drive and measure how it stops',
        description='Drive in the arena at 1.0 m/s through the live nodes, in a ROS domain of '
        'its own. Inject one fault after the other, and measure the time from when it is '
        'observable to the first of the zero commands that follow. The proposals of inference '
        'keep their times and stamps; their speed is replaced with 1.0 m/s straight ahead, so '
        'that every fault meets the same speed. A stop counts if the guard reports this fault '
        'as its reason, and if it lasts after the fault is gone. An inconclusive measurement is '
        'repeated up to three times. Exit status 1 if a promise is broken or stays undecided.',
        epilog=EXAMPLE,
    )
    parser.add_argument('faults', nargs='*', metavar='FAULT', help='faults to inject (all)')
    parser.add_argument('--list', action='store_true', help='list the faults and their promises')
    parser.add_argument('--policy', default=POLICY, help=f'policy bundle ({POLICY})')
    parser.add_argument(
        '--params-file',
        default='',
        metavar='FILE',
        help='your own parameters under the key /**, for guard, inference and arena; the '
        'promises stay those of the default settings',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help="keep drill.json and the nodes' logs in this new folder",
    )
    parser.add_argument(
        '--report',
        type=Path,
        metavar='FILE.html',
        help='write machine, versions, limits, times and metres as a page, and as FILE.json',
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument('--json', action='store_true', help='print JSON')
    shape.add_argument('--markdown', action='store_true', help='print a Markdown table')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Inject the faults and print the results; return 1 unless all promises are kept."""
    from mobile_vla_ros.drill.catalog import chosen, listed, text

    faults = chosen(args.faults)
    if args.list:
        print(json.dumps(listed(faults)) if args.json else text(faults))
        return 0
    from mobile_vla_ros.drill import run as drill
    from mobile_vla_ros.drill.table import cells, kept

    refuse_full(args.out)
    rows: list[dict] = []

    def add(row: dict) -> None:
        rows.append(row)
        if not args.json:
            title, _, zero, _, mark, metres, reason = cells(row)
            print(f'{title}: {mark}, {zero} ms, {metres} m; {reason}', file=sys.stderr, flush=True)

    with _folder(args.out) as (folder, keep):
        whole = False
        try:
            names = [fault.name for fault in faults]
            drill.run(args.policy, names, args.params_file, folder, add)
            whole = kept(rows)
        finally:  # results so far are not lost
            (folder / 'drill.json').write_text(json.dumps(rows, indent=1))
            _print(args, rows)
            _report(args, rows)
            if not whole:
                keep.append(True)
                print(f"the nodes' logs are kept in {folder}", file=sys.stderr)
    return 0 if whole else 1


def _print(args: argparse.Namespace, rows: list[dict]):
    from mobile_vla_ros.drill.table import foot, markdown, table

    if args.json:
        print(json.dumps(rows))
    elif rows:
        print((markdown if args.markdown else table)(rows))
        print(f'\n{foot(rows)}')


def _report(args: argparse.Namespace, rows: list[dict]):
    if args.report is None or not rows:
        return
    from mobile_vla_ros.report.builders.drill import write_report

    for path in write_report(args.report, rows, policy=args.policy, params_file=args.params_file):
        print(path, file=sys.stderr)


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[tuple[Path, list]]:
    """Yield a folder for the logs, and a list: if it is not empty, the folder is kept."""
    keep = [True] if out is not None else []
    folder = Path(tempfile.mkdtemp(prefix='mobile_vla_drill_')) if out is None else out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder, keep
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
