"""Files and folders that are whole or not there, whatever ends the process or the power."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


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
