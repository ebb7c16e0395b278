"""Brings takes of other layouts in, each as a whole episode or not at all."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from mobile_vla_ros import file_lock
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.disk import DiskFull
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop import legacy, rosbag
from mobile_vla_ros.interop.source import ImportedInfo, ImportOptions

IMPORTED, SKIPPED, FAILED = 'imported', 'skipped', 'failed'
SUFFIXES = (*legacy.SUFFIXES, *rosbag.SUFFIXES)
FINGERPRINT_BYTES = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """
    What became of one source.

    :param status: ``imported``, ``skipped`` (it is there already) or ``failed``.
    :param path: the episode; None when it failed.
    :param reason: why it was skipped or failed; '' when it was imported.
    :param health: the verdict; empty unless it was imported.
    """

    source: Path
    status: str
    path: Path | None = None
    reason: str = ''
    health: dict = field(default_factory=dict)


def find_sources(path: Path, out: Path) -> list[Path]:
    """
    Return what can be imported: a file, or what lies in a folder and below it, sorted.

    A folder with a ``metadata.yaml`` is one bag; what lies in ``out`` is ours and left out.

    :raises UserError: when there is nothing.
    """
    if not path.exists():
        raise UserError(f'there is nothing at {path}', expected='a file or a folder to import')
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
            f'{path} holds nothing that can be imported',
            expected=', '.join((*SUFFIXES, f'folders with a {rosbag.METADATA}')),
        )
    return sorted([*bags, *loose])


def import_episodes(
    sources: list[Path],
    out: Path,
    options: ImportOptions,
    seen: Callable[[Path, int], None] = lambda source, frames: None,
) -> Iterator[Outcome]:
    """
    Import one source after the other, and tell what became of each.

    :param out: folder of the episodes; made when it is missing.
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
            outcome = _import(source, origin, out, options, seen)
        except DiskFull:
            raise
        except (UserError, OSError) as error:
            yield Outcome(source, FAILED, reason=str(error))
            continue
        known[origin] = outcome.path
        yield outcome


def _import(
    source: Path, origin: str, out: Path, options: ImportOptions, seen: Callable[[Path, int], None]
) -> Outcome:
    if source.is_file() and source.suffix not in SUFFIXES:
        raise UserError(
            'its layout is not known', got=repr(source.suffix), expected=', '.join(SUFFIXES)
        )
    is_legacy = source.is_file() and source.suffix in legacy.SUFFIXES
    with (legacy.open_legacy if is_legacy else rosbag.open_bag)(source, options) as take:
        info = ImportedInfo(**take.info, origin=origin)
        episode_id = schema.new_episode_id(take.created_ns, origin)
        path, hidden = out / f'{episode_id}{schema.SUFFIX}', out / schema.hidden_name(episode_id)
        if path.exists():  # by another process since we looked, or it is damaged
            if _origin(path) != origin:
                raise UserError(
                    f'the name of its episode is taken by {path}, which is another one or damaged',
                    remedy='move that away and import again',
                )
            return _skipped(source, path)
        if hidden.exists():
            raise UserError(
                'another process imports it at the moment',
                got=str(hidden),
                remedy='remove that file if there is no such process',
            )
        writer = EpisodeWriter(
            out,
            info,
            take.created_ns,
            hidden=True,
            episode_id=episode_id,
            expected_rate_hz=take.rate_hz,
            timed=take.timed,
        )
        try:
            take.pour(writer, lambda: seen(source, writer.frames))
            path = writer.close('unknown')
        except BaseException:
            writer.discard()
            raise
    if writer.full is not None:
        path.unlink()
        raise writer.full
    if writer.health['verdict'] == 'bad':
        path.unlink()
        raise UserError('it is no take to learn from', got='; '.join(writer.health['reasons']))
    return Outcome(source, IMPORTED, path, health=writer.health)


def _skipped(source: Path, path: Path) -> Outcome:
    return Outcome(source, SKIPPED, path, f'it was imported as {path.name}')


def _prepare(out: Path):
    """Make the folder, and remove what an import that was killed left in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot make the folder {out}', got=error.strerror) from None
    for path in out.glob(schema.hidden_name('*')):
        with contextlib.suppress(OSError):
            # One that is empty may be another writer's, in the moment before it locks it.
            if path.stat().st_size and not file_lock.is_held(path):
                path.unlink()


def _origins(out: Path) -> dict[str, Path]:
    """Return the episodes of a folder that were imported, by their origin."""
    found = {_origin(path): path for path in out.glob(f'*{schema.SUFFIX}')}
    found.pop('', None)
    return found


def _origin(path: Path) -> str:
    """Return what a file was imported from; '' where it does not say, or cannot be opened."""
    with contextlib.suppress(OSError, RuntimeError), h5py.File(path, 'r') as file:
        return str(file.attrs.get('origin', ''))
    return ''


def _fingerprint(source: Path) -> str:
    """Return what tells a source from another of its name: 8 hex of its size and its ends."""
    file = source / rosbag.METADATA if source.is_dir() else source
    digest = hashlib.sha256(str(file.stat().st_size).encode())
    with file.open('rb') as stream:
        digest.update(stream.read(FINGERPRINT_BYTES))
        stream.seek(max(0, file.stat().st_size - FINGERPRINT_BYTES))
        digest.update(stream.read())
    return digest.hexdigest()[:8]
