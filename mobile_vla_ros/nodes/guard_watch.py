"""What the guard says it is doing, as its neighbours hear it."""

import math

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from mobile_vla_ros.nodes.common import BEST_EFFORT
from mobile_vla_ros.types import NANOSECONDS

FRESH_S = 0.5
MOVING_STATES = ('driving', 'teleop')
# What is commanded below this moves no picture: m/s over ground, rad/s.
LEAST_SPEED_MPS, LEAST_TURN_RPS = 0.1, 0.1


class GuardWatch:
    """
    Hears `guard/status`. Times are those of the caller's clock, nanoseconds.

    :param now_ns: reads that clock.
    """

    def __init__(self, node: Node, now_ns):
        self._now_ns = now_ns
        self._heard_ns: int | None = None
        self._moving_since_ns: int | None = None
        self._state = ''
        self._values: dict[str, str] = {}
        self._twist = np.zeros(6)
        self.subscription = node.create_subscription(
            DiagnosticStatus, 'guard/status', self._on_status, BEST_EFFORT
        )

    @property
    def fresh(self) -> bool:
        """Whether a guard has spoken within the last half second."""
        return self._heard_ns is not None and (
            0 <= self._now_ns() - self._heard_ns < FRESH_S * NANOSECONDS
        )

    @property
    def state(self) -> str:
        """The guard's state, '' when it is silent or not there."""
        return self._state if self.fresh else ''

    @property
    def twist(self) -> np.ndarray:
        """(6,) m/s and rad/s that the guard commands; zeros when it is silent."""
        return self._twist if self.fresh else np.zeros(6)

    def value(self, key: str) -> str:
        """Return one of its values, '' when it is silent or has none of that name."""
        return self._values.get(key, '') if self.fresh else ''

    @property
    def dry_run(self) -> bool:
        """Whether it keeps what it decides from the base."""
        return self.value('dry_run') == 'true'

    @property
    def moving_s(self) -> float:
        """For how long the base has been commanded to move; 0.0 when it is not, or nobody says."""
        if not self.fresh or self._moving_since_ns is None:
            return 0.0
        return max(0, self._now_ns() - self._moving_since_ns) / NANOSECONDS

    @property
    def stopped(self) -> bool:
        """Whether a guard is there and keeps the base at rest."""
        return self.fresh and self._state != 'driving' and not self._twist.any()

    def _on_status(self, message: DiagnosticStatus) -> None:
        now_ns = self._now_ns()
        self._values = {pair.key: pair.value for pair in message.values}
        self._state = message.message
        self._twist = np.zeros(6)
        for axis, key in ((0, 'linear_x'), (1, 'linear_y'), (5, 'angular_z')):
            self._twist[axis] = _number(self._values.get(key, ''))
        moves = (
            self._state in MOVING_STATES
            and self._values.get('dry_run') != 'true'
            and (
                math.hypot(self._twist[0], self._twist[1]) >= LEAST_SPEED_MPS
                or abs(self._twist[5]) >= LEAST_TURN_RPS
            )
        )
        if not moves:
            self._moving_since_ns = None
        elif self._moving_since_ns is None or not self.fresh or self._moving_since_ns > now_ns:
            self._moving_since_ns = now_ns
        self._heard_ns = now_ns


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
