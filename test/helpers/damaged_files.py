"""Episodes and other files as a crash, a full disk or a bad copy leaves them."""

from pathlib import Path

from mobile_vla_ros.episode.storage.reader import Episode
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


def break_frame(path: Path, index: int, part: str):
    """
    Overwrite a part of a frame in the middle of an episode's file.

    :param part: ``image`` for the first bytes of the image, ``block`` for HDF5's own block.
    """
    with Episode.open(path) as episode:
        encoded = episode.encoded(index)
    data = bytearray(path.read_bytes())
    assert data.count(encoded) == 1
    at = data.find(encoded) if part == 'image' else data.rfind(b'GCOL', 0, data.find(encoded))
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)


def cut_in_half(path: Path):
    """Truncate a file to its first half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
