"""Hears what the drill measures, each message with the moment at which DDS received it."""

import json
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import String

from mobile_vla_ros.nodes.shared.guard_status import guard_status
from mobile_vla_ros.nodes.shared.messages import time_ns, twist_array

# Of a drive of some seconds nothing is to be lost, however late this process is.
DEPTH = QoSProfile(depth=500)
# A stamp of the middleware further off than this from our own is of a clock that was set.
WRONG_NS = 5_000_000_000


class Watch:
    """
    A node with an executor and a thread of its own, which only keeps what it hears.

    Times are ``time.monotonic_ns()``. DDS notes when a message arrived in a thread of its own, so
    a busy interpreter here makes no time late.

    :ivar commands: (ns, six numbers) of cmd_vel.
    :ivar odom: (ns, x, y, speed).
    :ivar status: (ns, ``GuardStatus``).
    :ivar proposals: (ns, when its image was taken, m/s ahead) of what the guard is proposed.
    :ivar frames: (ns, mode, whether a frame was sent) of the camera's relay.
    :ivar health: (ns, whether inference proposes) of policy/health.
    """

    def __init__(self, context: Context | None = None):
        self.commands, self.odom, self.status, self.proposals, self.frames, self.health = (
            [],
            [],
            [],
            [],
            [],
            [],
        )
        self.news = threading.Condition()
        # Its own name, not the process's: the guard's preflight knows it moves no wheels.
        self._node = node = Node('drill_watch', context=context, use_global_arguments=False)
        for kind, topic, keep in (
            (Twist, 'cmd_vel', self._on_command),
            (Odometry, 'odom', self._on_odom),
            (DiagnosticStatus, 'guard/status', self._on_status),
            (TwistStamped, 'policy/cmd_vel', self._on_proposal),
            (DiagnosticArray, 'policy/health', self._on_health),
            (String, 'drill/frames', self._on_frames),
        ):
            node.create_subscription(kind, topic, self._timed(keep), DEPTH)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def close(self):
        """End the thread and leave the graph."""
        self._closing.set()
        self._thread.join()
        self._node.destroy_node()

    def forget(self):
        """Drop what was heard in earlier drives."""
        with self.news:
            for rows in (
                self.commands,
                self.odom,
                self.status,
                self.proposals,
                self.frames,
                self.health,
            ):
                del rows[:]

    @property
    def speed(self) -> float:
        """Of the base over the floor by its newest odometry, m/s; 0.0 before the first."""
        return self.odom[-1][3] if self.odom else 0.0

    def _spin(self):
        with suppress(ExternalShutdownException):
            while not self._closing.is_set():
                self._executor.spin_once(timeout_sec=0.05)

    def _timed(self, keep: Callable) -> Callable:
        def heard(message, info: dict):
            now_ns = time.monotonic_ns()
            waited_ns = time.time_ns() - info['received_timestamp']
            if not 0 <= waited_ns < WRONG_NS:
                waited_ns = 0
            with self.news:
                keep(now_ns - waited_ns, message)
                self.news.notify_all()

        return heard

    def _on_command(self, at_ns: int, message: Twist):
        self.commands.append((at_ns, tuple(twist_array(message).tolist())))

    def _on_odom(self, at_ns: int, message: Odometry):
        place, twist = message.pose.pose.position, message.twist.twist.linear
        self.odom.append((at_ns, place.x, place.y, math.hypot(twist.x, twist.y)))

    def _on_status(self, at_ns: int, message: DiagnosticStatus):
        status = guard_status(message)
        if status is not None:
            self.status.append((at_ns, status))

    def _on_proposal(self, at_ns: int, message: TwistStamped):
        # While the ROS clock is the system's, its offset to ours says when the image was taken.
        ahead_ns = time.time_ns() - time.monotonic_ns()
        self.proposals.append(
            (at_ns, time_ns(message.header.stamp) - ahead_ns, message.twist.linear.x)
        )

    def _on_health(self, at_ns: int, message: DiagnosticArray):
        if message.status:
            self.health.append((at_ns, message.status[0].level == DiagnosticStatus.OK))

    def _on_frames(self, _at_ns: int, message: String):
        said = json.loads(message.data)
        self.frames.append((said['at'], said['mode'], said['frame']))
