"""Edit episodes, one or many at once: add to the lists beside them (``storage.edits``)."""

import contextlib
import csv
import getpass
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros import file_lock
from mobile_vla_ros.episode.storage import edits, schema
from mobile_vla_ros.episode.storage.edits import SET, UNDO, Edit, Edits
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.timing.timeline import recorded_times
from mobile_vla_ros.errors import UserError, did_you_mean, first_line
from mobile_vla_ros.files import replaced
from mobile_vla_ros.types import NANOSECONDS

COLUMNS = ('file', edits.INSTRUCTION, edits.OUTCOME)
MAX_NAMED = 5
DROPPED_S = 5.0  # from the end, by a key of the console
# What a key of the console edits, and the service of the recorder that does it.
MENDS = {
    edits.INSTRUCTION: 'last_instruction',
    edits.OUTCOME: 'last_outcome',
    edits.TRIM: 'last_shorten',
    UNDO: 'last_undo',
}
WAIT_S, WAITS = 0.05, 100  # for another edit of the same folder


def act(
    paths: Sequence[Path],
    values: Mapping[str, Any],
    rows: Path | None,
    *,
    undo: bool,
    log: bool,
    by: str,
    time_ns: int,
    why: str,
) -> list[str]:
    """
    Do one of: set ``values``, or undo the last edit, of some episodes; print their logs; edit
    the episodes of a table.

    :param paths: of the episodes, empty with a table; ``rows``: the table's.
    :returns: lines to print.
    :raises UserError: as ``edit``, ``logs`` and ``table`` do, or when it is not one of these.
    """
    if bool(values) + undo + log + bool(rows) != 1:
        raise UserError('give one of: what to set, --undo, --log, --from')
    if bool(rows) == bool(paths):
        raise UserError('give the files to edit, or a table of them with --from')
    if log:
        return logs(paths)
    changes = table(rows) if rows else dict.fromkeys(paths, values or None)
    return edit(changes, by=by, time_ns=time_ns, why=why)


def edit(
    changes: Mapping[Path, Mapping[str, Any] | None], *, by: str, time_ns: int, why: str = ''
) -> list[str]:
    """
    Add an edit to each of some episodes: to all of them, or to none.

    :param changes: what to set of each episode (``edits.Edit.values``); None: undo its last edit.
    :param by: who edits; time_ns: Unix time.
    :returns: a line for each episode: what it was and is.
    :raises UserError: when an episode cannot be read or edited so, or a list cannot be written.
    """
    utc = schema.utc_text(time_ns)
    entries = {
        path: Edit(utc, by, UNDO if values is None else SET, dict(values or {}), why)
        for path, values in changes.items()
    }
    if len({os.path.realpath(path) for path in entries}) < len(entries):
        raise UserError('an episode is named twice', expected='each one once')
    with _locked({os.path.realpath(path.parent) for path in entries}):
        planned = [_planned(path, entry) for path, entry in entries.items()]
        for number, (path, text, _) in enumerate(planned):
            if text:
                _write(edits.path_of(path), text, number)
    return [line for _, _, line in planned]


def edit_one(path: Path, values: Mapping[str, Any] | None, by: str, time_ns: int, why: str) -> str:
    """Edit one episode as ``edit`` does, in a ``FileWorker``; return its line."""
    return edit({path: values}, by=by, time_ns=time_ns, why=why)[0]


def mend(path: Path, kind: str, instruction: str, *, by: str, time_ns: int) -> str:
    """
    Edit an episode as a key of the console does, without a value that a person types.

    :param kind: a key of ``MENDS``.
    :param instruction: the one that it gets, for ``INSTRUCTION``.
    :returns: a line: what it was and is.
    :raises UserError: as ``edit`` does, or when the episode is too short.
    """
    values: dict[str, Any] | None = None  # undo
    with Episode.open(path) as episode:
        if kind == edits.INSTRUCTION:
            values = {kind: instruction}
        elif kind == edits.OUTCOME:
            place = schema.OUTCOMES.index(episode.outcome) + 1
            values = {kind: schema.OUTCOMES[place % len(schema.OUTCOMES)]}
        elif kind == edits.TRIM:
            times_ns, _ = recorded_times(episode.recording)
            whole_s = float(np.ptp(times_ns)) / NANOSECONDS if len(times_ns) else 0.0
            first, last = episode.edits.trim or (0.0, whole_s)
            if last - first <= DROPPED_S:
                raise UserError(
                    f'{path.name} has no {DROPPED_S:g} s to drop', got=f'{last - first:.1f} s'
                )
            values = {kind: [first, round(last - DROPPED_S, 3)]}
    return edit({path: values}, by=by, time_ns=time_ns)[0]


def table(path: Path) -> dict[Path, dict[str, Any]]:
    """
    Read a table of edits (CSV): ``COLUMNS``, of which an empty cell changes nothing.

    Its files are named as seen from its folder, with or without their suffix.

    :raises UserError: when it is no such table, or names a file twice or one that does not exist.
    """
    found: dict[Path, dict[str, Any]] = {}
    missing = []
    for name, values in read_table(path):
        whole_name = f'{name.removesuffix(schema.SUFFIX)}{schema.SUFFIX}'
        one = Path(os.path.normpath(path.parent / whole_name))
        if not one.is_file():
            missing.append(name)
        if one in found:
            raise UserError(f'{path} names an episode twice', got=name, expected='one row each')
        found[one] = {kind: value for kind, value in values.items() if value.strip()}
    if missing:
        more = f' and {len(missing) - MAX_NAMED} more' if len(missing) > MAX_NAMED else ''
        raise UserError(
            f'{path} names episodes that do not exist; nothing was changed',
            got=', '.join(missing[:MAX_NAMED]) + more,
            expected=f'files in {path.parent}',
        )
    return {one: values for one, values in found.items() if values}


def read_table(path: Path) -> list[tuple[str, dict[str, str]]]:
    """
    Return the file and the other cells in each row of a table (CSV) of ``COLUMNS``.

    :raises UserError: when it is no such table.
    """
    try:
        with path.open(newline='', encoding='utf-8-sig') as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f'{path} cannot be read as a table', got=error, expected='CSV in UTF-8'
        ) from None
    head, rows = rows[0] if rows else [], [row for row in rows[1:] if any(row)]
    unknown = [name for name in head if name not in COLUMNS]
    if unknown or 'file' not in head or len(set(head)) < max(2, len(head)):
        raise UserError(
            f'{path} has other columns than a table of edits or labels',
            got=', '.join(head)[:200] or 'none',
            expected=f'{", ".join(COLUMNS)}, separated by commas',
            remedy=did_you_mean(unknown[0], COLUMNS) if unknown else None,
        )
    found = []
    for number, row in enumerate(rows, 1):
        if len(row) != len(head):
            raise UserError(
                f'row {number} of {path} is incomplete',
                got=f'{len(row)} cells',
                expected=len(head),
            )
        values = dict(zip(head, row, strict=True))
        found.append((values.pop('file'), values))
    return found


def logs(paths: Iterable[Path]) -> list[str]:
    """
    Return a line for each entry of some episodes' lists, the oldest first.

    :raises UserError: when an episode or its list cannot be read.
    """
    lines = []
    for path in paths:
        with Episode.open(path) as episode:
            log = log_lines(episode.edits)
        lines += [f'{path.name}: {line}' for line in log or ['no edits']]
    return lines


def log_lines(found: Edits) -> list[str]:
    """Return a line for each entry of a list, the oldest first."""
    standing = set(map(id, found.standing))  # entries may be alike
    return ['  '.join(_line(entry, id(entry) in standing)) for entry in found.log]


def user() -> str:
    """Return the name of the user, or the number of one without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f'user {os.getuid()}'


def _line(entry: Edit, stands: bool) -> Iterable[str]:
    yield from (entry.time_utc, entry.by)
    if entry.action == UNDO:
        yield 'undo'
    else:
        yield '; '.join(edits.words(kind, value) for kind, value in entry.values.items())
        if not stands:
            yield '(undone)'
    if entry.why:
        yield f'({entry.why})'


def _planned(path: Path, entry: Edit) -> tuple[Path, str, str]:
    """Return the path, the new text of its list ('' if nothing changes), and a line for people."""
    if not path.name.endswith(schema.SUFFIX):
        raise UserError(
            f'{path} cannot be edited',
            expected=f'a finished episode ({schema.SUFFIX})',
            remedy='end it, or complete it with mobile_vla episodes recover',
        )
    with Episode.open(path) as episode:
        before, episode_id = episode.edits, episode.episode_id
    with Episode.open(path, as_recorded=True) as episode:
        recorded = episode.attributes
        times_ns, _ = recorded_times(episode.recording)
    if entry.action == UNDO and not before.standing:
        raise UserError(f'{path} has no edit to undo', remedy='see its edits with --log')
    text = edits.dump([*before.log, entry], episode_id)
    try:  # what is written can be read
        after = edits.parse(text.encode(), episode_id)
        wrong = edits.misfit(after, times_ns)
    except ValueError as error:
        wrong = first_line(error)
    if wrong:
        raise UserError(f'{path} cannot be edited so; nothing was changed', got=wrong)
    if entry.action == SET and after.digest == before.digest:
        return path, '', f'{path.name}: unchanged'
    return path, text, f'{path.name}: {_change(before, after, recorded)}'


def _change(before: Edits, after: Edits, recorded: Mapping[str, Any]) -> str:
    """Return in words how what stands differs."""
    was = _effective(before, recorded)
    now = _effective(after, recorded)
    return '; '.join(
        f'{kind}: {was.get(kind, "none")} -> {now.get(kind, "none")}'
        for kind in dict.fromkeys([*was, *now])
        if was.get(kind) != now.get(kind)
    )


def _effective(found: Edits, recorded: Mapping[str, Any]) -> dict[str, str]:
    texts = (edits.INSTRUCTION, edits.OUTCOME)
    values = {kind: recorded[kind] for kind in texts} | found.values
    values |= {edits.SPLIT: found.splits} if found.splits else {}
    return {
        kind: ', '.join(f'{second:g} s' for second in value) if type(value) is list else value
        for kind, value in values.items()
        if kind != edits.SPLIT or found.splits
    }


def _write(path: Path, text: str, before: int) -> None:
    """Write a list; ``before``: number of episodes that were edited before it in one call."""
    try:
        with replaced(path) as file:
            file.write(text)
    except OSError as error:
        raise UserError(
            f'cannot write {path}',
            got=error.strerror,
            expected='a folder with room that this user may write',
            remedy=f'give the command again: {before} episodes were edited before this one',
        ) from None


@contextlib.contextmanager
def _locked(folders: Iterable[str]) -> Iterator[None]:
    """Keep other edits out of some folders; wait for them a little."""
    with contextlib.ExitStack() as closing:
        for folder in sorted(folders):
            try:
                handle = os.open(folder, os.O_RDONLY)
            except OSError as error:
                raise UserError(f'no folder {folder}', got=error.strerror) from None
            closing.callback(os.close, handle)
            for waits in range(WAITS + 1):
                try:
                    file_lock.claim(handle)
                    break
                except BlockingIOError:
                    if waits == WAITS:
                        raise UserError(
                            f'another process edits episodes in {folder}',
                            remedy='try again when it has ended; nothing was changed',
                        ) from None
                    time.sleep(WAIT_S)
                except OSError as error:
                    raise UserError(f'cannot lock {folder}', got=error.strerror) from None
        yield
