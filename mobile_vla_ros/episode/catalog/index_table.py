"""The SQLite table behind ``index``: where it lies, its columns, and how it is opened."""

import contextlib
import dataclasses
import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

from mobile_vla_ros.episode.catalog.row import EpisodeRow

FILE_NAME = '.episodes.sqlite'
MEMORY = ':memory:'
LOCK_TIMEOUT_S = 30.0

COLUMNS = [field.name for field in dataclasses.fields(EpisodeRow)]
_STATE = ('size', 'mtime_ns')
_TYPES = {'name': 'TEXT PRIMARY KEY', 'size': 'INTEGER', 'mtime_ns': 'INTEGER'}
_TAKES = ', '.join(f'{name} {_TYPES.get(name, "")}' for name in ('name', *_STATE, *COLUMNS[1:]))
_TRACES = 'name TEXT PRIMARY KEY, signature BLOB, view BLOB'
# A table of another layout is made anew; the number is raised when what a column means changes.
SCHEMA = zlib.crc32(f'1 {_TAKES} {_TRACES}'.encode()) & 0x7FFFFFFF


def row_of(values: list) -> EpisodeRow:
    """Return the row that the values of ``COLUMNS`` stand for."""
    named = dict(zip(COLUMNS, values, strict=True))
    return EpisodeRow(
        **named
        | {'recovered': bool(named['recovered']), 'reasons': tuple(json.loads(named['reasons']))}
    )


def places(folder: Path) -> list[Path | str]:
    """Return where the table of a folder may lie, the best place first."""
    places = [folder / FILE_NAME]
    with contextlib.suppress(RuntimeError):  # a user without a home
        cache = os.environ.get('XDG_CACHE_HOME')
        cache = Path(cache) if cache else Path.home() / '.cache'
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        places.append(cache / 'mobile_vla' / f'episodes_{name}.sqlite')
    return [*places, MEMORY]


def connect(place: Path | str) -> sqlite3.Connection:
    """
    Open a table, whole, of our schema and writable.

    :raises sqlite3.Error: when it is broken or cannot be written.
    """
    if place != MEMORY:
        place.parent.mkdir(parents=True, exist_ok=True)
    # Transactions are begun by hand: a write lock taken late could not be waited for.
    db = sqlite3.connect(place, timeout=LOCK_TIMEOUT_S, isolation_level=None)
    try:
        db.create_function('contains', 2, _contains, deterministic=True)
        db.execute('PRAGMA temp_store = MEMORY')
        with transaction(db):
            if db.execute('PRAGMA user_version').fetchone() != (SCHEMA,):
                for table, columns in (('takes', _TAKES), ('traces', _TRACES)):
                    db.execute(f'DROP TABLE IF EXISTS main.{table}')
                    db.execute(f'CREATE TABLE main.{table} ({columns})')
                db.execute(f'PRAGMA user_version = {SCHEMA}')
        db.execute(f'CREATE TABLE temp.takes ({_TAKES})')
        columns = ', '.join(COLUMNS)
        db.execute(
            f'CREATE TEMP VIEW listed AS SELECT {columns} FROM main.takes '
            f'UNION ALL SELECT {columns} FROM temp.takes'
        )
        (checked,) = db.execute('PRAGMA main.quick_check(1)').fetchone()
        if checked != 'ok':
            raise _broken(checked)
    except BaseException:
        db.close()
        raise
    return db


def _broken(found: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(found)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _contains(text: str, part: str) -> bool:
    return part.casefold() in text.casefold()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Write all or nothing, having waited for other processes that write."""
    db.execute('BEGIN IMMEDIATE')
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute('ROLLBACK')
        raise
    db.execute('COMMIT')
