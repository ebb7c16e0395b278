"""`mobile_vla drill`: breaks a live drive in every way it knows, and says how it stopped."""

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
        help='break a live drive in every way, and measure how it stops',
        description='Drive in the arena at 1.0 m/s through the live nodes, in a ROS domain of '
        'its own; make one fault after the other and measure how long it takes from '
        'the moment at which the fault can be known of until the base is told zero. '
        "Inference's proposals pass in their own time and with their own stamps, but "
        'say 1.0 m/s straight on, so that every fault meets the same speed. A stop '
        'in time has to be for the reason of its fault, as the guard tells it, and to '
        'last when the fault is gone; what cannot be told is measured again, up to '
        'three times. Exit status 1 when a promise is broken, or when that cannot be '
        'told to the end.',
        epilog=EXAMPLE,
    )
    parser.add_argument('faults', nargs='*', metavar='FAULT', help='what to break (everything)')
    parser.add_argument('--list', action='store_true', help='name the faults and their promises')
    parser.add_argument('--policy', default=POLICY, help=f'policy bundle ({POLICY})')
    parser.add_argument(
        '--params-file',
        default='',
        metavar='FILE',
        help='parameters of your own, on the key /**, for guard, inference and '
        'arena; the promises stay those of the default settings',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help="keep drill.json and the nodes' logs in this new folder",
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument('--json', action='store_true', help='print JSON')
    shape.add_argument('--markdown', action='store_true', help='print a Markdown table')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the faults and print what came of them; 1 when a promise is broken."""
    from mobile_vla_ros.drill.catalog import chosen

    faults = chosen(args.faults)
    if args.list:
        _list(faults, args.json)
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
        finally:  # what is known already is not lost
            (folder / 'drill.json').write_text(json.dumps(rows, indent=1))
            _print(args, rows)
            if not whole:
                keep.append(True)
                print(f"the nodes' logs are kept in {folder}", file=sys.stderr)
    return 0 if whole else 1


def _list(faults, as_json: bool):
    if as_json:
        print(
            json.dumps(
                [
                    {
                        'fault': fault.name,
                        'title': fault.title,
                        'promise': fault.promised,
                        'observable': fault.observable,
                    }
                    for fault in faults
                ]
            )
        )
        return
    from mobile_vla_ros.text_table import table

    print(table((fault.name, f'{fault.title}: {fault.promised}') for fault in faults))


def _print(args: argparse.Namespace, rows: list[dict]):
    from mobile_vla_ros.drill.table import foot, markdown, table

    if args.json:
        print(json.dumps(rows))
    elif rows:
        print((markdown if args.markdown else table)(rows))
        print(f'\n{foot(rows)}')


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[tuple[Path, list]]:
    """Give a folder for the logs, and a list: with something in it, the folder is kept."""
    keep = [True] if out is not None else []
    folder = Path(tempfile.mkdtemp(prefix='mobile_vla_drill_')) if out is None else out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder, keep
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
