"""Episodes and other files as a crash, a full disk or a bad copy leaves them."""

from pathlib import Path

import h5py

from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from small_episodes import CREATED_NS, write_rows


def write_part(folder: Path, frames: int = 20) -> Path:
    """Write the file of a recorder that died: flushed, never closed, locked by nobody."""
    writer = EpisodeWriter(folder, EpisodeInfo('go to the red box', operator='ada'), CREATED_NS)
    writer.add_event('start', 1)
    write_rows(writer, frames)
    return orphan(writer)


def orphan(writer: EpisodeWriter) -> Path:
    """Leave a writer's file as if its process had died; return its path."""
    writer.flush()
    content = writer.part_path.read_bytes()
    writer.discard()
    writer.part_path.write_bytes(content)
    return writer.part_path


def break_frame(path: Path, index: int, part: str = 'image'):
    """
    Overwrite a part of a frame in the middle of an episode's file.

    :param part: ``image`` for the first bytes of the image, ``row`` for its row of the offsets.
    """
    with h5py.File(path) as file:
        row = index % len(file['frames/offset'])
        first = int(file['frames/offset'][row]) if part == 'image' else 8 * row
        dataset = file['frames/bytes' if part == 'image' else 'frames/offset']
        rows = dataset.chunks[0]
        item = dataset.dtype.itemsize
        chunk = dataset.id.get_chunk_info_by_coord((first // item // rows * rows,))
    with path.open('r+b') as file:
        file.seek(chunk.byte_offset + first % (rows * item))
        file.write(bytes(8))


def cut_in_half(path: Path):
    """Truncate a file to its first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
