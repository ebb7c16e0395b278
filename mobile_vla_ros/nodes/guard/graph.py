"""What the graph says of the way from the guard to the wheels."""

from collections.abc import Iterable

from rcl_interfaces.srv import GetParameters
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future

from mobile_vla_ros.safety import preflight, strafing
from mobile_vla_ros.safety.preflight import Endpoint
from mobile_vla_ros.types import Check

POLL_S = 0.02
# Enough for a node that is well; whoever arms waits that long at the most.
ANSWER_S = 1.0
# Smoother, collision monitor, multiplexer: further than that nobody looks for a base.
HOPS = 4
DOUBLES = 8  # PARAMETER_DOUBLE_ARRAY
# What the guard hears: topic, type, and whether two publishers would contradict each other.
INPUTS = (
    ('policy/cmd_vel', preflight.TWIST_STAMPED, True),
    ('policy/health', 'diagnostic_msgs/msg/DiagnosticArray', True),
    ('teleop/cmd_vel', preflight.TWIST, False),
    ('estop', 'std_msgs/msg/Bool', False),
)
# What is there for a moment only is a graph that is being learnt: looks running until somebody
# counts, who publishes, and who listens and has no name yet.
LOOKS, NAMELESS_LOOKS = 2, 12


class Graph:
    """
    Looks at the graph for a guard.

    :param topic: full name of the commands' topic.
    :param clock: a steady one, for the time limit of questions.
    :param group: of callbacks that run while another one of the node waits for an answer.
    """

    def __init__(self, node: Node, topic: str, clock, group: ReentrantCallbackGroup):
        self.topic = topic
        self._node, self._clock, self._group = node, clock, group
        self._clients: dict = {}
        self._looks: dict[tuple, int] = {}

    def listeners(self) -> list[Endpoint]:
        """Return who listens to the commands."""
        return _endpoints(self._node.get_subscriptions_info_by_topic(self.topic))

    def _publishers(self) -> list[Endpoint]:
        return _endpoints(self._node.get_publishers_info_by_topic(self.topic))

    def watch(self) -> tuple[Check, Check]:
        """
        Look again, while the guard publishes; to be called at even distances.

        :returns: whether nobody else does, and whether nobody but the arena is moved.
        """
        publishers, found = self._publishers(), self.listeners()
        self._looks = {
            _key(one): self._looks.get(_key(one), 0) + 1 for one in (*publishers, *found)
        }
        return (
            preflight.check_rivals(
                self.topic,
                [one for one in publishers if self._looks[_key(one)] >= LOOKS],
                self._node.get_fully_qualified_name(),
                True,
            ),
            preflight.check_arm_at_start(
                self.topic,
                [
                    one
                    for one in found
                    if one.node != preflight.NO_NAME_YET
                    or self._looks[_key(one)] >= NAMELESS_LOOKS
                ],
            ),
        )

    async def checks(
        self, published: str, publishes: bool, with_y: bool, by_itself: bool
    ) -> list[Check]:
        """
        Look now, and ask a smoother on the way what it lets through.

        :param published: type of the commands.
        :param publishes: whether the guard does so at all (not in a dry run).
        :param with_y: whether commands can have a linear_y.
        :param by_itself: whether the guard arms with nobody asked.
        """
        found, heard = self.listeners(), self._inputs()
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
            preflight.check_inputs(heard),
            preflight.check_estop(heard[-1]),
            *([preflight.check_arm_at_start(self.topic, found)] if by_itself else []),
        ]

    def _inputs(self) -> list[preflight.Input]:
        """Return who publishes what the guard hears, in the order of ``INPUTS``."""
        heard = []
        for name, kind, alone in INPUTS:
            topic = self._node.resolve_topic_name(name)
            heard.append(
                preflight.Input(
                    topic, kind, _endpoints(self._node.get_publishers_info_by_topic(topic)), alone
                )
            )
        return heard

    def _on_the_way(self, found: Iterable[Endpoint]) -> list[Endpoint]:
        """Return who hears the commands, and who hears what these publish, and so on."""
        known: list[Endpoint] = []
        next_ones = preflight.possible_bases(found)
        for _ in range(HOPS):
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
        except RuntimeError:  # it has just gone, or its name has not come yet
            return []

    async def _parameters(self, name: str) -> dict[str, list[float]] | None:
        """Return a smoother's parameters; None when it does not tell them in time."""
        names = list(strafing.SMOOTHER_SIGNS)
        if name not in self._clients:
            self._clients[name] = self._node.create_client(
                GetParameters, f'{name}/get_parameters', callback_group=self._group
            )
        client, done = self._clients[name], Future(executor=self._node.executor)
        until_ns = self._clock.now().nanoseconds + round(ANSWER_S * 1e9)
        asked = None

        def look():
            nonlocal asked
            if asked is None and client.service_is_ready():
                asked = client.call_async(GetParameters.Request(names=names))
            answered = asked is not None and asked.done()
            if answered or self._clock.now().nanoseconds > until_ns:
                timer.cancel()
                done.set_result(asked.result() if answered else None)

        timer = self._node.create_timer(POLL_S, look, self._group, self._clock)
        try:
            answer = await done
        finally:
            self._node.destroy_timer(timer)
        if answer is None:
            if asked is not None:
                client.remove_pending_request(asked)
            return None
        return {
            key: list(value.double_array_value)
            for key, value in zip(names, answer.values, strict=False)
            if value.type == DOUBLES
        }


def _key(one: Endpoint) -> tuple:
    """Return what tells an endpoint from others: some middlewares give all the same number."""
    return one.gid if any(one.gid) else (one.full_name,)


def _endpoints(infos: Iterable) -> list[Endpoint]:
    return [
        Endpoint(info.node_name, info.node_namespace, info.topic_type, tuple(info.endpoint_gid))
        for info in infos
    ]
