"""Disk space: measure what is free, and reserve blocks ahead of a writer."""

import ctypes
import errno
import os
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from mobile_vla_ros.errors import UserError

KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of linux/falloc.h: reserve blocks, keep the size
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOTTY}
DISK_FULL = 'the disk is full'  # why something is lost


class DiskFull(UserError):
    """
    The disk has no room for a write, which was not started.

    :param lost: rows that were dropped whole, by kind (``schema.loss``).
    """

    def __init__(self, folder: Path, lost: Counter[str]) -> None:
        super().__init__(
            f'the disk of {folder} is full',
            got=f'{", ".join(f"{count} {of}" for of, count in lost.items())} without room',
            remedy='make room, or choose another data_dir',
        )
        self.lost = lost


def free_bytes(folder: Path | str) -> int:
    """
    Return the bytes that this user may still write below a folder, which need not exist yet.

    :raises UserError: when the file system does not report them.
    """
    folder = Path(folder).expanduser().absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        room = os.statvfs(folder)
    except OSError as error:
        raise UserError(f'the free space of {folder} is unknown', got=error_text(error)) from None
    return room.f_bavail * room.f_frsize


def minutes_left(free: int, floor_bytes: int, bytes_per_s: float) -> float | None:
    """
    Return the minutes until the disk reaches the floor; None while nothing is written.

    :param free: bytes that can still be written.
    :param floor_bytes: bytes to leave free.
    """
    if not bytes_per_s > 0:
        return None
    return max(free - floor_bytes, 0) / bytes_per_s / 60


def reserve(handle: int, start: int, end: int) -> bool | None:
    """
    Reserve the blocks of bytes ``start`` to ``end`` of an open file, without growing it.

    :returns: True if a later write there cannot run out of space; False if there is none; None if
        this file system cannot reserve blocks.
    """
    if end <= start:
        return True
    while True:
        if _fallocate()(handle, KEEP_SIZE, start, end - start) == 0:
            return True
        code = ctypes.get_errno()
        if code in FULL:
            return False
        if code in UNSUPPORTED:
            return None
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def release(handle: int) -> None:
    """Release the blocks that are reserved beyond the end of an open file."""
    os.ftruncate(handle, os.fstat(handle).st_size)


class Reservation:
    """
    Blocks of a growing file, reserved ahead of its writer.

    On a file system that cannot reserve blocks, the current free space decides instead.

    :param handle: descriptor of the file; folder: its folder.
    """

    def __init__(self, handle: int, folder: Path) -> None:
        self._handle, self._folder = handle, folder
        self._end = 0
        self._can_reserve = True

    def grow(self, size: int, more: int) -> bool:
        """Reserve blocks for a file of ``size`` bytes to grow by ``more``; False without room."""
        if size + more <= self._end:
            return True
        reserved = reserve(self._handle, self._end, size + more) if self._can_reserve else None
        if reserved is None:
            self._can_reserve = False
            return free_bytes(self._folder) >= more
        if reserved:
            self._end = size + more
        return reserved

    def reset(self) -> None:
        """Forget the reservation: truncating the file released it."""
        self._end = 0


def error_text(error: OSError) -> str:
    """Return the system's text for an error, without file names."""
    return os.strerror(error.errno) if error.errno else str(error)


@cache
def _fallocate() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    # Where off_t may be 32 bits wide, the 64-bit call has its own name.
    call = getattr(library, 'fallocate64', None) or library.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return call
