"""Messages to and from plain numbers, and how they are published and received."""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Twist
from rclpy.clock import ROSClock
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from mobile_vla_ros.types import NANOSECONDS

# Later subscribers receive the last message too.
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
# Receives from reliable and best-effort publishers; a lost message is not sent again when old.
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
FLUSH_TIMEOUT = Duration(nanoseconds=200_000_000)


def with_info(callback: Callable[[Any, dict], None]) -> Callable[..., None]:
    """Return a callback (message, message info) as is; rclpy accepts it, its types do not."""
    return callback


def time_ns(stamp: Time) -> int:
    """Return a stamp in nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def twist_array(message: Twist) -> np.ndarray:
    """Return (6,) float64 of a Twist: m/s, then rad/s."""
    linear, angular = message.linear, message.angular
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])


def twist_message(twist: np.ndarray) -> Twist:
    """Return a Twist of (6,) m/s and rad/s."""
    message = Twist()
    message.linear.x, message.linear.y, message.linear.z = (float(v) for v in twist[:3])
    message.angular.x, message.angular.y, message.angular.z = (float(v) for v in twist[3:])
    return message


def status_message(
    name: str,
    message: str,
    values: dict,
    level: bytes = DiagnosticStatus.OK,
) -> DiagnosticStatus:
    """Return a DiagnosticStatus with its values as text."""
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def status_array(stamp: Time, *statuses: DiagnosticStatus) -> DiagnosticArray:
    """Return statuses as one message with their time."""
    array = DiagnosticArray(status=list(statuses))
    array.header.stamp = stamp
    return array


def steady_ns() -> int:
    """Return the time since boot, nanoseconds: it goes on while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


MAX_STEP_NS = 3600 * NANOSECONDS  # of a simulation between two rows; beyond it, another clock


class EpisodeTime:
    """
    The time that the rows of an episode are paired by: it never goes back, and never stands.

    That is the time since boot. Under simulated time it goes on as the simulation does, in which
    the robot drives and the camera has its rate, whatever its speed; where that goes back, jumps
    by an hour or is off, it goes on as the time since boot does.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._simulated_ns: int | None = None
        self._real_ns = self._newest_ns = 0

    def __call__(self) -> int:
        """Return it, nanoseconds."""
        real_ns, clock = steady_ns(), self._node.get_clock()
        simulated = isinstance(clock, ROSClock) and clock.ros_time_is_active
        # At 0 no message came on /clock, or the simulation begins anew.
        now_ns = (clock.now().nanoseconds or None) if simulated else None
        elapsed_ns = real_ns - self._real_ns
        if now_ns is not None and self._simulated_ns is not None:
            step_ns = now_ns - self._simulated_ns
            elapsed_ns = step_ns if 0 <= step_ns <= MAX_STEP_NS else elapsed_ns
        self._simulated_ns, self._real_ns = now_ns, real_ns
        self._newest_ns = max(self._newest_ns + elapsed_ns, self._newest_ns + 1)
        return self._newest_ns


def receipt_ns(node: Node, info: dict) -> int:
    """
    Return when a message was received, on the node's clock.

    The middleware's time of receipt, which is the earlier one; under simulated time, the
    simulation's now.

    :param info: the middleware's information on the message.
    """
    clock = node.get_clock()
    if isinstance(clock, ROSClock) and clock.ros_time_is_active:
        return clock.now().nanoseconds
    return info['received_timestamp'] or clock.now().nanoseconds


def ros_version() -> str:
    """Return the ROS distribution and its middleware, as an episode stores them."""
    return (
        f'{os.environ.get("ROS_DISTRO", "")} {rclpy.get_rmw_implementation_identifier()}'.strip()
    )


def flush(publisher: Publisher) -> None:
    """Wait up to 200 ms for subscribers to acknowledge the last message."""
    publisher.wait_for_all_acked(FLUSH_TIMEOUT)
