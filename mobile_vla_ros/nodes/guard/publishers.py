"""What the guard publishes: commands, its status and diagnostics."""

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.node import Node
from rclpy.publisher import Publisher

from mobile_vla_ros.nodes.shared.clocks import steady_ns
from mobile_vla_ros.nodes.shared.messages import flush, status_array, status_message, twist_message
from mobile_vla_ros.safety import preflight
from mobile_vla_ros.safety.guard import Decision
from mobile_vla_ros.safety.status import GuardStatus, State
from mobile_vla_ros.types import NANOSECONDS

COMMAND_DEPTH = STATUS_DEPTH = 10
STATUS_PERIOD_NS = 100_000_000
DIAGNOSTICS_PERIOD_NS = 1_000_000_000
LEVELS = {
    State.ESTOP: DiagnosticStatus.ERROR,
    State.FAULT: DiagnosticStatus.ERROR,
    State.DISARMED: DiagnosticStatus.WARN,
}


class CommandPublisher:
    """
    Publishes the commands to the base.

    :param kind: the message type, ``preflight.TWIST`` or ``TWIST_STAMPED``.
    :param frame_id: of stamped commands.
    :param dry_run: publish nothing, and create no publisher.
    """

    def __init__(self, node: Node, kind: str, frame_id: str, *, dry_run: bool):
        self.type = kind
        self._node, self._frame_id = node, frame_id
        self._silent = False
        self._publisher: Publisher | None = None if dry_run else self._create()

    @property
    def enabled(self) -> bool:
        """Whether commands are published: False in a dry run."""
        return self._publisher is not None

    def set_type(self, kind: str) -> None:
        """Publish another message type, and no longer the previous one."""
        self.type = kind
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = self._create()

    def follow(self, decision: Decision) -> None:
        """Publish the command of a decision, unless it must be silent."""
        self._silent = decision.silent
        if not decision.silent:
            self.publish(decision.twist)

    def publish(self, twist: np.ndarray) -> None:
        """Publish (6,) m/s and rad/s, stamped now."""
        if self._publisher is None:
            return
        message = twist_message(twist)
        if self.type == preflight.TWIST_STAMPED:
            message = TwistStamped(twist=message)
            message.header.stamp = self._node.get_clock().now().to_msg()
            message.header.frame_id = self._frame_id
        self._publisher.publish(message)

    def close(self) -> None:
        """Leave zero as the last command, unless somebody else may drive; wait for its receipt."""
        if self._publisher is not None and not self._silent:
            self.publish(np.zeros(6))
            flush(self._publisher)

    def _create(self) -> Publisher:
        kind = TwistStamped if self.type == preflight.TWIST_STAMPED else Twist
        return self._node.create_publisher(kind, 'cmd_vel', COMMAND_DEPTH)


class StatusPublisher:
    """
    Publishes the guard's status at every change and every 0.1 s, diagnostics every second.

    :param period_s: of the guard's ticks.
    """

    def __init__(self, node: Node, period_s: float):
        self._node = node
        self._statuses = node.create_publisher(DiagnosticStatus, '~/status', STATUS_DEPTH)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 1)
        # Publish half a tick early: the next tick would be late.
        self._period_ns = STATUS_PERIOD_NS - round(period_s / 2 * NANOSECONDS)
        self._last: tuple | None = None
        self._last_ns = self._diagnosed_ns = 0

    def publish(self, status: GuardStatus) -> None:
        """Publish a status when it is due; log a new fault or e-stop."""
        now_ns = steady_ns()
        content = (
            status.state,
            status.source,
            status.stop_reason,
            status.sentence,
            status.armed,
            status.refused,
        )
        changed = content != self._last
        if not changed and now_ns - self._last_ns < self._period_ns:
            return
        if changed and status.state in (State.FAULT, State.ESTOP):
            self._node.get_logger().warning(f'{status.state}: {status.sentence}')
        message = status_message(
            self._node.get_fully_qualified_name().lstrip('/'),
            status.state.value,
            status.values(),
            LEVELS.get(status.state, DiagnosticStatus.OK),
        )
        self._statuses.publish(message)
        self._last, self._last_ns = content, now_ns
        if changed or now_ns - self._diagnosed_ns >= DIAGNOSTICS_PERIOD_NS:
            self._diagnostics.publish(status_array(self._node.get_clock().now().to_msg(), message))
            self._diagnosed_ns = now_ns
