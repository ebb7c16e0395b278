"""
Read the files of a LeRobot set, v2.1 or v3.0, as a stranger's.

Paths are those that LeRobot gives its files, whatever the set says of them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.interop.lerobot import layout

OLD = 'v2.1'
OLD_DATA = 'data/chunk-{chunk:03d}/episode_{index:06d}.parquet'
OLD_VIDEO = 'videos/chunk-{chunk:03d}/{key}/episode_{index:06d}.mp4'
OLD_EPISODES = 'meta/episodes.jsonl'
MAX_JSON_BYTES = 64_000_000
MAX_FPS = 1000
KEY = 'episode_{:06d}'


@dataclass(frozen=True)
class LeRobotSet:
    """
    What a set says of itself.

    :param features: by name, each with ``dtype``, ``shape`` and ``names``.
    """

    root: Path
    version: str
    fps: float
    robot_type: str
    features: layout.Features

    def cameras(self) -> list[str]:
        """Return the features that are images, but for those of depth."""
        return [
            name
            for name, one in self.features.items()
            if one['dtype'] in ('image', 'video')
            and not (one.get('info') or {}).get('video.is_depth_map')
        ]


@dataclass(frozen=True)
class SetEpisode:
    """
    What a set says of an episode.

    :param first: frames of the set before it.
    :param about: JSON of everything else (``layout.ABOUT``), '' in others' sets.
    :param data: its data file; ``videos``: file and time of its first frame, by camera.
    :param told_by: what tells it from others of this number.
    """

    index: int
    length: int
    first: int
    tasks: tuple[str, ...]
    about: str
    data: Path
    videos: dict[str, tuple[Path, float]]
    told_by: str


def open_set(root: Path) -> LeRobotSet:
    """
    Return what a set says of itself.

    :raises UserError: when it is broken or of another version.
    """
    about = _json(root / layout.INFO)
    if not isinstance(about, dict):
        raise UserError(f'{layout.INFO} is not that of a LeRobot set')
    version = about.get('codebase_version')
    if version not in (layout.VERSION, OLD):
        raise UserError(
            'the LeRobot set has an unsupported version',
            got=f'{version!r:.40}',
            expected=f'{OLD} or {layout.VERSION}',
            remedy="convert it with LeRobot's own scripts",
        )
    fps, features = about.get('fps'), about.get('features')
    if (
        not isinstance(fps, int | float)
        or not 0 < fps <= MAX_FPS
        or not isinstance(features, dict)
        or not all(_is_feature(name, one) for name, one in features.items())
    ):
        raise UserError(
            f'{layout.INFO} is broken',
            expected='frames a second, and features with type and shape',
        )
    return LeRobotSet(root, str(version), fps, str(about.get('robot_type') or ''), features)


def _is_feature(name: str, one: Any) -> bool:
    is_whole = isinstance(one, dict) and isinstance(one.get('dtype'), str)
    return is_whole and isinstance(one.get('shape'), list) and Path(name).name == name


def episodes(found: LeRobotSet) -> list[SetEpisode]:
    """
    Return the episodes of a set in order.

    :raises UserError: when their table is missing or broken.
    """
    try:
        rows = _old_rows(found) if found.version == OLD else _rows(found)
        return sorted(rows, key=lambda one: one.index)
    except (KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
        raise UserError('the table of its episodes is broken', got=first_line(error)) from None


def _rows(found: LeRobotSet) -> Iterator[SetEpisode]:
    files = sorted((found.root / 'meta/episodes').glob('*/*.parquet'))
    if not files:
        raise UserError('the table of its episodes is missing', got='no file in meta/episodes')
    for file in files:
        table = pq.ParquetFile(file)
        names = [
            name
            for name in table.schema_arrow.names
            if not name.startswith('stats/') or name.startswith('stats/action/')
        ]
        for row in table.read(columns=names, use_threads=False).to_pylist():
            place = {name: int(row[f'data/{name}']) for name in ('chunk_index', 'file_index')}
            videos = {}
            for key in found.cameras():
                if found.features[key]['dtype'] == 'video':
                    prefix = f'videos/{key}/'
                    own = {name: int(row[prefix + name]) for name in place}
                    path = found.root / layout.VIDEO.format(video_key=key, **own)
                    videos[key] = path, float(row[prefix + 'from_timestamp'])
            yield SetEpisode(
                int(row['episode_index']),
                int(row['length']),
                int(row['dataset_from_index']),
                tuple(map(str, row['tasks'])),
                str(row.get(layout.ABOUT) or ''),
                found.root / layout.DATA.format(**place),
                videos,
                json.dumps({k: v for k, v in row.items() if '_index' not in k}, default=str),
            )


def _old_rows(found: LeRobotSet) -> Iterator[SetEpisode]:
    first = 0
    chunks = int(_json(found.root / layout.INFO).get('chunks_size') or layout.CHUNK_FILES)
    for row in map(json.loads, _text(found.root / OLD_EPISODES).splitlines()):
        index, length = int(row['episode_index']), int(row['length'])
        place = {'chunk': index // chunks, 'index': index}
        videos = {
            key: (found.root / OLD_VIDEO.format(key=key, **place), 0.0)
            for key in found.cameras()
            if found.features[key]['dtype'] == 'video'
        }
        data = found.root / OLD_DATA.format(**place)
        size = data.stat().st_size if data.is_file() else 0
        told_by = json.dumps([row, size])
        tasks = tuple(map(str, row['tasks']))
        yield SetEpisode(index, length, first, tasks, '', data, videos, told_by)
        first += length


def rows_of(episode: SetEpisode, columns: list[str], block: int) -> Iterator[pa.RecordBatch]:
    """
    Yield the rows of an episode, some at a time.

    :param columns: their names; those that the file lacks are left out.
    :param block: rows at a time, at most.
    :raises UserError: when the file is missing or broken.
    """
    if not episode.data.is_file():
        raise UserError(f'the data file {episode.data.name} is missing', got=f'no {episode.data}')
    try:
        with pq.ParquetFile(episode.data) as file:
            names = [one for one in file.schema_arrow.names if one in {*columns, 'episode_index'}]
            for group in range(file.num_row_groups):
                if not _may_hold(file.metadata.row_group(group), episode.index):
                    continue
                for batch in file.iter_batches(
                    block, row_groups=[group], columns=names, use_threads=False
                ):
                    own = batch.filter(pc.equal(batch['episode_index'], episode.index))
                    if len(own):
                        yield own
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(
            f'the data file {episode.data.name} is broken', got=first_line(error)
        ) from None


def _may_hold(group: Any, index: int) -> bool:
    """Whether an episode may have rows in a group of rows, by the statistics of the file."""
    for number in range(group.num_columns):
        column = group.column(number)
        stats = column.statistics
        if column.path_in_schema == 'episode_index' and stats and stats.has_min_max:
            return bool(stats.min <= index <= stats.max)
    return True


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise UserError(f'{path.name} is broken', got=first_line(error)) from None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f'{path.name} is too large', expected=f'{MAX_JSON_BYTES} bytes')
        return path.read_text(encoding='utf-8')
    except OSError as error:
        raise UserError(f'{path.name} cannot be read', got=error.strerror) from None
