"""Import episodes from other layouts, each whole or not at all."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mobile_vla_ros import file_lock
from mobile_vla_ros.episode.quality.verdict import Health
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.disk import DiskFull
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop import legacy, rosbag
from mobile_vla_ros.interop.source import ImportedInfo, ImportOptions

IMPORTED, SKIPPED, FAILED = 'imported', 'skipped', 'failed'
SUFFIXES = (*legacy.SUFFIXES, *rosbag.SUFFIXES)
FINGERPRINT_BYTES = 1 << 20


@dataclass(frozen=True)
class ImportResult:
    """
    The result for one source.

    :param status: ``imported``, ``skipped`` (imported before) or ``failed``.
    :param path: the episode; None after a failure.
    :param reason: of the skip or failure; '' after an import.
    :param health: the verdict; empty unless imported.
    """

    source: Path
    status: str
    path: Path | None = None
    reason: str = ''
    health: Health = field(default_factory=Health)


def find_sources(path: Path, out: Path) -> list[Path]:
    """
    Return the sources at a path: a file, or the importable files below a folder, sorted.

    A folder with a ``metadata.yaml`` is one bag; files in ``out`` are ignored.

    :raises UserError: when there are none.
    """
    if not path.exists():
        raise UserError(f'no file or folder at {path}', expected='a file or a folder to import')
    if path.is_file():
        # The metadata of a bag stands for its folder.
        return [path.parent if path.name == rosbag.METADATA else path]
    path, out = path.absolute(), out.absolute()
    if path == out:
        raise UserError(
            'a folder cannot be imported into itself',
            got=str(out),
            remedy='choose another folder with --out',
        )
    bags = {one.parent for one in path.rglob(rosbag.METADATA)}
    loose = [
        one
        for one in path.rglob('*')
        if one.suffix in SUFFIXES
        and one.is_file()
        and one.parent != out
        and bags.isdisjoint(one.parents)
    ]
    if not bags and not loose:
        raise UserError(
            f'{path} contains nothing that can be imported',
            expected=', '.join((*SUFFIXES, f'folders with a {rosbag.METADATA}')),
        )
    return sorted([*bags, *loose])


def import_episodes(
    sources: list[Path],
    out: Path,
    options: ImportOptions,
    seen: Callable[[Path, int], None] = lambda source, frames: None,
) -> Iterator[ImportResult]:
    """
    Import one source after the other, yielding the result for each.

    :param out: folder for the episodes; created if missing.
    :param seen: called after every frame with its source and the number of frames so far.
    :raises UserError: when the folder cannot be written, or its disk is full.
    """
    _prepare(out)
    known = _origins(out)
    for source in sources:
        try:
            origin = f'{source.name}#{_fingerprint(source)}'
            if origin in known:
                yield _skipped(source, known[origin])
                continue
            result = _import(source, origin, out, options, seen)
        except DiskFull:
            raise
        except (UserError, OSError) as error:
            yield ImportResult(source, FAILED, reason=str(error))
            continue
        if result.path is not None:
            known[origin] = result.path
        yield result


def _import(
    source: Path, origin: str, out: Path, options: ImportOptions, seen: Callable[[Path, int], None]
) -> ImportResult:
    if source.is_file() and source.suffix not in SUFFIXES:
        raise UserError(
            'its layout is unknown', got=repr(source.suffix), expected=', '.join(SUFFIXES)
        )
    is_legacy = source.is_file() and source.suffix in legacy.SUFFIXES
    with (legacy.open_legacy if is_legacy else rosbag.open_bag)(source, options) as opened:
        info = ImportedInfo(
            **opened.info,
            origin=origin,
            base_command_timeout_s=options.base_command_timeout_s,
        )
        episode_id = schema.new_episode_id(opened.created_ns, origin)
        path, hidden = out / f'{episode_id}{schema.SUFFIX}', out / schema.hidden_name(episode_id)
        if path.exists():  # from another process in the meantime, or damaged
            if _origin(path) != origin:
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
        )
        try:
            opened.copy(writer, lambda: seen(source, writer.frames))
            path = writer.close('unknown')
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
    return ImportResult(source, IMPORTED, path, health=health)


def _skipped(source: Path, path: Path) -> ImportResult:
    return ImportResult(source, SKIPPED, path, f'it was imported as {path.name}')


def _prepare(out: Path) -> None:
    """Create the folder, and remove the remains of killed imports from it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot create the folder {out}', got=error.strerror) from None
    for path in out.glob(schema.hidden_name('*')):
        with contextlib.suppress(OSError):
            # An empty one may belong to a writer that has not locked it yet.
            if path.stat().st_size and not file_lock.is_held(path):
                path.unlink()


def _origins(out: Path) -> dict[str, Path]:
    """Return the imported episodes of a folder by their origin."""
    found = {_origin(path): path for path in out.glob(f'*{schema.SUFFIX}')}
    found.pop('', None)
    return found


def _origin(path: Path) -> str:
    """Return the origin of an episode; '' without one, or if the file cannot be opened."""
    with contextlib.suppress(UserError), Episode.open(path, as_recorded=True) as episode:
        return episode.origin
    return ''


def _fingerprint(source: Path) -> str:
    """Return 8 hex of a source's size and ends, to distinguish sources of one name."""
    file = source / rosbag.METADATA if source.is_dir() else source
    digest = hashlib.sha256(str(file.stat().st_size).encode())
    with file.open('rb') as stream:
        digest.update(stream.read(FINGERPRINT_BYTES))
        stream.seek(max(0, file.stat().st_size - FINGERPRINT_BYTES))
        digest.update(stream.read())
    return digest.hexdigest()[:8]
