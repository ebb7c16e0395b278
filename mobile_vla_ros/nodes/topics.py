"""Topics that several nodes share, and in words what the graph says of them."""

from collections.abc import Collection, Sequence

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from mobile_vla_ros.errors import UserError

# Of `instruction`: whoever comes later hears the last one too.
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                     durability=DurabilityPolicy.TRANSIENT_LOCAL)
CAMERA_TYPES = {'raw': Image, 'compressed': CompressedImage}


def camera(node: Node, transport: str) -> tuple[str, type]:
    """
    Return the full name and the type of the camera topic that a node is to hear.

    A compressed topic follows the remapping of its raw one, as image_transport has it.

    :param transport: ``raw`` or ``compressed``.
    :raises UserError: for another transport.
    """
    if transport not in CAMERA_TYPES:
        raise UserError('unknown image_transport', got=repr(transport),
                        expected=' or '.join(CAMERA_TYPES))
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
        return (f'the camera topic {topic} has the wrong type: got {", ".join(types)}; expected '
                f'{expected}; set image_transport or remap camera/image_raw')
    return ''


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
        return '', (f'the command topic {topic} has the wrong type: got {", ".join(types)}; '
                    f'expected {" or ".join(known)}')
    if len(publishers) > 1:
        names = sorted(f'{info.node_namespace.rstrip("/")}/{info.node_name}'
                       for info in publishers)
        return fitting[0], f'{len(publishers)} publishers on {topic}: {", ".join(names)}'
    return fitting[0], ''
