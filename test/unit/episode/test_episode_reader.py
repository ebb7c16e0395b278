"""Reading episodes that are whole, broken, or foreign."""

import io
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image

from mobile_vla_ros.episode.storage.hdf5_view import HEAP, heap_objects
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images import messages as images
from mobile_vla_ros.images.stored import decode
from small_episodes import CREATED_NS, encoded, write_episode, write_rows

# Reads a whole episode with ranges of zeros, `AT:LENGTH` each; prints the result.
READ_WITH_ZEROS = """
import sys
from pathlib import Path
from mobile_vla_ros.episode.catalog.inspect import judge_episode
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError
whole, bad = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for case in sys.argv[3:]:
    at, length = map(int, case.split(':'))
    bad.write_bytes(whole[:at] + bytes(length) + whole[at + length:])
    print(case, end=' ', flush=True)
    try:
        with Episode.open(bad) as episode:
            good = 0
            for index in range(len(episode)):
                try:
                    good += len(episode.frame(index).image) > 0
                except UserError as error:
                    assert str(bad) in str(error), error
            print(good, flush=True)
            judge_episode(episode)
    except UserError as error:
        assert str(bad) in str(error), error
        print('refused', flush=True)
"""


def with_zeros(path, cases: list[tuple[int, int]]) -> list[str]:
    """Return how many frames are readable in an episode with zeros at each (place, length)."""
    words = [f'{at}:{length}' for at, length in cases]
    done = subprocess.run(
        [sys.executable, '-c', READ_WITH_ZEROS, path, path.with_name('zeros.h5'), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith(tuple(words))]


def heaps(content: bytes) -> list[tuple[int, list[int]]]:
    """Return the offsets of each heap of a file and of its objects."""
    found, at = [], content.find(HEAP)
    while at >= 0:
        end = at + int.from_bytes(content[at + 8 : at + 16], 'little')
        objects = heap_objects(lambda at, count: content[at : at + count], at, end)
        found.append((at, [start - 16 for _, (start, _) in objects]))
        at = content.find(HEAP, end)
    return found


def test_jpeg_and_png_are_decoded_to_rgb(tmp_path):
    """PNG exactly, JPEG nearly; grey images get three channels."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    writer.add_frame(encoded(200, 'PNG'), 1, 1)
    writer.add_frame(encoded(200, 'JPEG'), 2, 2)
    with Episode.open(writer.close()) as episode:
        assert episode.frame(0).image[5, 5].tolist() == [200, 0, 250]
        assert np.abs(episode.frame(1).image[5, 5].astype(int) - [200, 0, 250]).max() <= 4


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'I;16'])
def test_frames_are_decoded_like_camera_messages(tmp_path, mode):
    """Training and driving get equal images, also from grey, transparent and 16-bit ones."""
    deep = np.linspace(0, 65535, 12, dtype=np.uint16).reshape(3, 4)
    buffer = io.BytesIO()
    original = Image.fromarray(deep if mode == 'I;16' else (deep // 257).astype(np.uint8))
    (original if mode == 'I;16' else original.convert(mode)).save(buffer, 'PNG')
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    writer.add_frame(buffer.getvalue(), 1, 1)
    message = SimpleNamespace(data=buffer.getvalue(), format='png')
    with Episode.open(writer.close()) as episode:
        image = episode.frame(0).image
    assert np.array_equal(image, images.compressed_to_rgb(message))
    assert np.abs(image[..., 0].astype(int) - deep // 257).max() <= 1


def test_an_episode_can_be_read_while_it_is_written(tmp_path):
    """Another reader gets the flushed rows, and the writer continues undisturbed."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    write_rows(writer, 5)
    writer.flush()
    with Episode.open(writer.part_path) as episode:
        write_rows(writer, 5, first=5)
        writer.flush()
        assert len(episode) == 5 and episode.frame(4).image[0, 0, 0] == 4
        assert episode.health is None and not episode.complete
    with Episode.open(writer.close()) as episode:
        assert len(episode) == 10


def test_broken_files_are_named(tmp_path):
    """Missing, empty, not HDF5, truncated, another layout, a later version."""
    whole = write_episode(tmp_path / 'whole')
    cases = {
        'missing.h5': None,
        'empty.h5': b'',
        'text.h5': b'not HDF5' * 100,
        'cut.h5': whole.read_bytes()[:2000],
    }
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            Episode.open(tmp_path / name)
    with h5py.File(tmp_path / 'foreign.h5', 'w') as file:
        file['images'] = np.zeros(3)
    with pytest.raises(UserError, match=r'foreign.h5 is not an episode'):
        Episode.open(tmp_path / 'foreign.h5')
    with h5py.File(whole, 'r+') as file:
        file.attrs['version'] = 99
    with pytest.raises(UserError, match='unsupported version; got 99'):
        Episode.open(whole)


def test_a_broken_frame_is_named_and_the_others_are_readable(tmp_path):
    """A frame that is no image is named only when it is read."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    writer.add_frame(encoded(1), 1, 1)
    writer.add_frame(b'no image', 2, 2)
    with Episode.open(writer.close()) as episode:
        assert episode.frame(0).image[0, 0, 0] == 1
        with pytest.raises(UserError, match=rf'{episode.path} is broken at frame 1'):
            episode.frame(1)
        with pytest.raises(IndexError):
            episode.frame(2)


def test_finding_episodes(tmp_path):
    """Finished episodes are found in order; an empty or missing folder is refused."""
    with pytest.raises(UserError, match='no folder of episodes'):
        find_episodes(tmp_path / 'nowhere')
    with pytest.raises(UserError, match=r'holds no episode; got no \.h5 file'):
        find_episodes(tmp_path)
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    with pytest.raises(UserError, match='1 unfinished episode'):
        find_episodes(tmp_path)
    path = write_episode(tmp_path)
    assert find_episodes(tmp_path) == [path]
    writer.discard()


@pytest.mark.parametrize(
    ('offset', 'length'), [(0, 16), (0, 2), (0, 8), (8, 8), (-40, 100), (0, 512)]
)
def test_zeros_in_a_heap_never_hang(tmp_path, offset, length):
    """
    With the zeros of a power cut, HDF5 would step from object to object by zero, forever.

    At every heap of a finished episode: at its third object and at its last. Frames before are
    read, the rest is named.
    """
    path = write_episode(tmp_path, 30)
    places = [
        objects[index]
        for _, objects in heaps(path.read_bytes())
        for index in (2, -1)
        if len(objects) > 2
    ]
    assert len(places) >= 4
    found = with_zeros(path, [(place + offset, length) for place in places])
    assert len(found) == len(places), found
    assert all(words == 'refused' or int(words) < 30 for words in found[2:])
    assert any(words != 'refused' and int(words) > 5 for words in found)


def test_a_heap_with_a_zero_header_costs_only_its_frames(tmp_path):
    """A heap without signature or length is named at each of its frames."""
    path = write_episode(tmp_path, 30)
    at, objects = heaps(path.read_bytes())[-1]
    assert with_zeros(path, [(at, 16), (at + 8, 8), (at, 4), (at + 9, 4)]) == 4 * [
        str(30 - len(objects))
    ]


def test_a_broken_verdict_names_the_file(tmp_path):
    """A verdict that is half zeros gives a sentence, not a traceback of the JSON reader."""
    path = write_episode(tmp_path)
    content = path.read_bytes()
    at = content.index(b'"verdict"')
    path.write_bytes(content[:at] + bytes(40) + content[at + 40 :])
    with Episode.open(path) as episode, pytest.raises(UserError, match=f'{path} is broken at'):
        _ = episode.health


def test_a_frame_for_a_network_is_decoded_as_in_training(tmp_path):
    """With the network's size a large JPEG is reduced, without it it is whole."""
    stored = encoded(9, 'JPEG', (1280, 720))
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    writer.add_frame(stored, 1, 1)
    with Episode.open(writer.close()) as episode:
        assert episode.frame(0).image.shape == (720, 1280, 3)
        assert np.array_equal(episode.frame(0, 224).image, decode(stored, 224))
        assert episode.frame(0, 224).image.shape == (360, 640, 3)
