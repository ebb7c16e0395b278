"""Pairing and resampling of frames and commands, shared by training and replay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.command_rule import HOLDS, CommandLog, CommandRule
from mobile_vla_ros.episode.timing.timeline import (
    actions_ahead,
    frame_times,
    segments,
)
from mobile_vla_ros.types import Command
from small_episodes import CREATED_NS, PERIOD_NS, START_NS, encoded, write_episode

S = 1_000_000_000

times = st.lists(st.integers(0, 20 * S), min_size=1, max_size=60).map(
    lambda values: np.array(sorted(values), dtype=np.int64)
)


@given(frames=times, commands=times, timeout_s=st.sampled_from([HOLDS, 0.1, 0.5, 5.0]))
def test_the_action_is_the_newest_command_in_force(frames, commands, timeout_s):
    """The newest command received at or before t that the base still obeys, otherwise zero."""
    twist = np.arange(1, len(commands) + 1)[:, None] * np.ones(6)
    found, valid = CommandLog(commands, twist, CommandRule(timeout_s)).at(frames)
    for row, time in enumerate(frames):
        received = [i for i, t in enumerate(commands) if t <= time]
        young = timeout_s == HOLDS or (received and time - commands[received[-1]] <= timeout_s * S)
        fresh = bool(received) and young
        assert valid[row] == fresh
        assert np.all(found[row] == (twist[received[-1]] if fresh else 0))


def test_without_commands_actions_are_zero():
    """All of them are marked as such."""
    twist, valid = CommandLog(np.zeros(0, np.int64), np.zeros((0, 6))).at(np.arange(3))
    assert twist.shape == (3, 6) and not twist.any() and not valid.any()


@pytest.mark.parametrize(
    ('stamp', 'clock'),
    [
        (lambda t: t - 20_000_000, 'stamp'),
        (lambda t: t - 2 * S, 'received'),
        (lambda t: t - 600_000_000, 'received'),
        (lambda t: np.where(t > t[9], t + S, t), 'received'),
        (lambda t: t * 0, 'received'),
        (lambda t: np.where(t == t[7], t[3], t), 'received'),
        (lambda t: -t, 'received'),
    ],
)
def test_the_camera_clock_is_trusted_only_if_sane(stamp, clock):
    """Stamps near the receipt that always rise are used; otherwise the receipt times."""
    received = 100 * S + np.arange(20) * S // 10
    found, name = frame_times(stamp(received), received, received)
    assert name == clock
    assert np.array_equal(found, stamp(received) if clock == 'stamp' else received)


def test_late_delivery_does_not_change_stamps():
    """Frames delayed by the network and delivered in a burst keep their stamps."""
    stamp = 100 * S + np.arange(40) * S // 10
    received = np.maximum.accumulate(stamp + np.where(np.arange(40) == 20, 9 * S // 10, 0))
    found, name = frame_times(stamp, received, received)
    assert name == 'stamp' and np.array_equal(found, stamp)


def test_an_overtaken_frame_is_sorted_by_time(tmp_path):
    """Two frames that arrived in the wrong order are used in the right order."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    for index in (0, 1, 2, 4, 3, 5, 6, 7):
        late_ns = PERIOD_NS * 3 // 2 if index == 3 else 0
        writer.add_frame(
            encoded(index), START_NS + index * PERIOD_NS, START_NS + index * PERIOD_NS + late_ns
        )
    for at in range(8):
        writer.add_command(
            Command(np.full(6, at), START_NS + at * PERIOD_NS, START_NS + at * PERIOD_NS, 'teleop')
        )
    with Episode.open(writer.close()) as episode:
        (segment,) = segments(episode, 10.0)
        assert episode.health['verdict'] == 'good' and episode.health['worst_gap_s'] == 0.1
    assert segment.frame_index.tolist() == [0, 1, 2, 4, 3, 5, 6, 7]
    assert segment.twist[:, 0].tolist() == list(range(8))


def test_an_episode_becomes_segments_with_actions_ahead(tmp_path):
    """Rows, times and actions of an episode on disk; steps beyond its end are masked."""
    with Episode.open(write_episode(tmp_path, frames=20)) as episode:
        (segment,) = segments(episode, 5.0)
    assert segment.frame_index.tolist() == list(range(0, 20, 2))
    assert np.allclose(segment.twist[:, 0], np.arange(0, 20, 2) / 100)
    twist, real = actions_ahead(segment, 4)
    assert twist.shape == (10, 4, 6) and real.shape == (10, 4)
    assert np.array_equal(twist[:, 0], segment.twist)
    assert np.allclose(twist[2, :, 0], [0.04, 0.06, 0.08, 0.10])
    assert real.sum(axis=1).tolist() == [4] * 7 + [3, 2, 1]
    assert not twist[~real].any()


def test_an_action_ahead_belongs_to_its_own_time(tmp_path):
    """Step k is the command in force at t + k / rate, also between two frames."""
    with Episode.open(write_episode(tmp_path, frames=20)) as episode:
        (segment,) = segments(episode, 20 / 3)
    twist, _ = actions_ahead(segment, 2)
    assert segment.frame_index[:2].tolist() == [0, 2]
    assert twist[0, 1, :2].tolist() == [0.01, 1]
