"""Files that an import does not take: why, and what to do about each."""

from pathlib import Path

LFS = b'version https://git-lfs'
BESIDE_SQLITE = ('-wal', '-shm', '-journal')
POINTER = 'a git-lfs pointer, not the file itself: run git lfs pull'


def why_not(path: Path) -> str:
    """Return why a file cannot be imported, and the remedy; '' if nothing is known."""
    try:
        with path.open('rb') as file:
            return POINTER if file.read(len(LFS)) == LFS else ''
    except OSError as error:
        return f'it cannot be read: {error.strerror}'
