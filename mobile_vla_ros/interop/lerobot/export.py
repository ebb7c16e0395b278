"""
Export episodes as one LeRobot set (v3.0).

The set is built in a hidden folder beside its own, and becomes visible as a whole by one rename.
Each episode has a data file of its own and, of a set of video, a video; its facts follow last, so
that an export that was killed goes on with the episode that it was at.
"""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mobile_vla_ros.episode.catalog.inspect import vetted
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import replaced, sync, sync_tree
from mobile_vla_ros.images.messages import encode
from mobile_vla_ros.images.stored import BrokenImage, load, mode_of
from mobile_vla_ros.interop.export import about, locked
from mobile_vla_ros.interop.lerobot import actions, layout, statistics, video
from mobile_vla_ros.interop.lerobot.parts import (
    SLOWEST,
    Content,
    LeftOut,
    Part,
    content,
    parts_of,
    verdict_of,
)
from mobile_vla_ros.types import TWIST_AXES

SETTINGS, DONE = 'settings.json', 'done'
DEFAULT_AXES = ('linear_x', 'angular_z')  # of a set in which nothing moves
MAX_FPS = 1000
GROUP_BYTES = 1 << 24  # of images in a group of rows
DECODED_BYTES = 1 << 26  # of pixels at a time
THREADS = 2


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
        actions.parse(self.actions)
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise UserError(
                'a set needs frames a second', got=self.fps, expected=f'--fps 1 to {MAX_FPS}'
            )


@dataclass(frozen=True)
class _Setup:
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
    if (out / layout.INFO).is_file():
        yield from ((one, _skipped(out, f'{out} exists')) for one in paths)
        return
    if out.exists() and any(out.iterdir()):
        raise UserError(
            f'{out} is not empty and not a LeRobot set', remedy='choose another folder with --out'
        )
    hidden = out.with_name(f'.{out.name}.exporting')
    hidden.mkdir(parents=True, exist_ok=True)
    try:
        with locked(hidden):
            yield from _build(paths, hidden, out, wanted, excluded, note)
    except BlockingIOError:
        raise UserError(f'another process is exporting to {out}') from None
    except OSError as error:
        raise UserError(
            f'cannot write {out}',
            got=error.strerror or error,
            expected='a folder with room that this user may write',
            remedy='run the export again: it goes on',
        ) from None
    finally:
        if hidden.is_dir() and not any((hidden / DONE).glob('*.json')):
            shutil.rmtree(hidden, ignore_errors=True)


def _build(
    paths: Sequence[Path],
    hidden: Path,
    out: Path,
    wanted: Wanted,
    excluded: bool,
    note: Callable[[str], None],
) -> Iterator[tuple[Path, dict[str, Any]]]:
    contents: dict[Path, Content] = {}
    names = {entry['name'] for entry in _done(hidden)}
    for path in paths:
        _, fault = next(vetted([path], images=path.name not in names))
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
    settings = json.dumps(asdict(setup))
    kept = hidden / SETTINGS
    if kept.exists() and kept.read_text() != settings:
        note('an export with other settings was interrupted: it starts again')
        for one in hidden.iterdir():
            shutil.rmtree(one) if one.is_dir() else one.unlink()
    (hidden / DONE).mkdir(exist_ok=True)
    if not kept.exists():
        with replaced(kept) as file:
            file.write(settings)
    entries = _done(hidden)
    names = {entry['name'] for entry in entries}
    single = 0
    for path in paths:
        if path not in contents:
            continue
        entry = next((one for one in entries if one['name'] == path.name), None)
        if entry is None:
            try:
                entry = _export(path, hidden, setup, entries, contents[path])
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
    _finish(hidden, setup, entries)
    os.rename(hidden, out)
    sync(out.parent)
    for sentence in _sentences(setup, entries, single, contents):
        note(sentence)


def _skipped(out: Path, reason: str) -> dict[str, Any]:
    return {'path': str(out), 'frames': 0, 'commands': 0, 'status': 'skipped', 'reason': reason}


def _left_out(out: Path, path: Path, error: UserError) -> dict[str, Any]:
    """Return the result for an episode that is left out; a broken one is a failure."""
    if isinstance(error, LeftOut):
        return _skipped(out, f'{path.name}: {error}'.removesuffix('.'))
    return {**_skipped(out, str(error)), 'status': 'failed'}


def _setup(contents: Mapping[Path, Content], wanted: Wanted) -> _Setup:
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
    return _Setup(
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
    return [json.loads(one.read_text()) for one in sorted((hidden / DONE).glob('*.json'))]


def _export(
    path: Path,
    hidden: Path,
    setup: _Setup,
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
        facts = {
            'task': task,
            'about': json.dumps(about(episode), ensure_ascii=False),
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
    with replaced(hidden / DONE / f'{number:06}.json') as file:
        json.dump(entry, file)
    return entry


def _opened(files: contextlib.ExitStack, path: Path) -> Any:
    """Open a new file, which appears when the stack ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return files.enter_context(replaced(path, 'wb'))


def _images(
    episode: Episode, part: Part, setup: _Setup, pool: ThreadPoolExecutor
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


def _finish(hidden: Path, setup: _Setup, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write the tables of episodes and tasks, the statistics and the description of a set."""
    found = setup.features()
    episodes: list[dict[str, Any]] = []
    index = 0
    for number, entry in enumerate(entries):
        place, seconds = layout.place(number), 0.0
        for one in entry['episodes']:
            row = {
                'episode_index': len(episodes),
                'tasks': [one['task']],
                'length': one['length'],
                **{f'data/{name}': value for name, value in place.items()},
                'dataset_from_index': index,
                'dataset_to_index': index + one['length'],
                layout.ABOUT: one['about'],
                'meta/episodes/chunk_index': 0,
                'meta/episodes/file_index': 0,
            }
            index += one['length']
            if setup.video:
                until = seconds + one['length'] / setup.fps
                times = {'from_timestamp': seconds, 'to_timestamp': until}
                row |= {
                    f'videos/{layout.IMAGE}/{name}': value
                    for name, value in (place | times).items()
                }
                seconds = until
            row |= {
                f'stats/{feature}/{name}': value
                for feature, values in one['stats'].items()
                for name, value in values.items()
            }
            episodes.append(row)
    lengths = [row['length'] for row in episodes]
    tasks = [*dict.fromkeys(row['tasks'][0] for row in episodes)]
    table = hidden / layout.EPISODES.format(**layout.place(0))
    table.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(episodes), table)
    pq.write_table(layout.tasks_table(tasks), hidden / layout.TASKS)
    texts = {
        layout.STATS: statistics.plain(_whole_statistics(hidden, found, entries)),
        layout.INFO: layout.info(found, setup.fps, lengths, len(tasks), setup.robot),
    }
    for name, content_ in texts.items():
        (hidden / name).write_text(json.dumps(content_, indent=4) + '\n', encoding='utf-8')
    shutil.rmtree(hidden / DONE)
    (hidden / SETTINGS).unlink()
    sync_tree(hidden)


def _whole_statistics(
    hidden: Path, found: layout.Features, entries: Sequence[Mapping[str, Any]]
) -> dict[str, statistics.Statistics]:
    """Return the statistics of a set: of its numbers as they were written, and of all pixels."""
    names = [name for name, one in found.items() if one['dtype'] not in layout.NO_NUMBERS]
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for number in range(len(entries)):
        file = hidden / layout.DATA.format(**layout.place(number))
        table = pq.read_table(file, columns=names)
        for name in names:
            pieces[name] += map(layout.values, table.column(name).chunks)
    stats = {name: statistics.of_values(np.concatenate(pieces.pop(name))) for name in names}
    episodes = [one for entry in entries for one in entry['episodes']]
    histogram = np.sum([one['histogram'] for one in episodes], axis=0)
    frames = sum(one['length'] for one in episodes)
    return {layout.IMAGE: statistics.of_histogram(histogram, frames), **stats}


def _sentences(
    setup: _Setup,
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
