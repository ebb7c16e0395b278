"""
Read the remains of an episode file that was cut, torn, or never closed.

HDF5 itself supplies only the attributes and the locations of the blocks, through a ``View`` of the
file; nothing is copied or written. Rows and images are then read from the bytes that are really
there. An ordinary open would not do: a SWMR reader waits for missing blocks, and HDF5 loops for
ever on a heap that ends in zeros.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.hdf5_gate import MALFORMED, VLEN_REFERENCE, open_file
from mobile_vla_ros.episode.storage.hdf5_view import HEAP, HEAP_HEAD, View, heap_objects
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images.stored import JPEG_START, PNG_START, BrokenImage, check_whole

STREAMS = ('frames', 'commands', 'events')
PAGE = bytes(4096)
TORN_TAIL = 16  # a JPEG without an end marker that ends in this many zeros was not fully written


class Salvage:
    """
    The rows of one damaged file, one by one; use it as a context manager.

    ``listed`` counts the rows that the file lists, by stream; rows that the iterators do not yield
    are lost. ``streams`` are those of every episode, and ``proposals`` if the file has them.

    :raises UserError: when not even the head of the file is readable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        wanted = schema.DATASETS | schema.PROPOSALS
        try:
            self._file = open_file(path, wanted, torn=True)
        except MALFORMED as error:
            raise UserError(
                f'{path} cannot be recovered: its head cannot be read',
                got=first_line(error),
                expected=f'an HDF5 file of format {schema.FORMAT}',
            ) from None
        view = self._file.view
        assert view is not None, 'a torn file is not opened as a SWMR reader'
        self._view: View = view
        proposals = any(name in self._file.datasets for name in schema.PROPOSALS)
        # An episode without proposals has not lost them.
        self.streams = STREAMS + (('proposals',) if proposals else ())
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
        self._heap_at = -1
        self._heap: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> 'Salvage':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def cut(self) -> bool:
        """Whether the file is shorter than it states."""
        return self._view.cut

    def attribute(self, name: str) -> Any:
        """Return one attribute, or None if it cannot be read or has another type."""
        known = {'format': str, 'version': int, **schema.ATTRIBUTES, **schema.OPTIONAL_ATTRIBUTES}
        value = self._file.attributes.get(name)
        return value if name in known and type(value) is known[name] else None

    def frames(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield every readable frame as encoded image, header stamp and receipt."""
        for data, stamps, times in self._blocks('frames', 'data', 'stamp_ns', 'received_ns'):
            for reference, stamp_ns, received_ns in zip(
                data, stamps.tolist(), times.tolist(), strict=False
            ):
                if not was_written(stamp_ns, received_ns):
                    continue
                image = self._image(*reference.tolist())
                if is_whole_image(image):
                    yield image, stamp_ns, received_ns

    def commands(self) -> Iterator[tuple[np.ndarray, int, int, int]]:
        """Yield every readable command as (6,) twist, header stamp, receipt and source."""
        for twists, *columns in self._blocks(
            'commands', 'twist', 'stamp_ns', 'received_ns', 'source'
        ):
            for twist, stamp_ns, received_ns, source in zip(
                twists, *(column.tolist() for column in columns), strict=False
            ):
                if was_written(stamp_ns, received_ns) and np.isfinite(twist).all():
                    yield twist, stamp_ns, received_ns, source

    def events(self) -> Iterator[tuple[str, int, str]]:
        """Yield every readable event as name, time and text."""
        for times, names, texts in self._blocks('events', 'time_ns', 'name', 'text'):
            for time_ns, name, text in zip(
                times.tolist(), names.tolist(), texts.tolist(), strict=False
            ):
                name = name.decode(errors='replace')
                if was_written(time_ns, time_ns) and name in schema.EVENTS:
                    yield name, time_ns, text.decode(errors='replace')

    def proposals(self) -> Iterator[tuple[np.ndarray, int, int]]:
        """Yield every readable proposal as (6,) twist, stamp of its image, and receipt."""
        if 'proposals' not in self.streams:
            return
        for twists, *columns in self._blocks('proposals', 'twist', 'stamp_ns', 'received_ns'):
            for twist, stamp_ns, received_ns in zip(
                twists, *(column.tolist() for column in columns), strict=False
            ):
                if was_written(stamp_ns, received_ns) and np.isfinite(twist).all():
                    yield twist, stamp_ns, received_ns

    def _dataset(self, name: str) -> h5py.Dataset | None:
        """Return a dataset whose rows can be read from its chunks, None without one."""
        try:
            dataset = self._file.datasets[name]
            plain = dataset.chunks and not dataset.id.get_create_plist().get_nfilters()
            fits = plain and not schema.dataset_fault(name, dataset)
            return dataset if fits and len(dataset) else None
        except MALFORMED:
            return None

    def _blocks(self, stream: str, *columns: str) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield the rows of the columns chunk by chunk, each as far as it is readable."""
        names = [f'{stream}/{column}' for column in columns]
        datasets = [dataset for name in names if (dataset := self._data[name]) is not None]
        if len(datasets) < len(names):
            return
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
        dtype = VLEN_REFERENCE if name == 'frames/data' else dataset.dtype
        row_bytes = dtype.itemsize * math.prod(dataset.shape[1:])
        place = self._places[name].get(first)
        data = self._view.read_raw(place, count * row_bytes) if place is not None else b''
        whole = data[: len(data) // row_bytes * row_bytes]
        return np.frombuffer(whole, dtype).reshape(-1, *dataset.shape[1:])

    def _image(self, size: int, heap_at: int, number: int) -> bytes:
        """Return the bytes of an image; b'' unless all of them are there."""
        read = self._view.read_raw
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
    """Return first row → file offset of every chunk that the index lists."""
    places: dict[int, int] = {}

    def note(chunk: Any) -> None:
        places[chunk.chunk_offset[0]] = chunk.byte_offset

    if dataset is not None:
        # A broken index ends early; what was noted before is good.
        with contextlib.suppress(*MALFORMED):
            dataset.id.chunk_iter(note)
    return places


def was_written(stamp_ns: int, received_ns: int) -> bool:
    """Whether a row with these times was written: no row is received at 0."""
    return max(abs(stamp_ns), abs(received_ns)) <= schema.MAX_TIME and received_ns != 0


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
