"""The expert: drives a scene's task as a person at the keys would, from the base's true pose."""

import math

import numpy as np

from mobile_vla_ros.sim.scene import BASE_RADIUS_M, Scene
from mobile_vla_ros.types import NANOSECONDS

STOP_GAP_M = 0.24
ARRIVED_M = 0.05
WOBBLE_PERIOD_S = 0.7


class Expert:
    """
    Drives to the front of the target: sideways and forward at once, heading kept.

    Its command follows from the pose alone (and, with ``wobble``, the time), so that takes of it
    hold no secret that a picture could not tell.

    :param seed: of the driver's habits: its speed, and its wobble.
    :param wobble: size of slow random errors in the command, m/s; takes made with some of it show
        how to come back from them.
    """

    def __init__(self, scene: Scene, seed: int = 0, *, wobble: float = 0.0):
        self.scene = scene
        rng = np.random.default_rng([scene.seed, seed, 3])
        self._speed = float(rng.uniform(0.42, 0.48))
        self._wobble = wobble * rng.normal(0, 1, (64, 2))

    def command(self, pose: tuple[float, float, float], velocity: tuple[float, float, float],
                time_ns: int) -> np.ndarray:
        """
        Return what to send to the base.

        :param pose: x, y (m) and yaw (rad) in the room.
        :param velocity: vx, vy (m/s) and wz (rad/s); not needed to go to an object.
        :param time_ns: since the trial began.
        :returns: (6,) float64 twist; only linear_x and linear_y are used.
        """
        ahead, aside = self._to_stop(pose)
        twist = np.zeros(6)
        if math.hypot(ahead, aside) < ARRIVED_M:
            return twist
        # Slow near the goal; and come no nearer than the line is straight, for its neighbours.
        forward = math.copysign(min(self._speed, 1.0 * abs(ahead)), ahead)
        sideways = math.copysign(min(0.4, 1.5 * abs(aside)), aside)
        if forward > 0:
            forward *= max(0.0, 1 - abs(aside) / 0.9)
        planar = np.array([forward, sideways])
        planar *= min(1.0, self._speed / max(math.hypot(*planar), 1e-9))
        if math.hypot(ahead, aside) > 0.3:
            planar = planar + self._wobble_at(time_ns / NANOSECONDS)
        twist[:2] = planar
        return twist

    def _to_stop(self, pose: tuple[float, float, float]) -> tuple[float, float]:
        """Return metres ahead and to the left, in the base's axes, of the place to stop."""
        goal = self.scene.goal
        x, y, yaw = pose
        dx, dy = goal.x - x, goal.y - y
        ahead = math.cos(yaw) * dx + math.sin(yaw) * dy
        aside = -math.sin(yaw) * dx + math.cos(yaw) * dy
        return ahead - goal.radius - BASE_RADIUS_M - STOP_GAP_M, aside

    def _wobble_at(self, seconds: float) -> np.ndarray:
        """Interpolate the wobble, so that it is as smooth as a hand."""
        place = seconds / WOBBLE_PERIOD_S
        i, part = int(place), place % 1
        size = len(self._wobble)
        return (1 - part) * self._wobble[i % size] + part * self._wobble[(i + 1) % size]
