"""
Label each command with its source, from the guard's status reports around it.

The guard publishes a command and then, if something changed, its status: the status that names the
driver follows the first command it applies to, on another topic, whose messages may be processed
earlier or later. So a command waits for a status that was sent after the next command: by then
every report in between has arrived, and the last of them applies.
"""

from collections import deque
from dataclasses import dataclass, replace

from mobile_vla_ros.episode.timing.corrections import BEGIN, END
from mobile_vla_ros.safety.status import STATUS_MAX_AGE_S, GuardStatus
from mobile_vla_ros.types import NANOSECONDS, SOURCES, Command

UNKNOWN = 'unknown'
TAKEOVER = 'takeover'
# A command waits at most this long: the next one may never arrive, but a busy machine may stall.
PATIENCE_NS = 1_200_000_000
# A status that applies to a command is sent at most this long after it.
SAME_TICK_NS = 40_000_000
# A status older than this no longer names the driver.
FRESH_NS = round(STATUS_MAX_AGE_S * NANOSECONDS)


@dataclass(frozen=True)
class LabelledCommand:
    """
    A command with its source.

    :param event: text of the `takeover` event that begins or ends at this command; '' for none.
    """

    command: Command
    event: str = ''


class CommandLabeller:
    """
    Labels commands with their source, in order of receipt.

    ``sent_ns`` are the publisher's times of commands and statuses, on one clock; ``steady_ns`` is
    a clock that never jumps.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Command, int, int]] = deque()
        self._statuses: deque[tuple[int, str, bool]] = deque()  # sent, source, released
        self._newest_status_ns: int | None = None  # steady
        self._taken_over = False

    def command(self, command: Command, sent_ns: int, steady_ns: int) -> None:
        """Add a command; its own source is ignored."""
        self._waiting.append((command, sent_ns, steady_ns))

    def status(self, status: GuardStatus, sent_ns: int, steady_ns: int) -> None:
        """Store a status of the guard: the driver, and whether the person has let go."""
        source = status.source if status.source in SOURCES else UNKNOWN
        self._newest_status_ns = steady_ns
        self._statuses.append((sent_ns, source, status.released))
        oldest_ns = sent_ns - 2 * FRESH_NS
        while len(self._statuses) > 1 and self._statuses[1][0] < oldest_ns:
            self._statuses.popleft()

    def ready(self, steady_ns: int | None = None) -> list[LabelledCommand]:
        """
        Remove and return the commands whose source is known by now, labelled.

        :param steady_ns: now; None: return all waiting commands, since the episode ends.
        """
        found = []
        while self._waiting:
            command, sent_ns, arrived_ns = self._waiting[0]
            next_ns = self._waiting[1][1] if len(self._waiting) > 1 else None
            if steady_ns is not None and self._must_wait(next_ns, arrived_ns, steady_ns):
                break
            self._waiting.popleft()
            found.append(self._label(command, sent_ns, next_ns))
        return found

    def _must_wait(self, next_ns: int | None, arrived_ns: int, steady_ns: int) -> bool:
        """Whether a status that names a command's source may still arrive."""
        if self._newest_status_ns is None or steady_ns - self._newest_status_ns > FRESH_NS:
            return False  # there is no guard
        known = next_ns is not None and self._statuses[-1][0] >= next_ns
        return not known and steady_ns - arrived_ns < PATIENCE_NS

    def _label(self, command: Command, sent_ns: int, next_ns: int | None) -> LabelledCommand:
        source, released = UNKNOWN, False
        for status_ns, named, let_go in self._statuses:
            if status_ns >= (sent_ns + SAME_TICK_NS if next_ns is None else next_ns):
                break
            if sent_ns - status_ns <= FRESH_NS:
                source, released = named, let_go
        taken_over = source == TAKEOVER and not released
        event = '' if taken_over == self._taken_over else BEGIN if taken_over else END
        self._taken_over = taken_over
        return LabelledCommand(replace(command, source=source), event)

    def begin(self) -> None:
        """Start an episode: forget earlier commands; keep the guard's statuses."""
        self._waiting.clear()
        self._taken_over = False
