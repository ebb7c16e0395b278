"""Files and folders that are whole or not there, whatever ends the process or the power."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mobile_vla_ros.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def replaced(path: Path, mode: str = 'w') -> Iterator[IO]:
    """
    Give a new file that takes the place of ``path`` at the end, whole and synced.

    An exception leaves what was there before, and nothing else. Several processes may write the
    same path at once: each one's file is whole.

    :param mode: ``w`` for text (UTF-8) or ``wb`` for bytes.
    """
    number, partial = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
    try:
        with open(number, mode, encoding=None if 'b' in mode else 'utf-8') as file:
            yield file
            file.flush()
            os.fsync(number)
        os.chmod(partial, 0o644)  # mkstemp makes a file that only its owner reads
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file, or a folder's own list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and all below it is on the disk."""
    for path in [*folder.rglob('*'), folder]:
        sync(path)


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception says that a disk, or a user's share of it, is full."""
    if isinstance(error, OSError):
        return error.errno in FULL
    # The library that writes tensors has an exception of its own, with the number in words.
    return any(f'os error {number})' in str(error) for number in FULL)


def no_room(what: str, folder: Path, needed_bytes: int) -> UserError:
    """
    Return the sentence for something that did not fit on a disk.

    :param folder: where it was to be; it need not be there.
    """
    while not folder.exists():
        folder = folder.parent
    return UserError(
        f'the disk has no room for {what}',
        got=f'{shutil.disk_usage(folder).free / 1e6:.1f} MB free in {folder}',
        expected=f'{needed_bytes / 1e6:.1f} MB',
        remedy='free some, or give another folder; nothing was left half written',
    )
