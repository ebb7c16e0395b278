"""
What a person corrected in a take that a policy drove, by the sources and events of its commands.

A takeover is a stretch of commands whose source is takeover. It is over where the person lets go:
the guard then keeps the base still for a while, and the recorder says so with an event. In the
second before a takeover the policy was wrong: a person saw it and reacted. Where the guard stopped
the base of itself, for a fault or a wait, nobody asked for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mobile_vla_ros.types import NANOSECONDS, SOURCES

if TYPE_CHECKING:
    from mobile_vla_ros.episode.records import Commands, Event

# Events of the name `takeover` begin with one of these words.
BEGIN, END = 'begin', 'end'
# So long before a takeover begins the policy's own commands are what was wrong.
MISTAKE_NS = NANOSECONDS

# What a command is to somebody who learns from corrections.
PLAIN, CORRECTED, WRONG = 0, 1, 2


@dataclass(frozen=True)
class Takeover:
    """
    One takeover; times are receipts, nanoseconds.

    :param begin_ns: of its first command.
    :param end_ns: of the first command that is no longer the person's; of a takeover that lasts
        to the end of the take, its last command.
    :param mistake_ns: from here to ``begin_ns`` the policy was wrong; not before the end of the
        takeover before.
    """

    begin_ns: int
    end_ns: int
    mistake_ns: int

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return (self.end_ns - self.begin_ns) / NANOSECONDS


def takeovers(commands: 'Commands', events: Sequence['Event'] = ()) -> list[Takeover]:
    """Return the takeovers of a take, in order."""
    times, source = _in_order(commands)
    found: list[Takeover] = []
    for first, last in _stretches(_persons(times, source, events)):
        begin_ns = int(times[first])
        end_ns = int(times[min(last, len(times) - 1)])
        before_ns = found[-1].end_ns if found else begin_ns - MISTAKE_NS
        found.append(Takeover(begin_ns, end_ns, max(begin_ns - MISTAKE_NS, before_ns)))
    return found


def kinds(commands: 'Commands', events: Sequence['Event'] = ()) -> np.ndarray:
    """
    Return what each command is: (M,) uint8, in the order of ``commands``.

    ``CORRECTED`` is a person's command inside a takeover. ``WRONG`` is the policy's own in the
    second before one; and what nobody asked for in a take that a policy drives: the standing
    still after the person has let go, and the guard's own stops, whose source is unknown. All
    others are ``PLAIN``, and all of a take in which no policy drives.
    """
    times, source = commands.received_ns, commands.source
    result = np.full(len(times), PLAIN, np.uint8)
    if (source == SOURCES['policy']).any():
        result[source == SOURCES['unknown']] = WRONG
    for takeover in takeovers(commands, events):
        before = (times >= takeover.mistake_ns) & (times < takeover.begin_ns)
        result[before & (source == SOURCES['policy'])] = WRONG
    taken = source == SOURCES['takeover']
    silent = taken & ~_persons(times, source, events)
    result[taken], result[silent] = CORRECTED, WRONG
    return result


def _in_order(commands: 'Commands') -> tuple[np.ndarray, np.ndarray]:
    """Return receipts and sources by receipt: a clock that was set back leaves them mixed."""
    order = np.argsort(commands.received_ns, kind='stable')
    return commands.received_ns[order], commands.source[order]


def _persons(times: np.ndarray, source: np.ndarray, events: Sequence['Event']) -> np.ndarray:
    """Return (M,) bool: the commands of a takeover that are the person's, not the guard's."""
    persons = source == SOURCES['takeover']
    told = sorted(
        (event.time_ns, event.text.startswith(END)) for event in events if event.name == 'takeover'
    )
    if not told or not len(times):
        return persons  # a take of before there were these events
    marks = np.array([time_ns for time_ns, _ in told])
    row = np.searchsorted(marks, times, side='right') - 1
    ended = np.array([end for _, end in told])[np.maximum(row, 0)] & (row >= 0)
    return persons & ~ended


def _stretches(rows: np.ndarray) -> list[tuple[int, int]]:
    """Return first and last + 1 of each stretch of True in (M,) bool."""
    edges = np.diff(np.concatenate([[0], rows.astype(np.int8), [0]]))
    return list(
        zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)
    )
