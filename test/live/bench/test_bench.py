"""`mobile_vla bench record`: its camera, its counts, and every part for a few seconds."""

import cv2
import numpy as np
import pytest

from command_line import bench_figures
from mobile_vla_ros.bench import synthetic_camera
from mobile_vla_ros.bench.record import kill
from mobile_vla_ros.bench.record.load import inspect
from mobile_vla_ros.bench.table import all_of, at_most, none_of, plain, table
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import Command

SECOND = 1_000_000_000


@pytest.mark.parametrize('number', [0, 1, 77_777, 2**32 - 1])
@pytest.mark.parametrize('size', [(1280, 720), (200, 100)])
def test_an_image_keeps_its_number_through_jpeg(number, size):
    """The count of lost frames depends on it; also at a very low quality."""
    image = synthetic_camera.images(*size, 1)[0]
    synthetic_camera.draw_number(image, number)
    for quality in (10, 90):
        encoded = cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        assert synthetic_camera.read_number(cv2.imdecode(encoded, cv2.IMREAD_COLOR)) == number
        small = cv2.imdecode(encoded, cv2.IMREAD_REDUCED_COLOR_4)
        assert synthetic_camera.read_number(small, scale=4) == number


def test_an_uncertain_number_is_not_guessed():
    """A torn or foreign image gives None, and so does one wrong square."""
    image = synthetic_camera.images(1280, 720, 1)[0]
    assert synthetic_camera.read_number(image) is None
    synthetic_camera.draw_number(image, 5)
    image[: synthetic_camera.SQUARE, : synthetic_camera.SQUARE] = synthetic_camera.BRIGHT
    assert synthetic_camera.read_number(image) is None
    with pytest.raises(ValueError, match='too small'):
        synthetic_camera.draw_number(np.zeros((20, 100, 3), np.uint8), 5)


def test_the_camera_is_as_busy_as_a_photograph():
    """A JPEG of 720p with quality 90 has 0.1 to 0.2 MB, and no two images are alike."""
    first, second = synthetic_camera.images(1280, 720, 2)
    encoded = cv2.imencode('.jpg', first, (cv2.IMWRITE_JPEG_QUALITY, 90))[1]
    assert 100_000 < len(encoded) < 200_000
    assert np.abs(first.astype(int) - second).mean() > 5


@pytest.fixture
def write_numbered(tmp_path):
    """Write an episode with these frames, commands and drop events."""

    def write(numbers, commands=(), drops=()):
        image = np.zeros((64, 320, 3), np.uint8)
        writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), SECOND)
        for row, number in enumerate(numbers):
            synthetic_camera.draw_number(image, number)
            writer.add_frame(cv2.imencode('.jpg', image)[1].tobytes(), row * SECOND, row * SECOND)
        for number in commands:
            writer.add_command(Command(np.array([0.1, 0, 0, number, 0, 0]), 0, 0, 'unknown'))
        for count, why in drops:
            writer.add_event('drop', 0, f'{count} frames: {why}')
        writer.close()
        return tmp_path

    return write


def test_missing_frames_are_found_and_distinguished(write_numbered):
    """Lost on the way, dropped by the recorder, or missing without an event."""
    folder = write_numbered(
        [8, 9, 10, 12, 15],
        commands=[1, 3],
        drops=[(2, 'the writer was too slow'), (1, 'lost between camera and recorder')],
    )
    found = inspect(folder, {'first_frame': 9, 'frames': 8, 'first_command': 1, 'commands': 3})
    assert (found['in_file'], found['missing'], found['counted']) == (4, 4, 3)
    assert (found['dropped'], found['lost'], found['disorder']) == (2, 2, 0)
    assert found['commands_lost'] == 1


def test_a_kill_answers_for_what_nobody_counted(write_numbered):
    """Not for frames that a busy machine lost before the recorder, which counts them."""
    drops = [(2, 'lost between camera and recorder')]
    (path,) = write_numbered([8, 9, 10, 12, 15], drops=drops).glob('*.h5')
    state = kill._state(kill.Killed(path.with_suffix('.h5.part'), 0, 5 * SECOND))
    assert (state['counted'], state['gaps']) == (2, 1)
    assert state['lost_s'] == pytest.approx(1 + 1 / 30)


def test_repeated_and_foreign_images_are_found(write_numbered, tmp_path):
    """Order counts, and an image without a number was never published."""
    sent = {'first_frame': 0, 'frames': 3, 'first_command': 0, 'commands': 0}
    assert inspect(write_numbered([0, 2, 1, 1]), sent)['disorder'] == 2
    writer = EpisodeWriter(tmp_path / 'foreign', EpisodeInfo('go'), SECOND)
    writer.add_frame(
        cv2.imencode('.jpg', np.zeros((64, 320, 3), np.uint8) + 90)[1].tobytes(), 0, 0
    )
    writer.close()
    with pytest.raises(UserError, match='frame 0'):
        inspect(tmp_path / 'foreign', sent)


def test_the_table_marks_broken_promises():
    """Each kind of promise, kept and broken; a figure without a promise is neither."""
    figures = [
        at_most('a', 'slow', 1.3, 1.2, 'times'),
        at_most('a', 'quick', 1.2, 1.2, 'times'),
        none_of('b', 'lost', 1, 9),
        none_of('b', 'twice', 0),
        all_of('c', 'open', 2, 2),
        all_of('c', 'marked', 1, 2),
        plain('c', 'known', 3),
    ]
    assert [one.kept for one in figures] == [False, True, False, True, True, False, None]
    lines = table(figures).splitlines()
    assert [line.endswith('BROKEN') for line in lines] == [
        False,
        *(one.kept is False for one in figures),
    ]
    assert '1.30 times' in lines[1] and 'at most 1.2 times' in lines[1]


@pytest.fixture(scope='module')
def measured() -> dict[tuple[str, str], dict]:
    """One run of the other parts, as short as possible: (part, name) → figure."""
    return bench_figures('record', 'load', 'disk', 'encode', '--seconds', 3, timeout_s=240)


@pytest.mark.exhaustive
def test_load_accounts_for_every_frame(measured):
    """Most frames and commands arrive on any machine, and losses are counted."""
    sent = measured['load 30 Hz', 'frames sent']['value']
    assert sent > 45
    assert measured['load 30 Hz', 'frames lost on the way to the recorder']['value'] < sent / 3
    for part in ('load 30 Hz', 'load 60 Hz'):
        assert measured[part, 'commands lost']['value'] < 50
        assert measured[part, 'frames repeated or out of order']['kept']
        assert measured[part, 'recorder, peak memory']['kept']
    assert measured['load 60 Hz', 'frames lost and not counted']['kept']
    assert 0 < measured['load 30 Hz', 'recorder, mean']['value'] < 2
    assert measured['load 30 Hz', 'source, mean']['value'] > 0


def test_killed_episodes_are_recovered_and_others_untouched():
    """The promises of every kill except the lost second, which a busy machine may exceed."""
    measured = bench_figures('record', 'kill', '--kills', 2, timeout_s=240)
    for name in (
        'episodes that open',
        'episodes recovered and marked as recovered',
        'earlier episodes untouched',
    ):
        assert measured['kill', name]['kept'], measured['kill', name]
    assert measured['kill', 'longest part of an episode lost']['value'] < 3


@pytest.mark.exhaustive
def test_a_full_disk_leaves_a_whole_episode(measured):
    """With the last byte used, or at the floor, the recorder ends the episode itself."""
    if ('disk', 'not measured') in measured:
        pytest.skip('no right to mount a tmpfs here')
    for name in ('full', 'floor'):
        assert measured['disk', f'{name}: ended by']['value'] == 'recorder'
        assert measured['disk', f'{name}: the file']['value'] == 'whole'
        assert measured['disk', f'{name}: frames in the file']['value'] > 10


@pytest.mark.exhaustive
def test_the_file_is_a_tenth_of_the_reference_run_s(measured):
    """Sizes are equal on every machine."""
    assert measured['encode', "size against the reference run's layout"]['kept']
    assert measured['encode', 'writing against the encoder alone']['value'] > 0.9
    assert measured['encode', "time against the reference run's layout"]['value'] < 0.5


def test_without_the_right_to_mount_the_disk_part_is_skipped(tmp_path, monkeypatch):
    """A sentence reports it; the other parts are measured."""
    from mobile_vla_ros.bench.record import disk as bench_record_disk

    monkeypatch.setattr(bench_record_disk, 'UNSHARE', ('false',))
    (figure,) = bench_record_disk.measure(tmp_path)
    assert (figure.name, figure.kept) == ('not measured', None)
