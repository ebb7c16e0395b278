"""Odometry in an episode's file: read, judged when it is written, read again and recovered."""

import csv

import numpy as np
import pytest

from driven_bases import Base, keyboard, message
from mobile_vla_ros.episode.catalog.edit import edit
from mobile_vla_ros.episode.catalog.inspect import check, judge_episode
from mobile_vla_ros.episode.odometry import STATE, TYPE, odometry_topic
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.recovery import recover
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.command_rule import HOLDS, CommandRule, KnownBy
from mobile_vla_ros.interop.export import export
from mobile_vla_ros.types import Command
from small_episodes import CREATED_NS, IMU, START_NS, encoded

S = 1_000_000_000
SECONDS = 16.0
ODOM = Channel('/robot/odom', TYPE)
SWAPPED = Base(((0, 1, 0), (1, 0, 0), (0, 0, 1)))


def written(folder, base, commands=None, seconds=SECONDS, channel=ODOM):
    """Return a writer with a drive, an image at 10 Hz, and what the base reports."""
    at_s, twist = commands or keyboard(np.random.default_rng(4), seconds)
    writer = EpisodeWriter(folder, EpisodeInfo('go'), CREATED_NS, messages=True)
    rows = [(s, 'command', row) for s, row in zip(at_s, twist, strict=True)]
    rows += [(s, 'frame', round(s * 10)) for s in np.arange(0, seconds, 0.1)]
    rows += [
        (s, 'message', one) for s, *one in zip(*base.drive(at_s, twist, seconds), strict=True)
    ]
    for second, kind, value in sorted(rows, key=lambda row: row[0]):
        now_ns = START_NS + round(second * S)
        if kind == 'command':
            writer.add_command(Command(value, now_ns, now_ns, 'teleop'))
        elif kind == 'frame':
            writer.add_frame(encoded(value), now_ns, now_ns)
        else:
            pose, (vx, vy, wz) = value
            six = (vx, vy, 0.0, 0.0, 0.0, wz)
            writer.add_message(IMU, b'\0\1\0\0imu', now_ns, now_ns)
            writer.add_message(channel, message(pose, six, now_ns), now_ns, now_ns)
    return writer


def test_a_swapped_axis_is_named_when_written_when_checked_and_after_a_recovery(tmp_path):
    """The reason, the measures, and the same verdict from the file alone."""
    writer = written(tmp_path, SWAPPED)
    with Episode.open(writer.close()) as episode:
        health = episode.health
        assert health['verdict'] == 'poor'
        assert 'linear_x and linear_y are swapped (by its odometry)' in health['reasons']
        assert health['odometry_scale']['angular_z'] == pytest.approx(1.0, abs=0.05)
        assert 0 < health['odometry_lag_s']['angular_z'] <= 0.3
        assert judge_episode(episode) == health == check(episode.path)
    killed = written(tmp_path / 'killed', SWAPPED)
    killed.flush()
    killed.abandon()
    with Episode.open(recover(killed.part_path, now_ns=CREATED_NS).path) as episode:
        assert episode.health['reasons'] == health['reasons']
        assert len(episode.odometry) == SECONDS * 20


def test_a_base_that_obeys_is_good(tmp_path):
    """Its odometry changes no verdict; the file holds the measures."""
    with Episode.open(written(tmp_path, Base()).close()) as episode:
        assert (episode.health['verdict'], episode.health['notes']) == ('good', [])
        assert set(episode.health['odometry_scale']) == {'linear_x', 'linear_y', 'angular_z'}


def test_what_the_base_does_between_commands_is_told_by_odometry_before_images(tmp_path):
    """The images here show no motion at all."""
    at_s = np.arange(0.5, SECONDS, 2.0)
    twist = np.zeros((len(at_s), 6))
    twist[:, 0] = np.resize([0.4, 0.3, 0.0], len(at_s))
    for base, timeout_s in ((Base(), HOLDS), (Base(stops_after_s=0.7), 0.7)):
        path = written(tmp_path / str(timeout_s), base, (at_s, twist)).close()
        with Episode.open(path) as episode:
            rule = episode.command_rule()
            assert rule.known_by == KnownBy.ODOMETRY
            assert rule.timeout_s == pytest.approx(timeout_s, abs=0.11)
            assert judge_episode(episode) == episode.health
    edit({path: {'trim': [0.0, 1.0]}}, by='anna', time_ns=0)
    with Episode.open(path) as episode:
        assert episode.command_rule() == CommandRule(rule.timeout_s, KnownBy.ODOMETRY)


def test_state_follows_the_frames_into_the_csv_export(tmp_path):
    """One row a frame, by name; a trim hides odometry and frames alike."""
    path = written(tmp_path, Base(), seconds=4.0).close()
    edit({path: {'trim': [1.0, 2.0]}}, by='anna', time_ns=0)
    with Episode.open(path) as episode:
        odometry, frames_ns = episode.odometry, episode.frame_steady_ns
    assert odometry.steady_ns.min() >= START_NS + S
    assert odometry.steady_ns.max() <= START_NS + 2 * S
    out = tmp_path / 'out'
    out.mkdir()
    export(path, out, 'csv')
    (table,) = out.glob('*/frames.csv')
    rows = list(csv.DictReader(table.open()))
    found = [[float(row[f'odometry_{name}']) for name in STATE] for row in rows]
    assert np.array(found) == pytest.approx(odometry.state(frames_ns), nan_ok=True)
    assert np.nanmax(np.abs(found)) > 0.1


def test_the_topic_named_odom_is_the_odometry_else_the_first(tmp_path):
    """A robot may have several; one without has none."""
    first, other = Channel('/wheels', TYPE), Channel('/camera/odom', 'geometry_msgs/msg/Pose')
    assert odometry_topic([IMU, other]) is None
    assert odometry_topic([IMU, other, first]) == '/wheels'
    assert odometry_topic([first, ODOM]) == '/robot/odom'
    writer = written(tmp_path, Base(), seconds=1.0, channel=other)
    with Episode.open(writer.close()) as episode:
        assert episode.odometry is None and 'odometry_scale' not in episode.health
        assert judge_episode(episode) == episode.health
