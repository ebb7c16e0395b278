"""Topics that several nodes share, what the graph shows of them, and what of them was lost."""

from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence

from geometry_msgs.msg import Twist, TwistStamped
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.messages import check_encoding
from mobile_vla_ros.nodes.shared.messages import time_ns, with_info
from mobile_vla_ros.nodes.shared.params import declare

# As qos_profile_sensor_data, but deep enough for a second in which the process is not scheduled.
CAMERA_QOS = QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)
CAMERA_TYPES = {'raw': Image, 'compressed': CompressedImage}
COMMAND_TYPES = {'geometry_msgs/msg/Twist': Twist, 'geometry_msgs/msg/TwistStamped': TwistStamped}
# Deep enough for a second in which a recorder is not scheduled.
COMMAND_DEPTH = 100
INSTRUCTION_DEPTH, KEPT_COPIES = 10, 32
# A larger gap is another publisher's count, not a loss.
MAX_LOST = 1000


def camera(node: Node, transport: str) -> tuple[str, type]:
    """
    Return the full name and the message type of the camera topic to subscribe to.

    A compressed topic follows the remapping of its raw one, as in image_transport.

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


def encoding_param(node: Node) -> str:
    """Declare ``encoding``; return its value, or raise UserError for an unknown one."""
    return check_encoding(
        declare(
            node,
            'encoding',
            '',
            'colours of raw images whose own encoding names none (8UC3), such as bgr8',
        )
    )


def wrong_camera(topic: str, publishers: Sequence, kind: type) -> str:
    """
    Return why the messages of a camera that publishes cannot be received, '' if they can.

    :param publishers: TopicEndpointInfo of each (``get_publishers_info_by_topic``).
    :param kind: the message type of the subscription.
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
    """Return the full names of the publishing nodes, with their types where they differ."""
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
    Determine the message type of the commands.

    :param known: the types that a node can subscribe to.
    :returns: the type, '' while there is none; what is wrong in a sentence, '' if nothing is.
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
    The topic `instruction`, received from latched and ordinary publishers alike.

    A latched message from before this node counts; `ros2 topic pub` does not latch by default.

    :param on_instruction: called once with each message, also when the text is unchanged.
    """

    def __init__(self, node: Node, on_instruction: Callable[[str], None]):
        self._node, self._on_instruction = node, on_instruction
        # Both subscriptions receive a latched message; its copy must not undo a newer one. They
        # keep equally many, so that neither is ahead when the executor was busy.
        self._copies: deque[tuple[int, str]] = deque(maxlen=KEPT_COPIES)
        # The latched one is incompatible with some publishers; the other receives those.
        quiet = SubscriptionEventCallbacks(use_default_callbacks=False)
        callback = with_info(self._on_message)
        self._subscriptions = [
            node.create_subscription(
                String,
                'instruction',
                callback,
                QoSProfile(
                    depth=INSTRUCTION_DEPTH,
                    reliability=ReliabilityPolicy.RELIABLE,
                    durability=DurabilityPolicy.TRANSIENT_LOCAL,
                ),
                event_callbacks=quiet,
            ),
            node.create_subscription(String, 'instruction', callback, INSTRUCTION_DEPTH),
        ]

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_message(self, message: String, info: dict) -> None:
        copy = info['source_timestamp'], message.data
        if copy[0]:  # not every middleware reports when a message was sent
            if copy in self._copies:
                return
            self._copies.append(copy)
        self._on_instruction(message.data)


class MessageCount:
    """
    Follows the sequence numbers that a publisher gives its messages.

    An overflowing queue of the middleware drops the oldest messages silently; only these numbers
    reveal it.

    :ivar known: whether the middleware provides sequence numbers.
    """

    def __init__(self) -> None:
        self.known = False
        self._last: int | None = None
        self._publishers: Hashable = None
        self._alone = True

    def missing(self, sequence: int | None) -> int:
        """
        Count one message; return how many before it were lost.

        :param sequence: the publisher's sequence number, None where the middleware has none.
        """
        last, self._last = self._last, sequence
        self.known = sequence is not None
        if last is None or sequence is None or not self._alone:
            return 0
        if sequence <= last:  # a second publisher that the graph does not show yet
            self._alone = False
            return 0
        missing = sequence - last - 1
        return missing if missing <= MAX_LOST else 0

    def published_by(self, publishers: Hashable, count: int) -> bool:
        """
        Set who publishes; return whether that has changed.

        Messages do not name their publisher, so with more than one nothing can be counted.

        :param publishers: identifies them.
        """
        changed = publishers != self._publishers
        if changed:
            self._publishers, self._last = publishers, None
        self._alone = count <= 1
        return changed


class CommandTopic:
    """
    The subscription to the commands, made for the type that the graph shows.

    :param on_command: called with each Twist, its header stamp in nanoseconds (None where it has
        no header), the middleware's information on the message, and how many before it were lost.
    :param on_type: called with the type when it becomes known or changes.
    :ivar problem: what is wrong in a sentence, also that nobody publishes; '' if nothing is.
    :ivar rivals: the same, but '' while nobody publishes.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        on_command: Callable[[Twist, int | None, dict, int], None],
        on_type: Callable[[str], None],
    ):
        self.topic = node.resolve_topic_name(name)
        self.type = ''
        self.problem = ''
        self.rivals = ''
        self._node, self._on_command, self._on_type = node, on_command, on_type
        self._subscription: Subscription | None = None
        self._reliable = True
        self._count = MessageCount()

    def update(self) -> None:
        """Follow the graph: publishers come late, go, and return with another type."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        found, self.problem = command_type(self.topic, publishers, COMMAND_TYPES)
        self._count.published_by(
            frozenset(tuple(info.endpoint_gid) for info in publishers), len(publishers)
        )
        types = {info.topic_type for info in publishers}
        # A reliable subscription receives nothing from a best-effort publisher.
        unreliable = any(
            info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
            for info in publishers
            if info.topic_type in COMMAND_TYPES
        )
        if found and (self.type not in types or (unreliable and self._reliable)):
            self._reliable = not unreliable
            self._subscribe(found if self.type not in types else self.type)
        if found and len(types) > 1:
            self.problem += f'; only {self.type.rsplit("/", 1)[-1]} is received'
        self.rivals = self.problem if found else ''

    def _subscribe(self, kind: str) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self.type = kind
        reliability = (
            ReliabilityPolicy.RELIABLE if self._reliable else ReliabilityPolicy.BEST_EFFORT
        )
        self._subscription = self._node.create_subscription(
            COMMAND_TYPES[kind],
            self.topic,
            with_info(self._on_twist if COMMAND_TYPES[kind] is Twist else self._on_stamped),
            QoSProfile(depth=COMMAND_DEPTH, reliability=reliability),
        )
        self._on_type(kind)

    def _on_twist(self, message: Twist, info: dict) -> None:
        self._on_command(message, None, info, self._missing(info))

    def _on_stamped(self, message: TwistStamped, info: dict) -> None:
        self._on_command(message.twist, time_ns(message.header.stamp), info, self._missing(info))

    def _missing(self, info: dict) -> int:
        return self._count.missing(info['publication_sequence_number'])
