"""Messages to and from plain numbers, and how they are published and received."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Twist
from rclpy.duration import Duration
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

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


def ros_version() -> str:
    """Return the ROS distribution and its middleware, as an episode stores them."""
    return (
        f'{os.environ.get("ROS_DISTRO", "")} {rclpy.get_rmw_implementation_identifier()}'.strip()
    )


def flush(publisher: Publisher) -> None:
    """Wait up to 200 ms for subscribers to acknowledge the last message."""
    publisher.wait_for_all_acked(FLUSH_TIMEOUT)
