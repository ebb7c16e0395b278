"""Rows of an episode in memory, and what timing needs from an episode."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


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
