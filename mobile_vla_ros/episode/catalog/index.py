"""The episodes of a folder in a small SQLite table, so that thousands are listed at once."""

import base64
import contextlib
import dataclasses
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros.episode.catalog.file_worker import FileWorker
from mobile_vla_ros.episode.catalog.index_table import (
    COLUMNS,
    CORRUPT,
    MEMORY,
    NO_VERDICT,
    NOTADB,
    READONLY_DBMOVED,
    STATE,
    EpisodeRow,
    Place,
    connect,
    error_code,
    places,
    row_of,
    transaction,
    unreadable,
)
from mobile_vla_ros.errors import UserError

BATCH = 200  # episodes written in one transaction
EDITS = '.edits.json'  # storage.edits.SUFFIX; this module imports no h5py
PAGE = 500  # rows held in memory at a time
SORTS = {
    'name': 'name',
    'duration': 'duration_s',
    'frames': 'frames',
    'instruction': 'instruction',
    'outcome': 'outcome',
    'verdict': "instr('unreadable unfinished bad poor good excluded', verdict)",
}


class EpisodeIndex:
    """
    The episodes of a folder; use it as a context manager.

    ``refresh`` opens only files with a new name, size or modification time, and those with new
    edits; ``lost`` names edits without an episode. The table is in the folder; if that cannot be
    written, in the user's cache or else in memory, and ``note`` says so. A broken table, or one
    from another version of this package, is rebuilt. Several processes may use it at once; one
    instance belongs to one thread.

    An unfinished ``.part`` is read at every ``refresh`` and not stored.
    """

    def __init__(self, path: Path | str) -> None:
        """
        Open the table, empty if there is none.

        :param path: a folder, or one file, which is then a set of its own in memory.
        :raises UserError: when there is neither.
        """
        path = Path(path).expanduser()
        if not path.exists():
            raise UserError(
                f'no folder of episodes at {path}', expected='a folder written by the recorder'
            )
        self.folder = path if path.is_dir() else path.parent
        self.note = self.lost = self._why = ''
        self._only = None if path.is_dir() else path.name
        self._places = [MEMORY] if self._only else places(self.folder)
        self._rebuilt: set[tuple[Place, int]] = set()
        self._db = self._open()

    def __enter__(self) -> 'EpisodeIndex':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the table."""
        self._db.close()

    def refresh(
        self,
        progress: Callable[[int, int], None] | None = None,
        worker: FileWorker | None = None,
    ) -> None:
        """
        Read new files in the folder and forget deleted ones.

        They are read in another process; one that takes too long is listed as unreadable.

        :param progress: called with the number of episodes read so far and the number to read.
        :param worker: the process that reads; None: a new one.
        """
        if worker is None:
            with FileWorker() as worker:
                return self.refresh(progress, worker)
        while True:
            try:
                return self._refresh(progress or (lambda done, total: None), worker)
            except sqlite3.Error as error:
                self._db.close()
                self._give_up(error)
                self._db = self._open()

    def rows(
        self,
        *,
        instruction: str = '',
        outcome: str = '',
        verdict: str = '',
        sort: str = 'name',
        reverse: bool = False,
    ) -> Iterator[EpisodeRow]:
        """
        Yield the rows one by one, with a page of them in memory and the table unlocked.

        :param instruction: only episodes whose instruction contains this, ignoring case.
        :param outcome: only episodes with this outcome; likewise ``verdict``.
        :param sort: a key of ``SORTS``; ties are sorted by name.
        """
        key, ahead, order = SORTS[sort], *(('<', 'DESC') if reverse else ('>', 'ASC'))
        wanted = {
            'contains(instruction, ?)': instruction,
            'outcome = ?': outcome,
            'verdict = ?': verdict,
        }
        clauses = [clause for clause, value in wanted.items() if value] or ['1']
        values = [value for value in wanted.values() if value]
        after = ''
        last: list[Any] = []
        while True:
            page = self._db.execute(
                f'SELECT {", ".join(COLUMNS)}, {key} FROM listed '
                f'WHERE {" AND ".join(clauses)} {after} '
                f'ORDER BY {key} {order}, name {order} LIMIT {PAGE}',
                values + last,
            ).fetchall()
            for *row, _ in page:
                yield row_of(row)
            if len(page) < PAGE:
                return
            after, last = f'AND ({key}, name) {ahead} (?, ?)', [page[-1][-1], page[-1][0]]

    def traces(self) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
        """
        Yield name, ``coverage.signature`` and ``coverage.start_view`` of every finished episode.

        They are sorted by name; the view is None for an episode without an image.
        """
        kept = self._db.execute('SELECT name, signature, view FROM main.traces ORDER BY name')
        for name, signature, view in kept.fetchall():
            yield (
                name,
                np.frombuffer(signature, '<f2').reshape(-1, 3).astype(np.float32),
                np.frombuffer(view, '<f2').astype(np.float32) if view else None,
            )

    def count_by_instruction(self) -> dict[str, int]:
        """Return the number of finished episodes of each instruction, the most frequent first."""
        return dict(
            self._db.execute(
                f'SELECT instruction, count(*) FROM main.takes WHERE verdict NOT IN {NO_VERDICT} '
                'GROUP BY instruction ORDER BY count(*) DESC, instruction'
            )
        )

    def _open(self) -> sqlite3.Connection:
        """Connect to the best place that works, and describe it in ``note``."""
        while True:
            place = self._places[0]
            fresh = not isinstance(place, Path) or not place.exists()
            try:
                db = connect(place)
                break
            except (sqlite3.Error, OSError) as error:
                self._give_up(error)
        self.note = ''
        if self._why and fresh:
            self.note = self._why + (
                '; it is kept in memory, so every start reads every episode'
                if place == MEMORY
                else f'; it is kept in {place}'
            )
        return db

    def _give_up(self, error: Exception) -> None:
        """Delete a broken table, once; where none is possible, go to the next place."""
        place, code = self._places[0], error_code(error)
        broken = code & 0xFF in (CORRUPT, NOTADB)
        moved = code == READONLY_DBMOVED  # another process deleted it
        if not isinstance(place, Path):
            raise error
        if (broken or moved) and (place, code) not in self._rebuilt:
            self._rebuilt.add((place, code))
            with contextlib.suppress(OSError):
                if broken:
                    place.unlink(missing_ok=True)
                return
        self._places.pop(0)
        self._why = self._why or f'{self.folder} cannot keep the index of its episodes ({error})'

    def _refresh(self, progress: Callable[[int, int], None], worker: FileWorker) -> None:
        found = self._scan()
        known = {
            name: state
            for name, *state in self._db.execute(
                f'SELECT name, {", ".join(STATE)} FROM main.takes'
            )
        }
        parts = [name for name in found if name.endswith('.part')]
        stale = [
            name for name, state in found.items() if name not in parts and known.get(name) != state
        ]
        gone = [(name,) for name in known if name not in found]
        if gone:
            with transaction(self._db):
                for table in ('main.takes', 'main.traces'):
                    self._db.executemany(f'DELETE FROM {table} WHERE name = ?', gone)
        self._db.execute('DELETE FROM temp.takes')
        reading = [(name, 'main') for name in stale] + [(name, 'temp') for name in parts]
        total = len(reading)
        for first in range(0, total, BATCH):
            batch = []
            for done, (name, where) in enumerate(reading[first : first + BATCH], first):
                progress(done, total)
                edited = (self.folder / name).with_suffix(EDITS).exists()
                batch.append((where, found[name], *_read(worker, self.folder / name, edited)))
            with transaction(self._db):
                for entry in batch:
                    self._store(*entry)
        progress(total, total)

    def _scan(self) -> dict[str, list[int]]:
        """Return ``STATE`` of every episode in the folder."""
        found: dict[str, list[int]] = {}
        edits: dict[str, list[int]] = {}
        if self._only:
            return {_text(self._only): [*_state((self.folder / self._only).stat()), 0, 0]}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                name = _text(entry.name)
                if name.startswith('.') or not name.endswith(('.h5', '.h5.part', EDITS)):
                    continue
                with contextlib.suppress(OSError):  # renamed or deleted since
                    if name.endswith(EDITS):
                        edits[name.removesuffix(EDITS)] = _state(entry.stat())
                    elif entry.is_file():
                        found[name] = _state(entry.stat())
        lost = [f'{name}{EDITS}' for name in edits if f'{name}.h5' not in found]
        self.lost = f'edits without their episode: {", ".join(sorted(lost))}' if lost else ''
        return {
            name: [*state, *edits.get(name.removesuffix('.h5'), (0, 0))]
            for name, state in found.items()
        }

    def _store(
        self, where: str, state: list[int], row: EpisodeRow, signature: bytes, view: bytes
    ) -> None:
        values = dataclasses.asdict(row) | {'reasons': json.dumps(row.reasons)}
        row_values = [row.name, *state, *(values[column] for column in COLUMNS[1:])]
        marks = ', '.join('?' * len(row_values))
        self._db.execute(f'INSERT OR REPLACE INTO {where}.takes VALUES ({marks})', row_values)
        if where == 'main':
            self._db.execute(
                'INSERT OR REPLACE INTO main.traces VALUES (?, ?, ?)', (row.name, signature, view)
            )


def _text(name: str) -> str:
    """Return a name as it can be stored: bytes that are no UTF-8 become U+FFFD."""
    return os.fsencode(name).decode(errors='replace')


def _state(file: os.stat_result) -> list[int]:
    return [file.st_size, file.st_mtime_ns]


def _read(worker: FileWorker, path: Path, edited: bool) -> tuple[EpisodeRow, bytes, bytes]:
    """
    Return the row, signature and start view of a file; a row with the reason if unreadable.

    :param edited: all of its images may be read, for a new verdict.
    """
    try:
        if '\ufffd' in path.name and not path.exists():  # see _text
            raise UserError(
                f'{path} cannot be read', got='a name that is not UTF-8', remedy='rename it'
            )
        found = worker.call('episode.catalog.read:read_row', path, whole=edited)
    except UserError as error:
        return unreadable(path, str(error)), b'', b''
    row = EpisodeRow(**found['row'] | {'reasons': tuple(found['row']['reasons'])})
    return row, base64.b64decode(found['signature']), base64.b64decode(found['view'])
