"""
The SQLite table behind ``index``: its rows, its place, and how to open it.

Imports no h5py, so that help stays quick.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobile_vla_ros import types

FILE_NAME = '.episodes.sqlite'
MEMORY = ':memory:'
CORRUPT, NOTADB, READONLY_DBMOVED = 11, 26, 1032  # names that sqlite3 lacks before Python 3.11
Place = Path | str  # a file, or MEMORY
LOCK_TIMEOUT_S = 30.0

UNREADABLE, UNFINISHED, EXCLUDED = 'unreadable', 'unfinished', 'excluded'
NO_VERDICT = (UNREADABLE, UNFINISHED, EXCLUDED)
VERDICTS = (*types.VERDICTS, *NO_VERDICT)


@dataclasses.dataclass(frozen=True)
class EpisodeRow:
    """
    Facts about an episode that are known without opening it.

    :param verdict: one of ``VERDICTS``; ``reasons`` explain it, for an unreadable file its defect.
    :param duration_s: from the first to the last received image.
    :param edits: number of edits that stand.
    :param moving_s: seconds commanded to move; the next six are for each direction, see
        ``coverage.motion``.
    """

    name: str
    episode_id: str
    instruction: str = ''
    outcome: str = ''
    created_utc: str = ''
    origin: str = ''
    recovered: bool = False
    frames: int = 0
    commands: int = 0
    duration_s: float = 0.0
    verdict: str = UNREADABLE
    reasons: tuple[str, ...] = ()
    moving_s: float = 0.0
    forward_s: float = 0.0
    back_s: float = 0.0
    left_s: float = 0.0
    right_s: float = 0.0
    turn_left_s: float = 0.0
    turn_right_s: float = 0.0
    edits: int = 0


def unreadable(path: Path, reason: str) -> EpisodeRow:
    """Return the row of a file that cannot be read, with its sentence."""
    name = path.name.removesuffix('.part').removesuffix('.h5')
    return EpisodeRow(path.name, name, reasons=(reason.replace(str(path), path.name),))


COLUMNS = [field.name for field in dataclasses.fields(EpisodeRow)]
# Of the file, and of the edits beside it; 0 without any.
STATE = ('size', 'mtime_ns', 'edits_size', 'edits_mtime_ns')
_TYPES = {'name': 'TEXT PRIMARY KEY'} | dict.fromkeys(STATE, 'INTEGER')
_EPISODES = ', '.join(f'{name} {_TYPES.get(name, "")}' for name in ('name', *STATE, *COLUMNS[1:]))
_TRACES = 'name TEXT PRIMARY KEY, signature BLOB, view BLOB'
# A table of another layout is rebuilt; increment the number when the meaning of a column changes.
SCHEMA = zlib.crc32(f'2 {_EPISODES} {_TRACES}'.encode()) & 0x7FFFFFFF


def row_of(values: list[Any]) -> EpisodeRow:
    """Return the row with these values of ``COLUMNS``."""
    named = dict(zip(COLUMNS, values, strict=True))
    return EpisodeRow(
        **named
        | {'recovered': bool(named['recovered']), 'reasons': tuple(json.loads(named['reasons']))}
    )


def places(folder: Path) -> list[Place]:
    """Return the possible places for the table of a folder, the best first."""
    found: list[Place] = [folder / FILE_NAME]
    with contextlib.suppress(RuntimeError):  # a user without a home
        setting = os.environ.get('XDG_CACHE_HOME')
        cache = Path(setting) if setting else Path.home() / '.cache'
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        found.append(cache / 'mobile_vla' / f'episodes_{name}.sqlite')
    return [*found, MEMORY]


def connect(place: Place) -> sqlite3.Connection:
    """
    Open a table that is whole, of this schema and writable.

    :raises sqlite3.Error: when it is broken or cannot be written.
    """
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
    # Transactions begin explicitly: SQLite does not wait for a write lock requested later.
    db = sqlite3.connect(place, timeout=LOCK_TIMEOUT_S, isolation_level=None)
    try:
        db.create_function('contains', 2, _contains, deterministic=True)
        db.execute('PRAGMA temp_store = MEMORY')
        with transaction(db):
            if db.execute('PRAGMA user_version').fetchone() != (SCHEMA,):
                # `takes` is a name in files.
                for table, columns in (('takes', _EPISODES), ('traces', _TRACES)):
                    db.execute(f'DROP TABLE IF EXISTS main.{table}')
                    db.execute(f'CREATE TABLE main.{table} ({columns})')
                db.execute(f'PRAGMA user_version = {SCHEMA}')
        db.execute(f'CREATE TABLE temp.takes ({_EPISODES})')
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


def error_code(error: Exception) -> int:
    """Return SQLite's code of an error; before Python 3.11 only its text tells."""
    texts = {'database disk image is malformed': CORRUPT, 'file is not a database': NOTADB}
    code: int = getattr(error, 'sqlite_errorcode', texts.get(str(error), 0))
    return code


def _broken(found: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(found)
    setattr(error, 'sqlite_errorcode', CORRUPT)  # noqa: B010 - newer than Python 3.10
    return error


def _contains(text: str, part: str) -> bool:
    return part.casefold() in text.casefold()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Write all or nothing, after waiting for other writing processes."""
    db.execute('BEGIN IMMEDIATE')
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute('ROLLBACK')
        raise
    db.execute('COMMIT')
