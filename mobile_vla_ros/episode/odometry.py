"""
What the base reports of its own motion: pose and twist of ``nav_msgs/msg/Odometry``.

An episode stores the messages as they arrived (CDR); they are decoded here without ROS. ``state``
gives ``observation.state``: what a policy could have known of its motion at each frame.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.types import NANOSECONDS

TYPE = 'nav_msgs/msg/Odometry'
NAME = 'odom'  # last part of the topic's name, where an episode has several
PLANAR = (0, 1, 5)  # columns of a twist that a planar base drives
# Columns of ``state``: m/s and rad/s in the base's axes; m and rad in the odometry's frame.
STATE = ('linear_x', 'linear_y', 'angular_z', 'x', 'y', 'yaw')
MAX_STATE_AGE_S = 0.5
MAX_VALUE = 1e9  # m, m/s, rad/s: anything beyond it is no measurement
DIFFERENCE_NS = NANOSECONDS // 10  # over which a pose gives a velocity

# Floats of the message: position (3), orientation (4), covariance (36), linear (3), angular (3),
# covariance (36). The covariances are not read.
FLOATS = 85
USED = [0, 1, *range(3, 7), *range(43, 49)]


@dataclass(frozen=True)
class Odometry:
    """
    Odometry of an episode, in order of receipt.

    :param steady_ns: (N,) int64 receipts on a clock that never steps, not decreasing.
    :param pose: (N, 3) float64 x, y (m) and yaw (rad, -pi to pi) in the odometry's own frame; yaw
        is NaN where the message has no orientation (a quaternion of zeros).
    :param twist: (N, 6) float64 in the base's axes, m/s and rad/s.
    :param left_out: messages that are no Odometry, or whose values are not finite.
    :param by_pose: every message leaves the twist empty although the pose changes: ``twist`` is
        the change of the pose over the last tenth of a second.
    """

    steady_ns: np.ndarray
    pose: np.ndarray
    twist: np.ndarray
    left_out: int = 0
    by_pose: bool = False

    def __len__(self) -> int:
        return len(self.steady_ns)

    def state(self, time_ns: np.ndarray) -> np.ndarray:
        """
        Return ``observation.state``: the newest odometry received at or before each time.

        :param time_ns: (F,) int64 on the steady clock, such as ``timeline.times_of``.
        :returns: (F, 6) float64, the columns of ``STATE``; NaN without a message in the last
            ``MAX_STATE_AGE_S``.
        """
        rows = np.searchsorted(self.steady_ns, time_ns, side='right') - 1
        found = np.full((len(rows), len(STATE)), np.nan)
        known = rows >= 0
        if len(self):
            age_ns = np.asarray(time_ns) - self.steady_ns[rows]
            known &= age_ns <= round(MAX_STATE_AGE_S * NANOSECONDS)
        rows = rows[known]
        found[known] = np.hstack([self.twist[rows][:, PLANAR], self.pose[rows]])
        return found


def odometry_topic(channels: Iterable[Channel]) -> str | None:
    """Return the topic of an episode's odometry: the one named ``NAME``, else the first."""
    topics = [one.topic for one in channels if one.type == TYPE]
    named = [topic for topic in topics if topic.rpartition('/')[2] == NAME]
    return next(iter(named + topics), None)


def read_odometry(messages: Sequence[bytes], steady_ns: np.ndarray) -> Odometry:
    """
    Decode messages of ``TYPE``; those that are broken, or not finite, are left out and counted.

    :param messages: CDR of either byte order, with its encapsulation header.
    :param steady_ns: (N,) int64 receipts, in order of arrival.
    """
    decoded = [_message(message) for message in messages]
    rows = np.array([row for row, one in enumerate(decoded) if one is not None], np.int64)
    floats = [one for one in decoded if one is not None]
    table = np.array(floats, np.float64).reshape(-1, len(USED))
    fits = (np.abs(table) <= MAX_VALUE).all(axis=1)  # NaN is not
    table, rows = table[fits], rows[fits]
    steady_ns = np.maximum.accumulate(np.asarray(steady_ns, np.int64)[rows])
    pose = np.column_stack([table[:, :2], _yaw(table[:, 2:6])])
    twist, moved = table[:, 6:], velocity_by_pose(steady_ns, pose)
    by_pose = not twist.any() and bool(moved.any())
    if by_pose:
        twist = np.zeros_like(twist)
        twist[:, PLANAR] = moved
    return Odometry(steady_ns, pose, twist, len(messages) - len(rows), by_pose)


def velocity_by_pose(steady_ns: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """
    Return (N, 3) float64 vx, vy, wz in the base's axes by the change of a pose.

    Each is over the last ``DIFFERENCE_NS`` or a little more; zero where that is not known.

    :param steady_ns: (N,) int64, not decreasing; pose: (N, 3) x, y, yaw.
    """
    rows = np.arange(len(pose))
    before = np.searchsorted(steady_ns, steady_ns - DIFFERENCE_NS, side='right') - 1
    known = before >= 0
    rows, before = rows[known], before[known]
    elapsed_s = (steady_ns[rows] - steady_ns[before]) / NANOSECONDS
    change = pose[rows] - pose[before]
    turned = np.arctan2(np.sin(change[:, 2]), np.cos(change[:, 2]))
    middle = pose[before, 2] + turned / 2
    cos, sin = np.cos(middle), np.sin(middle)
    ahead = cos * change[:, 0] + sin * change[:, 1]
    aside = cos * change[:, 1] - sin * change[:, 0]
    found = np.zeros((len(pose), 3))
    found[known] = np.column_stack([ahead, aside, turned]) / elapsed_s[:, None]
    return np.nan_to_num(found, nan=0.0)  # a yaw may be unknown


def _message(data: bytes) -> np.ndarray | None:
    """Return the ``USED`` floats of a message; None if it is broken."""
    if len(data) < 4 or data[0] != 0 or data[1] > 1:  # plain CDR, big or little endian
        return None
    order, body = '><'[data[1]], memoryview(data)[4:]
    try:
        at = 8  # after the stamp
        for _ in range(2):  # frame_id and child_frame_id
            at += -at % 4
            at += 4 + struct.unpack_from(f'{order}I', body, at)[0]
        at += -at % 8
        floats = np.frombuffer(body, f'{order}f8', FLOATS, at)
    except (struct.error, ValueError):
        return None
    return floats[USED]


def _yaw(quaternion: np.ndarray) -> np.ndarray:
    """Return (N,) yaw of (N, 4) quaternions x, y, z, w of any length; NaN for zeros."""
    x, y, z, w = quaternion.T
    yaw = np.arctan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z)
    return np.where((np.abs(quaternion) > 1e-6).any(axis=1), yaw, np.nan)
