"""
Read the remains of an episode file that was cut, torn, or never closed.

HDF5 itself supplies only the attributes and the locations of the blocks, through a ``View`` of the
file; nothing is copied or written. Rows and images are then read from the bytes that are really
there. An ordinary open would not do: a SWMR reader waits for missing blocks, and HDF5 loops for
ever on a heap that ends in zeros.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage import schema, version1
from mobile_vla_ros.episode.storage.byte_rows import MAX_CHANNELS, MAX_DEFINITION_BYTES
from mobile_vla_ros.episode.storage.hdf5_gate import (
    MALFORMED,
    MAX_IMAGE_BYTES,
    VLEN_REFERENCE,
    open_file,
)
from mobile_vla_ros.episode.storage.hdf5_view import View
from mobile_vla_ros.episode.storage.reader import CHANNEL_COLUMNS, PATHS, TIMES, VERSIONS
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images.stored import JPEG_START, PNG_START, BrokenImage, check_whole

STREAMS = ('frames', 'commands', 'events')
PAGE = bytes(4096)
TORN_TAIL = 16  # a JPEG without an end marker that ends in this many zeros was not fully written


class Salvage:
    """
    The rows of one damaged file, one by one; use it as a context manager.

    ``listed`` counts the rows that the file lists, by stream; rows that the iterators do not yield
    are lost. ``streams`` are those of every episode, and ``proposals`` and ``messages`` if the
    file has them.

    :raises UserError: when not even the head of the file is readable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = open_file(path, PATHS, torn=True)
        except MALFORMED as error:
            raise UserError(
                f'{path} cannot be recovered: its head cannot be read',
                got=first_line(error),
                expected=f'an HDF5 file of format {schema.FORMAT}',
            ) from None
        view, datasets = self._file.view, self._file.datasets
        assert view is not None, 'a torn file is not opened as a SWMR reader'
        self._view: View = view
        self._version1 = version1.IMAGES in datasets and schema.IMAGE_BYTES not in datasets
        self._layout = VERSIONS[version1.VERSION if self._version1 else schema.VERSION]
        # An episode without proposals has not lost them.
        self.streams = STREAMS + tuple(
            stream for stream, one in schema.OPTIONAL.items() if one.keys() & datasets.keys()
        )
        self._data = {
            name: dataset for name in self._layout if (dataset := self._dataset(name)) is not None
        }
        if self._version1:
            version1.add_steady(self._data)
        self._ends = dict.fromkeys(schema.BYTES, 0)  # of what was read of each
        self._places = {name: _places(dataset) for name, dataset in self._data.items()}
        self.listed = dict.fromkeys(self.streams, 0)
        for name, dataset in self._data.items():
            stream = name.partition('/')[0]
            if name not in schema.BYTES and stream in self.listed:
                self.listed[stream] = max(self.listed[stream], len(dataset))

    def __enter__(self) -> 'Salvage':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def cut(self) -> bool:
        """Whether the file is shorter than it states."""
        return self._view.cut

    @property
    def start_ns(self) -> int | None:
        """Steady receipt of the first frame that the file lists, None if it cannot be read."""
        name = 'frames/steady_ns'
        first = next(self._rows('frames', 'steady_ns'), None)
        return None if first is None or 0 not in self._places[name] else int(first[0])

    def attribute(self, name: str) -> Any:
        """Return one attribute, or None if it cannot be read or has another type."""
        known = {'format': str, 'version': int, **schema.ATTRIBUTES, **schema.OPTIONAL_ATTRIBUTES}
        value = self._file.attributes.get(name)
        return value if name in known and type(value) is known[name] else None

    def frames(self) -> Iterator[tuple[bytes, int, int, int]]:
        """Yield every readable frame: encoded image, header stamp, receipt, steady receipt."""
        read: Callable[..., bytes] = partial(self._bytes, schema.IMAGE_BYTES)
        columns = ['offset', 'size']
        if self._version1:
            read, columns = version1.TornImages(self._view).image, ['data']
        self._ends[schema.IMAGE_BYTES] = 0
        room = self._view.size  # a made-up file may list one image again and again
        for *place, stamp_ns, received_ns, steady_ns in self._rows('frames', *columns, *TIMES):
            if was_written(stamp_ns, received_ns, steady_ns):
                image = read(*place)
                room -= len(image)
                if is_whole_image(image) and room >= 0:
                    self._ends[schema.IMAGE_BYTES] = 0 if self._version1 else sum(place)
                    yield image, stamp_ns, received_ns, steady_ns

    def commands(self) -> Iterator[tuple[np.ndarray, int, int, int, int]]:
        """Yield every readable command: (6,) twist, stamp, receipt, steady receipt and source."""
        for twist, *times, source in self._rows('commands', 'twist', *TIMES, 'source'):
            if was_written(*times) and np.isfinite(twist).all():
                yield twist, *times, source

    def events(self) -> Iterator[tuple[str, int, str, int]]:
        """Yield every readable event: name, time, text and steady time."""
        for name, text, *times in self._rows('events', 'name', 'text', 'time_ns', 'steady_ns'):
            name = name.decode(errors='replace')
            if was_written(*times) and name in schema.EVENTS:
                yield name, times[0], text.decode(errors='replace'), times[1]

    def proposals(self) -> Iterator[tuple[np.ndarray, int, int, int]]:
        """Yield every readable proposal: (6,) twist, stamp of its image, both receipts."""
        for twist, *times in self._rows('proposals', 'twist', *TIMES):
            if was_written(*times) and np.isfinite(twist).all():
                yield twist, *times

    def messages(self) -> Iterator[tuple[Channel, bytes, int, int, int]]:
        """Yield every readable message of another topic: channel, bytes, stamp, both receipts."""
        channels = self._channels()
        self._ends[schema.MESSAGE_BYTES] = 0  # the definitions lie among the messages
        for number, *place, stamp_ns, received_ns, steady_ns in self._rows(
            'messages', 'channel', 'offset', 'size', *TIMES
        ):
            if number in channels and was_written(stamp_ns, received_ns, steady_ns):
                data = self._bytes(schema.MESSAGE_BYTES, *place)
                if data.strip(b'\0'):  # no message has zeros alone, and a hole in a file has
                    self._ends[schema.MESSAGE_BYTES] = sum(place)
                    yield channels[number], data, stamp_ns, received_ns, steady_ns

    def _channels(self) -> dict[int, Channel]:
        """
        Return the channels that can be named, at most ``MAX_CHANNELS``.

        A definition that is torn or too long is left out.
        """
        found: dict[int, Channel] = {}
        names = {''}
        self._ends[schema.MESSAGE_BYTES] = 0
        rows = self._rows('channels', *CHANNEL_COLUMNS)
        for number, (*texts, latched, offset, size) in enumerate(rows):
            topic, kind, type_hash = (text.decode(errors='replace') for text in texts)
            topic = schema.fixed_text(topic, schema.TOPIC_BYTES).decode()  # as it will be written
            if topic in names:
                continue
            names.add(topic)
            fits = size <= MAX_DEFINITION_BYTES
            definition = self._bytes(schema.MESSAGE_BYTES, offset, size) if fits else b''
            if definition:
                self._ends[schema.MESSAGE_BYTES] = offset + size
            text = definition.decode(errors='replace')
            found[number] = Channel(topic, kind, text, type_hash, bool(latched))
            if len(found) == MAX_CHANNELS:
                break
        return found

    def _dataset(self, name: str) -> h5py.Dataset | None:
        """Return a dataset whose rows can be read from its chunks, None without one."""
        try:
            dataset = self._file.datasets[name]
            plain = dataset.chunks and not dataset.id.get_create_plist().get_nfilters()
            fits = plain and not schema.dataset_fault(name, dataset, self._layout)
            return dataset if fits and len(dataset) else None
        except MALFORMED:
            return None

    def _rows(self, stream: str, *columns: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of the columns as plain values (a twist as an array)."""
        for block in self._blocks(stream, *columns):
            yield from zip(
                *(column if column.ndim > 1 else column.tolist() for column in block), strict=False
            )

    def _blocks(self, stream: str, *columns: str) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield the rows of the columns chunk by chunk, each as far as it is readable."""
        names = [f'{stream}/{column}' for column in columns]
        if not self._data.keys() >= set(names):
            return
        datasets = [self._data[name] for name in names]
        count = min(len(dataset) for dataset in datasets)
        rows = datasets[0].chunks[0]
        if any(dataset.chunks[0] != rows for dataset in datasets):
            return
        for first in sorted(self._places[names[0]]):
            wanted = min(rows, count - first)
            if wanted <= 0:
                return
            yield tuple(
                self._block(name, dataset, first, wanted)
                for name, dataset in zip(names, datasets, strict=True)
            )

    def _block(self, name: str, dataset: h5py.Dataset, first: int, count: int) -> np.ndarray:
        dtype = VLEN_REFERENCE if name == version1.IMAGES else dataset.dtype
        row_bytes = dtype.itemsize * math.prod(dataset.shape[1:])
        place = self._places[name].get(first)
        data = self._view.read_raw(place, count * row_bytes) if place is not None else b''
        whole = data[: len(data) // row_bytes * row_bytes]
        return np.frombuffer(whole, dtype).reshape(-1, *dataset.shape[1:])

    def _bytes(self, name: str, offset: int, size: int) -> bytes:
        """Return bytes of a row; b'' unless all of them are there, behind the last ones."""
        follows = name in self._data and offset >= self._ends[name]
        if not follows or not 0 < size <= MAX_IMAGE_BYTES:
            return b''
        chunk, places = self._data[name].chunks[0], self._places[name]
        pieces, end = [], offset + size
        while offset < end:
            first = offset // chunk * chunk
            count = min(end, first + chunk) - offset
            if first not in places:
                return b''
            pieces.append(self._view.read_raw(places[first] + offset - first, count))
            if len(pieces[-1]) < count:
                return b''
            offset += count
        return b''.join(pieces)


def _places(dataset: h5py.Dataset) -> dict[int, int]:
    """Return first row → file offset of every chunk that the index lists."""
    places: dict[int, int] = {}

    def note(chunk: Any) -> None:
        places[chunk.chunk_offset[0]] = chunk.byte_offset

    # A broken index ends early; what was noted before is good.
    with contextlib.suppress(*MALFORMED):
        dataset.id.chunk_iter(note)
    return places


def was_written(*times_ns: int) -> bool:
    """Whether a row was written; its last two times are receipts, and none is at 0."""
    return max(map(abs, times_ns)) <= schema.MAX_TIME and times_ns[-1] != 0 != times_ns[-2]


def is_whole_image(image: bytes) -> bool:
    """
    Whether an image begins like a JPEG or PNG, and has no bytes that were never written.

    Cameras pad a JPEG after its end marker; before it, a whole page of zeros is a hole.
    """
    if image.startswith(JPEG_START):
        kept = image.rstrip(b'\0')
        ends = kept[-2:] == b'\xff\xd9' or len(image) - len(kept) < TORN_TAIL
        return ends and PAGE not in kept
    if not image.startswith(PNG_START) or b'IEND' not in image[-64:]:
        return False
    return PAGE not in image or _verified(image)


def _verified(png: bytes) -> bool:
    """Whether the checksums of a PNG hold; a black one may be full of zeros."""
    try:
        check_whole(png)
    except BrokenImage:
        return False
    return True
