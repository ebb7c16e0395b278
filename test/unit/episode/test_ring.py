"""What a black box holds in memory, and how it becomes an episode."""

import threading
import time

import numpy as np
import pytest

from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.part_file import PartFile
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.ring import RingWriter
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import ROW_BYTES, EpisodeWriter
from mobile_vla_ros.types import NANOSECONDS, Command
from small_episodes import CREATED_NS, PERIOD_NS, START_NS, encoded, write_rows

HELD_S = 2.0


def creator(folder):
    """Return what makes the file of a ring."""
    return lambda proposals: EpisodeWriter(
        folder, EpisodeInfo('go'), CREATED_NS, proposals=proposals
    )


def numbers(episode) -> list[int]:
    return [int(episode.frame(row).image[0, 0, 0]) for row in range(len(episode))]


def test_it_holds_the_newest_seconds_and_keeps_them_in_order(tmp_path):
    """Of 10 s at 10 Hz the last two, and what arrives while they are written, follow in order."""
    ring = RingWriter(tmp_path, HELD_S, 10**9)
    write_rows(ring, 100)
    ring.add_proposal(np.ones(6), 1, START_NS + 100 * PERIOD_NS)
    assert ring.flush_if_due(0) is False and not list(tmp_path.iterdir())
    assert ring.span_s == pytest.approx(HELD_S, abs=0.11)
    ring.keep(creator(tmp_path))
    for index in range(100, 140):
        write_rows(ring, 1, first=index)
        ring.flush_if_due(index * PERIOD_NS)
    path = ring.close()
    with Episode.open(path) as episode:
        assert numbers(episode) == list(range(80, 140))
        assert len(episode.commands) == 120 and np.all(np.diff(episode.commands.steady_ns) > 0)
        assert len(episode.proposals) == 1
        assert [event.name for event in episode.events] == ['start']
        assert episode.events[0].steady_ns <= episode.frame_steady_ns[0]
        assert episode.health['verdict'] == 'good' and episode.complete


def test_its_memory_is_bounded_by_bytes_too(tmp_path):
    """Large images leave room for fewer seconds."""
    size = len(encoded(0))
    ring = RingWriter(tmp_path, 1000.0, 10 * (size + ROW_BYTES))
    for index in range(1000):
        ring.add_frame(encoded(index % 250), index, index)
    assert ring.frames <= 10
    RingWriter(tmp_path, 1.0, 10).add_frame(encoded(0), 1, 1)  # too large, and no error
    ring.keep(creator(tmp_path))
    with Episode.open(ring.close()) as episode:
        assert numbers(episode)[-1] == 999 % 250 and 8 <= len(episode) <= 10


def test_on_a_full_disk_whole_frames_are_dropped_and_counted(tmp_path, monkeypatch):
    """Commands stay, the episode is whole, and the loss is in its verdict."""
    ring = RingWriter(tmp_path, 1000.0, 10**9)
    write_rows(ring, 300)
    reserve, calls = PartFile.reserve, []

    def full(part, more):
        calls.append(more)
        return len(calls) != 3 and reserve(part, more)

    monkeypatch.setattr(PartFile, 'reserve', full)
    recording = Recording(ring, queue_frames=4, steady_ns=time.monotonic_ns)
    ring.keep(creator(tmp_path))
    done = threading.Event()
    while not recording.problem:
        time.sleep(0.01)
    recording.finish('unknown', done.set)
    assert done.wait(10) and 'is full' in recording.problem and recording.error is None
    with Episode.open(recording.path) as episode:
        assert episode.complete and numbers(episode) == [n % 256 for n in range(len(episode))]
        assert 0 < len(episode) < 300 and len(episode) + recording.drops == 300
        assert episode.health['drops'] == recording.drops
        assert len(episode.commands) == 600


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    """As for any episode."""
    (tmp_path / 'file').write_text('')
    ring = RingWriter(tmp_path, HELD_S, 10**9)
    recording = Recording(ring, queue_frames=4, steady_ns=time.monotonic_ns)
    recording.command(Command(np.ones(6), NANOSECONDS, NANOSECONDS))
    ring.keep(creator(tmp_path / 'file'))
    assert recording.join(10) and 'cannot write episodes' in recording.error


def test_messages_of_other_topics_are_held_and_a_latched_one_stays(tmp_path):
    """What a late subscriber would receive belongs to the episode, however old it is."""
    odom, fixed = Channel('/odom', 'a/msg/B'), Channel('/tf_static', 'a/msg/B', latched=True)
    ring = RingWriter(tmp_path, HELD_S, 10**9)
    ring.add_message(fixed, b'latched', START_NS, START_NS)
    for index in range(100):
        at_ns = START_NS + index * PERIOD_NS
        ring.add_message(odom, b'%d' % index, at_ns, at_ns)
        write_rows(ring, 1, first=index)
    ring.keep(
        lambda proposals: EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    )
    with Episode.open(ring.close()) as episode:
        messages = episode.messages('/odom')
        assert [messages[i] for i in range(len(messages))] == [b'%d' % i for i in range(80, 100)]
        assert len(episode) == len(messages) and episode.messages('/tf_static')[0] == b'latched'


def test_latched_messages_are_bounded_and_in_their_order(tmp_path):
    """A map that is published anew and anew is latched, too: the newest ones stay."""
    grid, odom = Channel('/map', 'a/msg/B', latched=True), Channel('/odom', 'a/msg/B')
    ring = RingWriter(tmp_path, HELD_S, 1_000_000)
    for index in range(100):
        at_ns = START_NS + index * PERIOD_NS
        ring.add_message(odom, b'%d' % index, at_ns, at_ns)
        ring.add_message(grid, bytes([index]) * 100_000, at_ns, at_ns)
    assert ring.span_s < 1.2  # by the bytes
    ring.keep(
        lambda proposals: EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    )
    assert ring._bytes <= 1_000_000
    with Episode.open(ring.close()) as episode:
        grids, odoms = episode.messages('/map'), episode.messages('/odom')
        assert 5 <= len(grids) <= 10 and grids[len(grids) - 1] == bytes([99]) * 100_000
        for one in (grids, odoms):
            assert np.all(np.diff(one.steady_ns) > 0)
        assert len(odoms) <= len(grids)


def test_a_latched_message_that_is_too_large_is_named(tmp_path):
    """One above a quarter of the memory is held no longer than others, and not silently."""
    grid, odom = Channel('/map', 'a/msg/B', latched=True), Channel('/odom', 'a/msg/B')
    ring = RingWriter(tmp_path, 1.0, 10**6)
    ring.add_message(grid, b'm' * 300_000, START_NS, START_NS)
    ring.add_message(odom, b'o', START_NS, START_NS + 3 * 10**9)
    ring.keep(
        lambda proposals: EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True)
    )
    with Episode.open(ring.close()) as episode:
        assert set(episode.topics) == {'/odom'}
        assert ['1 messages of /map' in event.text for event in episode.events].count(True) == 1


def test_what_is_latched_takes_no_longer_the_more_there_is_of_it(tmp_path):
    """Each message costs the same: its size is added, and taken off when it gives way."""
    tree, ring = Channel('/tf_static', 'a/msg/B', latched=True), RingWriter(tmp_path, 1.0, 10**7)
    for index in range(20_000):
        ring.add_message(tree, b'%d' % (index % 9_000), index * PERIOD_NS, index * PERIOD_NS)
    assert ring._latched.size == sum(row.size for row in ring._latched.rows.values())
    assert 0.9 < ring._latched.size / (0.25 * 10**7) <= 1


def test_latched_messages_without_room_on_the_disk_are_counted(tmp_path, monkeypatch):
    """They are written first, and count as lost like all others."""
    grid, ring = Channel('/map', 'a/msg/B', latched=True), RingWriter(tmp_path, HELD_S, 10**9)
    for index in range(30):
        at_ns = START_NS + index * NANOSECONDS
        ring.add_message(grid, bytes([index + 1]) * 1_000_000, at_ns, at_ns)
    monkeypatch.setattr(PartFile, 'reserve', lambda part, more: more < 10**6)
    recording = Recording(ring, queue_frames=4, steady_ns=time.monotonic_ns)
    ring.keep(lambda _: EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, messages=True))
    recording.finish('unknown')
    assert recording.join(10) and recording.error is None
    assert recording.lost_messages == {'messages of /map': 30}
    with Episode.open(recording.path) as episode:
        lost = [event.text for event in episode.events if event.text.endswith('the disk is full')]
        assert sum(int(text.split()[0]) for text in lost) == 30
