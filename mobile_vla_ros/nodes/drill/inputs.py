"""The inputs of a drive that the drill makes: proposals, camera, teleop, e-stop and clock."""

import threading
import time
from collections import deque

import rclpy
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, String

from mobile_vla_ros.drill import catalog
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.drill import camera
from mobile_vla_ros.nodes.shared.messages import LATCHED
from mobile_vla_ros.types import NANOSECONDS

PERIOD_S, TELEOP_PERIOD_S = 0.01, 0.05
SLOW_NS = 800_000_000
GUEST_S = 10.0


class Inputs:
    """
    Publishes the inputs, and relays inference's proposals with a speed of its own.

    A thread sends delayed proposals, and repeats a person's command and the clock.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._out = {
            name: node.create_publisher(kind, topic, qos)
            for name, kind, topic, qos in (
                ('proposal', TwistStamped, 'policy/cmd_vel', 10),
                ('camera', String, 'drill/camera', LATCHED),
                ('instruction', String, 'instruction', LATCHED),
                ('teleop', Twist, 'teleop/cmd_vel', 10),
                ('estop', Bool, 'estop', 10),
                ('clock', Clock, '/clock', 10),
            )
        }
        self._speed_mps = catalog.SPEED_MPS
        self._slow = False
        self._delayed: deque[tuple[int, TwistStamped]] = deque()
        self._teleop: Twist | None = None
        self._teleop_ns = 0
        self._clock_offset_ns: int | None = None
        self._guest_context: rclpy.Context | None = None
        self._guest: Node | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        node.create_subscription(TwistStamped, catalog.PROPOSALS, self._on_proposal, 10)
        self._thread = threading.Thread(target=self._repeat, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()
        self.dismiss_guest()

    def camera(self, mode: str = camera.PASS) -> None:
        """Set the mode of the camera's relay."""
        self._out['camera'].publish(String(data=mode))

    def propose(self, speed_mps: float = catalog.SPEED_MPS, *, slow: bool = False) -> None:
        """Set the speed of all proposals; ``slow``: delay them by 0.8 s."""
        with self._lock:
            self._speed_mps, self._slow = speed_mps, slow
            self._delayed.clear()

    def teleop(self, twist: Twist | None) -> int:
        """Begin or end a person's driving; return the time of the last command."""
        with self._lock:
            self._teleop = twist
            if twist is not None:
                self._out['teleop'].publish(twist)
                self._teleop_ns = time.monotonic_ns()
            return self._teleop_ns

    def estop(self, pressed: bool) -> int:
        """Press or release the e-stop; return the time."""
        now_ns = time.monotonic_ns()
        self._out['estop'].publish(Bool(data=pressed))
        return now_ns

    def add_estop(self) -> None:
        """Publish the e-stop again."""
        self._out['estop'] = self._node.create_publisher(Bool, 'estop', 10)

    def remove_estop(self) -> int:
        """Let the e-stop's publisher disappear; return the time."""
        now_ns = time.monotonic_ns()
        self._node.destroy_publisher(self._out['estop'])
        return now_ns

    def publish_as_guest(self, topic: str, kind: type) -> int:
        """
        Let another node publish a topic; return the time from when the graph shows it here.

        In a context of its own, since one process cannot use two types on one topic.
        """
        self._guest_context = rclpy.Context()
        rclpy.init(args=[], context=self._guest_context)  # not under the name of the drill
        name = f'{self._node.get_name()}_guest'
        self._guest = rclpy.create_node(name, context=self._guest_context)
        self._guest.create_publisher(kind, self._node.resolve_topic_name(topic), 10)
        deadline = time.monotonic() + GUEST_S
        while name not in {
            info.node_name for info in self._node.get_publishers_info_by_topic(topic)
        }:
            if time.monotonic() > deadline:
                raise UserError(f'{name} does not appear on the graph in {GUEST_S:g} s')
            time.sleep(PERIOD_S)
        return time.monotonic_ns()

    def dismiss_guest(self) -> None:
        """End the other node."""
        if self._guest_context is not None:
            self._guest_context.shutdown()
            self._guest = self._guest_context = None

    def instruct(self, instruction: str) -> int:
        """Publish another instruction; return the time."""
        now_ns = time.monotonic_ns()
        self._out['instruction'].publish(String(data=instruction))
        return now_ns

    def set_clock(self, offset_s: int | None) -> int:
        """Publish /clock at an offset from the system's; None: not at all. Return the time."""
        with self._lock:
            self._clock_offset_ns = None if offset_s is None else offset_s * NANOSECONDS
            now_ns = time.monotonic_ns()
            self._publish_clock()
        return now_ns

    def _publish_clock(self) -> None:
        if self._clock_offset_ns is None:
            return
        message = Clock()
        now_ns = time.time_ns() + self._clock_offset_ns
        message.clock.sec, message.clock.nanosec = divmod(now_ns, NANOSECONDS)
        self._out['clock'].publish(message)

    def _on_proposal(self, message: TwistStamped) -> None:
        message.twist = Twist()
        with self._lock:
            message.twist.linear.x = self._speed_mps
            if self._slow:
                self._delayed.append((time.monotonic_ns() + SLOW_NS, message))
            else:
                self._out['proposal'].publish(message)

    def _repeat(self) -> None:
        while not self._closing.wait(PERIOD_S):
            with self._lock:
                self._publish_clock()
                now_ns = time.monotonic_ns()
                while self._delayed and self._delayed[0][0] <= now_ns:
                    self._out['proposal'].publish(self._delayed.popleft()[1])
                due = now_ns - self._teleop_ns >= TELEOP_PERIOD_S * NANOSECONDS
                if self._teleop is not None and due:
                    self._out['teleop'].publish(self._teleop)
                    self._teleop_ns = now_ns
