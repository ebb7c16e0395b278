"""
Read episodes of the reference run: HDF5 with raw BGR pixels, a row a key press, no times.

Rows become steps at the given rate. Pixels are encoded once, a block of rows at a time, so that
memory does not grow with the episode.
"""

import contextlib
import datetime
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.hdf5_gate import (
    MALFORMED,
    MAX_TEXT,
    Hdf5File,
    VlenRows,
    open_file,
)
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
DATASETS = ('images', 'actions', 'language_instruction', 'action_event_types')
MAX_BLOCK_ROWS = 32
# In collection_datetime, and in file names: episode_20251106_101112_….h5
WRITTEN_TIME = re.compile(r'(?<!\d)(\d{4})-?(\d\d)-?(\d\d)[_T ]?(\d\d):?(\d\d):?(\d\d)(?!\d)')


@contextlib.contextmanager
def open_legacy(path: Path, _key: str, options: ImportOptions, _scratch: Path) -> Iterator[Source]:
    """
    Open one file in the layout of the reference run.

    :raises UserError: when it is broken or in another layout, or its rate or instruction is
        unknown; ``Source.copy`` raises it for damage found later.
    """
    try:
        file = open_file(path, DATASETS)
    except MALFORMED as error:
        raise UserError('it cannot be opened as HDF5', got=first_line(error)) from None
    with file:
        try:
            _check(file)
            instruction = _own_instruction(file)
            events = _event_types(file)
        except MALFORMED as error:
            raise UserError('it is broken', got=first_line(error)) from None
        if options.rate_hz is None:
            raise UserError('it has no times', remedy='give --rate the rows a second')
        created_ns, rate_hz = _created_ns(path, file.attributes), options.rate_hz
        yield Source(
            created_ns,
            lambda writer, seen: _copy(file, writer, created_ns, rate_hz, events, options, seen),
            {
                'instruction': options.or_given(instruction),
                'origin_attributes': json.dumps(file.attributes, ensure_ascii=False),
            },
            rate_hz,
            timed=False,
        )


def _check(file: Hdf5File) -> None:
    """Raise UserError with every mismatch between a file and the layout."""
    if file.attributes.get('format') == schema.FORMAT:
        raise UserError(
            'it is an episode of this package already',
            remedy='copy it into the folder of episodes',
        )
    missing = [name for name in ('images', 'actions') if name not in file.datasets]
    if missing:
        raise UserError(
            'it has another layout', got=f'no dataset {" and no ".join(missing)}', expected=LAYOUT
        )
    images, actions = file.datasets['images'], file.datasets['actions']
    mismatches = []
    if (
        images.ndim != 4
        or images.shape[-1] != 3
        or images.dtype != np.uint8
        or not all(images.shape[1:])
    ):
        mismatches.append(f'images {images.shape} {images.dtype}')
    if actions.ndim != 2 or actions.shape[-1] != 3 or actions.dtype.kind not in 'fiu':
        mismatches.append(f'actions {actions.shape} {actions.dtype}')
    if not mismatches and len(images) != len(actions):
        mismatches.append(f'{len(images)} images and {len(actions)} actions')
    if mismatches:
        raise UserError('it has another layout', got=', '.join(mismatches), expected=LAYOUT)
    rows = np.flatnonzero(~np.isfinite(actions[:]).all(axis=1))
    if len(rows):
        raise UserError('an action is not a finite number', got=f'row {rows[0]} of actions')


def _copy(
    file: Hdf5File,
    writer: EpisodeWriter,
    first_ns: int,
    rate_hz: float,
    events: list[str],
    options: ImportOptions,
    seen: Callable[[], None],
) -> None:
    # Truncated to whole nanoseconds: t + k / rate is never before the command of row t + k.
    period_ns = int(NANOSECONDS / rate_hz)
    images, actions = file.datasets['images'], file.datasets['actions'][:].astype(np.float64)
    # Reading all rows of a chunk together decompresses it only once.
    block = min(images.chunks[0] if images.chunks else 1, MAX_BLOCK_ROWS)
    writer.add_event('start', first_ns, f'rows at {rate_hz:g} Hz; no times were kept')
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


def _own_instruction(file: Hdf5File) -> str:
    return next(_texts(file, 'language_instruction', 1), '')


def _event_types(file: Hdf5File) -> list[str]:
    return list(_texts(file, 'action_event_types', len(file.datasets['images'])))


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
