"""Room on the disk: how much is left, for how long, and held in advance for what comes next."""

import ctypes
import errno
import os
from pathlib import Path

from mobile_vla_ros.errors import UserError

KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE of linux/falloc.h: blocks are held, the size stays
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOTTY}


class DiskFull(UserError):
    """
    No room for what was to be written; nothing of it was begun.

    :param frames: whole frames that had to be left out.
    """

    def __init__(self, folder: Path, frames: int):
        super().__init__(
            f'the disk of {folder} is full',
            got=f'{frames} frames without room',
            remedy='make room, or choose another data_dir',
        )
        self.frames = frames


def free_bytes(folder: Path | str) -> int:
    """
    Return the bytes that this user may still write below a folder, which need not exist yet.

    :raises UserError: when the file system cannot be asked.
    """
    folder = Path(folder).expanduser().absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        room = os.statvfs(folder)
    except OSError as error:
        raise UserError(
            f'the free space of {folder} is not known', got=os.strerror(error.errno)
        ) from None
    return room.f_bavail * room.f_frsize


def minutes_left(free: int, floor_bytes: int, bytes_per_s: float) -> float | None:
    """
    Return for how many minutes there is room above the floor; None while nothing is written.

    :param free: bytes that can still be written; likewise ``floor_bytes``, never to be used.
    """
    if not bytes_per_s > 0:
        return None
    return max(free - floor_bytes, 0) / bytes_per_s / 60


def reserve(handle: int, start: int, end: int) -> bool | None:
    """
    Hold the blocks of bytes ``start`` to ``end`` of an open file, without growing it.

    :returns: True when a later write there cannot fail for want of room; False when there is
        none; None when this file system cannot promise either.
    """
    if end <= start:
        return True
    while True:
        if _fallocate(handle, KEEP_SIZE, start, end - start) == 0:
            return True
        code = ctypes.get_errno()
        if code in FULL:
            return False
        if code in UNSUPPORTED:
            return None
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def release(handle: int):
    """Give back the blocks that are held beyond the end of an open file."""
    os.ftruncate(handle, os.fstat(handle).st_size)


class Room:
    """
    The blocks of a growing file, held ahead of its writer.

    Where the file system cannot hold any, what is free at the moment has to do.

    :param handle: descriptor of the file; folder: where it lies.
    """

    def __init__(self, handle: int, folder: Path):
        self._handle, self._folder = handle, folder
        self._end = 0
        self._can_hold = True

    def hold(self, size: int, more: int) -> bool:
        """Say whether a file of ``size`` bytes may grow by ``more``; hold the blocks for it."""
        if size + more <= self._end:
            return True
        held = reserve(self._handle, self._end, size + more) if self._can_hold else None
        if held is None:
            self._can_hold = False
            return free_bytes(self._folder) >= more
        if held:
            self._end = size + more
        return held

    def forget(self):
        """Take nothing for held: the file was emptied."""
        self._end = 0


def _load():
    library = ctypes.CDLL(None, use_errno=True)
    # Where off_t may be 32 bits wide, the 64-bit call has a name of its own.
    call = getattr(library, 'fallocate64', None) or library.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return call


_fallocate = _load()
