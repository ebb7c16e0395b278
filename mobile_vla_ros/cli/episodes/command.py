"""`mobile_vla episodes`: manage recorded episodes."""

import argparse
import json
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

from mobile_vla_ros import text_table
from mobile_vla_ros.episode.catalog.index import SORTS
from mobile_vla_ros.episode.catalog.index_table import NO_VERDICT, UNREADABLE, VERDICTS
from mobile_vla_ros.errors import UserError

EXAMPLE = 'example: mobile_vla episodes list ~/mobile_vla_takes'
HEADS = ('episode', 'seconds', 'frames', 'commands', 'outcome', 'verdict', 'instruction')
WIDTHS, ALIGN = (25, 7, 6, 8, 7, 10, 0), '<>>><'


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'episodes',
        help='list, check, edit, recover, import and export recorded episodes',
        description='Manage recorded episodes: a path is a folder of episodes or one file.',
        epilog=EXAMPLE,
    )
    actions = parser.add_subparsers(title='actions', metavar='', required=True)
    for name, run, summary in (
        ('list', run_list, 'one line an episode; exit status 1 if one cannot be read'),
        ('show', run_show, 'attributes, streams, events and verdict of an episode'),
        (
            'check',
            run_check,
            'read every image and judge anew; exit status 1 if an episode is bad',
        ),
    ):
        action = actions.add_parser(
            name,
            help=summary,
            description=summary.capitalize() + '.',
            epilog=f'example: mobile_vla episodes {name} ~/mobile_vla_takes',
        )
        action.add_argument(
            'path',
            type=Path,
            metavar='DIR|FILE',
            help='a folder of episodes, or one file (a .part as well)',
        )
        action.add_argument('--json', action='store_true', help='print JSON, one object a line')
        action.set_defaults(run=run)
        if name == 'list':
            _add_filters(action)
    for name in ('audit', 'coach', 'view', 'edit', 'recover', 'import_', 'export', 'hub'):
        import_module(f'mobile_vla_ros.cli.episodes.{name}').add(actions)


def _add_filters(action: argparse.ArgumentParser):
    action.add_argument(
        '--instruction',
        default='',
        metavar='TEXT',
        help='only episodes whose instruction contains this',
    )
    action.add_argument('--outcome', default='', help='only success, failure or unknown')
    action.add_argument(
        '--verdict',
        default='',
        choices=VERDICTS,
        help='only ' + ', '.join(VERDICTS[:-1]) + f' or {VERDICTS[-1]}',
    )
    action.add_argument(
        '--sort',
        default='name',
        choices=SORTS,
        help='by name (equals by time), ' + ', '.join(list(SORTS)[1:]) + ' (worst first)',
    )
    action.add_argument('--reverse', action='store_true', help='reverse the order')


def run_list(args: argparse.Namespace) -> int:
    """Print one line an episode, and totals; return 1 if one cannot be read."""
    from mobile_vla_ros.cli.episodes.index import indexed

    if args.outcome:
        from mobile_vla_ros.episode.storage.schema import check_outcome

        check_outcome(args.outcome)
    verdicts: Counter[str] = Counter()
    episodes, minutes = 0, 0.0
    with indexed(args.path) as index:
        if not args.json:
            print(text_table.line(HEADS, WIDTHS, ALIGN))
        for row in index.rows(
            instruction=args.instruction,
            outcome=args.outcome,
            verdict=args.verdict,
            sort=args.sort,
            reverse=args.reverse,
        ):
            verdicts[row.verdict] += 1
            if row.verdict == UNREADABLE:
                print(f'mobile_vla: error: {row.reasons[0]}', file=sys.stderr)
            if row.verdict not in NO_VERDICT:
                episodes, minutes = episodes + 1, minutes + row.duration_s / 60
            if args.json:
                print(json.dumps({'path': str(index.folder / row.name)} | vars(row)))
            else:
                counts = (f'{row.duration_s:.1f}', row.frames, row.commands)
                words = (row.outcome, row.verdict, row.instruction)
                print(text_table.line((row.episode_id, *counts, *words), WIDTHS, ALIGN))
    if not args.json:
        totals = ', '.join(f'{count} {verdict}' for verdict, count in verdicts.most_common())
        print(f'{episodes} episodes, {minutes:.1f} minutes' + (f': {totals}' if totals else ''))
    return int(UNREADABLE in verdicts)


def run_show(args: argparse.Namespace) -> int:
    """Print attributes, streams, events and verdict; return 1 if one cannot be read."""
    from mobile_vla_ros.episode.catalog.file_worker import FileWorker
    from mobile_vla_ros.episode.storage.reader import episodes_at

    status = 0
    with FileWorker() as worker:
        for path in episodes_at(args.path):
            try:
                shown = worker.call('episode.catalog.inspect:describe', path)
            except UserError as error:
                print(f'mobile_vla: error: {error}', file=sys.stderr)
                status = 1
                continue
            _show(shown, args.json)
    return status


def _show(shown: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(shown))
        return
    health, events = shown.pop('health') or {}, shown.pop('events')
    for topic, one in shown.pop('topics', {}).items():
        shown[f'topic {topic}'] = '{type}: {count} messages, {rate_hz} Hz'.format(**one)
    for key, value in health.items():
        shown[f'health.{key}'] = '; '.join(value) if isinstance(value, list) else value
    print(text_table.table(shown.items()))
    rows = [('event', f'{one["time_ns"] / 1e9:.3f}', one['name'], one['text']) for one in events]
    print(text_table.table(rows, '<><'), end='\n\n' if rows else '\n')


def run_check(args: argparse.Namespace) -> int:
    """Decode every image and judge every episode; return 1 if one is bad, broken or unfinished."""
    from tqdm import tqdm

    from mobile_vla_ros.episode.catalog.file_worker import FileWorker
    from mobile_vla_ros.episode.storage.reader import episodes_at

    status, paths = 0, episodes_at(args.path)
    with FileWorker() as worker:
        for path in tqdm(paths, unit='episode', disable=None, leave=False):
            try:
                health = worker.call('episode.catalog.inspect:check', path, whole=True)
            except UserError as error:
                health = {'verdict': 'bad', 'reasons': [str(error)]}
            status |= health['verdict'] == 'bad'
            if args.json:
                print(json.dumps({'path': str(path), **health}))
            else:
                why = '; '.join([*health['reasons'], *health.get('notes', ())])
                print('  '.join([path.name, health['verdict'], why]).rstrip())
    return int(status)
