"""The recorder's extra topics: any type, kept as it arrives; and its further cameras."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from builtin_interfaces.msg import Time
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CompressedImage

from mobile_vla_ros.episode.cameras import COMPRESSED, TYPE, camera_name
from mobile_vla_ros.episode.records import NO_HASH, Channel
from mobile_vla_ros.errors import first_line
from mobile_vla_ros.nodes.recorder.current_episode import CurrentEpisode
from mobile_vla_ros.nodes.recorder.message_types import definition, message_class
from mobile_vla_ros.nodes.recorder.params import ImageParams, RecorderParams
from mobile_vla_ros.nodes.shared.clocks import receipt_ns
from mobile_vla_ros.nodes.shared.image_messages import to_compressed
from mobile_vla_ros.nodes.shared.messages import with_info
from mobile_vla_ros.nodes.shared.topics import CAMERA_QOS, MessageCount, publisher_names

DEPTH = 100  # half a second of a fast IMU
SILENT_S = 2.0
IMAGES = ('sensor_msgs/msg/Image', TYPE)
Quality = tuple[ReliabilityPolicy, DurabilityPolicy]
LATCHED: Quality = ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL


@dataclass
class _Topic:
    """
    One extra topic.

    :ivar images: how the images of a camera are stored; None for any other topic.
    :ivar channel: what it is stored as, None until its type is known.
    :ivar published: its type.
    :ivar quality: of the subscription.
    :ivar problem: in a sentence, '' without one; wrong: its kind.
    :ivar heard: whether a message of it is in the present episode; heard_s: when the newest came.
    """

    name: str
    images: ImageParams | None = None
    channel: Channel | None = None
    published: str = ''
    kind: type | None = None
    subscription: Subscription | None = None
    quality: Quality | None = None
    count: MessageCount = field(default_factory=MessageCount)
    problem: str = ''
    wrong: str = ''
    heard: bool = False
    heard_s: float = 0.0

    @property
    def stored(self) -> str:
        """The topic that it is stored as."""
        return self.name if self.images is None else camera_name(self.name) + COMPRESSED

    @property
    def what(self) -> str:
        """What it is, in words."""
        return f'extra {"topic" if self.images is None else "camera"} {self.name}'


class ExtraTopics:
    """
    Subscribes to topics as their types become known, and hands what arrives to the episode.

    A latched topic is subscribed to anew at each start, of the black box too, so that an episode
    holds what a new subscriber receives then. Nothing here ends an episode or makes a
    start wait.

    :param params: names the topics and cameras, and how images are stored.
    :param camera: topic of the main camera.
    :param log: called with a sentence about each new problem.
    """

    def __init__(
        self,
        node: Node,
        params: RecorderParams,
        camera: str,
        episode: CurrentEpisode,
        log: Callable[[str], object],
    ) -> None:
        self._node, self._episode, self._log = node, episode, log
        self._topics: list[_Topic] = []
        self._refused: list[str] = []
        self._began: tuple[object, float] = (None, 0.0)  # the recording in progress, since when
        taken = {camera_name(camera) + COMPRESSED}
        for name in params.extra_cameras:
            self._add(name, params.images, taken)
        taken = {one.stored for one in self._topics}  # a topic may be the main camera's
        for name in params.extra_topics:
            self._add(name, None, taken)
        for sentence in self._refused:
            log(sentence)

    def _add(self, name: str, images: ImageParams | None, taken: set[str]) -> None:
        """Add a topic, unless another one is stored as it: nothing is recorded twice."""
        try:
            validate_topic_name(name)
            topic = _Topic(self._node.resolve_topic_name(name), images)
            if topic.stored in taken:
                raise RuntimeError(f'{topic.stored} is recorded already')
            taken.add(topic.stored)
            if images is not None and images.transport == 'compressed':
                topic.name = topic.stored
            self._topics.append(topic)
        except (InvalidTopicNameException, RuntimeError) as error:  # the latter: substitutions
            why = first_line(error).rstrip(':')
            what = 'topic' if images is None else 'camera'
            self._refused.append(f'the extra {what} {name!r} is not recorded: {why}')

    @property
    def problems(self) -> list[str]:
        """What is wrong with them, a sentence each."""
        return [*self._refused, *(one.problem for one in self._topics if one.problem)]

    def update(self) -> None:
        """Follow the graph and the episode: call it often, and when an episode begins."""
        recording = self._episode.active
        if recording is not self._began[0]:
            self._began = recording, time.monotonic()
            for topic in self._topics:
                topic.heard = False
                if topic.quality == LATCHED:
                    self._unsubscribe(topic)
        for topic in self._topics:
            before, (kind, topic.problem) = topic.wrong, self._follow(topic)
            topic.wrong = kind
            if kind and kind != before:
                self._log(topic.problem)
            if kind:  # the sentence may change: names of nodes become known later
                self._episode.note(f'{topic.name} {kind}', topic.problem)
        for sentence in self._refused:
            self._episode.note(sentence, sentence)

    def _follow(self, topic: _Topic) -> tuple[str, str]:
        """Subscribe as publishers demand; return key and sentence of what is wrong, or two ''."""
        publishers = self._node.get_publishers_info_by_topic(topic.name)
        if not publishers:
            return 'absent', f'nobody publishes the {topic.what}'
        types, recording = {one.topic_type for one in publishers}, self._began[0] is not None
        quality = _quality([one.qos_profile for one in publishers])
        if topic.images is not None:
            quality = CAMERA_QOS.reliability, DurabilityPolicy.VOLATILE
        known = topic.channel
        stale = known is not None and (
            topic.published not in types or known.latched != (quality == LATCHED)
        )
        if stale and not topic.heard:  # an episode has one type of it; the next may have another
            self._unsubscribe(topic)
            topic.channel = None
        if topic.channel is None:
            if len(types) > 1:
                return 'types', _several_types(topic.what, publishers, 'it is not recorded')
            problem = _identify(topic, publishers[0], latched=quality == LATCHED)
            if problem:
                return 'unknown', problem
        assert topic.channel is not None, 'it was identified'
        if topic.quality != quality and (recording or quality != LATCHED):
            self._subscribe(topic, quality)
        topic.count.published_by(
            frozenset(tuple(one.endpoint_gid) for one in publishers), len(publishers)
        )
        if types != {topic.published}:
            only = f'only {topic.published} is recorded'
            return 'types', _several_types(topic.what, publishers, only)
        now_s = time.monotonic()
        if recording and not topic.heard and now_s - self._began[1] > SILENT_S:
            return 'silent', f'no message has arrived on the {topic.what} since the start'
        if topic.images is not None and topic.heard and now_s - topic.heard_s > SILENT_S:
            return 'stopped', f'no message arrives on the {topic.what} any more'
        return '', ''

    def _subscribe(self, topic: _Topic, quality: Quality) -> None:
        self._unsubscribe(topic)
        reliability, durability = quality
        topic.subscription = self._node.create_subscription(
            topic.kind,
            topic.name,
            with_info(partial(self._on_message, topic)),
            QoSProfile(
                depth=DEPTH if topic.images is None else CAMERA_QOS.depth,
                reliability=reliability,
                durability=durability,
            ),
            raw=True,
        )
        topic.quality = quality

    def _unsubscribe(self, topic: _Topic) -> None:
        if topic.subscription is not None:
            self._node.destroy_subscription(topic.subscription)
        topic.subscription = topic.quality = None
        topic.count = MessageCount()

    def _on_message(self, topic: _Topic, data: bytes, info: dict) -> None:
        steady, received_ns = self._episode.steady_ns(), receipt_ns(self._node, info)
        missing = topic.count.missing(info['publication_sequence_number'])
        if topic.channel is None or self._episode.active is None:
            return
        topic.heard, topic.heard_s = True, time.monotonic()
        stamp_ns = topic.channel.stamp_ns(data, received_ns)
        encode: Callable[[bytes], bytes] = bytes
        if topic.images is not None:
            assert topic.kind is not None, 'it was identified'
            encode = partial(_compressed, topic.kind, topic.images)
            if topic.images.time.receipt:
                stamp_ns = topic.images.time.frame_ns(Time(), info)
        self._episode.message(
            topic.channel, data, (stamp_ns, received_ns, steady), missing, encode
        )


def _compressed(kind: type, images: ImageParams, data: bytes) -> bytes:
    """Return a camera's message with its image as it is stored; in the writer's thread."""
    message = deserialize_message(data, kind)
    encoded = images.encode(images.named(message))
    if kind is CompressedImage and encoded == bytes(message.data):
        return data
    header = message.header
    return bytes(
        serialize_message(to_compressed(encoded, stamp=header.stamp, frame_id=header.frame_id))
    )


def _quality(offered: Sequence[QoSProfile]) -> Quality:
    """Return the most that every publisher offers."""
    if any(one.reliability != ReliabilityPolicy.RELIABLE for one in offered):
        return ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE
    if all(one.durability == DurabilityPolicy.TRANSIENT_LOCAL for one in offered):
        return LATCHED
    return ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE


def _several_types(topic: str, publishers: Sequence, what: str) -> str:
    types = ' and '.join(sorted({one.topic_type for one in publishers}))
    return f'the {topic} has the type {types}, {what}: {publisher_names(publishers)}'


def _identify(topic: _Topic, publisher: TopicEndpointInfo, *, latched: bool) -> str:
    """Set the type of a topic; return why that is impossible, '' if it is not."""
    type_name, type_hash = publisher.topic_type, str(publisher.topic_type_hash)
    if topic.images is not None and type_name not in IMAGES:
        return (
            f'the {topic.what} is not recorded: its type is {type_name}, not '
            f'{" or ".join(IMAGES)}; extra_topics keeps topics of any type'
        )
    try:
        kind = message_class(type_name)
        text = definition(kind if topic.images is None else CompressedImage)
    except Exception as error:  # a broken or missing package may raise anything
        return (
            f'the {topic.what} is not recorded: its type {type_name} cannot be used '
            f'here ({first_line(error)}); install its package, and source it'
        )
    topic.kind, topic.published = kind, type_name
    kept = type_name if topic.images is None else TYPE
    known = type_hash if kept == type_name and type_hash != NO_HASH else ''
    topic.channel = Channel(topic.stored, kept, text, known, latched)
    return ''
