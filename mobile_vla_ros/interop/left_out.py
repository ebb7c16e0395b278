"""What an import does not take: which files and folders, why, and what to do about each."""

import os
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path

METADATA = 'metadata.yaml'
LFS = b'version https://git-lfs'
BESIDE_SQLITE = ('-wal', '-shm', '-journal')
ROS_1 = 'a ROS 1 bag: convert it with rosbags-convert --src FILE.bag --dst FOLDER'
COMPRESSED = 'compressed as a whole: decompress it with zstd -d'
TUB = 'a donkeycar tub, which has no times and other units: drive again and record with ROS'
LEROBOT = 'a LeRobot data set, which is not read: import the recordings that it was made from'
POINTER = 'a git-lfs pointer, not the file itself: run git lfs pull'


def why_not(path: Path) -> str:
    """Return why a file or folder cannot be imported, and the remedy; '' if nothing is known."""
    if path.is_dir():
        if (path / 'meta' / 'info.json').is_file():
            return LEROBOT
        if (path / 'manifest.json').is_file() and any(path.glob('*.catalog')):
            return TUB
        return ''
    if path.suffix == '.bag':
        return ROS_1
    if path.suffix == '.zstd':
        return COMPRESSED
    try:
        with path.open('rb') as file:
            return POINTER if file.read(len(LFS)) == LFS else ''
    except OSError as error:
        return f'it cannot be read: {error.strerror}'


def left_out(folder: Path, out: Path, suffixes: Container[str]) -> Iterator[tuple[Path, str]]:
    """
    Yield each file and folder below a folder that is not imported, with the reason.

    Files of no known kind are named together, by folder and suffix; hidden ones, and those of a
    bag or of ``out``, are not named.

    :param suffixes: of the files that are taken.
    """
    for top, folders, files in os.walk(folder):
        here = Path(top)
        if METADATA in files or here == out:
            folders.clear()
            continue
        reason = why_not(here)
        if reason:
            yield here, reason
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        others: Counter[str] = Counter()
        for name in sorted(files):
            path = here / name
            if name.startswith('.') or name.endswith(BESIDE_SQLITE) or path.suffix in suffixes:
                continue
            reason = why_not(path) if path.is_file() else 'not a regular file'
            if reason:
                yield path, reason
            else:
                others[path.suffix] += 1
        for suffix, count in others.items():
            yield (
                here / f'*{suffix}',
                f'{count} {"file" if count == 1 else "files"} of another kind',
            )
