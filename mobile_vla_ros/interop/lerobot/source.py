"""
Import the episodes of a LeRobot set.

A set of this package has the true times and the whole command of each frame; of another one, a
frame is at its row over the frame rate, and its command by the names of the actions.
"""

import contextlib
import dataclasses
import functools
import heapq
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.timeline import frame_times
from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.images.compressed import encode_bgr
from mobile_vla_ros.images.stored import BrokenImage, check_whole
from mobile_vla_ros.interop.lerobot import actions, dataset, layout, video
from mobile_vla_ros.interop.lerobot.dataset import LeRobotSet, SetEpisode
from mobile_vla_ros.interop.source import ImportedInfo, ImportOptions, Source
from mobile_vla_ros.types import NANOSECONDS, Command

BLOCK, IMAGES_BLOCK = 4096, 16  # rows at a time
MAX_OVERTAKEN = 8  # frames that a frame may be late
TOLERANCE_S = 1e-4  # of a time, as LeRobot has it
SINCE_2001_NS = 10**18  # a later receipt is a Unix time


def episodes_of(path: Path) -> dict[str, str]:
    """Return for the key of each episode of a set what tells it from others of that key."""
    _, episodes = _read(path, _changed_ns(path))
    return {key: one.told_by for key, one in episodes.items()}


@functools.lru_cache(maxsize=1)  # a set is read once for all its episodes
def _read(path: Path, changed_ns: int) -> tuple[LeRobotSet, dict[str, SetEpisode]]:
    """Return a set and its episodes by key; the time is that of its description."""
    found = dataset.open_set(path)
    return found, {dataset.KEY.format(one.index): one for one in dataset.episodes(found)}


def _changed_ns(path: Path) -> int:
    return (path / layout.INFO).stat().st_mtime_ns


@contextlib.contextmanager
def open_episode(path: Path, key: str, options: ImportOptions) -> Iterator[Source]:
    """
    Open an episode of a set.

    :param key: one of ``episodes_of``.
    :raises UserError: when the set is broken, or its actions or images cannot be told;
        ``Source.copy`` raises it for damage found later.
    """
    changed_ns = _changed_ns(path)
    found, episodes = _read(path, changed_ns)
    episode = episodes[key]
    camera = _camera(found, options.images)
    rows = _Rows(found, episode, options.actions)
    created_ns = changed_ns + round(episode.first / found.fps * NANOSECONDS)
    if rows.times is not None and rows.times[1].min() > SINCE_2001_NS:
        created_ns = int(rows.times[1].min())
    tasks = [*dict.fromkeys(filter(str.strip, episode.tasks))]
    if len(tasks) > 1 and not options.label:
        raise UserError(
            'its task changes', got=' | '.join(tasks), remedy='say one with --labels, or split it'
        )

    def copy(writer: EpisodeWriter, seen: Callable[[], None]) -> None:
        rows.copy(writer, _images(found, episode, camera, options), created_ns, seen)

    yield Source(
        created_ns,
        copy,
        {'instruction': options.or_given(next(iter(tasks), '')), **_info(found, episode)},
        found.fps,
        timed=rows.timed,
        outcome=rows.outcome,
        notes=tuple(rows.notes(camera)),
    )


class _Rows:
    """
    The numbers of an episode: what every row has but its image.

    :param given: the axes of its actions, as a person says (``actions.parse``).
    :ivar timed: whether the rows have true times; ``times``: those, (3, N) int64.
    :raises UserError: when rows are missing, or the actions are no velocities.
    """

    def __init__(self, found: LeRobotSet, episode: SetEpisode, given: str) -> None:
        self._set = found
        action = found.features.get(layout.ACTION)
        if action is None:
            raise UserError('it has no actions', got=', '.join(found.features))
        self._is_ours = {layout.COMMAND, *layout.TIMES} <= found.features.keys() and not given
        self._axes = actions.chosen(actions.parse(given), action, found.robot_type)
        own = (layout.COMMAND, layout.TAKEOVER, layout.OUTCOME, *layout.TIMES)
        named = [layout.ACTION, 'timestamp', 'frame_index', *own]
        batches = list(dataset.rows_of(episode, named, BLOCK))
        count = sum(map(len, batches))
        if count != episode.length or not count:
            raise UserError('it lacks rows', got=count, expected=episode.length)
        names = set(batches[0].schema.names)
        missing = {layout.ACTION, 'timestamp', *(own if self._is_ours else ())} - names
        if missing:
            raise UserError('it lacks columns', got=f'no {", no ".join(sorted(missing))}')

        def column(name: str) -> np.ndarray:
            return np.concatenate([layout.values(batch[name]) for batch in batches])

        values = column(layout.ACTION).reshape(count, -1)
        names_of = actions.names_of(action)
        if values.shape[1] != len(names_of):
            raise UserError('its actions have another length', got=values.shape[1])
        self.twists = actions.twists(self._axes, names_of, values)
        if self._is_ours:
            self.twists = column(layout.COMMAND)
        broken = np.flatnonzero(~np.isfinite(self.twists).all(axis=1))
        if len(broken):
            raise UserError('an action is not a finite number', got=f'row {broken[0]}')
        self.timed = set(layout.TIMES) <= names and set(layout.TIMES) <= found.features.keys()
        self.outcome = 'unknown'
        if layout.OUTCOME in names:
            said = str(batches[0][layout.OUTCOME][0])
            self.outcome = said if said in schema.OUTCOMES else self.outcome
        self.takeover = np.zeros(count, bool)
        if layout.TAKEOVER in names:
            self.takeover = column(layout.TAKEOVER).astype(bool)
        self.seconds = column('timestamp').astype(np.float64)
        grid = np.arange(count) / found.fps
        if np.abs(self.seconds - grid).max() < TOLERANCE_S * max(1, count / found.fps / 100):
            self.seconds = grid
        if (np.diff(self.seconds) <= 0).any():
            raise UserError('its times do not increase')
        self.times: tuple[np.ndarray, ...] | None = None
        if self.timed:
            self.times = tuple(map(column, layout.TIMES))

    def copy(
        self,
        writer: EpisodeWriter,
        images: Callable[[np.ndarray], Iterator[bytes]],
        created_ns: int,
        seen: Callable[[], None],
    ) -> None:
        """Write every command, at the time of its frame, and every frame."""
        if self.times is None:
            at_ns = created_ns + np.round(self.seconds * NANOSECONDS).astype(np.int64)
            stamp_ns, received_ns, steady_ns = at_ns, at_ns, at_ns
        else:
            stamp_ns, received_ns, steady_ns = self.times
        order = np.argsort(steady_ns, kind='stable')
        exposed_ns = np.empty_like(steady_ns)
        exposed_ns[order] = frame_times(stamp_ns[order], received_ns[order], steady_ns[order])[0]
        early_ns = steady_ns - exposed_ns
        for row in np.argsort(exposed_ns, kind='stable').tolist():
            at = int(received_ns[row] - early_ns[row])
            source = 'takeover' if self.takeover[row] else 'unknown'
            writer.add_command(Command(self.twists[row], at, at, source, int(exposed_ns[row])))
        for row, encoded in _by_receipt(images(self.seconds), steady_ns):
            writer.add_frame(
                encoded, int(stamp_ns[row]), int(received_ns[row]), int(steady_ns[row])
            )
            seen()

    def notes(self, camera: str) -> Iterator[str]:
        """Yield what is not imported, and what to look at."""
        known = {camera, layout.ACTION, 'timestamp', *layout.INDEXES, *layout.TIMES}
        known |= {layout.COMMAND, layout.TAKEOVER, layout.OUTCOME, layout.VERDICT}
        others = sorted(self._set.features.keys() - known)
        if others:
            yield f'not imported: {", ".join(others)}'
        used = {one.name for one in self._axes}
        names = actions.names_of(self._set.features[layout.ACTION])
        unused = [name for name in names if name not in used]
        if unused and not self._is_ours:
            yield f'actions not imported: {", ".join(unused)}'


def _by_receipt(images: Iterator[bytes], steady_ns: np.ndarray) -> Iterator[tuple[int, bytes]]:
    """Yield rows and images in the order of receipt, which a frame or two have not."""
    waiting: list[tuple[int, int, bytes]] = []
    for row, encoded in enumerate(images):
        heapq.heappush(waiting, (int(steady_ns[row]), row, encoded))
        if len(waiting) > MAX_OVERTAKEN:
            yield heapq.heappop(waiting)[1:]
    yield from (one[1:] for one in sorted(waiting))


def _camera(found: LeRobotSet, given: str) -> str:
    """Return the feature whose images are the frames."""
    names = found.cameras()
    if given in names or (len(names) == 1 and not given):
        return given or names[0]
    remedy = 'say one with --images NAME' if names else None
    raise UserError(
        f'it has no images {given!r}' if given else f'it has {len(names)} cameras',
        got=', '.join(names) or 'no image feature',
        remedy=did_you_mean(given, names) or remedy,
    )


def _images(
    found: LeRobotSet, episode: SetEpisode, camera: str, options: ImportOptions
) -> Callable[[np.ndarray], Iterator[bytes]]:
    """Return what yields the encoded image at each of some times."""
    if found.features[camera]['dtype'] == 'image':
        return lambda seconds: _stored(episode, camera)

    def encoded(seconds: np.ndarray) -> Iterator[bytes]:
        path, first_s = episode.videos[camera]
        for pixels in video.at(path, first_s + seconds, 0.5 / found.fps):
            yield encode_bgr(pixels, options.image_format, options.jpeg_quality)

    return encoded


def _stored(episode: SetEpisode, camera: str) -> Iterator[bytes]:
    row = 0
    for batch in dataset.rows_of(episode, [camera], IMAGES_BLOCK):
        for one in batch[camera].to_pylist() if camera in batch.schema.names else ():
            data = (one.get('bytes') if isinstance(one, dict) else None) or b''
            try:
                check_whole(data)
            except BrokenImage as error:
                raise UserError(f'its image {row} is broken', got=error.reason) from None
            yield data
            row += 1
    if row != episode.length:
        raise UserError('it lacks images', got=row, expected=episode.length)


def _info(found: LeRobotSet, episode: SetEpisode) -> dict[str, str]:
    """Return the attributes of an episode: those that it had, or what the set says."""
    kept: dict[str, Any] = {}
    with contextlib.suppress(ValueError):
        kept = json.loads(episode.about or '{}')
    ours = {one.name for one in dataclasses.fields(ImportedInfo)} - {
        'instruction', 'origin', 'base_command_timeout_s', 'origin_attributes',
    }  # fmt: skip
    info = {'robot': found.robot_type} if not kept else {}
    if isinstance(kept, dict):
        info |= {name: one for name, one in kept.items() if name in ours and type(one) is str}
    said = {'lerobot': found.version, 'episode_index': episode.index, 'fps': found.fps}
    return {**info, 'origin_attributes': episode.about or json.dumps(said)}
