"""The queue and the thread of an episode: callers never wait, and losses are counted."""

import errno
import threading
import time

import numpy as np
import pytest

from mobile_vla_ros.episode.catalog.inspect import judge_episode
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS, Command
from small_episodes import CREATED_NS, encoded


@pytest.fixture
def recording(tmp_path):
    """An episode with a queue of four frames."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    return Recording(writer, queue_frames=4, steady_ns=time.monotonic_ns)


def finish(recording: Recording):
    """Close the episode and wait for its end."""
    done = threading.Event()
    recording.finish('success', done.set)
    assert done.wait(10) and recording.join(10)


def test_everything_queued_is_written_before_the_end(recording):
    """Frames, commands and events in the queue at the end are in the file."""
    for index in range(4):
        assert recording.frame(lambda index=index: encoded(index), index, index)
    recording.command(Command(np.ones(6), 1, 2, 'policy'))
    recording.event('stop', 9)
    finish(recording)
    with Episode.open(recording.path) as episode:
        assert [episode.frame(i).image[0, 0, 0] for i in range(4)] == [0, 1, 2, 3]
        assert (len(episode.commands), episode.commands.source[0]) == (1, 2)
        assert [event.name for event in episode.events] == ['stop']


def test_a_clock_that_is_set_back_changes_neither_order_nor_steady_receipts(recording):
    """Rows stay in the order of arrival, with both receipts, and so do events of drops."""
    received_ns = [10_000 + row * 100 - (4_000 if row >= 3 else 0) for row in range(6)]
    for row, at_ns in enumerate(received_ns):
        recording.command(Command(np.full(6, row), at_ns, at_ns, steady_ns=row + 1))
        recording.lost(1, at_ns, f'lost {row}', row + 1)
        recording.event('problem', at_ns, steady_ns=row + 1)
    recording.frame(lambda: encoded(1), 5, 6, 7)
    finish(recording)
    with Episode.open(recording.path) as episode:
        assert episode.commands.twist[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
        assert episode.commands.received_ns.tolist() == received_ns
        assert episode.commands.steady_ns.tolist() == [1, 2, 3, 4, 5, 6]
        for name in ('problem', 'drop'):
            times = [(e.time_ns, e.steady_ns) for e in episode.events if e.name == name]
            assert times == list(zip(received_ns, range(1, 7), strict=True))
        assert (episode.frame_received_ns.tolist(), episode.frame_steady_ns.tolist()) == ([6], [7])


def test_a_full_queue_drops_whole_frames_at_once(recording):
    """While the writer is stuck, a frame for a full queue is dropped at once and counted."""
    stuck = threading.Event()

    def encode():
        assert stuck.wait(10)
        return encoded(1)

    kept = [recording.frame(encode, 10 + i, 10 + i) for i in range(7)]
    assert kept == [True] * 4 + [False] * 3
    assert (recording.drops, recording.queued) == (3, 4)
    stuck.set()
    finish(recording)
    with Episode.open(recording.path) as episode:
        assert len(episode) == 4 and episode.health['drops'] == 3
        (event,) = episode.events
        assert (event.name, event.time_ns) == ('drop', 14)
        assert event.text.startswith('3 frames')
        assert judge_episode(episode) == episode.health


def test_a_frame_that_cannot_be_encoded_is_a_counted_drop(recording):
    """The failure's sentence is in the problem and in the episode, which continues."""

    def fail():
        raise UserError('a camera image has an unknown encoding')

    recording.frame(fail, 1, 1)
    recording.frame(lambda: encoded(2), 2, 2)
    finish(recording)
    assert 'unknown encoding' in recording.problem and recording.drops == 1
    with Episode.open(recording.path) as episode:
        assert len(episode) == 1 and 'unknown encoding' in episode.events[0].text


def test_a_failing_disk_ends_the_episode_with_a_sentence(tmp_path):
    """The error names file and cause; flushed rows stay readable."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    writer.add_frame(encoded(7), 1, 1)
    writer.flush()

    def full():
        raise OSError(errno.ENOSPC, 'No space left on device')

    writer.flush = full
    recording = Recording(writer, queue_frames=4, steady_ns=time.monotonic_ns)
    assert recording.join(10)
    assert (
        'No space left on device' in recording.error
        and str(recording.part_path) in recording.error
    )
    assert not recording.frame(lambda: encoded(1), 2, 2)
    finish(recording)
    assert recording.path is None
    with Episode.open(recording.part_path) as episode:
        assert episode.frame(0).image[0, 0, 0] == 7 and not episode.complete


def test_frames_lost_before_arrival_are_counted_in_the_episode(recording):
    """Losses of the middleware are drops; consecutive ones with one reason share an event."""
    for number in range(5):
        recording.lost(2, 10 + number, 'lost by the middleware')
    recording.frame(lambda: encoded(1), 20, 20)
    recording.lost(1, 30, 'lost by the middleware')
    recording.lost(1, 30 + 2 * NANOSECONDS, 'lost by the middleware')
    recording.lost(1, 31 + 2 * NANOSECONDS, 'another reason')
    assert (recording.drops, recording.ended) == (13, False)
    finish(recording)
    assert recording.ended and recording.bytes_written == len(encoded(1))
    with Episode.open(recording.path) as episode:
        assert [(event.time_ns, event.text) for event in episode.events] == [
            (10, '10 frames: lost by the middleware'),
            (30, '1 frames: lost by the middleware'),
            (30 + 2 * NANOSECONDS, '1 frames: lost by the middleware'),
            (31 + 2 * NANOSECONDS, '1 frames: another reason'),
        ]
        assert episode.health['drops'] == 13 and judge_episode(episode) == episode.health


def test_frames_that_fail_after_the_end_was_requested_are_counted(recording):
    """A queued frame that cannot be encoded is reported too."""
    encoding = threading.Event()

    def fail():
        assert encoding.wait(10)
        raise UserError('a camera image has an unknown encoding')

    for number in range(2):
        recording.frame(fail, number, number)
    done = threading.Event()
    recording.finish('success', done.set)
    encoding.set()
    assert done.wait(10)
    with Episode.open(recording.path) as episode:
        assert [event.text.split(':')[0] for event in episode.events] == ['2 frames']
        assert episode.health['drops'] == 2


def test_an_episode_ends_by_itself_below_the_floor(tmp_path):
    """The end is reported, further frames are refused, and a later stop changes nothing."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, flush_period_s=0.05)
    recording = Recording(writer, queue_frames=4, steady_ns=time.monotonic_ns, floor_bytes=2**62)
    recording.frame(lambda: encoded(3), 7, 7)
    assert recording.join(10) and recording.ended and recording.error is None
    assert (
        'under the floor' in recording.problem
        and recording.health['frames'] == recording.frames == 1
    )
    assert not recording.frame(lambda: encoded(4), 8, 8)
    path = recording.path
    finish(recording)
    recording.discard()
    assert recording.path == path
    with Episode.open(path) as episode:
        assert (episode.outcome, episode.complete) == ('unknown', True)
        assert [event.name for event in episode.events] == ['problem', 'stop']


def test_discard_ends_the_thread_and_leaves_nothing(recording, tmp_path):
    """The queue is discarded with the file."""
    recording.frame(lambda: encoded(1), 1, 1)
    recording.discard()
    assert recording.join(10)
    assert list(tmp_path.iterdir()) == []
