"""Import episodes from other layouts, each whole or not at all."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mobile_vla_ros import file_lock
from mobile_vla_ros.episode.catalog.file_worker import FileWorker
from mobile_vla_ros.episode.quality.verdict import Health, sentences
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.disk import DiskFull
from mobile_vla_ros.episode.storage.hdf5_gate import MAX_TEXT
from mobile_vla_ros.episode.storage.part_file import rewrite_text
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.export import clear_away, hidden_folder
from mobile_vla_ros.interop.importers import importer_of
from mobile_vla_ros.interop.labels import INSTRUCTION, OUTCOME, Labels
from mobile_vla_ros.interop.source import ImportedInfo, ImportOptions, Source

IMPORTED, UPDATED, SKIPPED, FAILED = 'imported', 'updated', 'skipped', 'failed'
IGNORED, FULL = 'ignored', 'full'
FINGERPRINT_BYTES = 1 << 20


@dataclass(frozen=True)
class ImportResult:
    """
    The result for one episode.

    :param source: the path, and behind it the key of the episode in it, if it has one.
    :param status: ``imported``; ``updated`` (imported before, with another instruction or
        outcome); ``skipped`` (imported before); ``failed``; ``ignored``.
    :param path: the episode; None after a failure.
    :param reason: of anything else than an import; '' after an import.
    :param health: the verdict; empty unless imported.
    :param notes: sentences on what was not imported of it.
    """

    source: Path
    status: str
    path: Path | None = None
    reason: str = ''
    health: Health = field(default_factory=Health)
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return vars(self) | {'source': str(self.source), 'path': str(self.path or '')}

    @property
    def text(self) -> str:
        """The result in words, with a line for each note."""
        if self.path is None or self.status != IMPORTED:
            return f'{self.source}: {self.status}: {self.reason}'
        health = self.health
        line = (
            f'{self.source.name} -> {self.path.name}  {health["frames"]} frames, '
            f'{health["commands"]} commands  {"; ".join(sentences(health))}'
        )
        return '\n  '.join([line, *self.notes])


def import_episodes(
    sources: list[Path],
    out: Path,
    options: ImportOptions,
    seen: Callable[[Path, int], None] = lambda source, frames: None,
    labels: Labels | None = None,
) -> Iterator[ImportResult]:
    """
    Import one source after the other, yielding the result for each of its episodes.

    Each is read in another process, with limits on its memory and on the time for each frame.

    :param out: folder for the episodes; created if missing.
    :param seen: called now and then with a source and the number of its frames so far.
    :param labels: instruction and outcome of each.
    :raises UserError: when the folder cannot be written, or its disk is full.
    """
    labels = labels or Labels('')
    labels.check(sources)
    _prepare(out)
    clear_away(out)
    with FileWorker() as worker, hidden_folder(out.absolute()) as scratch:
        known = _origins(out, worker)
        try:
            for path in sources:
                yield from _import_by(worker, path, out, options, seen, known, scratch, labels)
        finally:
            worker.close()
            _clear_away(out)


def _import_by(
    worker: FileWorker,
    path: Path,
    out: Path,
    options: ImportOptions,
    seen: Callable[[Path, int], None],
    known: dict[str, Path],
    scratch: Path,
    labels: Labels,
) -> Iterator[ImportResult]:
    """Import the episodes of one source in the other process; add them to the known ones."""
    plain = dataclasses.asdict(options)
    try:
        origins = worker.call('interop.imports:origins_in', path.absolute(), plain, whole=True)
    except (UserError, OSError) as error:
        yield ImportResult(path, FAILED, reason=str(error))
        return
    for key, origin in origins.items():
        source = path / key
        try:
            said = labels.of(path, key)
            plain |= {'label': said.get(INSTRUCTION, ''), 'outcome': said.get(OUTCOME, '')}
            found = worker.call(
                'interop.imports:import_plain',
                path.absolute(),
                key,
                origin,
                *(str(known.get(origin, '')), str(out.absolute()), plain, str(scratch)),
                whole=True,
                step=lambda frames: seen(source, frames),  # noqa: B023
            )
        except (UserError, OSError) as error:
            _clear_away(out)
            yield ImportResult(source, FAILED, reason=str(error))
            continue
        if found['status'] == FULL:
            raise UserError(found['reason'].removesuffix('.'))
        known[origin] = out / found['path']
        yield ImportResult(
            source,
            found['status'],
            known[origin],
            found['reason'],
            found['health'],
            tuple(found['notes']),
        )
    for one in labels.unknown(path, origins):
        yield ImportResult(one, FAILED, reason='the labels name it, but there is no such episode')


def origins_in(source: Path, options: dict[str, Any]) -> dict[str, str]:
    """
    Return the origins of the episodes in a source by their keys, in a ``FileWorker``.

    :param options: fields of ``ImportOptions``.
    :raises UserError: when the source cannot be read.
    """
    importer = importer_of(source)
    try:
        episodes = importer.episodes(source, ImportOptions(**options))
        file = source / importer.marker if source.is_dir() else source
        whole = _fingerprint(file) if not all(episodes.values()) else ''
    except OSError as error:
        raise UserError(str(error)) from None
    return {
        key: f'{Path(source.name, key)}#{_digest(known.encode()) if known else whole}'
        for key, known in episodes.items()
    }


def import_plain(
    source: Path,
    key: str,
    origin: str,
    known: str,
    out: str,
    options: dict[str, Any],
    scratch: str,
    seen: Callable[[int], None],
) -> dict[str, Any]:
    """
    Import one episode, in a ``FileWorker``.

    :param key: of the episode in its source.
    :param known: the episode that it was imported as, '' if it was not.
    :param options: fields of ``ImportOptions``.
    :param scratch: folder for copies of its files.
    :param seen: called with the number of frames so far, after each.
    :returns: fields of ``ImportResult``.
    :raises UserError: when it cannot be imported.
    """
    settings = ImportOptions(**options)
    with TemporaryDirectory(dir=scratch) as own:
        opening = importer_of(source).open_source(source, key, settings, Path(own))
        try:
            if known:
                result = _again(opening, source, Path(known), settings)
            else:
                result = _import(opening, source, origin, Path(out), settings, seen)
        except DiskFull as full:
            result = ImportResult(source, FULL, reason=str(full))
        except OSError as error:
            raise UserError(str(error)) from None
    return vars(result) | {'source': '', 'path': result.path.name if result.path else ''}


def _again(
    opening: AbstractContextManager[Source], source: Path, path: Path, options: ImportOptions
) -> ImportResult:
    """Give an imported episode the instruction and outcome that it would get now."""
    changes = []
    if options.instruction.strip() or options.label or options.outcome:
        try:
            with opening as opened, Episode.open(path, as_recorded=True) as episode:
                before = {INSTRUCTION: episode.instruction, OUTCOME: episode.outcome}
                now = {INSTRUCTION: opened.info[INSTRUCTION]}
        except UserError:
            return _skipped(source, path)
        if options.outcome:
            now[OUTCOME] = options.outcome
        for name, value in now.items():
            if before[name] != value:
                rewrite_text(path, name, value)
                changes.append(f'its {name} was "{before[name]}"')
    if changes:
        return ImportResult(source, UPDATED, path, ', '.join(changes))
    return _skipped(source, path)


def _import(
    opening: AbstractContextManager[Source],
    source: Path,
    origin: str,
    out: Path,
    options: ImportOptions,
    seen: Callable[[int], None],
) -> ImportResult:
    with opening as opened:
        # Of longer ones the episode could not be opened.
        long = [name for name, one in opened.info.items() if len(one) > MAX_TEXT]
        notes = (*opened.notes, *(f'{name} is cut to {MAX_TEXT} characters' for name in long))
        info = ImportedInfo(
            **{name: one[:MAX_TEXT] for name, one in opened.info.items()},
            origin=origin,
            base_command_timeout_s=options.base_command_timeout_s,
        )
        episode_id = schema.new_episode_id(opened.created_ns, origin)
        path, hidden = out / f'{episode_id}{schema.SUFFIX}', out / schema.hidden_name(episode_id)
        if path.exists():  # from another process in the meantime, or damaged
            if origin_of(path) != origin:
                raise UserError(
                    f'the name of its episode is in use by {path}, which differs or is damaged',
                    remedy='move that file away and import again',
                )
            return _skipped(source, path)
        if hidden.exists():
            raise UserError(
                'another process is importing it',
                got=str(hidden),
                remedy='remove that file if there is no such process',
            )
        writer = EpisodeWriter(
            out,
            info,
            opened.created_ns,
            hidden=True,
            episode_id=episode_id,
            expected_rate_hz=opened.rate_hz,
            timed=opened.timed,
            messages=bool(options.extra_topics),
        )
        try:
            opened.copy(writer, lambda: seen(writer.frames))
            path = writer.close(options.outcome or opened.outcome)
        except BaseException:
            writer.discard()
            raise
    if writer.full is not None:
        path.unlink()
        raise writer.full
    health = writer.health
    assert health is not None, 'a closed episode has a verdict'
    if health['verdict'] == 'bad':
        path.unlink()
        raise UserError('it cannot be trained on', got='; '.join(health['reasons']))
    return ImportResult(source, IMPORTED, path, health=health, notes=notes)


def _skipped(source: Path, path: Path) -> ImportResult:
    return ImportResult(source, SKIPPED, path, f'it was imported as {path.name}')


def _prepare(out: Path) -> None:
    """Create the folder, and remove the remains of earlier imports from it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot create the folder {out}', got=error.strerror) from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise UserError(f'cannot write into the folder {out}')
    _clear_away(out)


def _clear_away(out: Path) -> None:
    """Remove the remains of imports that were ended."""
    for path in out.glob(schema.hidden_name('*')):
        with contextlib.suppress(OSError):
            # An empty one may belong to a writer that has not locked it yet.
            if path.stat().st_size and not file_lock.is_held(path):
                path.unlink()


def _origins(out: Path, worker: FileWorker) -> dict[str, Path]:
    """Return the imported episodes of a folder by their origin."""
    found = {}
    for path in out.glob(f'*{schema.SUFFIX}'):
        with contextlib.suppress(UserError):
            found[worker.call('interop.imports:origin_of', path)] = path
    found.pop('', None)
    return found


def origin_of(path: Path) -> str:
    """Return the origin of an episode; '' without one, or if the file cannot be opened."""
    with contextlib.suppress(UserError), Episode.open(path, as_recorded=True) as episode:
        return episode.origin
    return ''


def _fingerprint(file: Path) -> str:
    """Return a digest of a file's size and ends, to distinguish sources of one name."""
    with file.open('rb') as stream:
        size = file.stat().st_size
        parts = [str(size).encode(), stream.read(FINGERPRINT_BYTES)]
        stream.seek(max(0, size - FINGERPRINT_BYTES))
        return _digest(b''.join([*parts, stream.read()]))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]
