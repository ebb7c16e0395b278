"""What the guard subscribes to: proposals, a person's commands and the e-stop."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.clock import ROSClock
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from std_msgs.msg import Bool

from mobile_vla_ros.nodes.shared.clocks import steady_ns
from mobile_vla_ros.nodes.shared.guard_status import policy_report, usable
from mobile_vla_ros.nodes.shared.messages import (
    BEST_EFFORT,
    LATCHED,
    time_ns,
    twist_array,
    with_info,
)
from mobile_vla_ros.safety import preflight
from mobile_vla_ros.safety.estop import EstopOrder, EstopWatch
from mobile_vla_ros.safety.lateness import Lateness
from mobile_vla_ros.safety.preflight import Endpoint
from mobile_vla_ros.safety.status import Health, Level, PolicyStatus, StopReason
from mobile_vla_ros.types import Check

INPUT_DEPTH = 10
# What the fastest publisher sends while the executor is busy elsewhere.
ESTOP_DEPTH = 1000
Report = tuple[PolicyStatus, list[Check]]
# What counts when a report cannot be used: whatever it says, the drive must not go on.
UNUSABLE: Report = (
    PolicyStatus(Health.fault(StopReason.OTHER, 'the report of the policy cannot be used')),
    [],
)


class Sending:
    """
    When the messages of a topic were sent, as far as the middleware knows.

    A clock that is set back on this machine makes nothing late if its senders share it.

    :param latched: the first message may be old, so start from a reference sent now.
    """

    def __init__(self, *, latched: bool = False) -> None:
        self._steady, self._wall = Lateness(), Lateness()
        if latched:
            self.late_ns({'source_timestamp': time.time_ns()}, steady_ns())

    def late_ns(self, info: dict, now_ns: int) -> int:
        """
        Return how much later than usual a message arrives.

        :param info: the middleware's information on the message.
        :param now_ns: ``steady_ns``.
        """
        sent_ns = info['source_timestamp']
        return min(
            self._steady.late_ns(sent_ns, now_ns), self._wall.late_ns(sent_ns, time.time_ns())
        )

    def sent_ns(self, info: dict) -> int:
        """Return when a message was sent, on ``steady_ns``."""
        now_ns = steady_ns()
        return now_ns - self.late_ns(info, now_ns)


class TeleopTopic:
    """
    A person's commands, of the type that is published: Twist or TwistStamped.

    One process cannot subscribe to both at a time.

    :param on_command: called with a twist (6,), the time of receipt (``steady_ns``), and how late
        it arrived, nanoseconds.
    """

    def __init__(self, node: Node, on_command: Callable[[np.ndarray, int, int], None]):
        self.topic = node.resolve_topic_name('teleop/cmd_vel')
        self.type = preflight.TWIST
        self._node, self._on_command = node, on_command
        self._sending, self._stamps = Sending(), Lateness()
        self._subscriptions: list[Subscription] = []
        self._subscribe()

    def follow(self, publishers: Sequence[Endpoint]) -> None:
        """Subscribe to the other type once nobody publishes the present one any more."""
        types = {one.type for one in publishers}
        others = types & set(preflight.TYPES.values())
        if others and self.type not in types:
            self.type = min(others)
            self._subscribe()
            self._node.get_logger().info(f'{self.topic} is {self.type} now')

    def _subscribe(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        stamped = self.type == preflight.TWIST_STAMPED
        self._sending, self._stamps = Sending(), Lateness()
        self._subscriptions = [
            # Received from every publisher, and once: a lost command is not sent again when old.
            self._node.create_subscription(
                TwistStamped if stamped else Twist,
                self.topic,
                with_info(self._on_stamped if stamped else self._on_twist),
                BEST_EFFORT,
            ),
            # A stop is received reliably: none may be lost, and a late one only stops.
            self._node.create_subscription(
                TwistStamped if stamped else Twist,
                self.topic,
                self._on_stamped_stop if stamped else self._on_stop,
                INPUT_DEPTH,
                event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            ),
        ]

    def _on_twist(self, message: Twist, info: dict) -> None:
        now_ns = steady_ns()
        self._on_command(twist_array(message), now_ns, self._sending.late_ns(info, now_ns))

    def _on_stamped(self, message: TwistStamped, info: dict) -> None:
        now_ns, clock = steady_ns(), self._node.get_clock()
        late_ns = self._sending.late_ns(info, now_ns)
        # A person's stamps are on the wall clock, whatever the time of a simulation is.
        if not (isinstance(clock, ROSClock) and clock.ros_time_is_active):
            late_ns = max(
                late_ns, self._stamps.late_ns(time_ns(message.header.stamp), time.time_ns())
            )
        self._on_command(twist_array(message.twist), now_ns, late_ns)

    def _on_stop(self, message: Twist) -> None:
        twist = twist_array(message)
        if not twist.any():
            self._on_command(twist, steady_ns(), 0)

    def _on_stamped_stop(self, message: TwistStamped) -> None:
        self._on_stop(message.twist)


def subscribe_to_policy(
    node: Node,
    on_proposal: Callable[[np.ndarray, int, int], None],
    on_health: Callable[[PolicyStatus, list[Check], int], None],
) -> None:
    """
    Subscribe to proposals and to the health of the policy.

    :param on_proposal: called with a twist (6,), its stamp (nanoseconds, ROS clock), and when it
        was sent, on ``steady_ns``.
    :param on_health: called with the report and its checks (``policy_report``), and when it was
        sent; with a fault for one that cannot be used.
    """
    proposals, reports = Sending(), Sending(latched=True)
    newest_ns = 0

    def proposal(message: TwistStamped, info: dict) -> None:
        on_proposal(
            twist_array(message.twist), time_ns(message.header.stamp), proposals.sent_ns(info)
        )

    def health(data: bytes, info: dict) -> None:
        nonlocal newest_ns
        sent_ns = reports.sent_ns(info)
        report = usable(node, 'a message on policy/health', lambda: policy_report(data), UNUSABLE)
        if report is None:
            return
        # A copy on the other subscription must not undo a newer report; a fault always counts.
        if sent_ns >= newest_ns or report[0].health.level != Level.OK:
            newest_ns = max(newest_ns, sent_ns)
            on_health(*report, sent_ns)

    node.create_subscription(TwistStamped, 'policy/cmd_vel', with_info(proposal), BEST_EFFORT)
    # The latched one is incompatible with publishers that do not latch; the other receives those.
    quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
    for qos in (LATCHED, BEST_EFFORT):
        node.create_subscription(
            DiagnosticArray,
            'policy/health',
            with_info(health),
            qos,
            event_callbacks=quiet,
            raw=True,
        )


class EstopTopic:
    """
    The subscriptions to the e-stop; no press may be lost, and one from before this node counts.

    The executor takes one message at a time, while a publisher that floods the topic with "not
    pressed" overwrites the oldest ones. So each callback empties the queues.

    :param on_estop: called with the value of each message that counts (``EstopOrder``), and when
        it seems to be sent, on ``steady_ns``.
    :ivar watch: the publishers that the drive relies on.
    """

    def __init__(self, node: Node, on_estop: Callable[[bool, int], None]):
        self.watch = EstopWatch()
        self._on_estop, self._sending = on_estop, Sending(latched=True)
        self._order = EstopOrder()
        best_effort = QoSProfile(depth=ESTOP_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
        kinds: list[QoSProfile | int] = [ESTOP_DEPTH, best_effort, LATCHED]
        self._subscriptions = [
            node.create_subscription(
                Bool, 'estop', with_info(partial(self._on_message, index)), qos
            )
            for index, qos in enumerate(kinds)
        ]

    def _on_message(self, index: int, message: Bool, info: dict) -> None:
        self._take(index, message, info)
        for other, subscription in enumerate(self._subscriptions):
            with subscription.handle:
                for _ in range(ESTOP_DEPTH):
                    taken = subscription.handle.take_message(Bool, False)
                    if taken is None:
                        break
                    self._take(other, *taken)

    def _take(self, index: int, message: Bool, info: dict) -> None:
        sent_ns = self._sending.sent_ns(info)
        if self._order.counts(message.data, index, info['source_timestamp'], sent_ns):
            self._on_estop(message.data, sent_ns)
