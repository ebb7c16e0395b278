"""Messages of other topics in an episode: kept as they arrived."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import small_episodes
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage import byte_rows
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.recovery import recover
from mobile_vla_ros.episode.storage.salvage import Salvage
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import ROW_BYTES, EpisodeWriter
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
    with pytest.raises(ValueError, match='/imu: the topic has another type'):
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


def test_a_message_that_no_episode_can_hold_is_counted_and_named(tmp_path):
    """Empty, of another type, of a topic too many, too long a definition: the episode goes on."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    recording = Recording(writer, queue_frames=9, queue_bytes=10**8, steady_ns=time.monotonic_ns)
    long = 'x' * (byte_rows.MAX_DEFINITION_BYTES + 1)
    for channel, data in (
        (IMU, b''),
        (IMU, b'x'),
        (Channel('/imu', 'std_msgs/msg/String'), b'x'),
        (Channel('/long', 'a/msg/B', long), b'x'),
        (Channel('/' + 'x' * 300, 'a/msg/B'), b'x'),
        *((Channel(f'/{n}', 'a/msg/B'), b'x') for n in range(byte_rows.MAX_CHANNELS)),
    ):
        recording.message(channel, data, CREATED_NS, CREATED_NS)
    recording.finish('success')
    assert recording.join(30) and recording.error is None
    assert sum(recording.lost_messages.values()) == 5
    with Episode.open(recording.path) as episode:
        assert len(episode.topics) == byte_rows.MAX_CHANNELS
        assert [*episode.messages('/imu')] == [b'x']
        texts = [event.text for event in episode.events]
    assert len(texts) == 5 and all('1 messages of /' in text for text in texts)


def test_what_waits_is_bounded_however_small_it_is(tmp_path):
    """A message takes memory beside its bytes."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    recording = Recording(
        writer, queue_frames=9, queue_bytes=10 * (ROW_BYTES + 1), steady_ns=time.monotonic_ns
    )
    free = threading.Event()
    recording.frame(lambda: free.wait(10) and small_episodes.encoded(1), CREATED_NS, CREATED_NS)
    kept = [recording.message(IMU, b'x', CREATED_NS, CREATED_NS) for _ in range(100)]
    free.set()
    recording.finish('success')
    assert recording.join(10) and kept == [True] * 10 + [False] * 90


def test_a_file_with_too_many_topics_is_refused_and_recovered_in_part(tmp_path, monkeypatch):
    """The messages of the others are lost, and counted; what is recovered can be opened."""
    monkeypatch.setattr(byte_rows, 'MAX_CHANNELS', 10**6)
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    write_rows(writer, 2)
    for row in range(1_007):
        writer.add_message(Channel(f'/{row}', 'a/msg/B', 'int8 a'), b'x', 1, START_NS + row)
    path = writer.close()
    monkeypatch.undo()
    with pytest.raises(UserError, match='1007 channels, more than 1000'):
        Episode.open(path)
    found = recover(path, now_ns=CREATED_NS)
    assert (found.messages, found.lost['messages'], found.clean) == (1000, 7, False)
    with Episode.open(found.path) as episode:
        assert len(episode.topics) == 1000 and episode.topics['/999'].definition == 'int8 a'


def test_messages_are_salvaged_alike_each_time(path):
    """Their definitions, too."""
    with Salvage(path) as salvage:
        first, second = [*salvage.messages()], [*salvage.messages()]
    assert len(first) == 21 and first == second and first[1][0] == IMU


def test_rows_are_read_many_at_once_and_each_by_its_place():
    """Neighbours together; across a gap, or back, not; b'' beyond what can be read."""

    class Stored(np.ndarray):
        """Counts what is read."""

        def __getitem__(self, span):
            reads.append(span.stop - span.start)
            if span.stop > 900_000:
                raise OSError('a broken chunk')
            return super().__getitem__(span)

    reads: list[int] = []
    data = np.arange(10**6, dtype=np.uint32).astype(np.uint8)
    first = np.array([*range(0, 10_000, 10), 500_000, 499_995, 899_980, 899_990, 900_000])
    end = first + 10
    found = [*byte_rows.read_rows(data.view(Stored), first, end)]
    whole = [data[one:other].tobytes() for one, other in zip(first, end, strict=True)]
    assert found == [*whole[:-1], b''] and sum(reads[:3]) == 10_020
    assert len(reads) == 3 + 1 + 3
