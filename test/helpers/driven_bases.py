"""Bases that follow commands late, slowly and with slip, and the odometry that they report."""

import math
import struct
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.odometry import Odometry

SECOND = 1_000_000_000
STEP_S = 0.01


@dataclass(frozen=True)
class Base:
    """
    How a base drives; the matrix maps commanded (vx, vy, wz) to driven ones.

    :param acceleration: m/s² (rad/s²: three times that); lag_s: of its response; tau_s: of its
        wheels.
    :param slip, noise: standard deviations of the slow and the white error of its odometry.
    :param stops_after_s: a command's age at which it stops.
    """

    matrix: tuple = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    acceleration: float = 1.5
    lag_s: float = 0.1
    tau_s: float = 0.1
    slip: float = 0.0
    noise: float = 0.0
    stops_after_s: float = np.inf
    rate_hz: float = 20.0

    def drive(self, at_s, twist, seconds, seed=0):
        """Return times (s), poses (N, 3) and twists (N, 3) that it reports."""
        rng = np.random.default_rng(seed)
        steps = round(seconds / STEP_S)
        heard_s = np.arange(steps) * STEP_S - self.lag_s
        row = np.searchsorted(at_s, heard_s, side='right') - 1
        obeyed = (row >= 0) & (heard_s - np.asarray(at_s)[row] <= self.stops_after_s)
        wanted = np.asarray(twist)[row][:, [0, 1, 5]] @ np.array(self.matrix, float).T
        wanted[~obeyed] = 0
        limits = self.acceleration * STEP_S * np.array([1, 1, 3])
        speed = np.column_stack([self._follow(*one) for one in zip(wanted.T, limits, strict=True)])
        decay = np.exp(-np.arange(0, 4, STEP_S) / 0.8)
        slips = [np.convolve(one, decay)[:steps] for one in rng.normal(0, 1, (3, steps))]
        slips = self.slip * np.column_stack(slips) / np.sqrt((decay**2).sum())
        real = speed + slips * np.minimum(1, np.abs(speed).max(axis=1, keepdims=True) / 0.2)
        yaw = np.cumsum(real[:, 2]) * STEP_S
        cos, sin = np.cos(yaw), np.sin(yaw)
        x = np.cumsum(cos * real[:, 0] - sin * real[:, 1]) * STEP_S
        y = np.cumsum(sin * real[:, 0] + cos * real[:, 1]) * STEP_S
        real = real + rng.normal(0, self.noise, real.shape)
        rows = slice(None, None, round(1 / self.rate_hz / STEP_S))
        pose = np.column_stack([x, y, np.arctan2(sin, cos)])
        return np.arange(steps)[rows] * STEP_S, pose[rows], real[rows]

    def _follow(self, wanted, limit):
        """Return the speed (N,) of one axis."""
        share, now, found = 1 - math.exp(-STEP_S / max(self.tau_s, 1e-6)), 0.0, []
        for one in wanted.tolist():
            now += min(max((one - now) * share, -limit), limit)
            found.append(now)
        return found


def odometry_of(drive, start_ns=0):
    """Return the ``Odometry`` of what ``Base.drive`` returned."""
    time_s, pose, velocity = drive
    twist = np.zeros((len(time_s), 6))
    twist[:, [0, 1, 5]] = velocity
    time_ns = start_ns + np.round(np.asarray(time_s) * SECOND).astype(np.int64)
    return Odometry(time_ns, pose, twist)


def keyboard(rng, seconds, axes=(0, 1, 5), speed=0.4, rate_hz=10.0):
    """Return times and twists of somebody who presses keys for 0.3 to 3 s, one or two axes."""
    at_s = np.arange(0, seconds, 1 / rate_hz)
    twist = np.zeros((len(at_s), 6))
    time_s = 0.5
    while time_s < seconds:
        end_s = time_s + rng.uniform(0.3, 3.0)
        held = (at_s >= time_s) & (at_s < end_s)
        for axis in rng.choice(axes, rng.integers(1, min(2, len(axes)) + 1), replace=False):
            twist[held, axis] = rng.choice([-1, 1, 1]) * speed * (2 if axis == 5 else 1)
        time_s = end_s + rng.choice([0.0, rng.uniform(0, 1.0)])
    return at_s, twist


def joystick(rng, seconds, axes=(0, 1, 5), speed=0.4, rate_hz=20.0):
    """Return times and twists of a stick that wanders."""
    at_s = np.arange(0, seconds, 1 / rate_hz)
    twist = np.zeros((len(at_s), 6))
    for axis in axes:
        corners = rng.uniform(-1, 1, int(seconds / 0.7) + 2)
        shape = np.interp(at_s / 0.7, np.arange(len(corners)), corners)
        twist[:, axis] = shape * speed * (2 if axis == 5 else 1)
    return at_s, twist


def message(
    pose=(0.0, 0.0, 0.0),
    twist=(0.0,) * 6,
    stamp_ns=0,
    frames=('odom', 'base_link'),
    order='<',
    orientation=None,
) -> bytes:
    """Return the CDR of a nav_msgs/msg/Odometry."""
    x, y, yaw = pose
    if orientation is None:
        orientation = (0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2))
    body = struct.pack(f'{order}iI', *divmod(stamp_ns, SECOND))
    for name in frames:
        text = name.encode() + b'\0'
        body += bytes(-len(body) % 4) + struct.pack(f'{order}I', len(text)) + text
    body += bytes(-len(body) % 8)
    floats = [x, y, 0.0, *orientation, *[0.0] * 36, *twist, *[0.0] * 36]
    body += struct.pack(f'{order}85d', *floats)
    return bytes([0, order == '<', 0, 0]) + body
