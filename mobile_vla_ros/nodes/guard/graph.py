"""What the ROS graph shows between the guard and the wheels."""

from collections.abc import Iterable
from dataclasses import dataclass

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.client import Client
from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.task import Future

from mobile_vla_ros.nodes.guard.inputs import TeleopTopic
from mobile_vla_ros.safety import preflight, strafing
from mobile_vla_ros.safety.preflight import Endpoint
from mobile_vla_ros.types import Check

POLL_S = 0.02
# Enough for a healthy node; arming waits at most that long.
ANSWER_S = 1.0
# Smoother, collision monitor, multiplexer: a base lies no further downstream.
MAX_HOPS = 4
# The guard's inputs: topic, type (of teleop, the one to start with), and whether two publishers
# would contradict each other.
INPUTS = (
    ('policy/cmd_vel', preflight.TWIST_STAMPED, True),
    ('policy/health', 'diagnostic_msgs/msg/DiagnosticArray', True),
    ('teleop/cmd_vel', preflight.TWIST, False),
    ('estop', 'std_msgs/msg/Bool', True),
)
TELEOP, ESTOP = 2, 3
# Discovery shows endpoints that vanish again. An endpoint counts when seen this often in a row: a
# publisher; a subscription whose node has no name yet.
MIN_SIGHTINGS, MIN_NAMELESS_SIGHTINGS = 2, 12


@dataclass(frozen=True)
class Seen:
    """
    What the graph shows at one moment, without endpoints that may vanish again.

    :param rival: the check for other publishers of commands.
    :param arena: the check for subscribers to commands beside the arena.
    :param inputs: of the guard, in the order of ``INPUTS``.
    :param estops: all publishers of the e-stop, also those that may vanish again.
    """

    rival: Check
    arena: Check
    inputs: list[preflight.Input]
    estops: list[Endpoint]


class Graph:
    """
    Queries the graph for a guard.

    :param topic: full name of the commands' topic.
    :param clock: a steady one, for the timeout of service calls.
    :param group: callbacks that may run while another callback of the node waits for an answer.
    :param teleop: subscribes to the type that is published.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        clock: Clock,
        group: ReentrantCallbackGroup,
        teleop: TeleopTopic,
    ):
        self.topic = topic
        self._teleop = teleop
        self._node, self._clock, self._group = node, clock, group
        self._clients: dict[str, Client] = {}
        self._sightings: dict[preflight.Key, int] = {}

    def listeners(self) -> list[Endpoint]:
        """Return the subscriptions to the commands."""
        return _endpoints(self._node.get_subscriptions_info_by_topic(self.topic))

    def _publishers(self) -> list[Endpoint]:
        return _endpoints(self._node.get_publishers_info_by_topic(self.topic))

    def watch(self) -> Seen:
        """
        Make the checks that hold at all times, and follow the type of a person's commands.

        Call this at a fixed period.
        """
        publishers, found, senders = self._publishers(), self.listeners(), self._senders()
        self._sightings = {
            key: self._sightings.get(key, 0) + 1
            for key in {
                one.key
                for one in (*publishers, *found, *(one for some in senders for one in some))
            }
        }
        stable = [self._stable(some) for some in senders]
        self._teleop.follow(stable[TELEOP])
        return Seen(
            preflight.check_rivals(
                self.topic, self._stable(publishers), self._node.get_fully_qualified_name(), True
            ),
            preflight.check_arm_at_start(
                self.topic,
                [
                    one
                    for one in found
                    if one.node != preflight.NO_NAME_YET
                    or self._sightings[one.key] >= MIN_NAMELESS_SIGHTINGS
                ],
            ),
            self._inputs(stable),
            senders[ESTOP],
        )

    def estop_publishers(self) -> list[Endpoint]:
        """Return the publishers of the e-stop."""
        return self._senders()[ESTOP]

    def _stable(self, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        return [one for one in endpoints if self._sightings[one.key] >= MIN_SIGHTINGS]

    async def checks(
        self, published: str, publishes: bool, with_y: bool, by_itself: bool
    ) -> list[Check]:
        """
        Make the checks before arming; ask a smoother on the way for its limits.

        :param published: type of the commands.
        :param publishes: whether the guard publishes at all (not in a dry run).
        :param with_y: whether commands can have a linear_y.
        :param by_itself: whether the guard arms without a person's request.
        """
        found, inputs = self.listeners(), self._inputs(self._senders())
        on_the_way = self._on_the_way(found) if with_y else []
        answers = {
            name: await self._parameters(name) for name in strafing.find_smoothers(on_the_way)
        }
        return [
            preflight.check_rivals(
                self.topic, self._publishers(), self._node.get_fully_qualified_name(), publishes
            ),
            preflight.check_listeners(self.topic, found),
            preflight.check_cmd_vel_type(self.topic, found, published),
            strafing.check_linear_y(on_the_way, with_y, answers),
            preflight.check_inputs(inputs),
            preflight.check_estop(inputs[ESTOP]),
            *([preflight.check_arm_at_start(self.topic, found)] if by_itself else []),
        ]

    def _senders(self) -> list[list[Endpoint]]:
        """Return the publishers of each of ``INPUTS``."""
        topics = [self._node.resolve_topic_name(name) for name, *_ in INPUTS]
        return [_endpoints(self._node.get_publishers_info_by_topic(topic)) for topic in topics]

    def _inputs(self, senders: Iterable[list[Endpoint]]) -> list[preflight.Input]:
        inputs = [
            preflight.Input(self._node.resolve_topic_name(name), kind, publishers, alone)
            for (name, kind, alone), publishers in zip(INPUTS, senders, strict=True)
        ]
        inputs[TELEOP] = inputs[TELEOP]._replace(type=self._teleop.type)
        return inputs

    def _on_the_way(self, found: Iterable[Endpoint]) -> list[Endpoint]:
        """Return the subscribers to the commands, the subscribers to their commands, and so on."""
        known: list[Endpoint] = []
        next_ones = preflight.possible_bases(found)
        for _ in range(MAX_HOPS):
            known += next_ones
            seen = {one.full_name for one in known}
            topics = {
                name
                for one in next_ones
                for name, kinds in self._published_by(one)
                if {preflight.TWIST, preflight.TWIST_STAMPED} & set(kinds)
            }
            next_ones = [
                one
                for topic in sorted(topics - {self.topic})
                for one in preflight.possible_bases(
                    _endpoints(self._node.get_subscriptions_info_by_topic(topic))
                )
                if one.full_name not in seen
            ]
        return known

    def _published_by(self, one: Endpoint) -> list[tuple[str, list[str]]]:
        try:
            return self._node.get_publisher_names_and_types_by_node(one.node, one.namespace)
        except RuntimeError:  # it has just gone, or has no name yet
            return []

    async def _parameters(self, name: str) -> dict[str, list[float]] | None:
        """Return a smoother's parameters; None if it does not answer in time."""
        names = list(strafing.SMOOTHER_SIGNS)
        if name not in self._clients:
            self._clients[name] = self._node.create_client(
                GetParameters, f'{name}/get_parameters', callback_group=self._group
            )
        client, done = self._clients[name], Future(executor=self._node.executor)
        until_ns = self._clock.now().nanoseconds + round(ANSWER_S * 1e9)
        request: Future | None = None

        def poll() -> None:
            nonlocal request
            if request is None and client.service_is_ready():
                request = client.call_async(GetParameters.Request(names=names))
            answer = request.result() if request is not None and request.done() else None
            if answer is not None or self._clock.now().nanoseconds > until_ns:
                timer.cancel()
                done.set_result(answer)

        timer = self._node.create_timer(POLL_S, poll, self._group, self._clock)
        try:
            answer = await done
        finally:
            self._node.destroy_timer(timer)
        if answer is None:
            if request is not None:
                client.remove_pending_request(request)
            return None
        return {
            key: list(value.double_array_value)
            for key, value in zip(names, answer.values, strict=False)
            if value.type == ParameterType.PARAMETER_DOUBLE_ARRAY
        }


def _endpoints(infos: Iterable) -> list[Endpoint]:
    return [
        Endpoint(info.node_name, info.node_namespace, info.topic_type, tuple(info.endpoint_gid))
        for info in infos
    ]
