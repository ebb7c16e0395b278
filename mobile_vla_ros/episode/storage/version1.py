"""
Version 1 of the format: still readable, no longer written.

An image was a row of variable length, which HDF5 keeps in heaps, and a row had one receipt, on a
clock that may step.
"""

import h5py
import numpy as np

from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.hdf5_gate import VlenRows
from mobile_vla_ros.episode.storage.hdf5_view import HEAP, HEAP_HEAD, View, heap_objects

VERSION = 1
IMAGES = 'frames/data'
LAYOUT: schema.Layout = {
    IMAGES: (None, h5py.vlen_dtype(np.uint8), schema.FRAME_ROWS, None),
    **{
        path: one
        for path, one in (schema.DATASETS | schema.PROPOSALS).items()
        if path.partition('/')[2] not in ('bytes', 'offset', 'size', 'steady_ns')
    },
}
RECEIPTS = (
    'frames/received_ns',
    'commands/received_ns',
    'proposals/received_ns',
    'events/time_ns',
)


def add_steady(datasets: dict[str, h5py.Dataset]) -> None:
    """Let the receipts, as they stand, be the steady ones too."""
    for path in RECEIPTS:
        if path in datasets:
            datasets[f'{path.partition("/")[0]}/steady_ns'] = datasets[path]


class Images(VlenRows):
    """Images that end with the last readable one."""

    def count_readable(self, count: int, most: int) -> int:
        """
        Count the images up to the last readable one of the first ``count``.

        A kill in the middle of a flush left rows whose bytes never reached the disk; they are
        always the last ones (seen with a kill after every single write of an episode).

        :raises OSError: when more than ``most`` are unreadable.
        """
        left = min(count, len(self))
        listed = left
        while left:
            try:
                if len(self[left - 1]):
                    break
            except (OSError, RuntimeError):
                pass
            left -= 1
            if listed - left > most:
                raise OSError(f'its last {listed - left} images cannot be read')
        return left


class TornImages:
    """Images of a damaged file, read from the bytes that are really there."""

    def __init__(self, view: View) -> None:
        self._read = view.read_raw
        self._heap_at = -1
        self._heap: dict[int, tuple[int, int]] = {}

    def image(self, reference: tuple[int, int, int]) -> bytes:
        """Return the image of a ``VLEN_REFERENCE``; b'' unless all of it is there."""
        size, heap_at, number = reference
        if heap_at != self._heap_at:
            head = self._read(heap_at, HEAP_HEAD)
            self._heap_at, self._heap = heap_at, {}
            if head[:8] == HEAP:
                end = heap_at + int.from_bytes(head[8:16], 'little')
                self._heap = dict(heap_objects(self._read, heap_at, end))
        at, stored = self._heap.get(number, (0, 0))
        data = self._read(at, size) if stored >= size else b''
        return data if len(data) == size else b''
