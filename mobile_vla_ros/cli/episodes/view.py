"""`mobile_vla episodes view`: write a page of a folder's episodes for any browser."""

import argparse
import sys
from pathlib import Path

from mobile_vla_ros.errors import UserError

MAX_EPISODES = 100


def add(actions) -> None:
    """Add the action to those of `mobile_vla episodes`."""
    parser = actions.add_parser(
        'view',
        help='write a page: every episode with its images, commands and verdict',
        description='Write one self-contained HTML page: a card for each episode, the bad ones '
        'first, and a player with the frames beside the commands.',
        epilog='example: mobile_vla episodes view ~/mobile_vla_takes --open',
    )
    parser.add_argument(
        'path',
        type=Path,
        metavar='DIR|FILE',
        help='a folder of episodes, or one file (a .part as well), shown with up to 1000 images',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE.html',
        help='the page (default: episodes.html in the folder, or beside the file with its name)',
    )
    parser.add_argument(
        '--takes',
        type=int,
        default=MAX_EPISODES,
        metavar='N',
        help='maximum number of episodes on the page: the worst first, then the newest '
        f'(default {MAX_EPISODES})',
    )
    parser.add_argument('--open', action='store_true', help='open the page in the web browser')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page; return 1 if an episode could not be read."""
    from tqdm import tqdm

    from mobile_vla_ros.report.builders import episodes

    path = args.path.expanduser()
    if args.takes < 1:
        raise UserError('--takes must be at least 1', got=args.takes)
    out = _out(path, args.out)
    if path.is_file():
        chosen = episodes.Chosen([path], 1)
    else:
        from mobile_vla_ros.cli.episodes.index import indexed

        with indexed(path) as index:
            chosen = episodes.worst(index, args.takes)
    try:
        count, size = episodes.write(
            out,
            path,
            chosen,
            lambda paths: tqdm(paths, unit='episode', disable=None, leave=False),
        )
    except OSError as error:
        raise UserError(
            f'cannot write {out}', got=error.strerror, remedy='choose another file with --out'
        ) from None
    finally:
        for sentence in chosen.broken:
            print(f'mobile_vla: error: {sentence}', file=sys.stderr)
    print(f'{out}: {count} {"episode" if count == 1 else "episodes"}, {size / 1e6:.1f} MB')
    if args.open:
        import webbrowser

        if not webbrowser.open(out.resolve().as_uri()):
            print('mobile_vla: no web browser found; open the file by hand', file=sys.stderr)
    return int(bool(chosen.broken))


def _out(path: Path, given: Path | None) -> Path:
    if given is None:
        from mobile_vla_ros.episode.storage.schema import episode_name

        if path.is_file():
            return path.with_name(f'{episode_name(path)}.html')
        return path / 'episodes.html'
    out = given.expanduser()
    if out.suffix not in ('.html', '.htm'):
        raise UserError('--out must name a page', got=out, expected='a file FILE.html')
    if not out.parent.is_dir():
        raise UserError(f'no folder {out.parent} to write the page to')
    return out
