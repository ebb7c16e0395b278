"""
Show HDF5 a file as if its writer had closed it, without copying or writing anything.

Follows the ``HDF5 File Format Specification`` 3.0: superblock (version 3) and global heap.
"""

import io
import os
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Any

SUPERBLOCK_BYTES = 48  # version 3: flags at 11, end of file at 28, checksum at 44
SIGNATURE = b'\x89HDF\r\n\x1a\n'
SWMR_WRITING = 4  # among the flags
HEAP = b'GCOL\x01\0\0\0'
HEAP_HEAD = 16
MIN_HEAP, MAX_HEAP = 4096, 1 << 28
MAX_PATCHES = 1000  # heaps that are mended


class View(io.RawIOBase):
    """
    A read-only file as HDF5 would see it if its writer had closed it.

    In the superblock, the writer's flags are cleared and the end is the end of the file. A damaged
    heap (of texts or images) ends with its last sound object: HDF5 does not check heaps, and loops
    forever on zeros.

    ``size`` is that of the file; ``cut`` is True if its superblock states more. A reader may unset
    ``mends_heaps``.
    """

    def __init__(self, stored: io.FileIO, *, as_closed: bool) -> None:
        """
        Show an open file, which is closed with this one.

        :param as_closed: show it as closed by its writer; otherwise only its heaps are mended.
        :raises ValueError: when it does not begin like a file of the recorder; only ``as_closed``.
        """
        super().__init__()
        self._file, self._at = stored, 0
        self._handle = stored.fileno()
        self.size = os.fstat(self._handle).st_size
        self._heap_at = self._heap_end = 0
        self._patches: dict[int, bytes] = {}
        self._patched: list[int] = []
        self.cut, self.mends_heaps = False, True
        if as_closed:
            head, end = self._closed_head()
            self.cut = self.size < end
            self._patch(0, head)

    def _closed_head(self) -> tuple[bytes, int]:
        """Return the superblock of the closed file, and the end that it stated before."""
        head = os.pread(self._handle, SUPERBLOCK_BYTES, 0)
        if len(head) < SUPERBLOCK_BYTES or head[:8] != SIGNATURE or head[8:11] != b'\x03\x08\x08':
            raise ValueError('not an HDF5 file of the kind that the recorder writes')
        if lookup3(head[:44]) != int.from_bytes(head[44:], 'little'):
            raise ValueError('its first 48 bytes are damaged')
        end = int.from_bytes(head[28:36], 'little')
        head = head[:11] + b'\0' + head[12:28] + self.size.to_bytes(8, 'little') + head[36:44]
        return head + lookup3(head).to_bytes(4, 'little'), end

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def read_raw(self, at: int, count: int) -> bytes:
        """Return ``count`` unpatched bytes of the file: fewer at its end."""
        count = min(count, self.size - at)
        return os.pread(self._handle, count, at) if count > 0 else b''

    def readinto(self, buffer: Any) -> int:
        start = self._at
        count = os.preadv(self._handle, [buffer], start) if start < self.size else 0
        end = self._at = start + count
        # The inside of the last heap contains images and texts, not heaps.
        first = self._heap_end if self._heap_at < start < self._heap_end else start
        if self.mends_heaps and first < end:
            self._mend_heaps(bytes(buffer[first - start : count]), first)
        near = bisect_left(self._patched, start - SUPERBLOCK_BYTES)
        for at in self._patched[near : bisect_left(self._patched, end)]:
            patch = self._patches[at]
            first, last = max(at, start), min(at + len(patch), end)
            if first < last:
                buffer[first - start : last - start] = patch[first - at : last - at]
        return count

    def _mend_heaps(self, data: bytes, start: int) -> None:
        """Mend every heap that begins in ``data``, the bytes of the file from ``start``."""
        at = data.find(HEAP[:4])
        while at >= 0:
            self._heap_at = start + at
            self._heap_end = self._mend_heap(self._heap_at)
            at = data.find(HEAP[:4], self._heap_end - start)

    def _mend_heap(self, at: int) -> int:
        """
        Show HDF5 the sound objects of a heap, and the rest of it as free space.

        HDF5 steps from object to object by their lengths and trusts each of them: past free space
        as well, and forever where number and length are zero.

        :returns: the end of the heap; for an impossible size, which hides the heap from HDF5, the
            position a few bytes on.
        """
        size = int.from_bytes(self.read_raw(at + 8, 8), 'little')
        if not MIN_HEAP <= size <= min(self.size - at, MAX_HEAP):
            self._patch(at, bytes(4))
            return at + 4
        data, free = self.read_raw(at, size), HEAP_HEAD
        for _, (start, length) in heap_objects(lambda at, count: data[at : at + count], 0, size):
            free = start + (length + 7) // 8 * 8
        room = size - free
        known = data[free : free + 2] == bytes(2) and data[free + 8 : free + 16] == room.to_bytes(
            8, 'little'
        )
        if room >= HEAP_HEAD and not known:
            self._patch(at + free, bytes(8) + room.to_bytes(8, 'little'))
        return at + size

    def _patch(self, at: int, patch: bytes) -> None:
        if at not in self._patches:
            if len(self._patches) > MAX_PATCHES:
                raise OSError(f'more than {MAX_PATCHES} heaps are damaged')
            insort(self._patched, at)
        self._patches[at] = patch

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def heap_objects(
    read: Callable[[int, int], bytes], at: int, end: int
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield number, start and length of the sound objects of the heap from ``at`` to ``end``."""
    at += HEAP_HEAD
    while at + HEAP_HEAD <= end:
        head = read(at, HEAP_HEAD)
        number, length = int.from_bytes(head[:2], 'little'), int.from_bytes(head[8:], 'little')
        if len(head) < HEAP_HEAD or number == 0:  # free space follows
            return
        after = at + HEAP_HEAD + (length + 7) // 8 * 8
        if after > end:
            return
        yield number, (at + HEAP_HEAD, length)
        at = after


def lookup3(data: bytes) -> int:
    """Return Bob Jenkins' lookup3 hash of the bytes, HDF5's metadata checksum."""
    mask = 0xFFFFFFFF

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> (32 - bits)) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    if not data:
        return c
    blocks = [data[at : at + 12].ljust(12, b'\0') for at in range(0, len(data), 12)]
    for number, block in enumerate(blocks):
        words = [int.from_bytes(block[at : at + 4], 'little') for at in (0, 4, 8)]
        a, b, c = ((old + word) & mask for old, word in zip((a, b, c), words, strict=True))
        if number == len(blocks) - 1:
            break
        for bits in (4, 6, 8, 16, 19, 4):
            a = (a - c) & mask ^ rotate(c, bits)
            a, b, c = b, (c + b) & mask, a
    for x, bits in zip('cabcabc', (14, 11, 25, 16, 4, 14, 24), strict=True):
        if x == 'c':
            c = ((c ^ b) - rotate(b, bits)) & mask
        elif x == 'a':
            a = ((a ^ c) - rotate(c, bits)) & mask
        else:
            b = ((b ^ a) - rotate(a, bits)) & mask
    return c
