"""
Read bags without ROS: rosbag2 folders (sqlite3, MCAP) and single ``.mcap`` and ``.db3`` files.

One bag is one episode. The bag's time of a message is its receipt; the header has the stamp.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images import messages as images
from mobile_vla_ros.interop.export import PROPOSAL_TOPIC
from mobile_vla_ros.interop.source import ImportOptions, Source
from mobile_vla_ros.types import NANOSECONDS, Command

SUFFIXES = ('.mcap', '.db3')
METADATA = 'metadata.yaml'

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
TWIST, TWIST_STAMPED = 'geometry_msgs/msg/Twist', 'geometry_msgs/msg/TwistStamped'
STRING = 'std_msgs/msg/String'

T = TypeVar('T')


@contextlib.contextmanager
def open_bag(path: Path, options: ImportOptions) -> Iterator[Source]:
    """
    Open one bag.

    :raises UserError: when it is broken; has no topic of images or of commands, or several
        without a choice; or has no instruction.
    """
    # Bags from before Iron lack type definitions; the types used here have not changed since.
    reader = _checked(lambda: AnyReader([path], default_typestore=get_typestore(Stores.LATEST)))
    _checked(reader.open)
    try:
        frames = _connections(reader, 'image', (IMAGE, COMPRESSED), options.image_topic)
        commands = _connections(reader, 'command', (TWIST, TWIST_STAMPED), options.command_topic)
        yield Source(
            reader.start_time,
            lambda writer, seen: _BagCopy(reader, writer, options, seen).run(frames, commands),
            {
                'instruction': options.or_given(_own_instruction(reader)),
                'image_topic': frames[0].topic,
                'command_topic': commands[0].topic,
                'command_type': commands[0].msgtype,
                'ros_version': str(getattr(reader.readers[0], 'ros_distro', None) or ''),
            },
        )
    finally:
        reader.close()


class _BagCopy:
    """Copies the messages of one bag into an episode."""

    def __init__(
        self,
        reader: AnyReader,
        writer: EpisodeWriter,
        options: ImportOptions,
        seen: Callable[[], None],
    ) -> None:
        self._reader, self._writer, self._options, self._seen = reader, writer, options, seen
        self._size: tuple[int, int] | None = None
        self._first_problem = ''

    def run(self, frames: list[Connection], commands: list[Connection]) -> None:
        """Write every message of the topics; raise UserError if no image is usable."""
        self._writer.add_event('start', self._reader.start_time)
        last_ns = self._reader.start_time
        for connection, received_ns, message in _messages(self._reader, [*frames, *commands]):
            last_ns = received_ns
            if connection.msgtype in (IMAGE, COMPRESSED):
                self._frame(message, connection.msgtype == COMPRESSED, received_ns)
            else:
                self._command(message, connection.msgtype == TWIST_STAMPED, received_ns)
        if not self._writer.frames:
            raise UserError(
                self._first_problem.rstrip('.') or f'{frames[0].topic} has no message',
                expected=f'images on {frames[0].topic}',
            )
        self._writer.add_event('stop', last_ns)

    def _frame(self, message: Any, compressed: bool, received_ns: int) -> None:
        try:
            encoded, size = self._encoded(message, compressed)
            if self._size is not None and self._size != size:
                raise UserError(
                    'an image differs in size from the first',
                    got=_by(size),
                    expected=_by(self._size),
                )
        except UserError as error:
            self._first_problem = self._first_problem or str(error)
            self._writer.add_event('drop', received_ns, f'1 frame: {error}', dropped=1)
            return
        if self._size is None:
            self._size = size
            self._writer.set_late(frame_id=message.header.frame_id)
        self._writer.add_frame(encoded, _stamp_ns(message.header), received_ns)
        self._seen()

    def _encoded(self, message: Any, compressed: bool) -> tuple[bytes, tuple[int, int]]:
        """Return stored bytes, and (height, width)."""
        if compressed:
            # Stored unchanged, but decoded once: a broken image would break training later.
            height, width, _ = images.compressed_to_rgb(message).shape
            return images.compressed_bytes(message), (height, width)
        encoded = images.encode_message(
            message, self._options.image_format, self._options.jpeg_quality
        )
        return encoded, (message.height, message.width)

    def _command(self, message: Any, stamped: bool, received_ns: int) -> None:
        twist = message.twist if stamped else message
        values = np.array(
            [
                twist.linear.x,
                twist.linear.y,
                twist.linear.z,
                twist.angular.x,
                twist.angular.y,
                twist.angular.z,
            ]
        )
        if not np.isfinite(values).all():
            self._writer.add_event(
                'problem', received_ns, 'a command was not finite and was left out'
            )
            return
        stamp_ns = _stamp_ns(message.header) if stamped else received_ns
        self._writer.add_command(Command(values, stamp_ns, received_ns))


def _connections(
    reader: AnyReader, what: str, types: tuple[str, ...], wanted: str
) -> list[Connection]:
    """
    Return the connections of one topic.

    :param what: ``image`` or ``command``, as in ``--image-topic``.
    :param wanted: the topic's name, or '' for the only one.
    """
    # A policy's proposals do not count as commands unless requested by name.
    usable = [
        one
        for one in reader.connections
        if one.msgtype in types
        and one.msgcount
        and (one.topic == wanted or not f'/{one.topic}'.endswith(PROPOSAL_TOPIC))
    ]
    topics = {one.topic: one.msgtype for one in usable}
    listed = ', '.join(f'{topic} ({kind})' for topic, kind in sorted(topics.items()))
    expected = ' or '.join(types)
    if not topics:
        raise UserError(
            f'it has no topic of {what}s',
            expected=expected,
            got=', '.join(sorted({f'{one.topic} ({one.msgtype})' for one in reader.connections}))
            or 'no topic',
        )
    name = wanted or next(iter(topics))
    if name not in topics:
        raise UserError(
            f'it has no {what}s on {wanted}',
            got=listed,
            expected=expected,
            remedy=f'name one of them with --{what}-topic',
        )
    if len(topics) > 1 and not wanted:
        raise UserError(
            f'it has more than one topic of {what}s',
            got=listed,
            remedy=f'name one of them with --{what}-topic',
        )
    return [one for one in usable if one.topic == name]


def _own_instruction(reader: AnyReader) -> str:
    """Return the first text on a topic named ``instruction``, in any namespace."""
    connections = [
        one
        for one in reader.connections
        if one.msgtype == STRING and one.msgcount and one.topic.rsplit('/', 1)[-1] == 'instruction'
    ]
    if not connections:  # an empty list would mean every topic
        return ''
    texts = (message.data.strip() for _, _, message in _messages(reader, connections))
    return next(filter(None, texts), '')


def _messages(
    reader: AnyReader, connections: list[Connection]
) -> Iterator[tuple[Connection, int, Any]]:
    """Yield (connection, receipt in ns, message) of some connections, in the bag's order."""
    messages = reader.messages(connections=connections)
    while True:
        found = _checked(lambda: next(messages, None))
        if found is None:
            return
        connection, received_ns, data = found
        message = _checked(lambda: reader.deserialize(data, connection.msgtype))  # noqa: B023
        yield connection, received_ns, message


def _checked(call: Callable[[], T]) -> T:
    """Return the result of a library call; raise UserError if the bag is broken."""
    try:
        return call()
    except Exception as error:  # many kinds: struct, sqlite, zstd, YAML, assertions
        raise UserError(
            'the bag is broken',
            got=first_line(error).rstrip('.'),
            remedy='try ros2 bag reindex, or mcap recover',
        ) from None


def _stamp_ns(header: Any) -> int:
    return int(header.stamp.sec * NANOSECONDS + header.stamp.nanosec)


def _by(size: tuple[int, int]) -> str:
    return f'{size[1]}x{size[0]}'
