"""The expert: drives a scene's task from the base's true pose, as a person at the keys would."""

import math

import numpy as np

from mobile_vla_ros.sim.scene import (
    BASE_RADIUS_M,
    DIFF,
    PASS,
    STOP,
    STOP_GAP_M,
    Scene,
    passing_line,
    stop_place,
)
from mobile_vla_ros.types import NANOSECONDS

ARRIVED_M = 0.05
WOBBLE_PERIOD_S = 0.7
# Distance past the middle of an obstacle before turning in.
PAST_M = 0.45
# The same for a differential base, which turns in while it drives on; how far ahead of itself it
# aims beside an obstacle, so that its camera always sees the goal; how far beyond the path beside
# it; and where it is turned to its goal well enough, radians.
DIFF_PAST_M = 0.25
DIFF_AHEAD_M = 1.2
DIFF_BEYOND_M = 0.1
TURNED_RAD = 0.06


class Expert:
    """
    Drives to where the task ends: sideways and forward at once, heading kept; with a differential
    base, turned to where it drives.

    Its command depends only on the pose (and, with ``wobble``, the time), so that the images show
    all that decides it.

    :param seed: of the driver's habits: its speed, and its wobble.
    :param wobble: size of slow random errors in the command, m/s and rad/s; episodes with some
        show how to correct them.
    """

    def __init__(self, scene: Scene, seed: int = 0, *, wobble: float = 0.0) -> None:
        self.scene = scene
        rng = np.random.default_rng([scene.seed, seed, 3])
        self._speed = float(rng.uniform(*((0.36, 0.42) if scene.base == DIFF else (0.42, 0.48))))
        self._wobble = wobble * rng.normal(0, 1, (64, 2))

    def command(
        self, pose: tuple[float, float, float], velocity: tuple[float, float, float], time_ns: int
    ) -> np.ndarray:
        """
        Return the command for the base.

        :param pose: x, y (m) and yaw (rad) in the room.
        :param velocity: vx, vy (m/s) and wz (rad/s); no task needs it.
        :param time_ns: since the trial began.
        :returns: (6,) float64 twist: linear_x and linear_y, or linear_x and angular_z.
        """
        twist = np.zeros(6)
        if self.scene.task.kind == STOP:
            return twist
        if self.scene.base == DIFF:
            twist[[0, 5]] = self._turning(pose, time_ns)
            return twist
        place, limit = self._way_point(pose)
        ahead, aside = _in_base_axes(pose, place)
        if math.hypot(ahead, aside) < ARRIVED_M:
            return twist
        # Slow near the goal; approach only as far as the line is straight, for its neighbours.
        forward = math.copysign(min(self._speed, limit, 1.0 * abs(ahead)), ahead)
        sideways = math.copysign(min(0.4, 1.5 * abs(aside)), aside)
        if forward > 0:
            forward *= max(0.0, 1 - abs(aside) / 0.9)
        planar = np.array([forward, sideways])
        planar *= min(1.0, self._speed / max(math.hypot(*planar), 1e-9))
        if math.hypot(ahead, aside) > 0.3:
            planar = planar + self._wobble_at(time_ns / NANOSECONDS)
        twist[:2] = planar
        return twist

    def _turning(self, pose: tuple[float, float, float], time_ns: int) -> np.ndarray:
        """Return linear_x (m/s) and angular_z (rad/s) towards the goal, or past an obstacle."""
        scene, goal = self.scene, self.scene.goal
        assert goal is not None, 'a task to stop has no goal'
        place, before = (goal.x, goal.y), goal.radius + BASE_RADIUS_M + STOP_GAP_M
        passed = [scene.objects[i].x + DIFF_PAST_M for i in scene.task.obstacles]
        if passed and pose[0] < passed[0]:
            line = passing_line(scene)
            place = pose[0] + DIFF_AHEAD_M, line + math.copysign(DIFF_BEYOND_M, line)
            before = -math.inf
        ahead, aside = _in_base_axes(pose, place)
        off, left = math.atan2(aside, ahead), math.hypot(ahead, aside) - before
        if abs(left) < ARRIVED_M and abs(off) < TURNED_RAD:
            return np.zeros(2)
        forward = math.copysign(min(self._speed, abs(left)), left)
        if abs(left) < ARRIVED_M:
            forward = 0.0
        elif left > 0:  # turn first, and drive on as the place comes ahead
            forward *= max(0.0, 1 - abs(off) / 0.7)
        command = np.array([forward, math.copysign(min(1.0, 2.0 * abs(off)), off)])
        if left > 0.3:
            command += self._wobble_at(time_ns / NANOSECONDS)
        return command

    def _way_point(self, pose: tuple[float, float, float]) -> tuple[tuple[float, float], float]:
        """Return the next way point (x, y in the room, m), and the speed limit forward (m/s)."""
        scene = self.scene
        if scene.task.kind != PASS:
            return stop_place(scene), math.inf
        passed = [scene.objects[i] for i in scene.task.obstacles]
        x, y, _ = pose
        if x > passed[0].x + PAST_M:
            return stop_place(scene), math.inf
        line = passing_line(scene)
        # Not into it before the path beside it is reached.
        room = passed[0].x - passed[0].radius - BASE_RADIUS_M - 0.12 - x
        reached = abs(line - y) < 0.12 or room < -0.1
        return (x + 0.6, line), math.inf if reached else max(0.0, 0.9 * room)

    def _wobble_at(self, seconds: float) -> np.ndarray:
        """Interpolate the wobble, so that it is smooth."""
        place = seconds / WOBBLE_PERIOD_S
        i, part = int(place), place % 1
        size = len(self._wobble)
        return (1 - part) * self._wobble[i % size] + part * self._wobble[(i + 1) % size]


def _in_base_axes(
    pose: tuple[float, float, float],
    place: tuple[float, float],
) -> tuple[float, float]:
    """Return a place in the room in the base's axes: metres ahead and to the left."""
    x, y, yaw = pose
    dx, dy = place[0] - x, place[1] - y
    return (math.cos(yaw) * dx + math.sin(yaw) * dy, -math.sin(yaw) * dx + math.cos(yaw) * dy)
