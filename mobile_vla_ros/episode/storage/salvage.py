"""
Reads what can be read of an episode file that was cut, torn, or never closed.

HDF5 itself is asked for nothing but attributes and the places of the blocks, through a view of
the file as it would be had its writer closed it; nothing is copied and nothing is written. Rows
and images are then taken from the bytes that are really there. An ordinary open will not do: a
SWMR reader waits for missing blocks, and HDF5 walks a heap whose tail is zero for ever.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.hdf5_view import HEAP, HEAP_HEAD, View, heap_objects
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images.stored import JPEG_START, PNG_START

IMAGE_REFERENCE = np.dtype([('bytes', '<u4'), ('heap', '<u8'), ('number', '<u4')])
STREAMS = ('frames', 'commands', 'events')
UNREADABLE = (OSError, KeyError, ValueError, RuntimeError, TypeError)
PAGE = bytes(4096)
TORN_TAIL = 16  # a JPEG that ends in as many zeros and has no end marker was not all written


class Salvage:
    """
    The rows of one damaged file, one by one; use it as a context manager.

    ``listed`` counts the rows that the file tells of, by stream (``streams``: those of every take,
    and ``proposals`` of one that has them); what the iterators do not give is lost.

    :raises UserError: when not even the head of the file can be read.
    """

    def __init__(self, path: Path):
        self.path = path
        self._view = None
        try:
            self._view = View(path)
            self._file = h5py.File(self._view, 'r')
        except UNREADABLE as error:
            if self._view is not None:
                self._view.close()
            raise UserError(
                f'{path} cannot be recovered: its head cannot be read',
                got=first_line(error),
                expected=f'an HDF5 file of format {schema.FORMAT}',
            ) from None
        # Some takes have proposals, and those that have none are not said to have lost them.
        self.streams = STREAMS + (('proposals',) if self._has('proposals') else ())
        wanted = schema.DATASETS | schema.PROPOSALS
        self._data = {
            name: self._dataset(name) for name in wanted if name.partition('/')[0] in self.streams
        }
        self._places = {name: _places(dataset) for name, dataset in self._data.items()}
        self.listed = {
            stream: max(
                (
                    len(dataset)
                    for name, dataset in self._data.items()
                    if dataset is not None and name.startswith(stream)
                ),
                default=0,
            )
            for stream in self.streams
        }
        self._heap_at, self._heap = -1, {}

    def __enter__(self) -> 'Salvage':
        return self

    def __exit__(self, *_):
        self._file.close()
        self._view.close()

    @property
    def cut(self) -> bool:
        """Whether the file is shorter than it says it is."""
        return self._view.cut

    def attribute(self, name: str) -> object:
        """Return one attribute, or None where it cannot be read."""
        try:
            value = self._file.attrs[name]
            value = value.decode() if isinstance(value, bytes) else value
        except UNREADABLE:
            return None
        return value.item() if isinstance(value, np.generic) else value

    def frames(self) -> Iterator[tuple[bytes, int, int]]:
        """Give every frame that is there as encoded image, header stamp and receipt."""
        for data, stamps, times in self._blocks('frames', 'data', 'stamp_ns', 'received_ns'):
            for reference, stamp_ns, received_ns in zip(
                data, stamps.tolist(), times.tolist(), strict=False
            ):
                if not was_written(stamp_ns, received_ns):
                    continue
                image = self._image(*reference.tolist())
                if looks_whole(image):
                    yield image, stamp_ns, received_ns

    def commands(self) -> Iterator[tuple[np.ndarray, int, int, int]]:
        """Give every command that is there as (6,) twist, header stamp, receipt and source."""
        for twists, *columns in self._blocks(
            'commands', 'twist', 'stamp_ns', 'received_ns', 'source'
        ):
            for twist, stamp_ns, received_ns, source in zip(
                twists, *(column.tolist() for column in columns), strict=False
            ):
                if was_written(stamp_ns, received_ns) and np.isfinite(twist).all():
                    yield twist, stamp_ns, received_ns, source

    def events(self) -> Iterator[tuple[str, int, str]]:
        """Give every event that is there as name, time and text."""
        for times, names, texts in self._blocks('events', 'time_ns', 'name', 'text'):
            for time_ns, name, text in zip(
                times.tolist(), names.tolist(), texts.tolist(), strict=False
            ):
                name = name.decode(errors='replace')
                if was_written(time_ns, time_ns) and name in schema.EVENTS:
                    yield name, time_ns, text.decode(errors='replace')

    def proposals(self) -> Iterator[tuple[np.ndarray, int, int]]:
        """Give every proposal that is there as (6,) twist, stamp of its image, and receipt."""
        if 'proposals' not in self.streams:
            return
        for twists, *columns in self._blocks('proposals', 'twist', 'stamp_ns', 'received_ns'):
            for twist, stamp_ns, received_ns in zip(
                twists, *(column.tolist() for column in columns), strict=False
            ):
                if was_written(stamp_ns, received_ns) and np.isfinite(twist).all():
                    yield twist, stamp_ns, received_ns

    def _has(self, stream: str) -> bool:
        try:
            return stream in self._file
        except UNREADABLE:
            return False

    def _dataset(self, name: str) -> h5py.Dataset | None:
        try:
            dataset = self._file[name]
            plain = dataset.chunks and not dataset.id.get_create_plist().get_nfilters()
            return dataset if plain and len(dataset) else None
        except UNREADABLE:
            return None

    def _blocks(self, stream: str, *columns: str) -> Iterator[tuple[np.ndarray, ...]]:
        """Give the rows of the columns chunk by chunk, each as long as it can be read."""
        names = [f'{stream}/{column}' for column in columns]
        if any(self._data[name] is None for name in names):
            return
        rows = self._data[names[0]].chunks[0]
        count = min(len(self._data[name]) for name in names)
        for first in range(0, count, rows):
            yield tuple(self._block(name, first, min(rows, count - first)) for name in names)

    def _block(self, name: str, first: int, count: int) -> np.ndarray:
        dataset = self._data[name]
        dtype = IMAGE_REFERENCE if name == 'frames/data' else dataset.dtype
        row_bytes = dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=int))
        place = self._places[name].get(first)
        data = self._view.real(place, count * row_bytes) if place is not None else b''
        whole = data[: len(data) // row_bytes * row_bytes]
        return np.frombuffer(whole, dtype).reshape(-1, *dataset.shape[1:])

    def _image(self, size: int, heap_at: int, number: int) -> bytes:
        """Return the bytes of an image; b'' when they are not all there."""
        read = self._view.real
        if heap_at != self._heap_at:
            head = read(heap_at, HEAP_HEAD)
            self._heap_at, self._heap = heap_at, {}
            if head[:8] == HEAP:
                end = heap_at + int.from_bytes(head[8:16], 'little')
                self._heap = dict(heap_objects(read, heap_at, end))
        at, stored = self._heap.get(number, (0, 0))
        data = read(at, size) if stored >= size else b''
        return data if len(data) == size else b''


def _places(dataset: h5py.Dataset | None) -> dict[int, int]:
    """Return where in the file the chunk that begins with a row lies, as far as is known."""
    places = {}

    def note(chunk):
        places[chunk.chunk_offset[0]] = chunk.byte_offset

    if dataset is not None:
        # Where the index is broken it ends; what was noted before is good.
        with contextlib.suppress(*UNREADABLE):
            dataset.id.chunk_iter(note)
    return places


def was_written(stamp_ns: int, received_ns: int) -> bool:
    """Tell the times of a row from those of one that never came: nothing is received at 0."""
    return schema.NO_TIME not in (stamp_ns, received_ns) and received_ns != 0


def looks_whole(image: bytes) -> bool:
    """
    Say whether an image begins as JPEG or PNG does, and has no bytes that were never written.

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
    """Say whether the checksums of a PNG hold; a black one may be full of zeros."""
    try:
        Image.open(io.BytesIO(png)).verify()
    except (OSError, SyntaxError, ValueError):
        return False
    return True
