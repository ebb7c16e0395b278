"""`mobile_vla episodes view`: choose the episodes that the page shows, and write it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mobile_vla_ros import __version__
from mobile_vla_ros.episode.catalog.file_worker import FileWorker
from mobile_vla_ros.episode.catalog.index import EpisodeIndex
from mobile_vla_ros.episode.catalog.index_table import UNFINISHED, UNREADABLE
from mobile_vla_ros.episode.storage.schema import episode_name
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.report.builders.episode_view import from_plain
from mobile_vla_ros.report.pages import page
from mobile_vla_ros.report.pages.episodes_page import VERDICTS, EpisodeView, Served, episodes_page

PAGE_BYTES = 40_000_000  # of images and commands on the page
# (maximum images of an episode, pixels of their longer side), for a folder and for one file.
OF_FOLDER, OF_FILE = (60, 200), (1000, 320)
READ = 'report.builders.episode_view:read_plain'
MAX_NAMED = 5  # unreadable files named on the page


@dataclass
class Chosen:
    """
    The episodes of a page.

    :param paths: in the order of the cards.
    :param total: episodes in the folder.
    :param broken: a sentence for each unreadable file.
    """

    paths: list[Path]
    total: int
    broken: list[str] = field(default_factory=list)


def worst(index: EpisodeIndex, limit: int) -> Chosen:
    """Choose episodes of a folder: the worst first, then the newest."""
    ranked: list[tuple[int, Path]] = []
    broken = []
    for row in index.rows(reverse=True):
        if row.verdict == UNREADABLE:
            broken.append(row.reasons[0])
        else:
            ranked.append((VERDICTS.index(row.verdict), index.folder / row.name))
    ranked.sort(key=lambda entry: entry[0])
    return Chosen([path for _, path in ranked[:limit]], len(ranked), broken)


def page_path(path: Path, given: Path | None) -> Path:
    """
    Return where the page of ``path`` is written.

    :param given: by the user; None: in the folder, or beside the file with its name.
    :raises UserError: if no page can be there.
    """
    if given is None:
        if path.is_file():
            return path.with_name(f'{episode_name(path)}.html')
        return path / 'episodes.html'
    out = given.expanduser()
    if out.suffix not in ('.html', '.htm'):
        raise UserError('--out must name a page', got=out, expected='a file FILE.html')
    if not out.parent.is_dir():
        raise UserError(f'no folder {out.parent} to write the page to')
    return out


def write(
    out: Path,
    path: Path,
    chosen: Chosen,
    bar: Callable[[list[Path]], Iterable[Path]] = lambda paths: paths,
    camera: str = '',
) -> tuple[int, int]:
    """
    Write the page; add unreadable episodes to ``chosen.broken`` and name them on the page.

    :param path: the user's folder, or one file, shown with more images.
    :param bar: wraps the episodes to draw progress.
    :param camera: whose images it shows, as of ``Episode.open``.
    :returns: episodes on the page, and its size in bytes.
    :raises UserError: if no episode can be read.
    :raises OSError: if the page cannot be written.
    """
    most, side = OF_FILE if path.is_file() else OF_FOLDER
    views = []
    budget = int(PAGE_BYTES / len(chosen.paths))
    with FileWorker() as worker:
        for one in bar(chosen.paths):
            try:
                found = worker.call(READ, one, most, side, budget, camera, whole=True)
                views.append(from_plain(found))
            except UserError as error:
                chosen.broken.append(str(error))
    if not views:
        raise UserError(f'no episode of {path} can be read', expected='episodes of the recorder')
    text = text_of(path, views, chosen)
    page.write(out, text)
    return len(views), len(text.encode())


def text_of(
    path: Path, views: list[EpisodeView], chosen: Chosen, served: Served | None = None
) -> str:
    """Return the page of a folder, or of one file; ``served``: what it has beside."""
    _, side = OF_FILE if path.is_file() else OF_FOLDER
    images = max(len(view.images) for view in views)
    return episodes_page(
        path.name if path.is_file() else f'Episodes in {path.resolve().name}',
        f'mobile_vla episodes view {path}: at most {images} images of an episode, '
        f'{side} pixels; mobile_vla_ros {__version__}',
        views,
        _notes(path, views, chosen),
        served,
    )


def _notes(path: Path, views: list[EpisodeView], chosen: Chosen) -> list[str]:
    notes = []
    if len(views) < chosen.total:
        notes.append(
            f'{len(views)} of {chosen.total} episodes are shown: the worst first, then the '
            f'newest. For all: mobile_vla episodes view {path} --takes {chosen.total}. '
            'For one with more images: mobile_vla episodes view FILE.'
        )
    notes += [f'Unreadable: {sentence}' for sentence in chosen.broken[:MAX_NAMED]]
    if len(chosen.broken) > MAX_NAMED:
        notes.append(
            f'{len(chosen.broken) - MAX_NAMED} more are unreadable; mobile_vla episodes check '
            f'{path} lists them.'
        )
    parts = sum(view.verdict == UNFINISHED for view in views)
    if parts:
        notes.append(
            f'{parts} {"episode is" if parts == 1 else "episodes are"} unfinished: still being '
            f'recorded, or interrupted (mobile_vla episodes recover {path}).'
        )
    return notes
