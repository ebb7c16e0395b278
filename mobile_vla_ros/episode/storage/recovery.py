"""Complete episodes whose writer died, and save the remains of files that were cut."""

import dataclasses
import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobile_vla_ros import file_lock
from mobile_vla_ros.episode.quality.verdict import Health, read_health
from mobile_vla_ros.episode.storage import disk, edits, schema
from mobile_vla_ros.episode.storage.hdf5_gate import open_regular
from mobile_vla_ros.episode.storage.reader import VERSIONS, Episode
from mobile_vla_ros.episode.storage.salvage import Salvage
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.command_rule import SETTING
from mobile_vla_ros.episode.timing.timeline import recorded_times
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import replaced
from mobile_vla_ros.types import NANOSECONDS, SOURCE_NAMES, Command

RECOVERED = '_recovered'
LOST_INSTRUCTION = '(lost)'


@dataclass(frozen=True)
class Recovery:
    """
    The result of a recovery.

    :param path: the whole episode.
    :param frames: rows kept; likewise ``commands``, ``events``, ``proposals`` and ``messages``.
    :param lost: rows that the file lists but that could not be read, by stream.
    :param sentence: the result in words.
    :param clean: no row that the file lists is lost.
    """

    path: Path
    frames: int
    commands: int
    events: int
    lost: dict[str, int]
    sentence: str
    clean: bool
    proposals: int = 0
    messages: int = 0


def is_written(path: Path | str) -> bool:
    """
    Whether a process is writing or recovering this file.

    :raises UserError: when there is no such file, or it cannot be opened.
    """
    try:
        return file_lock.is_held(path)
    except OSError as error:
        raise UserError(f'{path} cannot be opened', got=disk.error_text(error)) from None


def without_writer(folder: Path | str) -> list[Path]:
    """Return the ``.part`` files that nobody writes, sorted by name; opens none of them."""
    found = []
    for part in sorted(Path(folder).expanduser().glob(f'*{schema.PART_SUFFIX}')):
        try:
            if part.is_file() and not is_written(part):
                found.append(part)
        except UserError:
            continue  # closed a moment ago
    return found


def is_abandoned(part: Path) -> bool:
    """Whether a ``.part`` without a writer is not recovered yet."""
    return _recovered_before(part) is None


def is_damaged(path: Path | str) -> bool:
    """Whether a finished episode can no longer be opened and is not recovered yet."""
    path = Path(path)
    if _recovered_before(path) is not None:
        return False
    try:
        Episode.open(path, as_recorded=True).close()
    except UserError:
        return True
    return False


def recover(path: Path | str, *, now_ns: int) -> Recovery:
    """
    Make a whole episode from the readable rows of a file, which itself is never changed.

    From ``<id>.h5.part`` comes ``<id>.h5``; the ``.part`` is removed if every row that it lists
    was read. From any other file comes ``<id>_recovered.h5``, with its edits if they fit. Images
    are copied one by one. A file that is whole, or was recovered before, stays as it is.

    :param now_ns: Unix time, for the note in the episode.
    :raises UserError: when the file is being written, nothing in it is readable, or the new file
        cannot be written.
    """
    path = Path(path).expanduser()
    handle = _hold(path)
    try:
        with Salvage(path) as salvage:
            _check_format(salvage)
            before = _recovered_before(path)
            result = _rewrite(salvage, now_ns) if before is None else _earlier(salvage, before)
            if result.path != path:
                words = _carry_edits(salvage, result.path)
                result = dataclasses.replace(result, sentence=f'{result.sentence}{words}')
        if _is_part(path) and result.clean:
            path.unlink(missing_ok=True)
        return result
    finally:
        os.close(handle)


def recover_plain(path: Path, now_ns: int) -> dict[str, Any]:
    """Recover in a ``catalog.file_worker``: return the fields of the ``Recovery``."""
    result = recover(path, now_ns=now_ns)
    return {**vars(result), 'path': str(result.path)}


def _is_part(path: Path) -> bool:
    return path.name.endswith(schema.PART_SUFFIX)


def _hold(path: Path) -> int:
    """Open a file; hold the lock of a ``.part``, so that no other process recovers it too."""
    writable = _is_part(path) and os.access(path, os.W_OK)
    try:
        handle = open_regular(path, os.O_RDWR if writable else os.O_RDONLY)
    except OSError as error:
        raise UserError(f'{path} cannot be opened', got=disk.error_text(error)) from None
    if _is_part(path) and (is_written(path) or (writable and not file_lock.hold(handle))):
        os.close(handle)
        raise UserError(
            f'{path} is being written',
            expected='an episode without a writer',
            remedy='stop the recorder first; if the disk does not support locks, copy the '
            'file elsewhere',
        )
    return handle


def _check_format(salvage: Salvage) -> None:
    format_, version = salvage.attribute('format'), salvage.attribute('version')
    if format_ not in (None, schema.FORMAT) or version not in (None, *VERSIONS):
        raise UserError(
            f'{salvage.path} is not an episode that this version can recover',
            got=f'format {format_}, version {version}',
            expected=f'{schema.FORMAT}, version {" or ".join(map(str, VERSIONS))}',
        )


def _targets(path: Path) -> list[Path]:
    """Return the names that the whole episode of a file may have."""
    stem = schema.episode_name(path)
    stems = [stem, f'{stem}{RECOVERED}'] if _is_part(path) else [f'{stem}{RECOVERED}']
    return [path.with_name(f'{name}{schema.SUFFIX}') for name in stems]


def _recovered_before(path: Path) -> Path | None:
    """Return the whole episode that was made from a file earlier."""
    for target in _targets(path):
        if target.exists():
            try:
                with Episode.open(target, as_recorded=True) as episode:
                    if episode.recovered and episode.complete:
                        return target
            except UserError:
                continue
    return None


def _earlier(salvage: Salvage, before: Path) -> Recovery:
    """Return the result of an earlier recovery."""
    with Episode.open(before, as_recorded=True) as episode:
        kept = {
            'frames': len(episode),
            'commands': len(episode.commands),
            'events': sum(event.name != 'recovered' for event in episode.events),
        }
        if episode.proposals is not None:
            kept['proposals'] = len(episode.proposals)
        if episode.topics:
            kept['messages'] = sum(one.count for one in episode.topics.values())
    lost = _lost(salvage, kept)
    words = f'{salvage.path.name} was recovered before, as {before.name}{_lost_words(lost)}'
    return Recovery(before, **kept, lost=lost, sentence=words, clean=not any(lost.values()))


def _rewrite(salvage: Salvage, now_ns: int) -> Recovery:
    path = salvage.path
    target = next((name for name in _targets(path) if not name.exists()), None)
    if target is None:
        raise UserError(
            f'{path} cannot be recovered: its new names are in use',
            got=', '.join(name.name for name in _targets(path)),
            remedy='move these files elsewhere',
        )
    writer = _new_writer(salvage, target, now_ns)
    try:
        kept = _copy(salvage, writer)
        lost = _lost(salvage, kept)
        clean = not any(lost.values())
        if clean and not _is_part(path) and not salvage.cut and salvage.attribute('complete'):
            writer.discard()
            return Recovery(
                path,
                **kept,
                lost=lost,
                clean=True,
                sentence=f'{path.name} is whole: nothing to recover',
            )
        if not any(kept.values()) and (not clean or salvage.cut):
            raise UserError(
                f'nothing in {path} is readable',
                got=f'0 of {_words(salvage.listed)}',
                expected='at least one row of an episode',
            )
        sentence = f'{path.name}: {_words(kept)} recovered{_lost_words(lost)}'
        if salvage.attribute('instruction') is None:
            clean, sentence = False, f'{sentence}; the instruction is lost'
        # The time of recovery goes into the text: it does not belong on the episode's clock.
        time_ns, steady_ns = writer.last
        text = f'{sentence} ({schema.utc_text(now_ns)})'
        writer.add_event('recovered', time_ns, text, steady_ns=steady_ns)
        writer.mark_recovered()
        outcome = salvage.attribute('outcome')
        writer.close(outcome if outcome in schema.OUTCOMES else 'unknown')
    except BaseException:
        writer.discard()
        raise
    return Recovery(target, **kept, lost=lost, clean=clean, sentence=sentence)


def _carry_edits(salvage: Salvage, target: Path) -> str:
    """Write the edits of a file beside its recovered episode; return a sentence on the result."""
    source, place = edits.path_of(salvage.path), edits.path_of(target)
    if not os.path.lexists(source) or os.path.lexists(place):
        return ''
    known_id = salvage.attribute('episode_id') or schema.episode_name(salvage.path)
    try:
        found = edits.read(salvage.path, known_id)
        with Episode.open(target, as_recorded=True) as episode:
            recording = episode.recording
            wrong = edits.misfit(found, recorded_times(recording)[0])
            start = recording.frame_steady_ns[:1].tolist()
            if (found.trim or found.splits) and start != [salvage.start_ns]:
                wrong = 'they count seconds from its first frame, which is lost'
            if not wrong:
                with replaced(place) as file:
                    file.write(edits.dump(found.log, episode.episode_id))
    except (UserError, OSError) as error:
        wrong = str(error).rstrip('.')
    if wrong:
        return f'; its edits were not carried over, and stay in {source.name}: {wrong}'
    return f'; its edits were carried over: {found.words() or "all undone"}'


def _new_writer(salvage: Salvage, target: Path, now_ns: int) -> EpisodeWriter:
    """Create the new file under its hidden name, with the attributes of the old one."""
    episode_id = schema.episode_name(target)
    hidden = target.with_name(schema.hidden_name(episode_id))
    if hidden.exists():  # from a recovery that was killed or is still running
        if is_written(hidden):
            raise UserError(f'{salvage.path} is being recovered by another process')
        hidden.unlink()
    names = [field.name for field in dataclasses.fields(schema.EpisodeInfo)]
    info: dict[str, Any] = {name: salvage.attribute(name) or '' for name in names}
    info[SETTING] = salvage.attribute(SETTING)
    info['instruction'] = info['instruction'] or LOST_INSTRUCTION
    try:
        known: Health = read_health(salvage.attribute('health') or '{}')
    except ValueError:
        known = {}
    return EpisodeWriter(
        target.parent,
        schema.EpisodeInfo(**info),
        _created_ns(salvage, now_ns),
        episode_id=episode_id,
        hidden=True,
        expected_rate_hz=known.get('expected_rate_hz'),
        timed=known.get('timed', True),
        **{stream: stream in salvage.streams for stream in schema.OPTIONAL},
    )


def _created_ns(salvage: Salvage, now_ns: int) -> int:
    """Return the start of the episode: from its attribute, else its name, else now."""
    for text, pattern in (
        (salvage.attribute('created_utc'), '%Y-%m-%dT%H:%M:%SZ'),
        (salvage.path.name[:16], '%Y%m%dT%H%M%SZ'),
    ):
        try:
            created = datetime.datetime.strptime(text or '', pattern)
        except ValueError:
            continue
        return int(created.replace(tzinfo=datetime.timezone.utc).timestamp()) * NANOSECONDS
    return now_ns


def _copy(salvage: Salvage, writer: EpisodeWriter) -> dict[str, int]:
    """Write every readable row; return how many of each stream."""
    kept = dict.fromkeys(salvage.streams, 0)
    for event, time_ns, text, steady_ns in salvage.events():
        writer.add_event(event, time_ns, text, steady_ns=steady_ns)
        kept['events'] += 1
    for twist, stamp_ns, received_ns, steady_ns, source in salvage.commands():
        name = SOURCE_NAMES.get(source, 'unknown')
        writer.add_command(Command(twist, stamp_ns, received_ns, name, steady_ns))
        kept['commands'] += 1
    for proposal in salvage.proposals():
        writer.add_proposal(*proposal)
        kept['proposals'] += 1
    for message in salvage.messages():
        writer.add_message(*message)
        kept['messages'] += 1
    for frame in salvage.frames():
        writer.add_frame(*frame)
        kept['frames'] += 1
    return kept


def _lost(salvage: Salvage, kept: dict[str, int]) -> dict[str, int]:
    return {
        stream: max(salvage.listed[stream] - kept.get(stream, 0), 0) for stream in salvage.streams
    }


def _words(rows: dict[str, int]) -> str:
    return ', '.join(
        f'{count} {stream[:-1] if count == 1 else stream}' for stream, count in rows.items()
    )


def _lost_words(lost: dict[str, int]) -> str:
    missing = {stream: count for stream, count in lost.items() if count}
    return f'; lost: {_words(missing)}' if missing else ''
