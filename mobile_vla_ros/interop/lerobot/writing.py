"""Write the files of one episode of a LeRobot set: rows, images or video, and its facts."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import replaced
from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.images.stored import BrokenImage, load, mode_of
from mobile_vla_ros.interop.export import about
from mobile_vla_ros.interop.lerobot import layout, statistics, video
from mobile_vla_ros.interop.lerobot.parts import Content, LeftOut, Part, parts_of, verdict_of

DONE = '.done/{:06}.json'  # facts of the episodes that are complete
GROUP_BYTES = 1 << 24  # of images in a group of rows
DECODED_BYTES = 1 << 26  # of pixels at a time
THREADS = 2


@dataclass(frozen=True)
class Setup:
    """What all episodes of a set have in common."""

    fps: int
    size: tuple[int, int]
    actions: dict[str, str]
    video: str
    state: str
    proposals: bool
    robot: str

    def features(self) -> layout.Features:
        about_video = video.about(self.video) if self.video else None
        return layout.features(
            self.actions,
            self.size,
            self.fps,
            video=about_video,
            state=self.state,
            proposals=self.proposals,
        )


class _Image(NamedTuple):
    """A measured image: its bytes, its histogram (3, 256), and its pixels if it is for a video."""

    encoded: bytes
    histogram: np.ndarray
    pixels: np.ndarray | None


def write_episode(
    path: Path,
    hidden: Path,
    setup: Setup,
    entries: Sequence[Mapping[str, Any]],
    has: Content,
) -> dict[str, Any]:
    """
    Write data, video and facts of one episode; return the facts.

    :raises LeftOut: when it does not fit; UserError: where it is broken; nothing is left.
    """
    if has.size != setup.size:
        sizes = (f'{width}x{height}' for width, height in (has.size, setup.size))
        raise LeftOut('its images have another size: {}, not {}'.format(*sizes))
    number, place = len(entries), layout.place(len(entries))
    parts_before = [one for entry in entries for one in entry['episodes']]
    with Episode.open(path) as episode, contextlib.ExitStack() as files:
        parts, single = parts_of(
            episode, setup.fps, setup.actions, state=setup.state, proposals=setup.proposals
        )
        task = episode.instruction.strip()
        tasks = [*dict.fromkeys([*(one['task'] for one in parts_before), task])]
        facts_of = {name: one for name, one in about(episode).items() if name != 'events'}
        facts = {
            'task': task,
            'about': json.dumps(facts_of, ensure_ascii=False),
            layout.OUTCOME: episode.outcome,
            layout.VERDICT: verdict_of(episode),
        }
        data = _opened(files, hidden / layout.DATA.format(**place))
        schema = layout.schema(setup.features())
        texts = [layout.OUTCOME, layout.VERDICT]
        table = files.enter_context(
            pq.ParquetWriter(data, schema, compression='snappy', use_dictionary=texts)
        )
        film = None
        if setup.video:
            film = video.VideoWriter(
                _opened(files, hidden / layout.VIDEO.format(video_key=layout.IMAGE, **place)),
                setup.video,
                setup.size,
                setup.fps,
            )
            files.callback(film.close)
        index = sum(one['length'] for one in parts_before)
        episodes: list[dict[str, Any]] = []
        with ThreadPoolExecutor(THREADS) as pool:
            for part in parts:
                constant = {
                    'episode_index': len(parts_before) + len(episodes),
                    'task_index': tasks.index(task),
                }
                columns = {
                    **part.columns,
                    'index': index + np.arange(len(part)),
                    **{name: np.full(len(part), value) for name, value in constant.items()},
                }
                measured = _images(episode, part, setup, pool)
                histogram = _write(table, schema, part, columns, facts, measured, film)
                stats = {name: statistics.of_values(one) for name, one in columns.items()}
                stats[layout.IMAGE] = statistics.of_histogram(histogram, len(part))
                index += len(part)
                episodes.append(
                    {
                        'length': len(part),
                        'task': task,
                        'about': facts['about'],
                        'stats': statistics.plain(stats),
                        'histogram': histogram.tolist(),
                    }
                )
        commands = len(episode.commands)
    entry = {'name': path.name, 'episodes': episodes, 'single': single, 'commands': commands}
    with replaced(hidden / DONE.format(number)) as file:
        json.dump(entry, file)
    return entry


def _opened(files: contextlib.ExitStack, path: Path) -> Any:
    """Open a new file, which appears when the stack ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return files.enter_context(replaced(path, 'wb'))


def _images(
    episode: Episode, part: Part, setup: Setup, pool: ThreadPoolExecutor
) -> Iterator[_Image]:
    """Yield the images of a part, decoded by several threads, a few at a time."""
    block = max(1, DECODED_BYTES // (3 * setup.size[0] * setup.size[1]))

    def measure(row: int, encoded: bytes) -> _Image:
        try:
            image = load(encoded)
            is_rgb = mode_of(encoded) == 'RGB'
        except BrokenImage as error:
            reason = error.reason
        else:
            if image.size == setup.size:
                pixels = np.asarray(image)
                # LeRobot gives an image the channels that it has; those of a set must be three.
                stored = encoded if is_rgb or setup.video else encode(pixels, 'png')
                histogram = np.array(image.histogram(), np.int64).reshape(3, 256)
                return _Image(stored, histogram, pixels if setup.video else None)
            reason = 'an image of another size: {}x{}'.format(*image.size)
        raise UserError(
            f'{episode.path} is broken at frame {row}',
            got=reason,
            remedy='trim it with mobile_vla episodes edit',
        )

    rows = part.rows.tolist()
    for first in range(0, len(rows), block):
        some = rows[first : first + block]
        yield from pool.map(measure, some, [episode.encoded(row) for row in some])


def _write(
    table: pq.ParquetWriter,
    schema: pa.Schema,
    part: Part,
    columns: Mapping[str, np.ndarray],
    facts: Mapping[str, str],
    measured: Iterator[_Image],
    film: video.VideoWriter | None,
) -> np.ndarray:
    """Write the rows of a part, its images too; return the sum of their histograms."""
    histogram = np.zeros((3, 256), np.int64)
    first, images, size = 0, [], 0
    for row, image in enumerate(measured, 1):
        histogram += image.histogram
        if film is not None:
            assert image.pixels is not None, 'kept for a video'
            film.add(image.pixels)
        else:
            images.append(image.encoded)
            size += len(image.encoded)
        if row == len(part) or size >= GROUP_BYTES:
            table.write_batch(_batch(schema, part, columns, facts, slice(first, row), images))
            first, images, size = row, [], 0
    return histogram


def _batch(
    schema: pa.Schema,
    part: Part,
    columns: Mapping[str, np.ndarray],
    facts: Mapping[str, str],
    rows: slice,
    images: list[bytes],
) -> pa.RecordBatch:
    arrays = []
    count = rows.stop - rows.start
    for field in schema:
        if field.name == layout.IMAGE:
            names = [f'frame_{row:06}' for row in part.rows[rows].tolist()]
            pairs = [pa.array(images, pa.binary()), pa.array(names)]
            arrays.append(pa.StructArray.from_arrays(pairs, ['bytes', 'path']))
        elif field.name in (layout.OUTCOME, layout.VERDICT):
            arrays.append(pa.repeat(facts[field.name], count))
        else:
            values = np.ascontiguousarray(columns[field.name][rows])
            flat = pa.array(values.reshape(-1))
            is_list = isinstance(field.type, pa.FixedSizeListType)
            arrays.append(
                pa.FixedSizeListArray.from_arrays(flat, type=field.type) if is_list else flat
            )
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
