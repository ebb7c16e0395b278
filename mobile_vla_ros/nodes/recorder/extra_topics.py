"""The recorder's extra topics: any type, kept as it arrives."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.validate_topic_name import validate_topic_name

from mobile_vla_ros.episode.records import NO_HASH, Channel
from mobile_vla_ros.errors import first_line
from mobile_vla_ros.nodes.recorder.current_episode import CurrentEpisode
from mobile_vla_ros.nodes.recorder.message_types import definition, message_class
from mobile_vla_ros.nodes.shared.messages import receipt_ns, with_info
from mobile_vla_ros.nodes.shared.sequence import MessageCount
from mobile_vla_ros.nodes.shared.topics import publisher_names

DEPTH = 100  # half a second of a fast IMU
SILENT_S = 2.0
Quality = tuple[ReliabilityPolicy, DurabilityPolicy]
LATCHED: Quality = ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL


@dataclass
class _Topic:
    """
    One extra topic.

    :ivar channel: None until its type is known.
    :ivar quality: of the subscription.
    :ivar problem: in a sentence, '' without one; wrong: its kind.
    :ivar heard: whether a message of it is in the present episode.
    """

    name: str
    channel: Channel | None = None
    kind: type | None = None
    subscription: Subscription | None = None
    quality: Quality | None = None
    count: MessageCount = field(default_factory=MessageCount)
    problem: str = ''
    wrong: str = ''
    heard: bool = False


class ExtraTopics:
    """
    Subscribes to topics as their types become known, and hands what arrives to the episode.

    A latched topic is subscribed to anew at each start, of the black box too, so that an episode
    holds what somebody receives who subscribes then. Nothing here ends an episode or makes a
    start wait.

    :param names: of the topics.
    :param log: called with a sentence about each new problem.
    """

    def __init__(
        self,
        node: Node,
        names: Sequence[str],
        episode: CurrentEpisode,
        log: Callable[[str], object],
    ) -> None:
        self._node, self._episode, self._log = node, episode, log
        self._topics: list[_Topic] = []
        self._refused: list[str] = []
        self._began: tuple[object, float] = (None, 0.0)  # the recording in progress, since when
        for name in names:
            try:
                validate_topic_name(name)
                self._topics.append(_Topic(node.resolve_topic_name(name)))
            except (InvalidTopicNameException, RuntimeError) as error:  # the latter: substitutions
                why = first_line(error).rstrip(':')
                self._refused.append(f'the extra topic {name!r} is not recorded: {why}')
        for sentence in self._refused:
            log(sentence)

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
            return 'absent', f'nobody publishes the extra topic {topic.name}'
        types, recording = {one.topic_type for one in publishers}, self._began[0] is not None
        quality = _quality([one.qos_profile for one in publishers])
        known = topic.channel
        stale = known is not None and (
            known.type not in types or known.latched != (quality == LATCHED)
        )
        if stale and not topic.heard:  # an episode has one type of it; the next may have another
            self._unsubscribe(topic)
            topic.channel = None
        if topic.channel is None:
            if len(types) > 1:
                return 'types', _several_types(topic.name, publishers, 'it is not recorded')
            problem = _identify(topic, publishers[0], latched=quality == LATCHED)
            if problem:
                return 'unknown', problem
        assert topic.channel is not None, 'it was identified'
        if topic.quality != quality and (recording or quality != LATCHED):
            self._subscribe(topic, quality)
        topic.count.published_by(
            frozenset(tuple(one.endpoint_gid) for one in publishers), len(publishers)
        )
        if types != {topic.channel.type}:
            only = f'only {topic.channel.type} is recorded'
            return 'types', _several_types(topic.name, publishers, only)
        if recording and not topic.heard and time.monotonic() - self._began[1] > SILENT_S:
            why = f'no message has arrived on the extra topic {topic.name} since the start'
            return 'silent', why
        return '', ''

    def _subscribe(self, topic: _Topic, quality: Quality) -> None:
        self._unsubscribe(topic)
        reliability, durability = quality
        topic.subscription = self._node.create_subscription(
            topic.kind,
            topic.name,
            with_info(partial(self._on_message, topic)),
            QoSProfile(depth=DEPTH, reliability=reliability, durability=durability),
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
        topic.heard = True
        stamp_ns = topic.channel.stamp_ns(data, received_ns)
        self._episode.message(topic.channel, data, (stamp_ns, received_ns, steady), missing)


def _quality(offered: Sequence[QoSProfile]) -> Quality:
    """Return the most that every publisher offers."""
    if any(one.reliability != ReliabilityPolicy.RELIABLE for one in offered):
        return ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE
    if all(one.durability == DurabilityPolicy.TRANSIENT_LOCAL for one in offered):
        return LATCHED
    return ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE


def _several_types(name: str, publishers: Sequence, what: str) -> str:
    types = ' and '.join(sorted({one.topic_type for one in publishers}))
    return f'the extra topic {name} has the type {types}, {what}: {publisher_names(publishers)}'


def _identify(topic: _Topic, publisher: TopicEndpointInfo, *, latched: bool) -> str:
    """Set the type of a topic; return why that is impossible, '' if it is not."""
    type_name, type_hash = publisher.topic_type, str(publisher.topic_type_hash)
    try:
        kind = message_class(type_name)
        text = definition(kind)
    except Exception as error:  # whatever a package raises that is broken, or not there
        return (
            f'the extra topic {topic.name} is not recorded: its type {type_name} cannot be used '
            f'here ({first_line(error)}); install its package, and source it'
        )
    topic.kind = kind
    known = '' if type_hash == NO_HASH else type_hash
    topic.channel = Channel(topic.name, type_name, text, known, latched)
    return ''
