"""The files that a writer leaves, however it ends."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import small_episodes
from mobile_vla_ros.episode.catalog.inspect import judge_episode
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from small_episodes import CREATED_NS, encoded, message, write_episode, write_rows


def test_an_episode_is_read_as_it_was_written(tmp_path):
    """Every frame, command, event and attribute, with both times."""
    info = EpisodeInfo(
        'fahr zur größten Kiste',
        operator='ada',
        robot='mini',
        image_topic='/cam',
        command_topic='/cmd_vel',
        ros_version='jazzy',
    )
    writer = EpisodeWriter(tmp_path, info, CREATED_NS)
    writer.add_event('start', 11, 'because')
    write_rows(writer, 10)
    writer.set_late(command_type='geometry_msgs/msg/Twist', frame_id='camera')
    path = writer.close('failure')

    with Episode.open(path) as episode:
        assert (len(episode), len(episode.commands)) == (10, 20)
        frame = episode.frame(3)
        assert frame.image.shape == (12, 16, 3)
        assert frame.image[0, 0].tolist() == [3, 0, 250]
        assert frame.received_ns - frame.stamp_ns == 5_000_000
        assert episode.encoded(3) == encoded(3)
        assert np.allclose(episode.commands.twist[7], [0.03, 1, 0, 0, 0, -0.03])
        assert np.array_equal(episode.commands.received_ns, episode.commands.stamp_ns)
        assert set(episode.commands.source) == {1}
        assert [(e.name, e.time_ns, e.text) for e in episode.events] == [('start', 11, 'because')]
        assert episode.instruction == 'fahr zur größten Kiste'
        assert (episode.outcome, episode.complete) == ('failure', True)
        assert episode.attributes['command_type'] == 'geometry_msgs/msg/Twist'
        assert episode.attributes['frame_id'] == 'camera'
        assert episode.attributes['operator'] == 'ada'
        assert episode.attributes['created_utc'] == '2027-01-15T08:00:00Z'
        assert episode.health == judge_episode(episode)


def test_a_finished_episode_needs_no_special_reader(tmp_path):
    """Plain h5py opens it, with the documented paths and types."""
    with h5py.File(write_episode(tmp_path), 'r') as file:
        assert file.attrs['format'] == b'mobile_vla_episode' and file.attrs['version'] == 2
        first, size = file['frames/offset'][3], file['frames/size'][3]
        assert file['frames/bytes'][first : first + size].tobytes() == encoded(3)
        assert file['frames/stamp_ns'].dtype == file['commands/received_ns'].dtype == np.int64
        assert file['commands/twist'].shape == (40, 6)
        assert file['commands/twist'].dtype == np.float64
        assert file['commands/source'].dtype == np.uint8


def test_names_contain_the_time_and_never_collide(tmp_path):
    """Episodes of the same second get different names, sorted by time, and no other files."""
    paths = [write_episode(tmp_path, frames=2) for _ in range(5)]
    assert len(set(paths)) == 5
    assert all(path.name.startswith('20270115T080000Z_') for path in paths)
    assert find_episodes(tmp_path) == sorted(paths) == sorted(tmp_path.iterdir())


def test_an_existing_file_is_not_overwritten(tmp_path):
    """A file with the final name is unchanged; the episode stays whole beside it."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    write_rows(writer, 3)
    writer.final_path.write_text('precious')
    with pytest.raises(UserError, match='already exists'):
        writer.close()
    assert writer.final_path.read_text() == 'precious'
    with Episode.open(writer.part_path) as episode:
        assert len(episode) == 3 and episode.complete


def test_discard_leaves_nothing(tmp_path):
    """Only the discarded episode is removed."""
    kept = write_episode(tmp_path)
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    write_rows(writer, 3)
    writer.discard()
    assert list(tmp_path.iterdir()) == [kept]


def test_an_unwritable_folder_is_named(tmp_path):
    """A data folder below a file is refused."""
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'cannot write episodes to .*file/episodes'):
        EpisodeWriter(tmp_path / 'file' / 'episodes', EpisodeInfo('go'), CREATED_NS)


def test_an_empty_instruction_is_refused():
    """With a UserError."""
    with pytest.raises(UserError, match='instruction is empty'):
        EpisodeInfo('  ')


def test_flushes_follow_the_caller_s_time(tmp_path):
    """Rows become readable after the flush period, not at every row."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, flush_period_s=0.5)
    assert writer.flush_if_due(0)
    write_rows(writer, 3)
    assert not writer.flush_if_due(499_999_999)
    with Episode.open(writer.part_path) as episode:
        assert len(episode) == 0
    assert writer.flush_if_due(500_000_000)
    with Episode.open(writer.part_path) as episode:
        assert (len(episode), len(episode.commands), episode.complete) == (3, 6, False)
    writer.close()


def test_a_long_event_is_truncated_at_a_character(tmp_path):
    """A text that is too long loses its end and stays valid UTF-8."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    writer.add_event('problem', 1, 'ß' * 500)
    with Episode.open(writer.close()) as episode:
        assert episode.events[0].text == 'ß' * (schema.EVENT_TEXT_BYTES // 2)


def test_images_of_equal_length_are_stored_separately(tmp_path):
    """A flush of images of one length, or of one image, writes each unchanged."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go', origin='a bag'), CREATED_NS)
    images = [bytes([number] * 50) for number in range(5)]
    for image in images:
        writer.add_frame(image, 1, 1)
    writer.flush()
    writer.add_frame(b'single', 1, 1)
    with Episode.open(writer.close()) as episode:
        assert [episode.encoded(row) for row in range(6)] == [*images, b'single']
        assert episode.origin == 'a bag' and not episode.recovered


def test_a_hidden_episode_becomes_visible_when_it_is_whole(tmp_path):
    """An episode that is converted from another file never leaves a .part."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, episode_id='a', hidden=True)
    write_rows(writer, 3)
    writer.flush()
    assert list(tmp_path.iterdir()) == [tmp_path / '.a.new']
    assert writer.close() == tmp_path / 'a.h5'
    assert list(tmp_path.iterdir()) == [tmp_path / 'a.h5']


def _writing_process(folder: Path, frames: int, *prefix: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*prefix, sys.executable, small_episodes.__file__, str(folder), str(frames)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(Path(small_episodes.__file__).parents[2])},
    )


def _check_after_kill(folder: Path, output: list[list[str]]):
    """Compare the files of a killed writer with its output."""
    closed = [name for word, name in output if word == 'closed']
    for name in closed:
        with Episode.open(folder / f'{name}.h5') as episode:
            assert episode.complete and episode.outcome == 'success'
            assert len(episode) == 14
            assert [episode.frame(i).image[0, 0, 0] for i in range(14)] == list(range(14))
    for path in folder.glob('*.h5*'):
        name = path.name.split('.')[0]
        with Episode.open(path) as episode:  # every visible file can be opened
            after = output[output.index(['open', name]) + 1 :] if ['open', name] in output else []
            flushed = max([int(number) for word, number in after if word == 'flushed'] + [0])
            assert len(episode) >= flushed
            assert len(episode.commands) >= 2 * flushed
            kept = [*episode.messages('/imu')] if '/imu' in episode.topics else []
            assert len(kept) >= flushed and kept == [message(n) for n in range(len(kept))]
            if len(episode):
                last = len(episode) - 1
                assert episode.frame(last).image[0, 0, 0] == last
    opened = [name for word, name in output if word == 'open']
    assert all(any(folder.glob(f'{name}.h5*')) for name in opened)


def test_a_kill_at_a_random_moment_leaves_every_episode_readable(tmp_path):
    """SIGKILL while episodes are written: finished ones are whole, the last one is readable."""
    for round_ in range(5):
        folder = tmp_path / str(round_)
        process = _writing_process(folder, 14)
        output = [process.stdout.readline().split() for _ in range(9 + 3 * round_)]
        process.kill()
        output += [line.split() for line in process.stdout.read().splitlines()]
        assert process.wait() == -signal.SIGKILL
        _check_after_kill(folder, [words for words in output if len(words) == 2])


@pytest.mark.skipif(not shutil.which('strace'), reason='needs strace')
@pytest.mark.parametrize(
    'step', [0, *(pytest.param(step, marks=pytest.mark.exhaustive) for step in (1, 2, 3))]
)
def test_a_kill_at_any_write_leaves_every_episode_readable(tmp_path, step):
    """The process is killed at its n-th write, for every fourth n of a whole episode."""
    for number in range(1 + step, 400, 4):
        folder = tmp_path / str(number)
        process = _writing_process(
            folder,
            14,
            'strace',
            '-f',
            '-o',
            os.devnull,
            '-e',
            'trace=pwrite64,ftruncate,rename',
            '-e',
            f'inject=pwrite64,ftruncate,rename:signal=KILL:when={number}',
        )
        output = []
        for line in process.stdout:
            output.append(line.split())
        process.wait()
        _check_after_kill(folder, [words for words in output if len(words) == 2])
        if any(word == 'closed' for word, _ in output):
            return
    pytest.fail('the episode was never closed')
