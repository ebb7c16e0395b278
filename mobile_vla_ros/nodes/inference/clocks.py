"""The clocks that inference goes by: the node's own, which stamps are of, and a steady one."""

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

# Two clocks that were not read within this time are read again.
TOGETHER_NS = 5_000_000


class Clocks:
    """
    Reads both. Times are nanoseconds.

    :ivar real_time: whether the node's clock is the real one; else a simulation makes it.
    :ivar timers: what timers that move with the robot go by: a step of the real clock must stop
        none, and a simulation's clock is everybody's.
    """

    def __init__(self, node: Node):
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._own = node.get_clock()
        self.real_time = not node.get_parameter('use_sim_time').value
        self.timers = self.steady if self.real_time else self._own

    def steady_ns(self) -> int:
        """Return the steady clock."""
        return self.steady.now().nanoseconds

    def ros_ns(self) -> int:
        """Return the node's clock."""
        return self._own.now().nanoseconds

    def both(self) -> tuple[int, int]:
        """Return the node's clock and the steady one, read together."""
        for _ in range(5):
            before_ns = self.steady_ns()
            ros_ns = self.ros_ns()
            steady_ns = self.steady_ns()
            if steady_ns - before_ns < TOGETHER_NS:
                break
        return ros_ns, steady_ns

    def now_ns(self) -> int:
        """Return the clock that durations are measured by: a simulation's time may be slow."""
        return self.timers.now().nanoseconds
