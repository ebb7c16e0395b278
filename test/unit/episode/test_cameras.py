"""A second camera of an episode, kept as messages of compressed images: read by its name."""

import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest

import small_episodes
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.cameras import NoSuchCamera, chosen_camera
from mobile_vla_ros.episode.catalog.inspect import judge_episode, judged
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.images.stored import decode
from mobile_vla_ros.report.builders.episode_view import read_view
from small_episodes import CREATED_NS, PERIOD_NS, START_NS, WRIST, compressed, write_rows

MAIN = '/camera/image_raw'
NAMES = [MAIN, '/wrist/image_raw', '/left/image_raw', '/left_arm/image_raw']


def write(
    folder: Path, frames: int = 40, images=None, topic: str = MAIN, count: int | None = None
) -> Path:
    """
    Write frames at 10 Hz, and images of a wrist camera at 20 Hz, from half a second on.

    :param count: images of the wrist camera; None: until the end.
    """
    writer = EpisodeWriter(folder, EpisodeInfo('go', image_topic=topic), CREATED_NS, messages=True)
    write_rows(writer, frames)
    for row in range(2 * frames - 10 if count is None else count):
        at_ns = START_NS + 5 * PERIOD_NS + row * PERIOD_NS // 2
        image = small_episodes.encoded(100 + row) if images is None else images(row)
        writer.add_message(WRIST, compressed(image), at_ns, at_ns + 7, at_ns + 9)
    return writer.close('success')


@pytest.fixture
def path(tmp_path) -> Path:
    """Four seconds with two cameras."""
    return write(tmp_path)


@pytest.mark.parametrize('name', ['wrist', 'rist/im', '/wrist/image_raw/compressed'])
def test_an_episode_is_read_by_another_camera(path, name):
    """Its images and times are the frames; the commands stay."""
    with Episode.open(path) as episode:
        assert [*episode.cameras] == [MAIN, '/wrist/image_raw'] and episode.camera == MAIN
        assert episode.encoded(3) == small_episodes.encoded(3) and len(episode) == 40
        commands = episode.commands
    with Episode.open(path, camera=name) as episode:
        assert episode.camera == '/wrist/image_raw' and len(episode) == 70
        assert [episode.encoded(row) for row in range(70)] == [
            small_episodes.encoded(100 + row) for row in range(70)
        ]
        assert episode.frame(1).image[0, 0, 0] == 101
        at_ns = START_NS + 5 * PERIOD_NS + np.arange(70) * PERIOD_NS // 2
        assert (episode.frame_stamp_ns == at_ns).all()
        assert (episode.frame_received_ns == at_ns + 7).all()
        assert (episode.frame_steady_ns == at_ns + 9).all()
        assert (episode.commands.twist == commands.twist).all()
    with Episode.open(path, camera=MAIN) as episode:
        assert episode.by_main_camera and len(episode) == 40


def test_view_and_csv_show_another_camera(path, capsys):
    """Its images and times, under its name; a bag has every camera."""
    view = read_view(path, 100, 200, 1_000_000, 'wrist')
    assert len(view.images) == 70 and view.measures['camera'] == '/wrist/image_raw'
    assert main(['episodes', 'view', str(path), '--camera', 'wrist']) == 0
    out = path.parent / 'csv'
    for camera in ([], ['--camera', 'wrist']):
        command = ['episodes', 'export', str(path), '--out', str(out), '--format', 'csv', *camera]
        assert main(command) == 0
    folder = out / f'{path.stem}_wrist_image_raw'
    assert sorted(out.iterdir()) == [out / path.stem, folder]
    assert (folder / 'frames/000069.png').read_bytes() == small_episodes.encoded(169)
    about = json.loads((folder / 'episode.json').read_text())
    assert (about['camera'], about['frames']) == ('/wrist/image_raw', 70)
    assert main(['episodes', 'view', str(path), '--camera', 'front']) == 2
    command = ['episodes', 'export', str(path), '--out', str(out), '--format', 'rosbag2']
    assert main([*command, '--camera', 'wrist']) == 2
    told = capsys.readouterr().err
    assert "has no camera 'front'" in told and 'a bag has every camera' in told


def test_edits_count_from_the_first_frame_of_the_main_camera(path):
    """A trim and a split mean the same moments for every camera."""
    assert main(['episodes', 'edit', str(path), '--trim', '1.0', '2.0']) == 0
    assert main(['episodes', 'edit', str(path), '--split', '1.5']) == 0
    with Episode.open(path) as episode:
        assert [episode.encoded(0), len(episode)] == [small_episodes.encoded(10), 11]
        cuts_ns = episode.cuts_ns
    with Episode.open(path, camera='wrist') as episode:
        assert [episode.encoded(0), len(episode)] == [small_episodes.encoded(110), 21]
        assert episode.cuts_ns.tolist() == cuts_ns.tolist()
    with Episode.open(path, camera='wrist', as_recorded=True) as episode:
        assert len(episode) == 70


def test_the_verdict_is_on_the_camera_that_is_read(tmp_path):
    """A broken image of one camera makes no other bad; lost ones are those of its topic."""
    path = write(tmp_path, images=lambda row: small_episodes.encoded(row)[:40])
    with Episode.open(path) as episode:
        assert judged(episode)['broken'] == 0
    with Episode.open(path, camera='wrist') as episode:
        assert judged(episode)['verdict'] == 'bad' and judged(episode)['broken'] > 0
        with pytest.raises(UserError, match=r'is broken at frame 1; got '):
            episode.frame(1)
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    write_rows(writer, 40)
    writer.add_event('drop', START_NS, '2 frames: lost')
    for row in range(40):
        at_ns = START_NS + row * PERIOD_NS
        writer.add_message(WRIST, compressed(small_episodes.encoded(row)), at_ns, at_ns)
    writer.add_event('problem', START_NS, f'3 messages of {WRIST.topic}: lost')
    with Episode.open(writer.close('success'), camera='wrist') as episode:
        assert judged(episode)['drops'] == 3 and episode.health['drops'] == 2


BLACK = encode(np.zeros((48, 64, 3), np.uint8))


@pytest.mark.parametrize(
    ('change', 'notes'),
    [
        ({}, []),
        ({'count': 20}, ['2.45 s without an image']),
        ({'count': 1}, ['1 images']),
        ({'images': lambda row: small_episodes.encoded(1)}, ['stood still in 20 of 20 places']),
        ({'images': lambda row: BLACK + bytes(row)}, ['is dark in 20 of 20 places']),
        ({'images': lambda row: small_episodes.encoded(row)[:-9]}, ['20 of 20 .* are broken']),
    ],
)
def test_what_is_wrong_with_a_further_camera_is_a_note(tmp_path, capsys, change, notes):
    """The verdict is that of the main one; coach names it."""
    with Episode.open(write(tmp_path, **change)) as episode:
        health = episode.health
        assert health['verdict'] == 'good' and judge_episode(episode) == health
    assert len(health['notes']) == len(notes)
    for found, words in zip(health['notes'], notes, strict=True):
        assert re.search(rf'^camera /wrist/image_raw: .*{words}', found)
    assert main(['episodes', 'coach', str(tmp_path)]) == 0
    assert ('again if a policy is to learn from it' in capsys.readouterr().out) == bool(notes)


def test_bytes_that_are_no_compressed_image_are_named(tmp_path):
    """Of every kind: cut short anywhere, no CDR."""
    whole = compressed(small_episodes.encoded(1))
    wrong = [whole[:at] for at in (1, 3, 9, 14, 25, len(whole) - 1)]
    wrong += [b'\0\7' + whole[2:], b'\0\1\0\0' + b'\xff' * 60]
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    write_rows(writer, 5)
    for row, data in enumerate([*wrong, compressed(small_episodes.encoded(1), order='>')]):
        writer.add_message(WRIST, data, START_NS + row, START_NS + row)
    with Episode.open(writer.close('success'), camera='wrist') as episode:
        for row in range(len(wrong)):
            with pytest.raises(UserError, match=f'is broken at frame {row}; got '):
                episode.encoded(row)
        assert episode.encoded(len(wrong)) == small_episodes.encoded(1)  # big endian


def test_a_compressed_mosaic_has_its_colours(tmp_path):
    """image_transport sends it in grey; only the format names the pattern."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    write_rows(writer, 1)
    grey = small_episodes.encoded(200)
    data = compressed(grey, 'bayer_rggb8; png compressed ')
    writer.add_message(WRIST, data, START_NS, START_NS)
    with Episode.open(writer.close('success'), camera='wrist') as episode:
        assert episode.encoded(0) != grey and decode(episode.encoded(0)).shape == (12, 16, 3)


@pytest.mark.parametrize(
    ('given', 'sentence'),
    [
        ('wrst', "it has no camera 'wrst'; got .*/wrist/image_raw, .* Did you mean 'wrist'?"),
        ('behind', "it has no camera 'behind'; got /camera/.* Record it with extra_cameras"),
        ('image_raw', "it has several cameras 'image_raw'; got /camera/image_raw, /wrist"),
    ],
)
def test_a_name_of_none_or_of_several_is_refused(given, sentence):
    """With the names that there are."""
    with pytest.raises(NoSuchCamera, match=sentence):
        chosen_camera(given, NAMES, 'it')


def test_a_camera_without_a_name_may_be_the_one_that_is_meant():
    """An import of rows has no image_topic: another camera's name would be a wrong remedy."""
    sentence = 'got one without a name, /wrist/image_raw. The one without a name is the main one'
    with pytest.raises(NoSuchCamera, match=sentence):
        chosen_camera(MAIN, ['', '/wrist/image_raw'], 'it')


def test_a_whole_part_of_a_name_comes_before_a_part_of_it():
    """Otherwise `left` would mean the left arm as well."""
    assert chosen_camera('left', NAMES, 'it') == '/left/image_raw'
    assert chosen_camera('left_a', NAMES, 'it') == '/left_arm/image_raw'


def test_depth_is_no_camera_and_an_old_episode_has_one(tmp_path):
    """A topic may have the type and yet no image to look at."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    write_rows(writer, 5)
    depth = Channel('/depth/image_raw/compressedDepth', WRIST.type)
    writer.add_message(depth, struct.pack('<4x12x'), START_NS, START_NS)
    path = writer.close('success')
    with Episode.open(path) as episode:
        assert episode.cameras == {'': ''} and episode.by_main_camera
    with pytest.raises(NoSuchCamera, match="has no camera 'depth'; got one without a name"):
        Episode.open(path, camera='depth')
