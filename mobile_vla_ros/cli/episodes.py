"""`mobile_vla episodes`: look at what was recorded."""

import argparse
import json
import sys
from pathlib import Path

from mobile_vla_ros.errors import UserError

EXAMPLE = 'example: mobile_vla episodes list ~/mobile_vla_takes'


def register(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        'episodes', help='list, show and check recorded takes',
        description='Look at what was recorded: every path is a folder of episodes or one file.',
        epilog=EXAMPLE)
    actions = parser.add_subparsers(title='actions', metavar='', required=True)
    for name, run, summary in (
            ('list', run_list, 'one line an episode'),
            ('show', run_show, 'everything that is known of an episode'),
            ('check', run_check, 'read every image and judge anew; 1 when an episode is bad')):
        action = actions.add_parser(name, help=summary, description=summary.capitalize() + '.',
                                    epilog=f'example: mobile_vla episodes {name} '
                                           '~/mobile_vla_takes')
        action.add_argument('path', type=Path, metavar='DIR|FILE',
                            help='a folder of episodes, or one file (a .part as well)')
        action.add_argument('--json', action='store_true', help='print JSON, one object a line')
        action.set_defaults(run=run)


def run_list(args: argparse.Namespace) -> int:
    """Print one line an episode; 1 when one of them cannot be read."""
    rows, status = [], 0
    for path in _paths(args.path):
        try:
            rows.append(_summary(path))
        except UserError as error:
            print(f'mobile_vla: error: {error}', file=sys.stderr)
            status = 1
            continue
        if args.json:
            print(json.dumps(rows[-1]))
    if not args.json:
        _print_table(rows)
    return status


def run_show(args: argparse.Namespace) -> int:
    """Print attributes, streams, events and verdict."""
    from mobile_vla_ros.episode.reader import Episode

    for path in _paths(args.path):
        with Episode.open(path) as episode:
            shown = {'path': str(path), **episode.attributes, 'health': episode.health,
                     'frames': len(episode), 'commands': len(episode.commands),
                     'image_size': _image_size(episode),
                     'events': [vars(event) for event in episode.events]}
        if args.json:
            print(json.dumps(shown))
            continue
        health, events = shown.pop('health') or {}, shown.pop('events')
        for key, value in shown.items():
            print(f'{key:16} {value}')
        for key, value in health.items():
            print(f'health.{key:16} {"; ".join(value) if key == "reasons" else value}')
        for event in events:
            print(f'event {event["time_ns"] / 1e9:17.3f}  {event["name"]}  {event["text"]}')
        print()
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Decode every image and judge every episode; 1 when one is bad, broken or unfinished."""
    from tqdm import tqdm

    from mobile_vla_ros.episode.reader import Episode

    status = 0
    for path in tqdm(_paths(args.path), unit='episode', disable=None, leave=False):
        try:
            with Episode.open(path) as episode:
                for index in range(len(episode)):
                    episode.frame(index)
                health = episode.judge()
                if not episode.complete:
                    health['verdict'] = 'bad'
                    health['reasons'].insert(0, 'the take was cut short')
        except UserError as error:
            health = {'verdict': 'bad', 'reasons': [str(error)]}
        status |= health['verdict'] == 'bad'
        if args.json:
            print(json.dumps({'path': str(path), **health}))
        else:
            print('  '.join([path.name, health['verdict'], '; '.join(health['reasons'])]).rstrip())
    return int(status)


def _paths(path: Path) -> list[Path]:
    from mobile_vla_ros.episode.reader import find_episodes

    path = path.expanduser()
    return [path] if path.is_file() else find_episodes(path)


def _summary(path: Path) -> dict:
    from mobile_vla_ros.episode.reader import Episode

    with Episode.open(path) as episode:
        times = episode.frame_received_ns
        health = episode.health or {'verdict': 'unfinished', 'reasons': []}
        return {
            'path': str(path), 'episode_id': episode.episode_id,
            'instruction': episode.instruction, 'outcome': episode.outcome,
            'frames': len(episode), 'commands': len(episode.commands),
            'duration_s': round(float(times[-1] - times[0]) / 1e9, 3) if len(times) else 0.0,
            'verdict': health['verdict'], 'reasons': health['reasons']}


def _image_size(episode) -> str:
    if not len(episode):
        return ''
    height, width, _ = episode.frame(0).image.shape
    return f'{width}x{height}'


def _print_table(rows: list[dict]):
    columns = {'episode': 'episode_id', 'seconds': 'duration_s', 'frames': 'frames',
               'commands': 'commands', 'outcome': 'outcome', 'verdict': 'verdict',
               'instruction': 'instruction'}
    table = [list(columns)]
    table += [[f'{row[key]:.1f}' if key == 'duration_s' else str(row[key])
               for key in columns.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print('  '.join(text.ljust(width) for text, width in
                        zip(line, widths, strict=True)).rstrip())
    print(f'{len(rows)} episodes, {sum(row["duration_s"] for row in rows) / 60:.1f} minutes')
