"""
Read bags without ROS: rosbag2 folders (sqlite3, MCAP) and single ``.mcap`` and ``.db3`` files.

One bag is one episode. The bag's time of a message is its receipt; the header has the stamp.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.schema import FRAMES, MAX_TIME, loss, messages_of
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images import messages as images
from mobile_vla_ros.images.compressed import compressed_to_rgb, encode_bgr
from mobile_vla_ros.interop.bags.bag import Bag, Received
from mobile_vla_ros.interop.bags.bag_files import Topic
from mobile_vla_ros.interop.bags.commands import (
    ODOMETRY,
    TWIST,
    TWIST_STAMPED,
    TYPES,
    Reader,
    reader_of,
)
from mobile_vla_ros.interop.bags.video import PACKET, VIDEO, Decoder, codec_of
from mobile_vla_ros.interop.export import PROPOSAL_TOPIC
from mobile_vla_ros.interop.source import ImportOptions, Source
from mobile_vla_ros.types import NANOSECONDS, Command

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
IMAGES: tuple[str, ...] = (IMAGE, COMPRESSED)
STRING, CLOCK = 'std_msgs/msg/String', 'rosgraph_msgs/msg/Clock'
MAX_NAMED = 5  # topics in one sentence
NO_TIME = 'they have no time: 0, or from before /clock'


@contextlib.contextmanager
def open_bag(path: Path, _key: str, options: ImportOptions, scratch: Path) -> Iterator[Source]:
    """
    Open one bag.

    :param scratch: an empty folder for copies.
    :raises UserError: when it is broken; has no topic of images or of commands, or several
        without a choice; or has no instruction.
    """
    with Bag(path, scratch) as bag:
        named = options.image_topic or not any(one.type in IMAGES for one in bag.topics)
        kinds = (*IMAGES, VIDEO, PACKET) if named else IMAGES
        frames = _topic(bag, 'image', kinds, options.image_topic)
        kinds = tuple(TYPES) if options.command_topic else (TWIST, TWIST_STAMPED)
        commands = _topic(bag, 'command', kinds, options.command_topic)
        reader = reader_of(commands.type, options)
        words = {one for one in bag.topics if _is_instruction(one)}
        extra, missing = _extra(bag, options.extra_topics, (frames, commands))
        usable = _Usable(bag)
        yield Source(
            usable.first_ns([frames, commands]),
            lambda writer, seen: _BagCopy(bag, usable, writer, options, reader, seen).run(
                frames, commands, extra
            ),
            {
                'instruction': options.or_given(_own_instruction(bag, words)),
                'image_topic': frames.name,
                'command_topic': commands.name,
                'command_type': commands.type,
                'ros_version': bag.ros_distro,
            },
            notes=(*bag.notes, *missing, *_left_out(bag, {frames, commands, *words, *extra})),
        )


class _Usable:
    """
    Which messages have a time on the bag's clock.

    A recorder without its clock stamps messages 0; one that waits for the clock of a simulation,
    until the first message on ``/clock``, with whatever it has.
    """

    def __init__(self, bag: Bag) -> None:
        self._bag = bag
        clocks = [one for one in bag.topics if one.type == CLOCK]
        first = next(bag.messages(clocks), None) if clocks else None
        self._from: tuple[int, ...] = first.place if first else ()

    def has_time(self, received: Received) -> bool:
        """Whether the time of a message means something."""
        return 0 < received.time_ns <= MAX_TIME and received.place >= self._from

    def first_ns(self, topics: list[Topic]) -> int:
        """Return the time of the first message that has one; raise UserError without any."""
        for received in self._bag.messages(topics):
            if self.has_time(received):
                return received.time_ns
        raise UserError(
            'none of its messages has a time',
            got='times of 0, or from before the first message on /clock',
            remedy='record it again, with the clock running',
        )


class _BagCopy:
    """Copies the messages of one bag into an episode."""

    def __init__(
        self,
        bag: Bag,
        usable: _Usable,
        writer: EpisodeWriter,
        options: ImportOptions,
        reader: Reader,
        seen: Callable[[], None],
    ) -> None:
        self._bag, self._usable = bag, usable
        self._writer, self._options, self._seen = writer, options, seen
        self._reader, self._moves = reader, False
        self._size: tuple[int, ...] | None = None
        self._first_problem = ''
        self._video: Decoder[Received] | None = None
        self._lost: Counter[tuple[str, str]] = Counter()  # by kind and reason

    def run(self, frames: Topic, commands: Topic, extra: Mapping[Topic, Channel]) -> None:
        """
        Write every message of the topics; raise UserError if no image is usable.

        :param extra: topics to keep as they are, each with its channel.
        """
        first_ns = last_ns = self._usable.first_ns([frames, commands])
        self._writer.add_event('start', first_ns)
        kinds = {topic: messages_of(topic.name) for topic in extra}
        kinds |= {frames: FRAMES, commands: 'commands'}
        for received in self._bag.messages([frames, commands, *extra], raw=extra):
            if not self._usable.has_time(received):
                self._lost[kinds[received.topic], NO_TIME] += 1
                continue
            last_ns = max(last_ns, received.time_ns)
            if received.topic == frames:
                self._frame(received)
            elif received.topic in extra:
                self._message(received, extra[received.topic])
            else:
                self._command(received)
        self._end_video()
        if not self._writer.frames:
            raise UserError(
                self._first_problem.rstrip('.') or f'{frames.name} has no message',
                expected=f'images on {frames.name}',
            )
        if commands.type == ODOMETRY and not self._moves:
            raise UserError(
                f'the odometry on {commands.name} has no velocities',
                got='a twist of zeros in every message',
                remedy='name a topic of commands with --command-topic',
            )
        for (of, why), count in self._lost.items():
            name, text = loss(count, of, why)
            self._writer.add_event(name, first_ns, text)
        for note in self._bag.notes:
            self._writer.add_event('problem', last_ns, note)
        self._writer.add_event('stop', last_ns)

    def _frame(self, received: Received) -> None:
        message = received.message
        try:
            if message is None:
                raise UserError(received.problem)
            codec = codec_of(message)
            if not codec:
                self._store(received, *self._encoded(message))
        except UserError as error:
            self._drop(received, str(error))
            return
        if codec:
            self._video = self._video or Decoder(codec)
            self._pictures(self._video.add(bytes(message.data), received))

    def _pictures(self, decoded: Iterator[tuple[Received, np.ndarray]]) -> None:
        options = self._options
        for received, pixels in decoded:
            encoded = encode_bgr(pixels, options.image_format, options.jpeg_quality)
            try:
                self._store(received, encoded, pixels.shape[:2])
            except UserError as error:
                self._drop(received, str(error))

    def _end_video(self) -> None:
        """Store the pictures that the decoder held back, and count the messages without one."""
        if self._video is not None:
            self._pictures(self._video.end())
            for received in self._video.lost:
                self._drop(received, 'a video message without a picture: damaged, or no key frame')

    def _drop(self, received: Received, why: str) -> None:
        self._first_problem = self._first_problem or why
        self._writer.add_event('drop', received.time_ns, f'1 frame: {why}')

    def _store(self, received: Received, encoded: bytes, size: tuple[int, ...]) -> None:
        """Store a frame; raise UserError if it differs in size from the first."""
        header = getattr(received.message, 'header', received.message)
        if self._size is None:
            self._size = size
            self._writer.set_late(frame_id=header.frame_id)
        if self._size != size:
            raise UserError(
                'an image differs in size from the first', got=_by(size), expected=_by(self._size)
            )
        stamp = header.stamp if hasattr(header, 'stamp') else header.timestamp
        self._writer.add_frame(encoded, _stamp_ns(stamp), received.time_ns)
        self._seen()

    def _encoded(self, message: Any) -> tuple[bytes, tuple[int, int]]:
        """Return stored bytes, and (height, width)."""
        options = self._options
        message = images.with_encoding(message, options.encoding)
        header = images.check(message)
        encoded = images.stored_bytes(message, options.image_format, options.jpeg_quality)
        if not hasattr(message, 'encoding'):
            # Decoded once as well: a broken image would break training later.
            compressed_to_rgb(message)
        return encoded, (header.height, header.width)

    def _message(self, received: Received, channel: Channel) -> None:
        data, time_ns = received.message, received.time_ns
        why = self._writer.misfit(channel, data) if data is not None else received.problem
        if why:
            self._lost[messages_of(channel.topic), why] += 1
            return
        self._writer.add_message(channel, data, channel.stamp_ns(data, time_ns), time_ns)

    def _command(self, received: Received) -> None:
        if received.message is None:
            self._writer.add_event('problem', received.time_ns, f'1 command: {received.problem}')
            return
        try:
            values = np.array(self._reader.values(received.message), np.float64)
        except LookupError:  # a joystick with fewer axes
            self._writer.add_event('problem', received.time_ns, '1 command: it has fewer axes')
            return
        self._moves |= bool(values.any())
        if not np.isfinite(values).all():
            self._writer.add_event(
                'problem', received.time_ns, 'a command was not finite and was left out'
            )
            return
        stamp_ns = (
            _stamp_ns(received.message.header.stamp) if self._reader.stamped else received.time_ns
        )
        self._writer.add_command(Command(values, stamp_ns, received.time_ns))


def _topic(bag: Bag, what: str, types: tuple[str, ...], wanted: str) -> Topic:
    """
    Return the topic of images or of commands.

    :param what: ``image`` or ``command``, as in ``--image-topic``.
    :param wanted: the topic's name, or '' for the only one.
    """
    # A policy's proposals do not count as commands unless requested by name.
    usable = [
        one
        for one in bag.topics
        if one.type in types
        and (one.name == wanted or not f'/{one.name}'.endswith(PROPOSAL_TOPIC))
    ]
    expected = ' or '.join(types)
    if not usable:
        raise UserError(
            f'it has no topic of {what}s',
            expected=expected,
            got=_named(bag.topics) or 'no topic',
            remedy=(
                'name a topic of Odometry, Ackermann or Joy with --command-topic'
                if what == 'command' and not wanted
                else None
            ),
        )
    found = [one for one in usable if one.name == wanted] if wanted else usable
    if not found:
        raise UserError(
            f'it has no {what}s on {wanted}',
            got=_named(usable),
            expected=expected,
            remedy=f'name one of them with --{what}-topic',
        )
    if len(found) > 1:
        raise UserError(
            f'it has more than one topic of {what}s',
            got=_named(usable),
            remedy=f'name one of them with --{what}-topic',
        )
    return found[0]


def _extra(
    bag: Bag, names: Sequence[str], used: Collection[Topic]
) -> tuple[dict[Topic, Channel], list[str]]:
    """Return the topics to keep as they are, and a sentence for each name that is none of them."""
    found, missing = {}, []
    for name in filter(None, names):
        of_name = [one for one in bag.topics if one.name == name]
        if len(of_name) != 1:
            got = _named(of_name) or 'no message of it'
            missing.append(f'{name} is not kept as it is: got {got}; expected one topic and type')
        elif of_name[0] in used:
            missing.append(f'{name} is not kept as it is: its messages become the episode')
        else:
            (topic,) = of_name
            found[topic] = Channel(topic.name, topic.type, bag.definition(topic))
            if not found[topic].definition:
                missing.append(f'{name} is kept without the definition of {topic.type}')
    return found, missing


def _named(topics: list[Topic]) -> str:
    """Return the first topics with their types."""
    more = [f'and {len(topics) - MAX_NAMED} more'] if len(topics) > MAX_NAMED else []
    return ', '.join([*(f'{one.name} ({one.type})' for one in topics[:MAX_NAMED]), *more])


def _left_out(bag: Bag, used: set[Topic]) -> list[str]:
    others = [one for one in bag.topics if one not in used and one.type != CLOCK] + bag.others
    return [f'not imported: {_named(others)}'] if others else []


def _is_instruction(topic: Topic) -> bool:
    return topic.type == STRING and topic.name.rsplit('/', 1)[-1] == 'instruction'


def _own_instruction(bag: Bag, topics: set[Topic]) -> str:
    """Return the first text on a topic named ``instruction``, in any namespace."""
    found = (one.message for one in bag.messages(topics))
    texts = (message.data.strip() for message in found if message is not None)
    return next(filter(None, texts), '')


def _stamp_ns(stamp: Any) -> int:
    return int(stamp.sec * NANOSECONDS + stamp.nanosec)


def _by(size: tuple[int, ...]) -> str:
    return f'{size[1]}x{size[0]}'
