"""Rows of an episode in memory: commands and events."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Commands:
    """
    Every command of a take at its own rate.

    :param twist: (N, 6) float64: vx vy vz in m/s, wx wy wz in rad/s.
    :param stamp_ns: (N,) int64 header stamps, or the receipt of a message without a header.
    :param received_ns: (N,) int64 times of receipt.
    :param source: (N,) uint8, values of ``types.SOURCES``.
    """

    twist: np.ndarray
    stamp_ns: np.ndarray
    received_ns: np.ndarray
    source: np.ndarray

    def __len__(self) -> int:
        return len(self.received_ns)


@dataclass(frozen=True)
class Event:
    """Something that happened in a take: ``name`` is one of ``schema.EVENTS``."""

    name: str
    time_ns: int
    text: str
