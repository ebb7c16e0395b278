"""
Read tubs of donkeycar (version 2): each session an episode.

The layout is that of autorope/donkeycar (donkeycar/parts/tub_v2.py, datastore_v2.py): a line of
JSON for each record in ``catalog_N.catalog``, images as JPEG in ``images/``, and in the fifth line
of ``manifest.json`` the catalogs and the records that the user deleted. ``user/angle`` is -1
(left) to 1 (right), ``user/throttle`` -1 to 1 (actuator.py).
"""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros.episode.storage.schema import FRAMES, loss
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images.stored import decode
from mobile_vla_ros.interop.source import ImportOptions, Source, scales_of
from mobile_vla_ros.types import Command

MARKER, MANIFEST = 'catalog_0.catalog', 'manifest.json'
IMAGE, ANGLE, THROTTLE, MODE = 'cam/image_array', 'user/angle', 'user/throttle', 'user/mode'
TIME, INDEX, SESSION = '_timestamp_ms', '_index', '_session_id'
NUMBERS = (ANGLE, THROTTLE, TIME, INDEX)
MS = 1_000_000  # nanoseconds
MAX_LINE = 1 << 20
Record = dict[str, Any]


def episodes_of(path: Path, _options: ImportOptions) -> dict[str, str]:
    """Return the sessions of a tub, and the time of the first record of each."""
    found: dict[str, str] = {}
    for record in _records(path, Counter()):
        found.setdefault(str(record.get(SESSION, '')), str(record[TIME]))
    if not found:
        raise UserError('its catalogs contain no record', got=str(path))
    return found


@contextlib.contextmanager
def open_tub(path: Path, key: str, options: ImportOptions, _scratch: Path) -> Iterator[Source]:
    """
    Open one session.

    :raises UserError: when its records cannot be read, or scale or instruction are unknown.
    """
    scales = scales_of(options.scale, ('linear_x', 'angular_z'))
    lost: Counter[str] = Counter()
    records = [one for one in _records(path, lost) if str(one.get(SESSION, '')) == key]
    records.sort(key=lambda one: one[INDEX])
    yield Source(
        records[0][TIME] * MS,
        lambda writer, seen: _copy(path, records, scales, options, lost, writer, seen),
        {'instruction': options.or_given('')},
        notes=tuple(f'{count} records are not imported: {why}' for why, count in lost.items()),
    )


def _records(path: Path, lost: Counter[str]) -> Iterator[Record]:
    """Yield the records of a tub that were not deleted; count the lost ones by reason."""
    try:
        lines = (path / MANIFEST).read_text().splitlines()
        catalogs = json.loads(lines[4])
        deleted = set(catalogs['deleted_indexes'])
        files = [path / Path(name).name for name in catalogs['paths']]
        for file in files:
            with file.open('rb') as stream:
                while line := stream.readline(MAX_LINE):
                    record = _record(line)
                    if record is None:
                        lost['their line is cut short or damaged'] += 1
                    elif record[INDEX] in deleted:
                        lost['they were deleted in the tub'] += 1
                    else:
                        yield record
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise UserError(
            f'{MANIFEST} cannot be read',
            got=first_line(error),
            expected='five lines of JSON as tubs of version 2 have them',
        ) from None


def _record(line: bytes) -> Record | None:
    """Return a record, None if its line is none."""
    try:
        record = json.loads(line)
        if all(
            type(record[name]) in (int, float) and math.isfinite(record[name]) for name in NUMBERS
        ):
            return record | {TIME: int(record[TIME]), IMAGE: str(record[IMAGE])}
    except (LookupError, TypeError, ValueError):
        pass
    return None


def _copy(
    path: Path,
    records: list[Record],
    scales: dict[str, float],
    options: ImportOptions,
    lost: Counter[str],
    writer: EpisodeWriter,
    seen: Callable[[], None],
) -> None:
    first_ns = records[0][TIME] * MS
    writer.add_event('start', first_ns)
    for why, count in lost.items():
        writer.add_event('problem', first_ns, f'{count} records of the tub: {why}')
    for record in records:
        time_ns = record[TIME] * MS
        if record.get(MODE, 'user') != 'user':
            writer.add_event(*_drop(time_ns, 'the pilot drove'))
            continue
        speed, steering = (
            scales['linear_x'] * record[THROTTLE],
            -scales['angular_z'] * record[ANGLE],
        )
        wz = speed * math.tan(steering) / options.wheelbase_m if options.wheelbase_m else steering
        try:
            encoded = (path / 'images' / Path(record[IMAGE]).name).read_bytes()
            decode(encoded)
        except (OSError, UserError) as error:
            writer.add_event(*_drop(time_ns, first_line(error)))
            continue
        twist = np.array([speed, 0, 0, 0, 0, wz])
        writer.add_command(Command(twist, time_ns, time_ns, 'teleop'))
        writer.add_frame(encoded, time_ns, time_ns)
        seen()
    if not writer.frames:
        raise UserError(
            'none of its records can be imported',
            got='images that cannot be read, or a pilot that drove',
        )
    writer.add_event('stop', records[-1][TIME] * MS)


def _drop(time_ns: int, why: str) -> tuple[str, int, str]:
    name, text = loss(1, FRAMES, why)
    return name, time_ns, text
