"""Messages of other topics in an episode: kept as they arrived."""

import time
from pathlib import Path

import pytest

import small_episodes
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from small_episodes import CREATED_NS, IMU, PERIOD_NS, START_NS, TF, message, write_rows


@pytest.fixture
def path(tmp_path) -> Path:
    """Two seconds of frames with a message after each, and a latched one before them."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    writer.add_message(TF, b'tree', START_NS - 9, START_NS - 5, START_NS - 5)
    for row in range(20):
        write_rows(writer, 1, first=row)
        at_ns = START_NS + row * PERIOD_NS
        writer.add_message(IMU, message(row), at_ns + 1, at_ns + 2, at_ns + 3)
        if row % 7 == 6:
            writer.flush()
    return writer.close('success')


def test_messages_are_read_as_they_were_written(path):
    """Each topic with its type and definition, each message with its bytes and three times."""
    with Episode.open(path) as episode:
        assert episode.topics == {'/tf_static': TF, '/imu': IMU}
        assert [one.count for one in episode.topics.values()] == [1, 20]
        imu = episode.messages('/imu')
        assert [imu[row] for row in range(len(imu))] == [message(row) for row in range(20)]
        assert imu[-1] == message(19)
        for offset, times in enumerate((imu.stamp_ns, imu.received_ns, imu.steady_ns), 1):
            assert times.tolist() == [START_NS + row * PERIOD_NS + offset for row in range(20)]
        assert [*episode.messages('/tf_static')] == [b'tree']
        frames = [episode.encoded(row) for row in range(20)]
        assert frames == [small_episodes.encoded(row) for row in range(20)]
        with pytest.raises(UserError, match='does not hold the topic /scan'):
            episode.messages('/scan')
        with pytest.raises(IndexError):
            imu[20]


def test_a_trim_keeps_what_is_latched(path):
    """Messages outside of it are hidden, except those still in force; not in the recording."""
    assert main(['episodes', 'edit', str(path), '--trim', '0.5', '1.0']) == 0
    with Episode.open(path) as episode:
        assert [*episode.messages('/imu')] == [message(row) for row in range(5, 11)]
        assert [*episode.messages('/tf_static')] == [b'tree']
        assert episode.topics['/imu'].count == 6
    with Episode.open(path, as_recorded=True) as episode:
        assert len(episode.messages('/imu')) == 20


def test_show_names_the_topics(path, capsys):
    """With type, number and rate."""
    assert main(['episodes', 'show', str(path)]) == 0
    shown = capsys.readouterr().out
    assert 'topic /imu' in shown and 'sensor_msgs/msg/Imu: 20 messages, 10.0 Hz' in shown


def test_a_topic_has_one_type(tmp_path):
    """Nobody could read it otherwise."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    writer.add_message(IMU, b'x', 1, 1)
    with pytest.raises(ValueError, match='/imu has two channels'):
        writer.add_message(Channel('/imu', 'std_msgs/msg/String'), b'x', 1, 1)
    writer.discard()


def test_messages_beyond_the_queue_are_counted_and_named(tmp_path):
    """A flood costs memory up to a limit; what is over it is dropped whole, frames are not."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    recording = Recording(
        writer, queue_frames=100, queue_bytes=1_000_000, steady_ns=time.monotonic_ns
    )
    cloud = Channel('/points', 'sensor_msgs/msg/PointCloud2')
    kept = sum(
        recording.message(cloud, bytes([row]) * 300_000, row, CREATED_NS + row)
        for row in range(1, 100)
    )
    assert recording.frame(lambda: small_episodes.encoded(1), CREATED_NS, CREATED_NS)
    recording.finish('success')
    assert recording.join(10) and recording.error is None
    assert 3 <= kept < 99 and recording.drops == 0
    assert recording.lost_messages == {'messages of /points': 99 - kept}
    with Episode.open(recording.path) as episode:
        assert len(episode.messages('/points')) == kept and len(episode) == 1
        (event,) = episode.events
        assert event.name == 'problem'
        assert event.text == f'{99 - kept} messages of /points: the writer was too slow'
        assert episode.health['drops'] == 0
