"""What a served set of episodes shows, and how a request edits one of them; without HTTP."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mobile_vla_ros import __version__
from mobile_vla_ros.episode.catalog.file_worker import FileWorker
from mobile_vla_ros.episode.catalog.index import EpisodeIndex
from mobile_vla_ros.episode.catalog.index_table import UNREADABLE
from mobile_vla_ros.episode.storage.edits import SET, UNDO
from mobile_vla_ros.episode.storage.schema import OUTCOMES, PART_SUFFIX, SUFFIX
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.report.builders.episode_view import from_plain
from mobile_vla_ros.report.builders.episodes import OF_FILE, PAGE_BYTES, READ, Chosen, text_of
from mobile_vla_ros.report.pages.episodes_page import Served, episodes_page
from mobile_vla_ros.report.pages.list_page import Line, list_page

REQUEST = '{"action": "set" or "undo", "values": {what to set}, "why": text}'


class NoEpisode(UserError):
    """There is no such episode."""


class Site:
    """
    The pages of a folder of episodes, or of one file; any thread may ask for one.

    Files are opened in two other processes, one that reads and one that edits, so that a large
    episode on its way to a page delays no edit.

    :param by: who edits; ``clock`` returns the Unix time in nanoseconds.
    """

    def __init__(self, path: Path, *, by: str, clock: Callable[[], int]) -> None:
        self._path = path
        self._by, self._clock = by, clock
        self._reader, self._editor = FileWorker(), FileWorker()
        self._reading, self._editing = threading.Lock(), threading.Lock()

    def close(self) -> None:
        """End the reading of files at once, and their editing after the edit in progress."""
        self._reader.close()
        with self._editing:
            self._editor.close()

    def overview(self) -> str:
        """
        Return the page with a line for each episode, the newest first.

        :raises UserError: if the folder is gone.
        """
        with self._reading, EpisodeIndex(self._path) as index:
            index.refresh(worker=self._reader)
            lines = [
                Line(
                    address(row.name),
                    row.name,
                    row.reasons[0] if row.verdict == UNREADABLE else row.instruction,
                    row.outcome,
                    row.verdict,
                    row.duration_s,
                    row.edits,
                )
                for row in index.rows(reverse=True)
            ]
            notes = [note for note in (index.note, index.lost) if note]
        return list_page(
            f'Episodes in {self._path.resolve().name}',
            f'mobile_vla episodes view {self._path} --serve; mobile_vla_ros {__version__}',
            lines,
            notes,
        )

    def page(self, name: str) -> str:
        """
        Return the page of an episode; if it cannot be read, one that says why.

        :raises NoEpisode: if there is none of this name.
        """
        paths = self._paths()
        names = list(paths)
        path, place = self._found(name, paths), names.index(name)
        served = Served(
            OUTCOMES if name.endswith(SUFFIX) else (),
            every='' if self._path.is_file() else './',
            newer=address(names[place - 1]) if place else '',
            older=address(names[place + 1]) if place + 1 < len(names) else '',
        )
        try:
            with self._reading:
                found = self._reader.call(READ, path, *OF_FILE, PAGE_BYTES, whole=True)
        except UserError as error:
            return episodes_page(name, 'cannot be shown', [], [str(error)], served)
        return text_of(path, [from_plain(found)], Chosen([path], 1), served)

    def edit(self, name: str, body: bytes) -> str:
        """
        Add one edit to an episode, as ``mobile_vla episodes edit`` does.

        :param body: JSON, see ``REQUEST``.
        :returns: a line: what it was and is.
        :raises NoEpisode: if there is none of this name.
        :raises UserError: if it cannot be edited so.
        """
        path = self._found(name, self._paths())
        values, why = _request(body)
        with self._editing:
            return str(
                self._editor.call(
                    'episode.catalog.edit:edit_one', path, values, self._by, self._clock(), why
                )
            )

    def _paths(self) -> dict[str, Path]:
        """Return the episodes by name, the newest first."""
        if self._path.is_file():
            return {self._path.name: self._path}
        try:
            found = [
                path
                for path in self._path.iterdir()
                if path.name.endswith((SUFFIX, PART_SUFFIX))
                and not path.name.startswith('.')
                and path.is_file()
            ]
        except OSError as error:
            raise UserError(f'{self._path} cannot be read', got=error.strerror) from None
        return {path.name: path for path in sorted(found, reverse=True)}

    def _found(self, name: str, paths: dict[str, Path]) -> Path:
        if name not in paths:
            raise NoEpisode(f'no episode {name!r:.200} in {self._path}')
        return paths[name]


def address(name: str) -> str:
    """Return the address of an episode's page, as seen from any page of the site."""
    return quote(name, safe='', errors='surrogateescape')


def _request(body: bytes) -> tuple[dict[str, Any] | None, str]:
    """Return the values to set, None to undo, and the reason."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError('no edit', got=first_line(error), expected=REQUEST) from None
    if type(request) is not dict or request.keys() != {'action', 'values', 'why'}:
        raise UserError('no edit', got='other keys', expected=REQUEST)
    action, values, why = request['action'], request['values'], request['why']
    if action not in (SET, UNDO) or type(values) is not dict or type(why) is not str:
        raise UserError('no edit', got='other values', expected=REQUEST)
    if bool(values) != (action == SET):
        raise UserError('no edit', got=f'{action} of {len(values)} values', expected=REQUEST)
    return values or None, why
