"""`mobile_vla episodes view`: write a page of a folder's episodes for any browser."""

import argparse
import sys
from pathlib import Path

from mobile_vla_ros.cli.episodes.index import indexed
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
    parser.add_argument('--camera', default='', help='whose images to show, as in train')
    parser.add_argument('--open', action='store_true', help='open the page in the web browser')
    words = 'serve pages with a toolbar for edits, to browsers of this machine, instead of a file'
    parser.add_argument('--serve', action='store_true', help=words)
    parser.add_argument('--port', type=int, metavar='N', help='of --serve (default: a free one)')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page; return 1 if an episode could not be read."""
    from tqdm import tqdm

    from mobile_vla_ros.report.builders import episodes

    path = args.path.expanduser()
    if args.takes < 1:
        raise UserError('--takes must be at least 1', got=args.takes)
    given = args.takes != MAX_EPISODES or args.out or args.open or args.camera
    if given if args.serve else args.port is not None:
        raise UserError('--serve goes with --port alone, and --port with --serve')
    if args.serve:
        return _serve(path, args.port or 0)
    out = episodes.page_path(path, args.out)
    if path.is_file():
        chosen = episodes.Chosen([path], 1)
    else:
        with indexed(path) as index:
            chosen = episodes.worst(index, args.takes)
    try:
        count, size = episodes.write(
            out,
            path,
            chosen,
            lambda paths: tqdm(paths, unit='episode', disable=None, leave=False),
            args.camera,
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


def _serve(path: Path, port: int) -> int:
    from mobile_vla_ros.report.serve.server import serve

    with indexed(path):
        pass  # reads new files now, with a progress bar

    words = '\nWhoever has this address may edit. Ctrl-C ends it.'
    serve(path, port, lambda address: print(address + words, flush=True))
    return 0
