"""Rows of an episode in memory, and what timing needs from an episode."""

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mobile_vla_ros.types import NANOSECONDS

HEADERS = ('std_msgs/Header', 'std_msgs/msg/Header', 'Header')  # as definitions name it
NO_HASH = 'INVALID'  # as ROS writes that of a type without one
HEADER_BYTES = 12  # of a message up to the end of its header's stamp


@dataclass(frozen=True)
class Commands:
    """
    Every command of an episode at its own rate.

    :param twist: (N, 6) float64: vx vy vz in m/s, wx wy wz in rad/s.
    :param stamp_ns: (N,) int64 header stamps; the receipt for a message without a header.
    :param received_ns: (N,) int64 times of receipt.
    :param source: (N,) uint8, values of ``types.SOURCES``.
    :param steady_ns: (N,) int64 times of receipt on a clock that never steps (``types.Command``).
    """

    twist: np.ndarray
    stamp_ns: np.ndarray
    received_ns: np.ndarray
    source: np.ndarray
    steady_ns: np.ndarray

    def __len__(self) -> int:
        return len(self.received_ns)


@dataclass(frozen=True)
class Event:
    """Something that happened during an episode; ``name`` is one of ``schema.EVENTS``."""

    name: str
    time_ns: int
    text: str
    steady_ns: int


@dataclass(frozen=True)
class Channel:
    """
    A topic whose messages are kept as they arrived.

    :param type: of its messages, such as ``nav_msgs/msg/Odometry``.
    :param definition: of the type and of those in it, as MCAP has them (``ros2msg``); '': unknown.
    :param type_hash: ``RIHS01_…`` of the type, as ROS reports it; '': unknown.
    :param latched: whether a message stays in force for those who subscribe later.
    :param count: how many messages the episode shows.
    """

    topic: str
    type: str
    definition: str = ''
    type_hash: str = ''
    latched: bool = False
    count: int = field(default=0, compare=False)

    @functools.cached_property
    def has_header(self) -> bool:
        """Whether messages begin with a header, and so with a stamp."""
        lines = (line.partition('#')[0].split() for line in self.definition.splitlines())
        return next(filter(None, lines), [''])[0] in HEADERS

    def stamp_ns(self, data: bytes, received_ns: int) -> int:
        """Return the stamp of a message's header, by its CDR bytes; its receipt without one."""
        if not self.has_header or len(data) < HEADER_BYTES:
            return received_ns
        order = '<' if data[1] & 1 else '>'
        seconds, rest = struct.unpack_from(f'{order}iI', data, 4)
        return int(seconds) * NANOSECONDS + int(rest)


@dataclass(frozen=True, eq=False)
class RecordedRows:
    """
    What was recorded, whatever the edits of an episode hide of it.

    :param frame_stamp_ns, frame_received_ns, frame_steady_ns: (M,) int64 times of every frame.
    :param rows: (N,) int64 row among them of each frame that the episode shows.
    :param commands: every command; events: every event.
    """

    frame_stamp_ns: np.ndarray
    frame_received_ns: np.ndarray
    frame_steady_ns: np.ndarray
    rows: np.ndarray
    commands: Commands
    events: Sequence[Event]


class TimedEpisode(Protocol):
    """The times, commands and events of an episode; ``storage.reader.Episode`` is one."""

    @property
    def frame_stamp_ns(self) -> np.ndarray:
        """(N,) int64 header stamps of the frames, in order of receipt."""

    @property
    def frame_received_ns(self) -> np.ndarray:
        """(N,) int64 times of receipt of the frames."""

    @property
    def frame_steady_ns(self) -> np.ndarray:
        """(N,) int64 times of receipt of the frames on a clock that never steps."""

    @property
    def commands(self) -> Commands:
        """Every command, in order of arrival."""

    @property
    def events(self) -> Sequence[Event]:
        """Every event, in order of arrival."""

    @property
    def recording(self) -> RecordedRows:
        """What was recorded before the first frame and after the last one, too."""

    @property
    def cuts_ns(self) -> np.ndarray:
        """(K,) int64 times on the steady clock that no window spans."""
