"""Topics that several nodes share, and in words what the graph says of them."""

from collections import deque
from collections.abc import Callable, Collection, Sequence

from geometry_msgs.msg import Twist, TwistStamped
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.messages import LATCHED, time_ns
from mobile_vla_ros.nodes.shared.sequence import MessageCount

# As qos_profile_sensor_data, but deep enough for a second in which a process gets no time.
CAMERA_QOS = QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)
CAMERA_TYPES = {'raw': Image, 'compressed': CompressedImage}
COMMAND_TYPES = {'geometry_msgs/msg/Twist': Twist, 'geometry_msgs/msg/TwistStamped': TwistStamped}
# Deep enough for a second in which a recorder gets no time.
COMMAND_DEPTH = 100
INSTRUCTION_DEPTH, COPIES_KEPT = 10, 32


def camera(node: Node, transport: str) -> tuple[str, type]:
    """
    Return the full name and the type of the camera topic that a node is to hear.

    A compressed topic follows the remapping of its raw one, as image_transport has it.

    :param transport: ``raw`` or ``compressed``.
    :raises UserError: for another transport.
    """
    if transport not in CAMERA_TYPES:
        raise UserError(
            'unknown image_transport', got=repr(transport), expected=' or '.join(CAMERA_TYPES)
        )
    topic = node.resolve_topic_name('camera/image_raw')
    if transport == 'compressed':
        topic = node.resolve_topic_name(f'{topic}/compressed')
    return topic, CAMERA_TYPES[transport]


def wrong_camera(topic: str, publishers: Sequence, kind: type) -> str:
    """
    Return why a camera that is there can never be heard, '' when it can or is not there.

    :param publishers: TopicEndpointInfo of each (``get_publishers_info_by_topic``).
    :param kind: the message type that is listened for.
    """
    expected = f'sensor_msgs/msg/{kind.__name__}'
    types = sorted({info.topic_type for info in publishers})
    if types and expected not in types:
        return (
            f'the camera topic {topic} has the wrong type: got {", ".join(types)}; expected '
            f'{expected}; set image_transport or remap camera/image_raw'
        )
    return ''


def publisher_names(publishers: Sequence) -> str:
    """Return the full names of the nodes that publish, with the type where they differ."""
    kinds = {info.topic_type for info in publishers}
    return ', '.join(
        sorted(
            f'{info.node_namespace.rstrip("/")}/{info.node_name}'
            + (f' ({info.topic_type.rsplit("/", 1)[-1]})' if len(kinds) > 1 else '')
            for info in publishers
        )
    )


def several(topic: str, publishers: Sequence) -> str:
    """Return a sentence that names the publishers when there is more than one, else ''."""
    if len(publishers) < 2:
        return ''
    return f'{len(publishers)} publishers on {topic}: {publisher_names(publishers)}'


def command_type(topic: str, publishers: Sequence, known: Collection[str]) -> tuple[str, str]:
    """
    Find out the type of the commands.

    :param known: the types that can be heard.
    :returns: the type, '' while there is none; what is wrong in words, '' when nothing is.
    """
    types = sorted({info.topic_type for info in publishers})
    fitting = [name for name in types if name in known]
    if not types:
        return '', f'no command yet: nobody publishes {topic}'
    if not fitting:
        return '', (
            f'the command topic {topic} has the wrong type: got {", ".join(types)}; '
            f'expected {" or ".join(known)}'
        )
    return fitting[0], several(topic, publishers)


class InstructionTopic:
    """
    The topic `instruction`, heard from whoever publishes it: latched, so that one of before this
    node counts, or not, as `ros2 topic pub` does unless it is told otherwise.

    :param heard: called with each instruction once, also when it is the same again.
    """

    def __init__(self, node: Node, heard: Callable[[str], None]):
        self._heard = heard
        # A latched one comes to both subscriptions; its copy must not undo a newer one.
        self._copies: deque[tuple[int, str]] = deque(maxlen=COPIES_KEPT)
        # The first cannot hear all, and needs no warning of that: the second does.
        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
        self._node, self._subscriptions = (
            node,
            [
                node.create_subscription(
                    String, 'instruction', self._on_message, LATCHED, event_callbacks=quiet
                ),
                node.create_subscription(
                    String, 'instruction', self._on_message, INSTRUCTION_DEPTH
                ),
            ],
        )

    def close(self) -> None:
        """Listen no more."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_message(self, message: String, info: dict) -> None:
        copy = info['source_timestamp'], message.data
        if copy[0]:  # where the middleware says when it was sent
            if copy in self._copies:
                return
            self._copies.append(copy)
        self._heard(message.data)


class CommandTopic:
    """
    The subscription to the commands, made for the type that the graph says they have.

    :param heard: called with each Twist, its header stamp in nanoseconds (None where it has no
        header), the middleware's information on the message, and how many before it never came.
    :param changed: called with the type when it is found out, and when it becomes another one.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        heard: Callable[[Twist, int | None, dict, int], None],
        changed: Callable[[str], None],
    ):
        self.topic = node.resolve_topic_name(name)
        self.type = ''
        self.problem = ''  # also that nobody publishes; rivals: only that several do
        self.rivals = ''
        self._node, self._heard, self._changed = node, heard, changed
        self._subscription = None
        self._reliable = True
        self._count = MessageCount()

    def look(self):
        """Look at the graph: publishers come late, go, and come back with another type."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        found, self.problem = command_type(self.topic, publishers, COMMAND_TYPES)
        self._count.published_by(
            {tuple(info.endpoint_gid) for info in publishers}, len(publishers)
        )
        types = {info.topic_type for info in publishers}
        # A publisher that is not reliable is heard only by a subscription that does not ask it.
        unreliable = any(
            info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
            for info in publishers
            if info.topic_type in COMMAND_TYPES
        )
        if found and (self.type not in types or (unreliable and self._reliable)):
            self._reliable = not unreliable
            self._listen_for(found if self.type not in types else self.type)
        if found and len(types) > 1:
            self.problem += f'; only {self.type.rsplit("/", 1)[-1]} is heard'
        self.rivals = self.problem if found else ''

    def _listen_for(self, found: str):
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self.type = found
        heard = self._on_twist if COMMAND_TYPES[found] is Twist else self._on_stamped
        self._subscription = self._node.create_subscription(
            COMMAND_TYPES[found],
            self.topic,
            heard,
            QoSProfile(
                depth=COMMAND_DEPTH,
                reliability=ReliabilityPolicy.RELIABLE
                if self._reliable
                else ReliabilityPolicy.BEST_EFFORT,
            ),
        )
        self._changed(found)

    def _on_twist(self, message: Twist, info: dict):
        self._heard(message, None, info, self._missing(info))

    def _on_stamped(self, message: TwistStamped, info: dict):
        self._heard(message.twist, time_ns(message.header.stamp), info, self._missing(info))

    def _missing(self, info: dict) -> int:
        return self._count.missing(info['publication_sequence_number'])
