"""
Export episodes as one LeRobot set (v3.0).

The set is built in a hidden folder beside its own, and becomes visible as a whole by one rename.
Each episode has a data file of its own and, of a set of video, a video; its facts follow last, so
that an export that was killed goes on with the episode that it was at.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros.episode.catalog.inspect import vetted
from mobile_vla_ros.episode.storage import edits
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import replaced, sync, sync_tree
from mobile_vla_ros.interop.export import locked
from mobile_vla_ros.interop.lerobot import actions, layout
from mobile_vla_ros.interop.lerobot.parts import SLOWEST, Content, LeftOut, content
from mobile_vla_ros.interop.lerobot.tables import finish
from mobile_vla_ros.interop.lerobot.writing import DONE, Setup, write_episode
from mobile_vla_ros.types import TWIST_AXES

SETTINGS = '.settings.json'
DEFAULT_AXES = ('linear_x', 'angular_z')  # of a set in which nothing moves
MAX_FPS = 1000


@dataclass(frozen=True)
class Wanted:
    """
    What a person asks of a set.

    :param video: codec, one of ``video.CODECS``; '': images as they are stored.
    :param fps: frames a second; None: those of the cameras.
    :param state: what `observation.state` is: ``odom``, ``command``: that of the frame before; '':
        there is none.
    :param actions: the axes and their names (``actions.parse``); '': those that are used.
    :raises UserError: for a value out of range.
    """

    video: str = ''
    fps: int | None = None
    state: str = ''
    actions: str = ''

    def __post_init__(self) -> None:
        if any(one.factor is not None for one in actions.parse(self.actions)):
            raise UserError(
                'the actions of an export have no factors: they are in m/s and rad/s',
                got=self.actions,
                expected='AXIS=NAME,…',
            )
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise UserError(
                'a set needs frames a second', got=self.fps, expected=f'--fps 1 to {MAX_FPS}'
            )


def exported(
    paths: Sequence[Path],
    out: Path,
    wanted: Wanted,
    *,
    excluded: bool = False,
    note: Callable[[str], None] = lambda sentence: None,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """
    Export episodes as a set, yielding each with its result (``interop.export.exported``).

    :param out: folder of the set; a set that is there is whole, and stays as it is.
    :param excluded: also those that somebody excluded.
    :param note: called with each sentence on what the set has, and what it has not.
    :raises UserError: when the folder is in use, or nothing can be exported; nothing is left.
    """
    out = out.absolute()
    if (out / layout.INFO).is_file():
        yield from ((one, _skipped(out, f'{out} exists')) for one in paths)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f'{out} is not empty and not a LeRobot set', remedy='choose another folder with --out'
        )
    hidden = out.with_name(f'.{out.name}.exporting')
    try:
        hidden.mkdir(parents=True, exist_ok=True)
        with locked(hidden):
            try:
                yield from _build(paths, hidden, out, wanted, excluded, note)
            finally:
                if hidden.is_dir() and not _done(hidden):
                    shutil.rmtree(hidden)
    except BlockingIOError:
        raise UserError(f'another process is exporting to {out}') from None
    except OSError as error:
        raise UserError(
            f'cannot write {out}',
            got=error.strerror or error,
            expected='a folder with room that this user may write',
            remedy='run the export again: it goes on',
        ) from None


def _build(
    paths: Sequence[Path],
    hidden: Path,
    out: Path,
    wanted: Wanted,
    excluded: bool,
    note: Callable[[str], None],
) -> Iterator[tuple[Path, dict[str, Any]]]:
    contents: dict[Path, Content] = {}
    for path in paths:
        _, fault = next(vetted([path]))
        try:
            if fault is not None:
                raise fault
            with Episode.open(path) as episode:
                if episode.excluded and not excluded:
                    yield path, _skipped(out, f'{path.name} is excluded: {episode.excluded}')
                    continue
                contents[path] = content(episode, excluded=excluded)
        except UserError as error:
            yield path, _left_out(out, path, error)
    if not contents:
        raise UserError('there is no episode to export', got=f'{len(paths)} left out')
    setup = _setup(contents, wanted)
    settings = json.dumps([asdict(setup), [_state(path) for path in contents]])
    kept = hidden / SETTINGS
    if kept.exists() and kept.read_text() != settings:
        note('an export of other episodes or settings was interrupted: it starts again')
        for one in hidden.iterdir():
            shutil.rmtree(one) if one.is_dir() else one.unlink()
    (hidden / DONE).parent.mkdir(exist_ok=True)
    if not kept.exists():
        with replaced(kept) as file:
            file.write(settings)
    entries = _done(hidden)
    single = 0
    for path in paths:
        if path not in contents:
            continue
        entry = next((one for one in entries if one['name'] == path.name), None)
        if entry is None:
            try:
                entry = write_episode(path, hidden, setup, entries, contents[path])
            except UserError as error:
                yield path, _left_out(out, path, error)
                continue
            entries.append(entry)
        single += entry['single']
        frames = sum(one['length'] for one in entry['episodes'])
        done = {'path': str(out), 'frames': frames, 'commands': entry['commands']}
        yield path, {**done, 'status': 'exported', 'episodes': len(entry['episodes'])}
    if not entries:
        return
    finish(hidden, setup, entries)
    sync_tree(hidden)
    os.rename(hidden, out)
    shutil.rmtree((out / DONE).parent)
    (out / SETTINGS).unlink()
    sync(out.parent)
    for sentence in _sentences(setup, entries, single, contents):
        note(sentence)


def _state(path: Path) -> list[Any]:
    """Return what changes when an episode, or an edit of it, does."""
    about, beside = path.stat(), edits.path_of(path)
    edited = hashlib.sha256(beside.read_bytes()).hexdigest() if beside.is_file() else ''
    return [str(path.resolve()), about.st_size, about.st_mtime_ns, edited]


def _skipped(out: Path, reason: str) -> dict[str, Any]:
    return {'path': str(out), 'frames': 0, 'commands': 0, 'status': 'skipped', 'reason': reason}


def _left_out(out: Path, path: Path, error: UserError) -> dict[str, Any]:
    """Return the result for an episode that is left out; a broken one is a failure."""
    if isinstance(error, LeftOut):
        return _skipped(out, f'{path.name}: {error}'.removesuffix('.'))
    return {**_skipped(out, str(error)), 'status': 'failed'}


def _setup(contents: Mapping[Path, Content], wanted: Wanted) -> Setup:
    """Return what all episodes have in common: their usual rate and size, the axes of any."""
    found = [*contents.values()]
    own_hz = float(np.median([one.rate_hz for one in found]))
    fps = round(own_hz)
    if own_hz < SLOWEST * fps:
        fps = int(own_hz)
    size = Counter(one.size for one in found).most_common(1)[0][0]
    if wanted.video and (size[0] % 2 or size[1] % 2):
        raise UserError(
            'a video needs an even width and height',
            got=f'{size[0]}x{size[1]}',
            remedy='export without --video',
        )
    used = {axis for one in found for axis in one.axes} or DEFAULT_AXES
    names = {axis: name for axis, name in layout.AXIS_NAMES.items() if axis in used}
    given = {one.axis: one.name for one in actions.parse(wanted.actions)}
    return Setup(
        wanted.fps or max(fps, 1),
        size,
        {axis: given[axis] for axis in TWIST_AXES if axis in given} or names,
        wanted.video,
        wanted.state,
        any(one.proposals for one in found),
        found[0].robot if len({one.robot for one in found}) == 1 else '',
    )


def _done(hidden: Path) -> list[dict[str, Any]]:
    """Return what is known of the episodes that are complete, in order."""
    return [json.loads(one.read_text()) for one in sorted((hidden / DONE).parent.glob('*.json'))]


def _sentences(
    setup: Setup,
    entries: Sequence[Mapping[str, Any]],
    single: int,
    contents: Mapping[Path, Content],
) -> Iterator[str]:
    """Yield what the set has, and what it has not."""
    lengths = [one['length'] for entry in entries for one in entry['episodes']]
    yield (
        f'LeRobotDataset {layout.VERSION}: {len(lengths)} episodes, {sum(lengths)} frames at '
        f'{setup.fps} a second, {setup.size[0]}x{setup.size[1]} '
        f'{setup.video or "images"}, action {", ".join(setup.actions.values())}'
    )
    if not setup.state:
        yield 'no observation.state, which ACT and others need: --state odom, or --state command'
    if single:
        yield f'{single} single frames between gaps are in none of them'
    cameras = sorted({name for one in contents.values() for name in one.cameras})
    if cameras:
        yield f'the images of {", ".join(cameras)} are not exported: only those of the main camera'
    left = {axis for one in contents.values() for axis in one.axes} - set(setup.actions)
    if left:
        yield f'{", ".join(sorted(left))} are in `command` alone'
