"""
Read HDF5 with an image and an action a row, and no times: rows become steps at the given rate.

Pixels are encoded once, a block of rows at a time, so that memory does not grow with the episode;
rows that are JPEG or PNG already stay as they are. One file may have many episodes.
"""

import contextlib
import datetime
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.hdf5_gate import (
    MALFORMED,
    MAX_TEXT,
    Hdf5File,
    VlenRows,
    names_in,
    open_file,
)
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images.compressed import encode_bgr
from mobile_vla_ros.images.stored import decode
from mobile_vla_ros.interop.source import AXES, ImportOptions, Source, axes_of
from mobile_vla_ros.types import NANOSECONDS, Command

SUFFIXES = ('.h5', '.hdf5')


class Layout(NamedTuple):
    """
    Where files of one origin keep an episode.

    :param images: pattern of the paths of its cameras, (T, height, width, 3) uint8 or JPEG.
    :param actions: as ``ImportOptions.actions``.
    :param colour: of pixels, ``rgb`` or ``bgr``; '': unknown.
    :param encoded: of JPEG or PNG as it is decoded; '': unknown.
    """

    images: str
    actions: str
    colour: str
    encoded: str = 'rgb'


CAMERAS = r'observations/images/[^/]+'
LAYOUTS = (
    Layout('images', 'actions', 'bgr'),  # the reference run
    Layout('observations/images', 'actions', 'rgb'),  # its group's newer files
    # MarkFzp/mobile-aloha, aloha_scripts/record_episodes.py: base_action is linear, angular.
    # OpenCV encodes pixels as ROS gave them, mostly RGB, which swaps the colours of the JPEG.
    Layout(CAMERAS, 'linear_x=base_action[0],angular_z=base_action[1]', 'rgb', ''),
    # tonyzhaozh/aloha, aloha_scripts/record_episodes.py: joints of arms, unless mapped.
    Layout(CAMERAS, 'action', 'rgb', ''),
    # robomimic.github.io/docs/datasets/overview.html; isaac-sim/IsaacLab,
    # isaaclab/utils/datasets/hdf5_dataset_file_handler.py: in each group of DEMOS.
    Layout(r'obs/[^/]+', 'actions', 'rgb'),
)
DEMOS = 'data'
DEMO = re.compile(r'demo_(\d+)')
EXPECTED = (
    'images or observations/images (T, height, width, 3) uint8 and actions (T, 3): linear_x, '
    'linear_y in m/s, angular_z in rad/s; or the layout of ALOHA, robomimic or Isaac Lab'
)
TEXTS = ('language_instruction', 'action_event_types')
COLUMN = re.compile(r'(.+)\[(\d{1,4})\]')
MAX_BLOCK_ROWS = 32
MAX_NAMED = 5  # datasets in one sentence
# In collection_datetime, and in file names: episode_20251106_101112_….h5
WRITTEN_TIME = re.compile(r'(?<!\d)(\d{4})-?(\d\d)-?(\d\d)[_T ]?(\d\d):?(\d\d):?(\d\d)(?!\d)')


class _Wanted:
    """
    The datasets that a layout may name.

    :ivar asked: every dataset of the file, once the gate has asked for it.
    """

    def __init__(self, layouts: list[Layout]) -> None:
        texts = [one.images for one in layouts] + [re.escape(one) for one in TEXTS]
        texts += [re.escape(name) for one in layouts for name in _datasets(one.actions)]
        self._pattern, self.asked = re.compile('|'.join(texts)), list[str]()

    def __contains__(self, path: object) -> bool:
        self.asked.append(str(path))
        return bool(self._pattern.fullmatch(str(path)))


def episodes_of(path: Path, options: ImportOptions) -> dict[str, str]:
    """Return the groups with an episode in a file, '' for a file of one, and their actions."""
    try:
        found = {name: DEMO.fullmatch(name) for name in names_in(path, DEMOS)}
    except MALFORMED as error:
        raise _unopened(error) from None
    demos = sorted((int(demo[1]), name) for name, demo in found.items() if demo)
    return {f'{DEMOS}/{name}': _identity(path, f'{DEMOS}/{name}') for _, name in demos} or {'': ''}


def _identity(path: Path, key: str) -> str:
    """Return a digest of an episode's actions: files of demonstrations grow."""
    with contextlib.suppress(*MALFORMED), open_file(path, ('actions',), group=key) as file:
        return hashlib.sha256(file.datasets['actions'][:].tobytes()).hexdigest()
    return ''


@contextlib.contextmanager
def open_hdf5(path: Path, key: str, options: ImportOptions, _scratch: Path) -> Iterator[Source]:
    """
    Open one episode.

    :param key: path of its group; '': the file.
    :raises UserError: when it is broken or in another layout, or its rate or instruction is
        unknown; ``Source.copy`` raises it for damage found later.
    """
    layouts = _layouts(options)
    wanted = _Wanted(layouts)
    try:
        file = open_file(path, wanted, group=key)
    except MALFORMED as error:
        raise _unopened(error) from None
    with file:
        try:
            rows = _rows(file, layouts, options)
            instruction = next(_texts(file, TEXTS[0], 1), '')
            events = list(_texts(file, TEXTS[1], len(rows.twists)))
        except MALFORMED as error:
            raise UserError('it is broken', got=first_line(error)) from None
        if options.rate_hz is None:
            raise UserError('it has no times', remedy='give --rate the rows a second')
        created_ns, rate_hz = _created_ns(path, file.attributes), options.rate_hz
        yield Source(
            created_ns,
            lambda writer, seen: rows.copy(writer, created_ns, rate_hz, events, seen),
            {
                'instruction': options.or_given(
                    instruction or str(file.attributes.get(TEXTS[0], ''))
                ),
                'origin_attributes': json.dumps(file.attributes, ensure_ascii=False),
            },
            rate_hz,
            timed=False,
            outcome=_outcome(file.attributes.get('success')),
            notes=_left_out(wanted.asked, rows.used),
        )


def _unopened(error: Exception) -> UserError:
    return UserError('it cannot be opened as HDF5', got=first_line(error))


def _outcome(success: Any) -> str:
    """Return the outcome by the attribute that Isaac Lab writes."""
    if not isinstance(success, bool):
        return 'unknown'
    return 'success' if success else 'failure'


def _left_out(datasets: list[str], used: set[str]) -> tuple[str, ...]:
    others = sorted(set(datasets) - used)
    more = f' and {len(others) - MAX_NAMED} more' if len(others) > MAX_NAMED else ''
    return (f'not imported: {", ".join(others[:MAX_NAMED])}{more}',) if others else ()


def _layouts(options: ImportOptions) -> list[Layout]:
    """Return the layouts that a file may have; one, where the paths are given."""
    found = [one._replace(actions=options.actions or one.actions) for one in LAYOUTS]
    if options.images:
        known = [one for one in found if re.fullmatch(one.images, options.images)]
        other = Layout('', options.actions or 'actions', '')
        found = [one._replace(images=re.escape(options.images)) for one in known or [other]]
    if options.colour:
        found = [one._replace(colour=options.colour, encoded=options.colour) for one in found]
    return list(dict.fromkeys(found))


def _datasets(actions: str) -> list[str]:
    """Return the datasets that a text of actions names."""
    return [_place(one)[0] for one in axes_of(actions).values() or [actions]]


def _place(column: str) -> tuple[str, int]:
    """Return the path and index in ``PATH[INDEX]``."""
    found = COLUMN.fullmatch(column)
    return (found[1], int(found[2])) if found else (column, 0)


def _rows(file: Hdf5File, layouts: list[Layout], options: ImportOptions) -> '_Rows':
    """Return the images and actions of a file; raise UserError with every mismatch."""
    if file.attributes.get('format') == schema.FORMAT:
        raise UserError(
            'it is an episode of this package already',
            remedy='copy it into the folder of episodes',
        )
    for layout in layouts:
        cameras = [name for name in file.datasets if re.fullmatch(layout.images, name)]
        cameras = [name for name in cameras if _has_images(file.datasets[name])] or cameras
        if cameras and file.datasets.keys() >= {*_datasets(layout.actions)}:
            break
    else:
        raise UserError(
            'it has another layout',
            got=f'of these only {", ".join(file.datasets) or "none"}',
            expected=EXPECTED,
            remedy='name its datasets with --images and --actions',
        )
    if len(cameras) > 1:
        raise UserError(
            'it has more than one camera',
            got=', '.join(cameras),
            remedy='name one of them with --images',
        )
    images = file.datasets[cameras[0]]
    if not _has_images(images):
        raise UserError(
            'it has another layout',
            got=f'{cameras[0]} {images.shape} {images.dtype}',
            expected=EXPECTED,
        )
    twists = _twists(file, layout.actions)
    if len(images) != len(twists):
        raise UserError(
            'it has another layout',
            got=f'{len(images)} images and {len(twists)} actions',
            expected='as many actions as images',
        )
    colour = layout.colour if images.ndim == 4 else layout.encoded
    if not colour:
        raise UserError(
            f'the colours of {cameras[0]} are unknown',
            expected='rgb or bgr',
            remedy='give --colour, and look at a frame with mobile_vla episodes view',
        )
    used = {cameras[0], *_datasets(layout.actions), *TEXTS}
    return _Rows(images, file, twists, used, colour, options)


def _has_images(dataset: h5py.Dataset) -> bool:
    """Whether a dataset has pixels, or in each row an encoded image, padded or not."""
    if dataset.ndim == 1:
        return h5py.check_vlen_dtype(dataset.dtype) == np.uint8
    pixels = dataset.ndim == 4 and dataset.shape[-1] == 3 and all(dataset.shape[1:])
    return dataset.dtype == np.uint8 and (pixels or dataset.ndim == 2)


def _twists(file: Hdf5File, actions: str) -> np.ndarray:
    """Return (T, 6) float64 of m/s and rad/s; raise UserError if actions cannot be mapped."""
    by_name = axes_of(actions)
    axes = by_name or {name: f'{actions}[{at}]' for at, name in enumerate(AXES)}
    columns = {}
    for axis, (name, index) in zip(axes, map(_place, axes.values()), strict=True):
        dataset = file.datasets[name]
        width = (*dataset.shape, 1)[1] if dataset.ndim in (1, 2) else 0
        if (
            dataset.dtype.kind not in 'fiu'
            or index >= width
            or (not by_name and width != len(AXES))
        ):
            raise UserError(
                'its actions are no velocities of a planar base',
                got=f'{name} {dataset.shape} {dataset.dtype}',
                expected=f'(T, 3): {", ".join(AXES)}',
                remedy='map them with --actions linear_x=PATH[0],angular_z=PATH[1]',
            )
        columns[axis] = dataset[:].astype(np.float64).reshape(-1, width)[:, index]
    lengths = {len(one) for one in columns.values()}
    if len(lengths) > 1:
        raise UserError('its actions differ in length', got=sorted(lengths))
    twists = np.zeros((lengths.pop(), 6))
    for axis, values in columns.items():
        twists[:, AXES[axis]] = values
    wrong = np.flatnonzero(~np.isfinite(twists).all(axis=1))
    if len(wrong):
        raise UserError(
            'an action is not a finite number', got=f'row {wrong[0]} of {_datasets(actions)[0]}'
        )
    return twists


class _Rows:
    """
    The rows of one episode.

    :ivar twists: (T, 6) float64, m/s and rad/s.
    :ivar used: paths of the datasets that are imported.
    """

    def __init__(
        self,
        images: h5py.Dataset,
        file: Hdf5File,
        twists: np.ndarray,
        used: set[str],
        colour: str,
        options: ImportOptions,
    ) -> None:
        self.twists, self.used = twists, used
        self._images = VlenRows(images, view=file.view) if images.ndim == 1 else images
        self._colour, self._options = colour, options
        # Reading all rows of a chunk together decompresses it only once.
        chunk = images.chunks[0] if images.chunks and images.ndim > 1 else 1
        self._block = min(chunk, MAX_BLOCK_ROWS)

    def copy(
        self,
        writer: EpisodeWriter,
        first_ns: int,
        rate_hz: float,
        events: list[str],
        seen: Callable[[], None],
    ) -> None:
        """Write every row."""
        # Truncated to whole nanoseconds: t + k / rate is never before the command of row t + k.
        period_ns, count, block = int(NANOSECONDS / rate_hz), len(self.twists), self._block
        writer.add_event('start', first_ns, f'rows at {rate_hz:g} Hz; no times were kept')
        for row in range(count):
            if row % block == 0:
                try:
                    rows = (
                        self._images[row : row + block]
                        if isinstance(self._images, h5py.Dataset)
                        else [self._images[row]]
                    )
                except (OSError, RuntimeError) as error:
                    raise UserError(
                        f'it is broken at image {row} of {count}', got=first_line(error)
                    ) from None
            time_ns = first_ns + row * period_ns
            if row < len(events):
                writer.add_event('action', time_ns, events[row])
            writer.add_command(Command(self.twists[row], time_ns, time_ns, 'teleop'))
            writer.add_frame(self._encoded(rows[row % block]), time_ns, time_ns)
            seen()
        writer.add_event('stop', first_ns + max(count - 1, 0) * period_ns)

    def _encoded(self, row: np.ndarray) -> bytes:
        """Return the bytes to store of a row; an encoded one with true colours stays as it is."""
        options = self._options
        if row.ndim == 1:
            data = row.tobytes().rstrip(b'\0')
            pixels = decode(data)  # a broken image would break training later
            if self._colour == 'rgb':
                return data
        else:
            pixels = row if self._colour == 'bgr' else np.ascontiguousarray(row[..., ::-1])
        return encode_bgr(pixels, options.image_format, options.jpeg_quality)


def _texts(file: Hdf5File, name: str, count: int) -> Iterator[str]:
    """Yield the first texts of a column, none if it is missing or holds no texts."""
    dataset = file.datasets.get(name)
    info = h5py.check_string_dtype(dataset.dtype) if dataset is not None else None
    if dataset is None or info is None or dataset.shape is None or dataset.ndim > 1:
        return
    rows = (
        VlenRows(dataset, MAX_TEXT, file.view)
        if info.length is None
        else np.atleast_1d(dataset[()])
    )
    size = 0
    for row in range(min(count, len(rows))):
        text = _text(rows[row])
        size += len(text)
        if size > MAX_TEXT:
            raise ValueError(f'{name} has more than {MAX_TEXT} characters')
        yield text


def _created_ns(path: Path, attributes: dict[str, Any]) -> int:
    """Return the time of recording from an attribute or the name (as UTC); else the mtime."""
    for text in (str(attributes.get('collection_datetime', '')), path.stem):
        found = WRITTEN_TIME.search(text)
        if found:
            with contextlib.suppress(ValueError):
                year, month, day, hour, minute, second = map(int, found.groups())
                when = datetime.datetime(
                    year, month, day, hour, minute, second, tzinfo=datetime.timezone.utc
                )
                return int(when.timestamp()) * NANOSECONDS
    return path.stat().st_mtime_ns


def _text(value: Any) -> str:
    return value.decode(errors='replace') if isinstance(value, bytes) else str(value)
