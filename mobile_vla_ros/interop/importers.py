"""
The layouts that can be imported: one row each, further ones from other packages.

A package adds one by an entry point of the group ``mobile_vla_ros.importers`` that names an
``Importer``.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.interop import hdf5, trajectories, tub
from mobile_vla_ros.interop.bags import bag, rosbag
from mobile_vla_ros.interop.left_out import BESIDE_SQLITE, why_not
from mobile_vla_ros.interop.lerobot import library as lerobot
from mobile_vla_ros.interop.source import ImportOptions, Source

GROUP = 'mobile_vla_ros.importers'


def _one(_path: Path, _options: ImportOptions) -> dict[str, str]:
    return {'': ''}


@dataclass(frozen=True)
class Importer:
    """
    How to find and open the episodes of one layout.

    A path is imported by the first row that takes it; those of other packages come first.

    :param name: of the layout.
    :param open_source: called with a path, the key of an episode in it, the options and an empty
        folder for copies; returns a context manager of the ``Source``. Raises UserError.
    :param suffixes: of the files that it takes.
    :param marker: path of a file in each folder that it takes as a whole; '': it takes none.
    :param options: fields of ``ImportOptions`` that concern it and not every layout.
    :param episodes: called with a path and the options; returns for the key of each episode what
        tells it from another one of that key, '' where the size and ends of the file do.
    """

    name: str
    open_source: Callable[[Path, str, ImportOptions, Path], AbstractContextManager[Source]]
    suffixes: tuple[str, ...] = ()
    marker: str = ''
    options: tuple[str, ...] = ()
    episodes: Callable[[Path, ImportOptions], Mapping[str, str]] = _one

    def takes(self, path: Path) -> bool:
        """Whether it imports a file or folder."""
        if path.is_dir():
            return bool(self.marker) and (path / self.marker).is_file()
        return path.name.endswith(self.suffixes)


OURS = (
    Importer(
        'HDF5',
        hdf5.open_hdf5,
        hdf5.SUFFIXES,
        options=('images', 'actions', 'colour'),
        episodes=hdf5.episodes_of,
    ),
    Importer(
        'bag',
        rosbag.open_bag,
        bag.SUFFIXES,
        bag.METADATA,
        (
            *('image_topic', 'command_topic', 'encoding', 'extra_topics'),
            *('actions', 'scale', 'wheelbase_m'),
        ),
    ),
    Importer(
        'LeRobot',
        lerobot.open_set,
        marker=lerobot.MARKER,
        options=('images', 'actions'),
        episodes=lerobot.episodes_of,
    ),
    Importer(
        'donkeycar tub',
        tub.open_tub,
        marker=tub.MARKER,
        options=('scale', 'wheelbase_m'),
        episodes=tub.episodes_of,
    ),
    Importer('GNM trajectory', trajectories.open_trajectory, marker=trajectories.MARKER),
)


@cache
def importers() -> tuple[Importer, ...]:
    """Return every importer; raise UserError for one of another package that cannot be loaded."""
    found = []
    for entry in entry_points(group=GROUP):
        try:
            one = entry.load()
            if not isinstance(one, Importer):
                raise TypeError(f'{type(one).__name__}, not an Importer')
        except Exception as error:  # of any kind: it is another package's code
            raise UserError(
                f'the importer {entry.name} cannot be loaded from {entry.value}',
                got=first_line(error),
                remedy='mend or remove the package that it belongs to',
            ) from None
        found.append(one)
    return (*found, *OURS)


def importer_of(path: Path) -> Importer:
    """
    Return the importer of a file or folder.

    :raises UserError: when there is none, with the reason.
    """
    reason = why_not(path) if path.is_file() else ''
    if reason:
        raise UserError(f'it is {reason}')
    found = next((one for one in importers() if one.takes(path)), None)
    if found is None:
        raise UserError('its layout is unknown', got=repr(path.suffix), expected=_expected())
    return found


def bare(path: Path) -> Path:
    """Return a path without the suffix that an importer takes it by."""
    ends = [end for one in importers() for end in one.suffixes if path.name.endswith(end)]
    return path.with_name(path.name.removesuffix(max(ends, key=len, default='')))


def find_sources(path: Path, out: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """
    Return the files and folders at or below a path to import, and those left out with the reason.

    Files of no known kind are named together, by folder and suffix; hidden ones, and those in
    ``out``, are not named.

    :raises UserError: when there is no such path, or it is ``out``.
    """
    if not path.exists():
        raise UserError(f'no file or folder at {path}', expected='a file or a folder to import')
    if path.is_file():
        # A marker stands for its folder.
        whole = [
            folder
            for one in importers()
            for folder in path.parents
            if one.marker and folder / one.marker == path
        ]
        return (whole or [path])[:1], []
    path, out = path.absolute(), out.absolute()
    if path == out:
        raise UserError(
            'a folder cannot be imported into itself',
            got=str(out),
            remedy='choose another folder with --out',
        )
    found = sorted(_walk(path, out))
    return [one for one, reason in found if not reason], [one for one in found if one[1]]


def check_options(sources: Iterable[Path], options: ImportOptions) -> None:
    """Raise UserError for an option that is given and concerns none of the sources."""
    default, sources = ImportOptions(), list(sources)
    used = {one for one in importers() if any(map(one.takes, sources))}
    heeded = {name for one in used for name in one.options}
    for one in importers():
        for name in sorted(set(one.options) - heeded):
            if getattr(options, name) != getattr(default, name):
                raise UserError(
                    f'no source here heeds the option {name}',
                    got=', '.join(sorted(row.name for row in used)) or 'no known layout',
                    expected=one.name,
                    remedy='leave it out',
                )


def nothing_at(path: Path) -> UserError:
    """Return the error for a path without anything to import."""
    return UserError(f'{path} contains nothing that can be imported', expected=_expected())


def _walk(path: Path, out: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file and folder to import with '', and those left out with the reason."""
    for top, folders, files in os.walk(path):
        here = Path(top)
        whole = any(one.takes(here) for one in importers())
        if here == out or whole:
            folders.clear()
            if here != out:
                yield here, ''
            continue
        folders[:] = [name for name in folders if not name.startswith('.')]
        others: Counter[str] = Counter()
        for one in (here / name for name in files):
            if one.name.startswith('.') or one.name.endswith(BESIDE_SQLITE):
                continue
            reason = why_not(one) if one.is_file() else 'not a regular file'
            if one.is_file() and any(row.takes(one) for row in importers()):
                yield one, ''  # if it cannot be read, its import says so
            elif reason:
                yield one, reason
            else:
                others[one.suffix] += 1
        for suffix, count in others.items():
            kinds = f'{count} {"file" if count == 1 else "files"} of another kind'
            yield here / f'*{suffix}', kinds


def _expected() -> str:
    rows = importers()
    suffixes = dict.fromkeys(suffix for one in rows for suffix in one.suffixes)
    return ', '.join((*suffixes, *(f'folders with a {one.marker}' for one in rows if one.marker)))
