"""`mobile_vla episodes view`: one page of a folder's takes, to be opened in any browser."""

import argparse
import sys
from pathlib import Path

from mobile_vla_ros.errors import UserError

MOST_TAKES = 100
PAGE_BYTES = 40_000_000  # of pictures and commands, as they stand on the page
# (most pictures of a take, pixels of their longer side): in a folder, and of one file alone.
OF_FOLDER, OF_FILE = (60, 200), (1000, 320)
NAMED = 5  # files that cannot be read are named on the page up to here


def add(actions) -> None:
    """Add the action to those of `mobile_vla episodes`."""
    parser = actions.add_parser(
        'view',
        help='make a page: every take with its pictures, commands and verdict',
        description='Make one HTML page that needs nothing else: a card a take, the bad ones '
        'first, and a player with the frames beside the commands.',
        epilog='example: mobile_vla episodes view ~/mobile_vla_takes --open',
    )
    parser.add_argument(
        'path',
        type=Path,
        metavar='DIR|FILE',
        help='a folder of episodes, or one file (a .part as well), shown with '
        f'up to {OF_FILE[0]} pictures',
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
        default=MOST_TAKES,
        metavar='N',
        help='most takes on the page; the worst are taken first, then the newest '
        f'(default {MOST_TAKES})',
    )
    parser.add_argument('--open', action='store_true', help='open the page in the web browser')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page; 1 when an episode could not be read and is named on it."""
    from tqdm import tqdm

    from mobile_vla_ros import __version__
    from mobile_vla_ros.report.build.episode_view import take_view
    from mobile_vla_ros.report.pages import page
    from mobile_vla_ros.report.pages.episodes_page import episodes_page

    path = args.path.expanduser()
    if args.takes < 1:
        raise UserError('--takes must be at least 1', got=args.takes)
    out = _out(path, args.out)
    alone = path.is_file()
    paths, total, broken = ([path], 1, []) if alone else _worst(path, args.takes)
    most, side = OF_FILE if alone else OF_FOLDER
    takes = []
    for one in tqdm(paths, unit='take', disable=None, leave=False):
        try:
            takes.append(take_view(one, most, side, int(PAGE_BYTES / len(paths))))
        except UserError as error:
            broken.append(str(error))
    for sentence in broken:
        print(f'mobile_vla: error: {sentence}', file=sys.stderr)
    if not takes:
        raise UserError(f'no take of {path} can be read', expected='episodes of the recorder')
    pictures = max(len(take.pictures) for take in takes)
    text = episodes_page(
        path.name if alone else f'Takes in {path.resolve().name}',
        f'mobile_vla episodes view {path}: {pictures} pictures of a take at most, {side} pixels; '
        f'mobile_vla_ros {__version__}',
        takes,
        _notes(path, takes, total, broken),
    )
    try:
        page.write(out, text)
    except OSError as error:
        raise UserError(
            f'cannot write {out}', got=error.strerror, remedy='choose another file with --out'
        ) from None
    count = f'{len(takes)} {"take" if len(takes) == 1 else "takes"}'
    print(f'{out}: {count}, {len(text.encode()) / 1e6:.1f} MB')
    if args.open:
        import webbrowser

        if not webbrowser.open(out.resolve().as_uri()):
            print('mobile_vla: no web browser was found; open the file by hand', file=sys.stderr)
    return int(bool(broken))


def _out(path: Path, asked: Path | None) -> Path:
    if asked is None:
        from mobile_vla_ros.episode.storage.schema import episode_name

        if path.is_file():
            return path.with_name(f'{episode_name(path)}.html')
        return path / 'episodes.html'
    out = asked.expanduser()
    if out.suffix not in ('.html', '.htm'):
        raise UserError('--out must name a page', got=out, expected='a file FILE.html')
    if not out.parent.is_dir():
        raise UserError(f'no folder {out.parent} to write the page to')
    return out


def _worst(folder: Path, most: int) -> tuple[list[Path], int, list[str]]:
    """
    Choose the takes to show.

    :returns: their files, the worst first and the newest first among equals; how many takes the
        folder has; a sentence for each file that cannot be read.
    """
    from mobile_vla_ros.cli.episodes.index import indexed
    from mobile_vla_ros.episode.catalog.row import UNREADABLE
    from mobile_vla_ros.report.pages.episodes_page import VERDICTS

    ranked, broken = [], []
    ranks = {verdict: rank for rank, verdict in enumerate(VERDICTS)}
    with indexed(folder) as index:
        for row in index.rows(reverse=True):
            if row.verdict == UNREADABLE:
                broken.append(row.reasons[0])
            else:
                ranked.append((ranks[row.verdict], folder / row.name))
    ranked.sort(key=lambda entry: entry[0])
    return [path for _, path in ranked[:most]], len(ranked), broken


def _notes(path: Path, takes: list, total: int, broken: list[str]) -> list[str]:
    from mobile_vla_ros.episode.catalog.row import UNFINISHED

    notes = []
    if len(takes) < total:
        notes.append(
            f'{len(takes)} of {total} takes are shown: the worst first, then the newest. '
            f'More of them: mobile_vla episodes view {path} --takes {total}. One with '
            f'more of its pictures: mobile_vla episodes view FILE.'
        )
    notes += [f'Cannot be read: {sentence}' for sentence in broken[:NAMED]]
    if len(broken) > NAMED:
        notes.append(
            f'{len(broken) - NAMED} more cannot be read: mobile_vla episodes check '
            f'{path} names them.'
        )
    parts = sum(take.verdict == UNFINISHED for take in takes)
    if parts:
        notes.append(
            f'{parts} {"take is" if parts == 1 else "takes are"} unfinished: still being '
            f'recorded, or cut short (mobile_vla episodes recover {path}).'
        )
    return notes
