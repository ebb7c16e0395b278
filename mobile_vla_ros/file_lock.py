"""
Locks of files and folders that end with their handle, and so with their process.

``claim`` keeps other processes out of a file or a folder (``flock``). ``hold`` and ``is_held``
distinguish an episode that is still written from one whose writer has died, by Linux's "open file
description" lock, which survives a rename and does not meet the ``flock`` of HDF5.
"""

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import IO

FLOCK = 'hhqqi4x'  # struct flock of Linux: type, whence, start, length, pid
WHOLE_FILE = (os.SEEK_SET, 0, 0, 0)


def claim(handle: int | IO) -> None:
    """
    Keep others out of an open file or folder for as long as the handle lives.

    :raises BlockingIOError: when another handle has it.
    :raises OSError: where the file system knows no locks.
    """
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def hold(handle: int) -> bool:
    """
    Hold the write lock of an open file for as long as the handle lives.

    :param handle: a descriptor open for writing.
    :returns: False if another handle holds it, or the file system has no locks.
    """
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_WRLCK, *WHOLE_FILE))
    except OSError:
        return False
    return True


def is_held(path: Path | str) -> bool:
    """
    Whether any process holds the write lock of a file.

    True on a file system without locks: a file in use must never count as abandoned.

    :raises OSError: when there is no such file, or it cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would wait for a writer
    try:
        query = struct.pack(FLOCK, fcntl.F_WRLCK, *WHOLE_FILE)
        found = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, query)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EBADF):
            raise
        return True
    finally:
        os.close(handle)
    return bool(struct.unpack(FLOCK, found)[0] != fcntl.F_UNLCK)
