"""Receives all that the drill measures, each message with the time at which DDS received it."""

import json
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import String

from mobile_vla_ros.drill.measure import Command, Pose, ProposedSpeed, Report
from mobile_vla_ros.nodes.shared.guard_status import guard_status, usable
from mobile_vla_ros.nodes.shared.messages import time_ns, twist_array

# Deep enough to lose nothing in a drive of some seconds, however late this process is.
DEPTH = QoSProfile(depth=500)
# A middleware's stamp further off than this is by a clock that was set.
MAX_OFFSET_NS = 5_000_000_000


@dataclass
class Received:
    """
    The messages of one drive, in the order of their receipt.

    :ivar commands: cmd_vel.
    :ivar odom: pose and speed of the base.
    :ivar status: reports of the guard.
    :ivar proposals: the guard's input.
    :ivar frames: of the camera's relay: (ns, mode, whether it sent a frame).
    :ivar health: of policy/health: (ns, whether inference proposes).
    """

    commands: list[Command] = field(default_factory=list)
    odom: list[Pose] = field(default_factory=list)
    status: list[Report] = field(default_factory=list)
    proposals: list[ProposedSpeed] = field(default_factory=list)
    frames: list[tuple[int, str, bool]] = field(default_factory=list)
    health: list[tuple[int, bool]] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Of the base over the floor by its newest odometry, m/s; 0.0 before the first."""
        return self.odom[-1][3] if self.odom else 0.0


class Watch:
    """
    A node with an executor and a thread of its own, which only stores what it receives.

    Times are ``time.monotonic_ns()``. DDS stamps each receipt in a thread of its own, so a busy
    interpreter here delays no time.

    :ivar received: the messages of the present drive.
    :ivar news: notified after each message.
    """

    def __init__(self) -> None:
        self.received = Received()
        self.news = threading.Condition()
        # Its own name, not the process's: the guard's preflight knows that it moves no wheels.
        self._node = node = Node('drill_watch', use_global_arguments=False)
        for kind, topic, keep in (
            (Twist, 'cmd_vel', self._on_command),
            (Odometry, 'odom', self._on_odom),
            (DiagnosticStatus, 'guard/status', self._on_status),
            (TwistStamped, 'policy/cmd_vel', self._on_proposal),
            (DiagnosticArray, 'policy/health', self._on_health),
            (String, 'drill/frames', self._on_frames),
        ):
            node.create_subscription(kind, topic, self._timed(keep), DEPTH)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and leave the graph."""
        self._closing.set()
        self._thread.join()
        self._node.destroy_node()

    def clear(self) -> None:
        """Begin a drive: drop the messages of earlier ones."""
        with self.news:
            self.received = Received()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            while not self._closing.is_set():
                self._executor.spin_once(timeout_sec=0.05)

    def _timed(self, keep: Callable) -> Callable:
        def on_message(message, info: dict) -> None:
            now_ns = time.monotonic_ns()
            waited_ns = time.time_ns() - info['received_timestamp']
            if not 0 <= waited_ns < MAX_OFFSET_NS:
                waited_ns = 0
            with self.news:
                keep(now_ns - waited_ns, message)
                self.news.notify_all()

        return on_message

    def _on_command(self, at_ns: int, message: Twist) -> None:
        self.received.commands.append((at_ns, tuple(twist_array(message).tolist())))

    def _on_odom(self, at_ns: int, message: Odometry) -> None:
        position, twist = message.pose.pose.position, message.twist.twist.linear
        speed = math.hypot(twist.x, twist.y)
        self.received.odom.append((at_ns, position.x, position.y, speed))

    def _on_status(self, at_ns: int, message: DiagnosticStatus) -> None:
        status = usable(self._node, 'a message on guard/status', lambda: guard_status(message))
        if status is not None:
            self.received.status.append((at_ns, status))

    def _on_proposal(self, at_ns: int, message: TwistStamped) -> None:
        # While the ROS clock is the system's, its offset to ours dates the image.
        ahead_ns = time.time_ns() - time.monotonic_ns()
        self.received.proposals.append(
            (at_ns, time_ns(message.header.stamp) - ahead_ns, message.twist.linear.x)
        )

    def _on_health(self, at_ns: int, message: DiagnosticArray) -> None:
        if message.status:
            proposes = message.status[0].level == DiagnosticStatus.OK
            self.received.health.append((at_ns, proposes))

    def _on_frames(self, _at_ns: int, message: String) -> None:
        report = json.loads(message.data)
        self.received.frames.append((report['at'], report['mode'], report['frame']))
