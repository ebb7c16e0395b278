"""Files and folders that are written whole or not at all, also across a crash or a power cut."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mobile_vla_ros.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def replaced(path: Path, mode: str = 'w') -> Iterator[IO[Any]]:
    """
    Open a new file that replaces ``path`` when the block ends, whole and synced.

    On an exception the old file stays and the new one is removed. Several processes may write the
    same path at once: the result is the whole file of one of them.

    :param mode: ``w`` for text (UTF-8) or ``wb`` for bytes.
    """
    partial = path.with_name(f'.{path.name}.{secrets.token_hex(4)}')
    # Readable for whom the umask lets read it, as any new file.
    number = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(number, mode, encoding=None if 'b' in mode else 'utf-8') as file:
            yield file
            file.flush()
            os.fsync(number)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def make_folder(out: Path) -> None:
    """Make the folder given with --out, unless it exists; raise UserError where that fails."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'{out} cannot be made', got=error.strerror, expected='a folder for --out'
        ) from error


def refuse_full(out: Path | None) -> None:
    """Raise UserError when the folder given with --out holds something already."""
    if out is not None and out.exists() and any(out.iterdir()):
        raise UserError(f'{out} is not empty', expected='a new folder for --out')


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and everything below it are on the disk."""
    for path in [*folder.rglob('*'), folder]:
        sync(path)


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception means that a disk or a quota is full."""
    if isinstance(error, OSError):
        return error.errno in DISK_FULL
    # safetensors raises its own exception, with the number in its text.
    return any(f'os error {number})' in str(error) for number in DISK_FULL)


def disk_full_error(what: str, folder: Path, needed_bytes: int) -> UserError:
    """
    Return the error for something that does not fit on a disk.

    :param folder: its destination, which need not exist.
    """
    while not folder.exists():
        folder = folder.parent
    return UserError(
        f'not enough disk space for {what}',
        got=f'{shutil.disk_usage(folder).free / 1e6:.1f} MB free in {folder}',
        expected=f'{needed_bytes / 1e6:.1f} MB',
        remedy='free some space, or give another folder; no partial file was left',
    )


def sha256(*paths: Path) -> str:
    """Return the SHA-256 of files, one after another, hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open('rb') as file:
            while block := file.read(1 << 20):  # Python 3.10 has no hashlib.file_digest
                digest.update(block)
    return digest.hexdigest()
