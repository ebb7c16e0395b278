"""A person beside the robot who takes over from a policy: when, and with which commands."""

import math

import numpy as np

from mobile_vla_ros.sim.expert import Expert
from mobile_vla_ros.sim.scene import BASE_RADIUS_M, Scene
from mobile_vla_ros.types import NANOSECONDS

# A policy that differs by this much for this long is wrong, not late.
WRONG_MPS, WRONG_S = 0.25, 0.4
# A collision is imminent if the command leads this near to an object within this time.
AHEAD_S, NEAR_M = 0.8, 0.05
# The takeover ends when the policy has agreed for a while.
AGREED_MPS, AGREED_S, MIN_S = 0.15, 0.5, 1.5


class Corrector:
    """
    Watches a policy's proposals in a scene, and drives as the expert while they are wrong.

    :param seed: of the expert's habits.
    """

    def __init__(self, scene: Scene, seed: int = 0) -> None:
        self.scene = scene
        self.takeovers = 0
        self._expert = Expert(scene, seed)
        self._takeover_ns: int | None = None  # when it began
        self._since_ns: int | None = None  # of disagreement; during a takeover, of agreement

    def command(
        self,
        pose: tuple[float, float, float],
        velocity: tuple[float, float, float],
        proposed: np.ndarray | None,
        now_ns: int,
    ) -> np.ndarray | None:
        """
        Return the (6,) command of a takeover, None while the policy drives.

        :param pose: x, y (m) and yaw (rad) in the room; ``velocity``: vx, vy (m/s), wz (rad/s).
        :param proposed: (6,) the policy's proposal, m/s and rad/s; None without one.
        :param now_ns: since the trial began.
        """
        right = self._expert.command(pose, velocity, now_ns)
        if proposed is None:
            return right if self._takeover_ns is not None else None
        apart = math.hypot(*(proposed - right)[:2])
        if self._takeover_ns is None:
            if self._lasts(apart > WRONG_MPS, WRONG_S, now_ns) or self._hits(
                pose, proposed, right
            ):
                self._takeover_ns, self._since_ns = now_ns, None
                self.takeovers += 1
        elif (
            self._lasts(apart < AGREED_MPS, AGREED_S, now_ns)
            and now_ns - self._takeover_ns >= MIN_S * NANOSECONDS
        ):
            self._takeover_ns = self._since_ns = None
        return right if self._takeover_ns is not None else None

    def _lasts(self, holds: bool, seconds: float, now_ns: int) -> bool:
        """Return whether a condition has held for some time."""
        if not holds:
            self._since_ns = None
            return False
        self._since_ns = now_ns if self._since_ns is None else self._since_ns
        return now_ns - self._since_ns >= seconds * NANOSECONDS

    def _hits(
        self, pose: tuple[float, float, float], proposed: np.ndarray, right: np.ndarray
    ) -> bool:
        """Return whether the policy leads into an object soon, and the expert does not."""
        return self._gap_after(pose, proposed) < min(NEAR_M, self._gap_after(pose, right))

    def _gap_after(self, pose: tuple[float, float, float], twist: np.ndarray) -> float:
        """Return the least distance (m) to an object on the path of a command."""
        x, y, yaw = pose
        ways = np.linspace(0, AHEAD_S, 9)[:, None] * [
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
