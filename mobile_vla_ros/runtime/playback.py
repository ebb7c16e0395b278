"""Plans, and their playback anchored in the time of observation."""

from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.types import NANOSECONDS


@dataclass(frozen=True)
class Plan:
    """
    What a policy wants to do from one observation on.

    :param stamp_ns: stamp of the newest image that was seen; step 0 belongs to this time.
    :param twists: (chunk, 6) m/s and rad/s, one a period of the policy.
    :param rate_hz: steps a second.
    """

    stamp_ns: int
    twists: np.ndarray
    rate_hz: float


def command_at(plan: Plan, now_ns: int) -> np.ndarray | None:
    """
    Return the command a plan has for an instant.

    The action of step k was predicted for the time from stamp + k / rate until the next step,
    however long the network took to say so.

    :returns: (6,) twist, or None before the observation and after the chunk's end.
    """
    step = (now_ns - plan.stamp_ns) * plan.rate_hz / NANOSECONDS
    if not 0 <= step < len(plan.twists):
        return None
    return plan.twists[int(step)]


def path_of(plan: Plan) -> np.ndarray:
    """
    Return where a plan would take the base, in its own frame at the time of observation.

    :returns: (chunk + 1, 3): x and y in m, yaw in rad; the first row is zero.
    """
    poses = np.zeros((len(plan.twists) + 1, 3))
    for step, twist in enumerate(plan.twists):
        x, y, yaw = poses[step]
        vx, vy, wz = twist[0], twist[1], twist[5]
        cos, sin = np.cos(yaw), np.sin(yaw)
        poses[step + 1] = (x + (cos * vx - sin * vy) / plan.rate_hz,
                           y + (sin * vx + cos * vy) / plan.rate_hz, yaw + wz / plan.rate_hz)
    return poses
