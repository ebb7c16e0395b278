"""A person who drives: their last command, how long it keeps the policy out, and what follows."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.safety.config import AfterTakeover, GuardConfig
from mobile_vla_ros.types import NANOSECONDS

# The policy stays out for this many intervals between commands. Longer intervals are pauses, not
# a rhythm.
HELD_INTERVALS, MAX_INTERVAL_S = 3, 3.0
# A stop arrives twice (two subscriptions), so keep more than three intervals to see three
# distinct ones.
COUNTED_INTERVALS = 6
_FIRST_NS = round(MAX_INTERVAL_S * NANOSECONDS) // HELD_INTERVALS


@dataclass(frozen=True)
class PersonCommand:
    """
    A command of a person.

    :param twist: (6,) any values, including NaN and inf.
    :param received_ns: steady clock.
    :param late_ns: how much later than usual it arrived.
    :param source: ``teleop``, or ``takeover`` while a policy was driving.
    :param hold_ns: how long it keeps the policy out.
    """

    twist: np.ndarray
    received_ns: int
    late_ns: int
    source: str
    hold_ns: int

    def age_ns(self, steady_ns: int) -> int:
        """Return its age since it was sent, as far as that is known."""
        return steady_ns - self.received_ns + self.late_ns


class Person:
    """
    Keeps a person's last command.

    :ivar to_resume: a person took over, and has to hand back before the policy may drive.
    """

    def __init__(self, config: GuardConfig) -> None:
        self._hold_ns = round(config.takeover_hold_s * NANOSECONDS)
        self._stays_stopped = config.after_takeover == AfterTakeover.STAY_STOPPED
        self._command: PersonCommand | None = None
        self._intervals: deque[int] = deque(maxlen=COUNTED_INTERVALS)
        self.to_resume = False

    def drive(
        self, twist: np.ndarray, steady_ns: int, late_ns: int, *, armed: bool, proposed: bool
    ) -> None:
        """
        Store a command (``PersonCommand``).

        :param proposed: whether a policy proposes.
        """
        held, last = self.held(steady_ns), self._command
        if held is not None:
            source = held.source
        else:
            source = 'takeover' if armed and proposed else 'teleop'
        if last is not None:
            interval_ns = steady_ns - last.received_ns
            if interval_ns > MAX_INTERVAL_S * NANOSECONDS:
                self._intervals.clear()
            else:
                self._intervals.append(interval_ns)
        # One command does not tell how soon the next will come.
        first_ns = 0 if self._stays_stopped else _FIRST_NS
        rhythm_ns = HELD_INTERVALS * max(self._intervals, default=first_ns)
        self._command = PersonCommand(
            np.array(twist, dtype=np.float64),
            steady_ns,
            late_ns,
            source,
            max(self._hold_ns, rhythm_ns),
        )
        self.to_resume = self.to_resume or (armed and self._stays_stopped)

    def held(self, steady_ns: int) -> PersonCommand | None:
        """Return the last command while it keeps the policy out, None otherwise."""
        command = self._command
        if command is None or steady_ns - command.received_ns > command.hold_ns:
            return None
        return command
