"""
Find the corrections in an episode driven by a policy, from its commands' sources and its events.

A takeover is a sequence of commands with the source takeover. It ends where the person lets go:
the guard then holds the base still for a while, and the recorder marks this with an event. In the
second before a takeover the policy was wrong: a person saw it and reacted. Stops by the guard
itself, for a fault or a hold, are nobody's intent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.records import Commands, Event
from mobile_vla_ros.types import NANOSECONDS, SOURCES

# First words of an event named `takeover`.
BEGIN, END = 'begin', 'end'
# For this long before a takeover, the policy's commands count as the mistake.
MISTAKE_NS = NANOSECONDS

# Kinds of command, for training on corrections.
PLAIN, CORRECTED, WRONG = 0, 1, 2


@dataclass(frozen=True)
class Takeover:
    """
    One takeover; times are receipts on the episode's steady clock, nanoseconds.

    :param begin_ns: of its first command.
    :param end_ns: of the first command after it; of its last command, if the episode ends with it.
    :param mistake_ns: start of the policy's mistake, which ends at ``begin_ns``; not before the
        end of the previous takeover.
    """

    begin_ns: int
    end_ns: int
    mistake_ns: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return (self.end_ns - self.begin_ns) / NANOSECONDS


def takeovers(commands: Commands, events: Sequence[Event] = ()) -> list[Takeover]:
    """Return the takeovers of an episode, in order."""
    times, source = commands.steady_ns, commands.source
    found: list[Takeover] = []
    for first, last in _spans(_from_person(times, source, events)):
        begin_ns = int(times[first])
        end_ns = int(times[min(last, len(times) - 1)])
        before_ns = found[-1].end_ns if found else begin_ns - MISTAKE_NS
        found.append(Takeover(begin_ns, end_ns, max(begin_ns - MISTAKE_NS, before_ns)))
    return found


def kinds(commands: Commands, events: Sequence[Event] = ()) -> np.ndarray:
    """
    Return the kind of each command: (M,) uint8, in the order of ``commands``.

    ``CORRECTED`` is a person's command inside a takeover. ``WRONG`` is a policy's command in the
    second before one and, in an episode driven by a policy, every stop that nobody intended: while
    the guard holds the base after the person let go, and the guard's own stops, whose source is
    unknown. All other commands are ``PLAIN``, and so is every command if no policy drives.
    """
    times, source = commands.steady_ns, commands.source
    result = np.full(len(times), PLAIN, np.uint8)
    if (source == SOURCES['policy']).any():
        result[source == SOURCES['unknown']] = WRONG
    for takeover in takeovers(commands, events):
        before = (times >= takeover.mistake_ns) & (times < takeover.begin_ns)
        result[before & (source == SOURCES['policy'])] = WRONG
    taken_over = source == SOURCES['takeover']
    released = taken_over & ~_from_person(times, source, events)
    result[taken_over], result[released] = CORRECTED, WRONG
    return result


def _from_person(times: np.ndarray, source: np.ndarray, events: Sequence[Event]) -> np.ndarray:
    """Return (M,) bool: takeover commands from the person, not from the guard."""
    persons: np.ndarray = source == SOURCES['takeover']
    marks = sorted(
        (event.steady_ns, event.text.startswith(END))
        for event in events
        if event.name == 'takeover'
    )
    if not marks or not len(times):
        return persons  # recorded before these events existed
    marked_ns = np.array([time_ns for time_ns, _ in marks])
    row = np.searchsorted(marked_ns, times, side='right') - 1
    ended = np.array([end for _, end in marks])[np.maximum(row, 0)] & (row >= 0)
    return persons & ~ended


def _spans(rows: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, last + 1) of each contiguous span of True in (M,) bool."""
    edges = np.diff(np.concatenate([[0], rows.astype(np.int8), [0]]))
    return list(
        zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)
    )
