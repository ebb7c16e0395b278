"""
Edits of an episode: a list beside its file, which itself is never changed.

``X.edits.json`` beside ``X.h5`` says who changed what, when and why. Entries are only added: an
undo is an entry too. Whatever reads the episode applies the edits that stand. Seconds count from
the first frame of the recording.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros.episode.records import Commands
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.hdf5_gate import open_regular
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.types import MAX_INSTRUCTION_CHARS, NANOSECONDS

SUFFIX = '.edits.json'
FORMAT, VERSION = 'mobile_vla_episode_edits', 1
SET, UNDO = 'set', 'undo'  # actions
INSTRUCTION, OUTCOME, TRIM, SPLIT, EXCLUDE = 'instruction', 'outcome', 'trim', 'split', 'exclude'
MAX_BYTES = 1 << 20
MAX_EDITS = 1000
MAX_TEXT = 500  # characters of a name or a reason
MAX_SECONDS = 1e6
ROUNDING_S = 0.0005  # pages show milliseconds


@dataclass(frozen=True)
class Edit:
    """
    One entry of a list.

    :param time_utc: when, ISO 8601; by: who; why: '' without a reason.
    :param action: ``SET`` or ``UNDO``, which undoes the last entry that stands.
    :param values: what ``SET`` sets: ``INSTRUCTION`` or ``OUTCOME``: text; ``TRIM``: [first, last]
        second that is kept; ``SPLIT``: a second that no window spans; ``EXCLUDE``: the reason.
    """

    time_utc: str
    by: str
    action: str
    values: Mapping[str, Any] = field(default_factory=dict)
    why: str = ''


class Edits:
    """
    The edits of one episode.

    The newest value of each kind counts; of splits, all.

    :param log: every entry, the oldest first.
    :raises ValueError: when an undo has nothing to undo.
    """

    def __init__(self, log: Iterable[Edit] = ()) -> None:
        self.log = tuple(log)
        standing: list[Edit] = []
        for entry in self.log:
            if entry.action == SET:
                standing.append(entry)
            elif standing:
                standing.pop()
            else:
                raise ValueError('an undo has no edit before it')
        self.standing = tuple(standing)
        self.values: dict[str, Any] = {}
        for entry in standing:
            self.values |= entry.values
        splits = {entry.values[SPLIT] for entry in standing if SPLIT in entry.values}
        self.splits: list[float] = sorted(splits)

    @property
    def trim(self) -> tuple[float, float] | None:
        """First and last second that are kept, None: all."""
        first, last = self.values.get(TRIM, (0.0, None))
        return None if last is None else (first, last)

    @property
    def excluded(self) -> str:
        """Why the episode is excluded from training, '' if it is not."""
        return str(self.values.get(EXCLUDE, ''))

    @property
    def digest(self) -> str:
        """A short hash of what stands, '' if nothing does."""
        text = json.dumps([self.values, self.splits], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16] if self.standing else ''

    def words(self) -> str:
        """Return what stands in words, '' if nothing does."""
        splits = [words(SPLIT, second) for second in self.splits]
        found = [words(kind, value) for kind, value in self.values.items() if kind != SPLIT]
        return '; '.join(found + splits)


def words(kind: str, value: Any) -> str:
    """Return one value of an edit in words."""
    if kind == TRIM:
        return f'trimmed to {value[0]:g} to {value[1]:g} s'
    if kind == SPLIT:
        return f'split at {value:g} s'
    return f'{"excluded" if kind == EXCLUDE else kind}: {value}'


def path_of(episode: Path) -> Path:
    """Return the place of an episode's edits; those of a link are beside its file."""
    return (episode.resolve() if episode.is_symlink() else episode).with_suffix(SUFFIX)


def read(episode: Path, episode_id: str) -> Edits:
    """
    Return the edits of an episode, empty without a list.

    :raises UserError: when the list is broken, of another episode or of a later version: the
        episode must not be read as if it had none.
    """
    path = path_of(episode)
    if not os.path.lexists(path):
        return Edits()
    try:
        with open(open_regular(path), 'rb') as file:
            return parse(file.read(MAX_BYTES + 1), episode_id)
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(path, getattr(error, 'strerror', None) or first_line(error)) from None


def unusable(path: Path, reason: str) -> UserError:
    """Return the error for a list that cannot be applied."""
    return UserError(
        f'the edits {path} cannot be applied to their episode',
        got=reason,
        expected=f'a list written by mobile_vla episodes edit, of version {VERSION}',
        remedy='update mobile_vla_ros, correct the list, or move it away to use the episode '
        'as it was recorded',
    )


def parse(data: bytes, episode_id: str) -> Edits:
    """
    Return the edits in the bytes of a list.

    :raises ValueError: says in a clause what is wrong.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f'more than {MAX_BYTES} bytes')
    content = json.loads(data)
    if type(content) is not dict or content.get('format') != FORMAT:
        raise ValueError(f'no JSON object of the format {FORMAT}')
    if type(content.get('version')) is not int or content['version'] != VERSION:
        raise ValueError(f'version {content.get("version")!r:.40}')
    if set(content) != {'format', 'version', 'episode_id', 'edits'}:
        raise ValueError(f'the keys {", ".join(sorted(content)):.200}')
    if content['episode_id'] != episode_id:
        raise ValueError(f'edits of the episode {content["episode_id"]!r:.80}, not {episode_id}')
    entries = content['edits']
    if type(entries) is not list or not 0 < len(entries) <= MAX_EDITS:
        raise ValueError(f'edits that are no list of 1 to {MAX_EDITS}')
    return Edits(_entry(number, entry) for number, entry in enumerate(entries, 1))


def dump(log: Iterable[Edit], episode_id: str) -> str:
    """Return the text of a list."""
    content = {'format': FORMAT, 'version': VERSION, 'episode_id': episode_id}
    entries = [dict(vars(entry)) for entry in log]
    return json.dumps({**content, 'edits': entries}, indent=1, ensure_ascii=False) + '\n'


def _fault(kind: str, value: Any) -> str:
    """Return what is wrong with a value of an edit, as a clause; '' if nothing is."""
    if kind in (INSTRUCTION, EXCLUDE):
        longest = MAX_INSTRUCTION_CHARS if kind == INSTRUCTION else MAX_TEXT
        if not _is_text(value, longest) or not value.strip():
            return f'{kind} is {value!r:.40}, not a text of 1 to {longest} characters in one line'
    elif kind == OUTCOME:
        if value not in schema.OUTCOMES:
            return f'{kind} is {value!r:.40}, not {", ".join(schema.OUTCOMES)}'
    elif kind == TRIM:
        pair = type(value) is list and len(value) == 2 and all(map(_is_second, value))
        if not pair or value[0] >= value[1]:
            return f'{kind} is {value!r:.40}, not two seconds, the first before the last'
    elif kind == SPLIT:
        if not _is_second(value):
            return f'{kind} is {value!r:.40}, not a second'
    else:
        return f'{kind!r:.40} is no kind of edit'
    return ''


def _entry(number: int, entry: Any) -> Edit:
    names = {'time_utc', 'by', 'action', 'values', 'why'}
    if type(entry) is not dict or set(entry) != names:
        raise ValueError(f'edit {number} has not exactly the keys {", ".join(sorted(names))}')
    if not all(_is_text(entry[name], MAX_TEXT) for name in ('time_utc', 'by', 'action', 'why')):
        raise ValueError(f'edit {number} has a text that is none, or too long')
    values, action = entry['values'], entry['action']
    if action not in (SET, UNDO) or type(values) is not dict or bool(values) != (action == SET):
        raise ValueError(f'edit {number} is of no known action')
    for kind, value in values.items():
        wrong = _fault(kind, value)
        if wrong:
            raise ValueError(f'edit {number}: {wrong}')
    return Edit(**entry)


def _is_text(value: Any, longest: int) -> bool:
    return (
        type(value) is str
        and len(value) <= longest
        and not any(unicodedata.category(one) in ('Cc', 'Cs') for one in value)
    )


def _is_second(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= MAX_SECONDS  # NaN is not


def misfit(edits: Edits, frames_ns: np.ndarray) -> str:
    """
    Return how edits do not fit the frames of their recording, as a clause; '' if they do.

    :param frames_ns: (N,) int64 steady times of the frames (``timeline.recorded_times``).
    """
    times_s = np.sort(frames_ns - frames_ns.min()) / NANOSECONDS if len(frames_ns) else np.zeros(0)
    last_s = float(times_s[-1]) if len(times_s) else 0.0
    if edits.trim is not None:
        first, last = edits.trim
        if last > last_s + ROUNDING_S:
            return f'a trim to {last:g} s of an episode that ends at {last_s:.3f} s'
        if not ((times_s >= first - ROUNDING_S) & (times_s <= last + ROUNDING_S)).any():
            return f'a trim to {first:g} to {last:g} s, which leaves no frame'
    for at in edits.splits:
        if not 0 < at < last_s:
            return f'a split at {at:g} s of an episode that ends at {last_s:.3f} s'
    return ''


def bounds_ns(edits: Edits, start_ns: int) -> tuple[int, int]:
    """Return the first and the last time of a trim, nanoseconds on the steady clock."""
    assert edits.trim is not None
    first, last = edits.trim
    return (
        start_ns + round((first - ROUNDING_S) * NANOSECONDS),
        start_ns + round((last + ROUNDING_S) * NANOSECONDS),
    )


def cuts_ns(edits: Edits, start_ns: int) -> np.ndarray:
    """Return (K,) int64 times of the splits likewise: a frame at one begins what is after it."""
    return np.array(
        [start_ns + round((at - ROUNDING_S) * NANOSECONDS) for at in edits.splits], np.int64
    )


def shown_commands(commands: Commands, first_ns: int, last_ns: int) -> Commands:
    """Return the commands between two steady times, and the newest one before the first."""
    first, last = np.searchsorted(commands.steady_ns, [first_ns, last_ns + 1])
    shown = slice(max(int(first) - 1, 0), int(last))
    return Commands(**{name: column[shown] for name, column in vars(commands).items()})
