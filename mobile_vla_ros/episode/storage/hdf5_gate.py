"""
The gate: the one place that opens a file of HDF5 for reading.

A file may come from a stranger. Before anything is read from it, the gate walks its objects and
refuses what would read other files (links that are not hard, external storage, virtual datasets),
what would need more memory or time than the file's own bytes justify (rows without bytes, chunks
and images of any size, filters other than gzip's), and what is too much to walk. Which types and
shapes an episode has is checked by ``schema``.
"""

import contextlib
import errno
import math
import os
import stat
import zlib
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mobile_vla_ros import file_lock
from mobile_vla_ros.episode.storage.hdf5_view import (
    SIGNATURE,
    SUPERBLOCK_BYTES,
    SWMR_WRITING,
    View,
)

# Exceptions that a foreign or malformed HDF5 file may raise while being read.
MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

MAX_OBJECTS = 1000
MAX_NAMES = 100_000  # in a group whose names alone are read
MAX_ATTRIBUTES = 1000
MAX_VALUES = 1000  # in one attribute
MAX_TEXT = 1 << 20  # characters
MAX_ROWS = 1 << 22  # 11 hours at 100 a second
MAX_CHUNK_BYTES = 1 << 26
MAX_IMAGE_BYTES = 1 << 27  # as it is encoded
SLACK_BYTES = 1 << 20  # rows that a killed writer listed and did not store yet
DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
MAX_RATIO = 1032  # of deflate, by its format
VLEN_REFERENCE = np.dtype([('bytes', '<u4'), ('heap', '<u8'), ('number', '<u4')])

SIMPLE_CLASSES = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)
MAX_NUMBER_BYTES = 8


class Refused(ValueError):
    """A file of HDF5 that is not opened; its text is a clause without the file's name."""


@dataclass(frozen=True)
class Hdf5File:
    """
    A file that passed the gate; use it as a context manager.

    :param datasets: those that were asked for and are there, by path.
    :param attributes: of the file or the group asked for: numbers, flags, texts and short lists
        of them; None for any other value.
    :param view: through which it is read, None while it is still written.
    """

    file: h5py.File
    view: View | None
    datasets: dict[str, h5py.Dataset]
    attributes: dict[str, Any]

    def __enter__(self) -> 'Hdf5File':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        _close(self.file, self.view)


def open_regular(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """
    Open a regular file without waiting; return its descriptor.

    :raises OSError: when there is none, or it is a FIFO, a device, a folder.
    """
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, 'not a regular file')
    return handle


def open_file(
    path: Path, wanted: Container[str], *, torn: bool = False, group: str = ''
) -> Hdf5File:
    """
    Open a file of HDF5 for reading.

    :param wanted: paths of the datasets to return; others are only checked for other files.
    :param torn: read it as a file of the recorder, and leave out what cannot be read of it.
    :param group: path of a group to read as if it were the whole file; nothing else is looked at.
    :raises Refused: when the file may not be read; otherwise one of ``MALFORMED``.
    """
    file, view = _open(path, torn)
    try:
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise Refused('its addresses do not have 8 bytes')
        root = _group(file, group)
        datasets = _datasets(root, wanted, torn)
        return Hdf5File(file, view, datasets, _attributes(root, torn))
    except BaseException:
        _close(file, view)
        raise


def names_in(path: Path, group: str) -> list[str]:
    """
    Return the names in a group of a file, none if there is no such group.

    :raises Refused: when the file may not be read; otherwise one of ``MALFORMED``.
    """
    file, view = _open(path, False)
    try:
        links = _links(_group(file, group), f'{group}/', False, MAX_NAMES)
    except KeyError:
        return []
    finally:
        _close(file, view)
    if len(links) > MAX_NAMES:
        raise Refused(f'more than {MAX_NAMES} objects in {group}')
    return [name.decode(errors='replace') for name, _ in links]


def _group(file: h5py.File, path: str) -> h5py.h5g.GroupID:
    """Return a group; raise KeyError if there is none of that path."""
    found = h5py.h5g.open(file.id, b'/')
    for name in filter(None, path.encode().split(b'/')):
        if not found.links.exists(name):
            raise KeyError(f'no group {path}')
        if found.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            raise Refused(f'{path} is a link to another place or file')
        found = h5py.h5o.open(found, name)
        if not isinstance(found, h5py.h5g.GroupID):
            raise KeyError(f'no group {path}')
    return found


def _open(path: Path, torn: bool) -> tuple[h5py.File, View | None]:
    """
    Open a file through a ``View``, or as a SWMR reader while it is still being written.

    A plain open would not do: HDF5 loops forever on blocks of zeros, which a power cut or a bad
    disk leaves, and a SWMR reader waits for missing blocks in the hope of a writer.
    """
    stored = os.fdopen(open_regular(path), 'rb', buffering=0)
    try:
        head = os.pread(stored.fileno(), SUPERBLOCK_BYTES, 0)
        ours = len(head) == SUPERBLOCK_BYTES and head[:9] == SIGNATURE + b'\x03'
        writing = ours and bool(head[11] & SWMR_WRITING)
        if ours and not torn and (writing or not head[11]):
            size, end = os.fstat(stored.fileno()).st_size, int.from_bytes(head[28:36], 'little')
            if size < end:
                raise OSError(f'cut short: {size} bytes of {end}')
            if writing and file_lock.is_held(path):
                stored.close()
                return h5py.File(path, 'r', libver='latest', swmr=True), None
        # Of other superblocks, and of flags that are no recorder's, HDF5 reports the defects.
        closed = torn or (ours and (writing or not head[11]))
        view = View(stored, as_closed=closed)
    except BaseException:
        stored.close()
        raise
    try:
        return h5py.File(view, 'r'), view
    except BaseException:
        view.close()
        raise


def _close(*opened: h5py.File | View | None) -> None:
    for one in opened:
        if one is not None:
            one.close()


def _datasets(
    root: h5py.h5g.GroupID, wanted: Container[str], torn: bool
) -> dict[str, h5py.Dataset]:
    """Walk every object of a file; return the datasets that are wanted, by path."""
    found: dict[str, h5py.Dataset] = {}
    groups, seen, count = [('', root)], set(), 0
    while groups:
        place, group = groups.pop()
        for name, address in _links(group, place, torn):
            count += 1
            if count > MAX_OBJECTS:
                raise Refused(f'more than {MAX_OBJECTS} objects')
            path = place + name.decode(errors='replace')
            try:
                opened = h5py.h5o.open(group, name)
                if isinstance(opened, h5py.h5d.DatasetID):
                    made = opened.get_create_plist()
                    _check_place(path, made)
                    if path in wanted:
                        _check_size(path, opened, made, torn)
                        found[path] = h5py.Dataset(opened, readonly=True)
            except Refused:
                raise
            except MALFORMED:
                if torn:
                    continue
                raise
            if isinstance(opened, h5py.h5g.GroupID) and address not in seen:
                seen.add(address)
                groups.append((f'{path}/', opened))
    return found


def _links(
    group: h5py.h5g.GroupID, place: str, torn: bool, most: int = MAX_OBJECTS
) -> list[tuple[bytes, int]]:
    """Return names and addresses of what a group holds; refuse every link that is not hard."""
    links: list[tuple[bytes, int, int]] = []

    def note(name: bytes, info: Any) -> bool:
        links.append((name, info.type, info.u))
        return len(links) > most

    try:
        group.links.iterate(note, info=True)
    except MALFORMED:
        if not torn:
            raise
    for name, kind, _ in links:
        if kind != h5py.h5l.TYPE_HARD:
            path = place + name.decode(errors='replace')
            raise Refused(f'{path} is a link to another place or file')
    return [(name, address) for name, _, address in links]


def _check_place(path: str, made: h5py.h5p.PropDCID) -> None:
    """Refuse a dataset whose rows are in other files."""
    if made.get_layout() == h5py.h5d.VIRTUAL:
        raise Refused(f'{path} shows rows of other files (a virtual dataset)')
    if made.get_external_count():
        raise Refused(f'{path} keeps its rows in another file (external storage)')


def _check_size(
    path: str, dataset: h5py.h5d.DatasetID, made: h5py.h5p.PropDCID, torn: bool
) -> None:
    """Refuse filters that are not known, and rows that the stored bytes cannot hold."""
    space = dataset.get_space()
    filters = [made.get_filter(index)[0] for index in range(made.get_nfilters())]
    if len(set(filters)) < len(filters) or not {DEFLATE, SHUFFLE, FLETCHER32}.issuperset(filters):
        raise Refused(f'{path} passes filters other than gzip, shuffle and fletcher32')
    if space.get_simple_extent_type() == h5py.h5s.NULL:
        return
    shape, item = space.get_simple_extent_dims(), dataset.get_type().get_size()
    rows = shape[0] if shape else 1
    bare = len(shape) == 1 and item == 1 and not filters  # bytes, limited by what is stored
    if rows > MAX_ROWS and not bare:
        raise Refused(f'{path} lists {rows} rows, more than {MAX_ROWS}')
    chunked = made.get_layout() == h5py.h5d.CHUNKED
    piece = math.prod(made.get_chunk() if chunked else shape[1:]) * item
    if piece > MAX_CHUNK_BYTES:
        raise Refused(f'{path} has chunks of {piece} bytes, more than {MAX_CHUNK_BYTES}')
    if torn:
        return  # its index may be torn as well; only chunks that are there are read
    listed, stored = math.prod(shape) * item, dataset.get_storage_size()
    room = stored * (MAX_RATIO if DEFLATE in filters else 1) + (SLACK_BYTES if chunked else 0)
    if listed > room:
        raise Refused(f'{path} lists {rows} rows, of which {stored} bytes are stored')


def _attributes(root: h5py.h5g.GroupID, torn: bool) -> dict[str, Any]:
    """Read the attributes of a file."""
    found: dict[str, Any] = {}
    count = h5py.h5a.get_num_attrs(root)
    if count > MAX_ATTRIBUTES:
        raise Refused(f'more than {MAX_ATTRIBUTES} attributes')
    for index in range(count):
        try:
            stored = h5py.h5a.open(root, index=index)
            name = stored.name.decode()
            found[name] = _plain(name, _simple_value(stored))
        except MALFORMED:
            if not torn:
                raise
    return found


def _simple_value(stored: h5py.h5a.AttrID) -> np.ndarray | None:
    """Read an attribute that is a number, a flag, a text or a short list; None for any other."""
    kind, space = stored.get_type(), stored.get_space()
    group = kind.get_class()
    if group not in SIMPLE_CLASSES or space.get_simple_extent_type() == h5py.h5s.NULL:
        return None
    large = group != h5py.h5t.STRING and kind.get_size() > MAX_NUMBER_BYTES
    shape = space.get_simple_extent_dims()
    if large or math.prod(shape) > MAX_VALUES:
        return None
    dtype = stored.dtype
    if group == h5py.h5t.ENUM and dtype.kind != 'b':
        return None
    value = np.zeros(shape, dtype)
    stored.read(value)
    return value


def _plain(name: str, value: Any) -> Any:
    """Return an attribute as Python's own value; refuse a text that is not UTF-8, or too long."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(name, one) for one in value]
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise Refused(f'attribute {name} has {len(value)} characters, more than {MAX_TEXT}')
    return value


class VlenRows:
    """
    Rows of variable length, each read only after a look at its length.

    HDF5 fetches as much memory as a row claims, up to 4 GB, before it looks at what is stored.

    :param dataset: (N,) in chunks or in one piece, or () for one row; passed the gate.
    :param max_bytes: of a row.
    :param view: of its file, for rows in one piece.
    """

    def __init__(
        self, dataset: h5py.Dataset, max_bytes: int = MAX_IMAGE_BYTES, view: View | None = None
    ) -> None:
        self._dataset, self._max_bytes, self._view = dataset, max_bytes, view
        self._rows = dataset.chunks[0] if dataset.chunks else MAX_ROWS
        self._first = -1
        self._lengths = np.empty(0, '<u4')

    def __len__(self) -> int:
        return int(self._dataset.shape[0]) if self._dataset.shape else 1

    def __getitem__(self, row: int) -> Any:
        """
        Return one row.

        :raises OSError: when it is not stored, or its length is impossible.
        """
        first = row // self._rows * self._rows
        if first != self._first:
            self._lengths, self._first = self._read_lengths(first), first
        if row - first >= len(self._lengths) or self._lengths[row - first] > self._max_bytes:
            raise OSError(f'row {row} of {self._dataset.name} has an impossible length')
        return self._dataset[row if self._dataset.shape else ()]

    def _read_lengths(self, first: int) -> np.ndarray:
        """Return the lengths of the rows that are stored with row ``first``, bytes."""
        if self._dataset.chunks:
            try:
                _, data = self._dataset.id.read_direct_chunk((first,))
            except MALFORMED:  # a chunk that is not stored is a MemoryError of h5py
                raise OSError(f'row {first} of {self._dataset.name} is not stored') from None
            data = _unfiltered(self._dataset, data)
        else:
            place, count = self._dataset.id.get_offset(), len(self) * VLEN_REFERENCE.itemsize
            data = self._view.read_raw(place, count) if self._view and place is not None else b''
        whole = len(data) // VLEN_REFERENCE.itemsize * VLEN_REFERENCE.itemsize
        return np.frombuffer(data[:whole], VLEN_REFERENCE)['bytes']


def _unfiltered(dataset: h5py.Dataset, data: bytes) -> bytes:
    """Return the bytes of a chunk as they were before their filters."""
    made = dataset.id.get_create_plist()
    for index in reversed(range(made.get_nfilters())):
        number = made.get_filter(index)[0]
        if number == FLETCHER32:
            data = data[:-4]
        elif number == DEFLATE:
            with contextlib.suppress(zlib.error):
                data = zlib.decompressobj().decompress(data, MAX_CHUNK_BYTES)
        elif number == SHUFFLE:
            data = np.frombuffer(data, 'u1').reshape(VLEN_REFERENCE.itemsize, -1).T.tobytes()
    return data
