"""When a person beside the robot would take over from a policy, and what they would drive."""

import math

import numpy as np

from mobile_vla_ros.sim.expert import Expert
from mobile_vla_ros.sim.scene import BASE_RADIUS_M, Scene
from mobile_vla_ros.types import NANOSECONDS

# A policy that differs by so much for so long is wrong, not late.
WRONG_MPS, WRONG_S = 0.25, 0.4
# It is about to hit something when its command leads so near to it in so long.
LOOK_S, NEAR_M = 0.8, 0.05
# The wheel is given back when the policy has agreed for a while.
AGREED_MPS, AGREED_S, LEAST_S = 0.15, 0.5, 1.5


class Corrector:
    """
    Watches what a policy proposes in a scene, and drives as the expert while it is wrong.

    :param seed: of the expert's habits.
    """

    def __init__(self, scene: Scene, seed: int = 0):
        self.scene = scene
        self.takeovers = 0
        self._expert = Expert(scene, seed)
        self._taken_ns: int | None = None
        self._since_ns: int | None = None  # of disagreement; while taken over, of agreement

    def command(
        self,
        pose: tuple[float, float, float],
        velocity: tuple[float, float, float],
        proposed: np.ndarray | None,
        now_ns: int,
    ) -> np.ndarray | None:
        """
        Return what to drive in the policy's stead, None while it is let alone.

        :param pose: x, y (m) and yaw (rad) in the room; ``velocity``: vx, vy (m/s), wz (rad/s).
        :param proposed: (6,) what the policy says, m/s and rad/s; None while it says nothing.
        :param now_ns: since the trial began.
        """
        right = self._expert.command(pose, velocity, now_ns)
        if proposed is None:
            return right if self._taken_ns is not None else None
        apart = math.hypot(*(proposed - right)[:2])
        if self._taken_ns is None:
            if self._lasts(apart > WRONG_MPS, WRONG_S, now_ns) or self._hits(
                pose, proposed, right
            ):
                self._taken_ns, self._since_ns = now_ns, None
                self.takeovers += 1
        elif (
            self._lasts(apart < AGREED_MPS, AGREED_S, now_ns)
            and now_ns - self._taken_ns >= LEAST_S * NANOSECONDS
        ):
            self._taken_ns = self._since_ns = None
        return right if self._taken_ns is not None else None

    def _lasts(self, is_so: bool, seconds: float, now_ns: int) -> bool:
        """Whether something has been so for some time."""
        if not is_so:
            self._since_ns = None
            return False
        self._since_ns = now_ns if self._since_ns is None else self._since_ns
        return now_ns - self._since_ns >= seconds * NANOSECONDS

    def _hits(
        self, pose: tuple[float, float, float], proposed: np.ndarray, right: np.ndarray
    ) -> bool:
        """Whether the policy leads into something soon, and the expert does not."""
        return self._gap_after(pose, proposed) < min(NEAR_M, self._gap_after(pose, right))

    def _gap_after(self, pose: tuple[float, float, float], twist: np.ndarray) -> float:
        """Return the least distance (m) from an object on the way that a command leads soon."""
        x, y, yaw = pose
        ways = np.linspace(0, LOOK_S, 9)[:, None] * [
            math.cos(yaw) * twist[0] - math.sin(yaw) * twist[1],
            math.sin(yaw) * twist[0] + math.cos(yaw) * twist[1],
        ] + [x, y]
        return (
            min(
                float(np.hypot(*(ways - [thing.x, thing.y]).T).min()) - thing.radius
                for thing in self.scene.objects
            )
            - BASE_RADIUS_M
        )
