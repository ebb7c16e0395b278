"""Reading episodes that are whole, broken, or foreign."""

import io
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image

from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.compressed import compressed_to_rgb
from mobile_vla_ros.images.stored import decode
from small_episodes import CREATED_NS, encoded, write_episode, write_rows


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
    assert np.array_equal(image, compressed_to_rgb(message))
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


def test_an_image_that_looks_like_a_heap_is_read_as_it_was_stored(tmp_path):
    """Heaps of version 1 are mended while a file is read; bytes of an image must not be."""
    image = encoded(1) + 3 * (b'GCOL' + bytes(60))
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    writer.add_frame(image, 1, 1)
    with Episode.open(writer.close()) as episode:
        assert episode.encoded(0) == image


@pytest.mark.parametrize(
    ('offsets', 'sizes', 'words'),
    [
        ([0, 10, 20, 30], [10, 10, 10, 10], '10 10 10 10'),
        ([0, -10, 20, 30], [10, 10, 10, 10], '10 - 10 10'),
        ([0, 0, 20, 30], [10, 10, 10, 10], '10 - 10 10'),
        ([0, 10, 20, 30], [10, 0, 10, 11], '10 - 10'),
        ([0, 10, 2**62, 30], [2**31 - 1, 10, 10, 10], '- 10 - 10'),
        ([40, 40, 40, 40], [1, 1, 1, 1], ''),
        ([0, 39, 0, 39], [40, 1, 40, 1], '40'),
    ],
)
def test_an_impossible_row_costs_only_its_image(tmp_path, offsets, sizes, words):
    """Every image lies inside the stored bytes, behind the image before it; at the end none is."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    for _ in range(4):
        writer.add_frame(bytes(10), 1, 1)
    path = writer.close()
    with h5py.File(path, 'r+') as file:
        file['frames/offset'][:], file['frames/size'][:] = offsets, sizes
    found = []
    with Episode.open(path) as episode:
        for row in range(len(episode)):
            try:
                found.append(str(len(episode.encoded(row))))
            except UserError as error:
                assert f'{path} is broken at frame {row}' in str(error)
                found.append('-')
    assert ' '.join(found) == words


def test_one_image_cannot_be_listed_again_and_again(tmp_path):
    """All images together have at most the bytes that are stored, whatever lies between them."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    for _ in range(5):
        writer.add_frame(bytes(10), 1, 1)
    path = writer.close()
    with h5py.File(path, 'r+') as file:
        file['frames/offset'][:], file['frames/size'][:] = [0, 0, 5, 0, 5], [30, 1, 30, 1, 30]
    with pytest.raises(UserError, match='adds up to 90 bytes, of which 50 are stored'):
        Episode.open(path)


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
