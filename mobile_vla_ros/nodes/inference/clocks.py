"""The clocks of the inference node, and which of them measures what."""

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

# Two clocks whose readings lie further apart than this are read again.
TOGETHER_NS = 5_000_000


class Clocks:
    """
    The node's clock, which stamps refer to, and a steady one; all times are nanoseconds.

    :ivar real_time: whether the node's clock is the system's; otherwise a simulation publishes it.
    :ivar timers: the clock for timers that follow the robot's time: steady in real time, so that
        a step of the system's clock stops none; the simulation's otherwise.
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
        """Return the clock that measures durations: a simulation may run slower than real time."""
        return self.timers.now().nanoseconds
