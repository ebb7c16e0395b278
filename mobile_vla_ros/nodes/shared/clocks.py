"""The clocks beside a node's own: time since boot, an episode's, and when a message came."""

import time

from rclpy.clock import ROSClock
from rclpy.node import Node

from mobile_vla_ros.types import NANOSECONDS

MAX_STEP_NS = 3600 * NANOSECONDS  # of simulated time between two rows; a larger one is a jump


def steady_ns() -> int:
    """Return the time since boot, nanoseconds: it goes on while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class EpisodeTime:
    """
    The clock by which an episode's rows are paired; strictly increasing.

    It is the time since boot. Under simulated time it advances with the simulation, in which the
    robot drives and the camera has its rate, however fast that runs. If simulated time goes back,
    jumps by more than an hour or is off, it advances with the time since boot.
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

    That is the middleware's time of receipt, earlier than the callback's; under simulated time,
    the simulation's present time.

    :param info: the middleware's information on the message.
    """
    clock = node.get_clock()
    if isinstance(clock, ROSClock) and clock.ros_time_is_active:
        return clock.now().nanoseconds
    return info['received_timestamp'] or clock.now().nanoseconds
