"""
Reads the seed's episodes: HDF5 of raw BGR pixels, a row a key press, without times.

Rows become steps of the rate that is given. Pixels are encoded once, a block of rows at a time,
so that memory does not grow with the take.
"""

import contextlib
import datetime
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images.messages import encode_bgr
from mobile_vla_ros.interop.source import ImportOptions, Source
from mobile_vla_ros.types import NANOSECONDS, Command

SUFFIXES = ('.h5', '.hdf5')
LAYOUT = (
    'images (T, height, width, 3) uint8 and actions (T, 3): linear_x, linear_y in m/s, '
    'angular_z in rad/s'
)
MOST_ROWS_AT_ONCE = 32
# Of collection_datetime, and of file names: episode_20251106_101112_….h5
WRITTEN_TIME = re.compile(r'(?<!\d)(\d{4})-?(\d\d)-?(\d\d)[_T ]?(\d\d):?(\d\d):?(\d\d)(?!\d)')


@contextlib.contextmanager
def open_legacy(path: Path, options: ImportOptions) -> Iterator[Source]:
    """
    Open one file of the seed's layout.

    :raises UserError: when it is broken, or of another layout, or no rate or instruction is
        known; what is found broken only later is raised by ``Source.pour``.
    """
    try:
        file = h5py.File(path, 'r')
    except OSError as error:
        raise UserError('it cannot be opened as HDF5', got=first_line(error)) from None
    with file:
        try:
            _check(file)
            instruction = _own_instruction(file)
            events = _event_types(file)
            attributes = {name: _plain(value) for name, value in file.attrs.items()}
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise UserError('it is broken', got=first_line(error)) from None
        if options.rate_hz is None:
            raise UserError('it has no times', remedy='give --rate the rows a second')
        created_ns = _created_ns(path, attributes)
        yield Source(
            created_ns,
            lambda writer, seen: _pour(file, writer, created_ns, events, options, seen),
            {
                'instruction': options.or_given(instruction),
                'origin_attributes': json.dumps(attributes, ensure_ascii=False),
            },
            options.rate_hz,
            timed=False,
        )


def _check(file: h5py.File):
    """Refuse what is not of the layout; every mismatch is named."""
    if file.attrs.get('format') == schema.FORMAT:
        raise UserError(
            'it is an episode of this package already',
            remedy='copy it into the folder of the takes',
        )
    images, actions = (file.get(name) for name in ('images', 'actions'))
    found = [
        name
        for name, dataset in (('images', images), ('actions', actions))
        if not isinstance(dataset, h5py.Dataset)
    ]
    if found:
        raise UserError(
            'it has another layout', got=f'no dataset {" and no ".join(found)}', expected=LAYOUT
        )
    wrong = []
    if (
        images.ndim != 4
        or images.shape[-1] != 3
        or images.dtype != np.uint8
        or not all(images.shape[1:])
    ):
        wrong.append(f'images {images.shape} {images.dtype}')
    if actions.ndim != 2 or actions.shape[-1] != 3 or actions.dtype.kind not in 'fiu':
        wrong.append(f'actions {actions.shape} {actions.dtype}')
    if not wrong and len(images) != len(actions):
        wrong.append(f'{len(images)} images and {len(actions)} actions')
    if wrong:
        raise UserError('it has another layout', got=', '.join(wrong), expected=LAYOUT)
    rows = np.flatnonzero(~np.isfinite(actions[:]).all(axis=1))
    if len(rows):
        raise UserError('an action is not a finite number', got=f'row {rows[0]} of actions')


def _pour(
    file: h5py.File,
    writer: EpisodeWriter,
    first_ns: int,
    events: list[str],
    options: ImportOptions,
    seen: Callable[[], None],
):
    # Whole nanoseconds a row, cut: t + k / rate is then never before the command of row t + k.
    period_ns = int(NANOSECONDS / options.rate_hz)
    images, actions = file['images'], file['actions'][:].astype(np.float64)
    # A chunk of the file is unpacked once when all of its rows are read together.
    block = min(images.chunks[0] if images.chunks else 1, MOST_ROWS_AT_ONCE)
    writer.add_event('start', first_ns, f'rows at {options.rate_hz:g} Hz; no times were kept')
    for row in range(len(images)):
        if row % block == 0:
            try:
                pixels = images[row : row + block]
            except (OSError, RuntimeError) as error:
                raise UserError(
                    f'it is broken at image {row} of {len(images)}', got=first_line(error)
                ) from None
        time_ns = first_ns + row * period_ns
        if row < len(events):
            writer.add_event('action', time_ns, events[row])
        twist = np.zeros(6)
        twist[[0, 1, 5]] = actions[row]
        writer.add_command(Command(twist, time_ns, time_ns, 'teleop'))
        writer.add_frame(
            encode_bgr(pixels[row % block], options.image_format, options.jpeg_quality),
            time_ns,
            time_ns,
        )
        seen()
    writer.add_event('stop', first_ns + max(len(images) - 1, 0) * period_ns)


def _own_instruction(file: h5py.File) -> str:
    dataset = file.get('language_instruction')
    if not isinstance(dataset, h5py.Dataset) or not dataset.size:
        return ''
    value = dataset[()] if dataset.shape == () else dataset[:].flat[0]
    return _text(value)


def _event_types(file: h5py.File) -> list[str]:
    dataset = file.get('action_event_types')
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1:
        return []
    return [_text(value) for value in dataset[:]]


def _created_ns(path: Path, attributes: dict) -> int:
    """Return when the take was made, as it says or its name does (taken for UTC); else mtime."""
    for text in (str(attributes.get('collection_datetime', '')), path.stem):
        found = WRITTEN_TIME.search(text)
        if found:
            with contextlib.suppress(ValueError):
                when = datetime.datetime(*map(int, found.groups()), tzinfo=datetime.UTC)
                return int(when.timestamp()) * NANOSECONDS
    return path.stat().st_mtime_ns


def _text(value) -> str:
    return value.decode(errors='replace') if isinstance(value, bytes) else str(value)


def _plain(value):
    """Return an attribute as JSON can hold it."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return _text(value) if isinstance(value, bytes) else value
