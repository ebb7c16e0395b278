"""
Who each command came from, told from what the guard says around it.

The guard publishes a command and then, when something changed, its status: the status that says
who drives comes after the first command it speaks of, and over another topic, whose messages may
be handled earlier or later. So a command waits until a status is here that was sent after the
command behind it: then all is here that was said in between, and the last of it holds.
"""

from collections import deque
from dataclasses import dataclass, replace

from mobile_vla_ros.episode.timing.corrections import BEGIN, END
from mobile_vla_ros.safety.status import STATUS_MAX_AGE_S, GuardStatus
from mobile_vla_ros.types import NANOSECONDS, SOURCES, Command

UNKNOWN = 'unknown'
TAKEOVER = 'takeover'
# So long a command waits at most; the next one may never come, but a busy machine may stall.
PATIENCE_NS = 1_200_000_000
# A status that speaks of a command is sent no later than this after it.
SAME_TICK_NS = 40_000_000
# A guard that has been silent for longer reports nothing of who drives.
FRESH_NS = round(STATUS_MAX_AGE_S * NANOSECONDS)


@dataclass(frozen=True)
class Labelled:
    """
    A command with its source.

    :param event: text of the `takeover` event that begins or ends at this command; '' for none.
    """

    command: Command
    event: str = ''


class Labels:
    """
    Gives commands their source in the order of their receipt.

    ``sent_ns`` are the publisher's times of commands and statuses, of one clock; ``steady_ns``
    is one that never jumps.
    """

    def __init__(self):
        self._waiting: deque[tuple[Command, int, int]] = deque()
        self._said: deque[tuple[int, str, bool]] = deque()
        self._heard_ns: int | None = None
        self._taken = False

    def command(self, command: Command, sent_ns: int, steady_ns: int) -> None:
        """Take a command; its own source does not count."""
        self._waiting.append((command, sent_ns, steady_ns))

    def status(self, status: GuardStatus, sent_ns: int, steady_ns: int) -> None:
        """Store a report of the guard: who drives, and whether the person has let go."""
        source = status.source if status.source in SOURCES else UNKNOWN
        self._heard_ns = steady_ns
        self._said.append((sent_ns, source, status.released))
        oldest_ns = sent_ns - 2 * FRESH_NS
        while len(self._said) > 1 and self._said[1][0] < oldest_ns:
            self._said.popleft()

    def ready(self, steady_ns: int | None = None) -> list[Labelled]:
        """
        Return the commands of which it is known who they came from, labelled.

        :param steady_ns: now; None: all that wait, for the take ends.
        """
        found = []
        while self._waiting:
            command, sent_ns, came_ns = self._waiting[0]
            next_ns = self._waiting[1][1] if len(self._waiting) > 1 else None
            if steady_ns is not None and self._may_learn(next_ns, came_ns, steady_ns):
                break
            self._waiting.popleft()
            found.append(self._label(command, sent_ns, next_ns))
        return found

    def _may_learn(self, next_ns: int | None, came_ns: int, steady_ns: int) -> bool:
        """Whether something may still come that says who a command came from."""
        if self._heard_ns is None or steady_ns - self._heard_ns > FRESH_NS:
            return False  # there is no guard
        known = next_ns is not None and self._said[-1][0] >= next_ns
        return not known and steady_ns - came_ns < PATIENCE_NS

    def _label(self, command: Command, sent_ns: int, next_ns: int | None) -> Labelled:
        source, silent = UNKNOWN, False
        for said_ns, named, let_go in self._said:
            if said_ns >= (sent_ns + SAME_TICK_NS if next_ns is None else next_ns):
                break
            if sent_ns - said_ns <= FRESH_NS:
                source, silent = named, let_go
        taken = source == TAKEOVER and not silent
        event = '' if taken == self._taken else BEGIN if taken else END
        self._taken = taken
        return Labelled(replace(command, source=source), event)

    def begin(self) -> None:
        """Forget commands of before a take began; what the guard said is kept."""
        self._waiting.clear()
        self._taken = False
