"""The HDF5 file of an episode while it is written: its names, its lock and its reserved space."""

import contextlib
import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mobile_vla_ros import file_lock
from mobile_vla_ros.episode.storage import disk, schema
from mobile_vla_ros.episode.storage.byte_rows import read_rows
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import replaced, sync

# Reserved beyond the pending rows, so that an episode on a full disk can still be closed.
MARGIN_BYTES = 512 * 1024


class PartFile:
    """
    One open episode file, from its hidden name to its final one.

    The file is called ``<episode_id>.h5.part`` from the moment it is readable until ``finish``
    renames it to ``.h5``. A kill at any write leaves one of: only a hidden ``.new`` file (before
    the first row), a readable ``.part``, or the whole ``.h5``. While this object is open it holds
    the lock of its file (``recovery.is_written``).
    """

    def __init__(
        self,
        folder: Path,
        info: schema.EpisodeInfo,
        created_ns: int,
        *,
        episode_id: str,
        hidden: bool,
        optional: Mapping[str, bool],
    ) -> None:
        """
        Create the folder if it is missing, and the file in it.

        :param hidden: keep the hidden name until ``finish``; optional: see ``schema.lay_out``.
        :raises UserError: when the folder cannot be created or written.
        """
        nascent = folder / schema.hidden_name(episode_id)
        self.episode_id = episode_id
        self.path = nascent if hidden else folder / f'{episode_id}{schema.PART_SUFFIX}'
        self.final_path = folder / f'{episode_id}{schema.SUFFIX}'
        self._handle: int | None = None
        self._file: h5py.File | None = None
        self._tails = dict.fromkeys(schema.BYTES, b'')  # what the last chunk of each holds
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(
                nascent, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
            )
            file_lock.hold(self._handle)
            self._reservation = disk.Reservation(self._handle, folder)
            self._reserve_margin()
            self._file = h5py.File(nascent, 'w', libver='latest')
            self._reservation.reset()
            self._reserve_margin()
            self._data: dict[str, h5py.Dataset] = schema.lay_out(
                self._file, info, episode_id, created_ns, optional
            )
            # Renamed only now: a .part that exists can be read through SWMR.
            os.rename(nascent, self.path)
        except OSError as error:
            if self._handle is not None:
                self.abandon()
                nascent.unlink(missing_ok=True)
            raise UserError(
                f'cannot write episodes to {folder}',
                got=disk.error_text(error),
                expected='a folder that this user may write',
                remedy='choose another: parameter data_dir of the recorder',
            ) from None

    def reserve(self, more: int) -> bool:
        """Reserve ``more`` bytes beyond the current size; False without room."""
        return self._reservation.grow(self._open_file.id.get_filesize(), more)

    def append(self, path: str, rows: Sequence[Any] | np.ndarray) -> None:
        """Append rows to a dataset."""
        dataset = self._data[path]
        old = len(dataset)
        dataset.resize(old + len(rows), axis=0)
        dataset[old:] = np.asarray(rows, dtype=dataset.dtype)

    def append_bytes(self, path: str, pieces: Sequence[bytes]) -> np.ndarray:
        """
        Append to one of ``schema.BYTES``, in whole chunks: HDF5's own way costs a third more CPU.

        :returns: (N,) int64 first byte of each piece.
        """
        dataset, size, tail = self._data[path], schema.IMAGE_CHUNK_BYTES, self._tails[path]
        data, first = b''.join([tail, *pieces]), len(dataset) - len(tail)
        sizes = np.array([len(piece) for piece in pieces], np.int64)
        starts: np.ndarray = len(dataset) + np.cumsum(sizes) - sizes
        dataset.resize(first + len(data), axis=0)
        whole = len(data) // size * size
        for at in range(0, whole, size):
            dataset.id.write_direct_chunk((first + at,), memoryview(data)[at : at + size])
        self._tails[path] = tail = data[whole:]
        if tail:
            dataset.id.write_direct_chunk((first + whole,), tail.ljust(size, b'\0'))
        return starts

    def flush(self) -> None:
        """Hand what was written to the operating system."""
        self._open_file.flush()

    def column(self, path: str) -> np.ndarray:
        """Return a whole dataset."""
        return np.asarray(self._data[path][:])

    def image(self, row: int) -> bytes:
        """Return the encoded image of a row."""
        first, size = (int(self._data[f'frames/{name}'][row]) for name in ('offset', 'size'))
        return bytes(self._data[schema.IMAGE_BYTES][first : first + size].tobytes())

    def messages(self, rows: np.ndarray) -> list[bytes]:
        """Return the messages of these rows."""
        first = self.column('messages/offset')[rows]
        end = first + self.column('messages/size')[rows]
        return [*read_rows(self._data[schema.MESSAGE_BYTES], first, end)]

    def set_text(self, name: str, text: str) -> None:
        """Rewrite one of ``schema.LATE_TEXT_BYTES``."""
        value = schema.fixed_text(text, schema.LATE_TEXT_BYTES[name])
        self._open_file.attrs.modify(name, value)

    def set_flag(self, name: str) -> None:
        """Set one of ``schema.LATE_FLAGS``."""
        self._open_file.attrs.modify(name, True)

    def finish(self) -> Path:
        """
        Close the file, make it durable and give it its final name, which is returned.

        :raises UserError: when a file of that name exists; the episode keeps its ``.part``.
        """
        file, handle = self._open_file, self._handle
        assert handle is not None, 'an open file has its handle'
        file.flush()
        file.close()
        self._file = None
        disk.release(handle)
        os.fsync(handle)
        try:
            if self.final_path.exists():
                raise UserError(
                    f'{self.final_path} already exists and is not overwritten',
                    remedy=f'the episode is whole in {self.path}: rename it',
                )
            os.rename(self.path, self.final_path)
            sync(self.final_path.parent)
        finally:
            self._unlock()
        return self.final_path

    def abandon(self) -> None:
        """Close the file as it is, after an error: the ``.part`` stays, to be recovered."""
        with contextlib.suppress(OSError, RuntimeError):
            # HDF5 may be unable to write its last blocks; flushed rows are on the disk.
            if self._file is not None:
                self._file.close()
        self._file = None
        self._unlock()

    @property
    def _open_file(self) -> h5py.File:
        assert self._file is not None, 'the episode is closed'
        return self._file

    def _reserve_margin(self) -> None:
        if not self._reservation.grow(0, MARGIN_BYTES):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _unlock(self) -> None:
        """Release the reserved blocks, then the lock."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                disk.release(self._handle)
            os.close(self._handle)
            self._handle = None


def rewrite_text(path: Path, name: str, text: str) -> None:
    """Rewrite an attribute of a finished episode, in a copy that replaces it."""
    with path.open('rb') as old, replaced(path, 'w+b') as new:
        shutil.copyfileobj(old, new)
        new.flush()
        with h5py.File(new, 'r+', libver='latest') as file:
            size = max(len(text.encode()), 1)
            kind = h5py.string_dtype('utf-8', size)
            file.attrs.create(name, schema.fixed_text(text, size), dtype=kind)
