"""
What guard and policy report to other processes: keys with values from enums, never prose.

Both are sent as ``diagnostic_msgs/DiagnosticStatus``. This module writes and parses their values;
the sentences beside them are for people, and no program reads them. Anybody may publish a status,
so its size is bounded here, and so are the values that nodes read as numbers or as JSON.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from mobile_vla_ros.types import StrEnum

# An older report no longer counts. The guard reports at least ten times a second, a policy four
# times.
STATUS_MAX_AGE_S = 1.5

# Of one status; a recorder's counts of 10,000 instructions fit.
MAX_VALUES, MAX_CHARS = 1000, 1 << 20

TWIST_KEYS = {'linear_x': 0, 'linear_y': 1, 'angular_z': 5}


class Unusable(ValueError):
    """A status that is not read; its text is a clause about it."""


def bounded(sentence: str, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """
    Return the values of a status by key.

    :raises Unusable: when they are too many, or too long with the sentence beside them.
    """
    found = list(pairs)
    chars = len(sentence) + sum(len(key) + len(value) for key, value in found)
    if len(found) > MAX_VALUES or chars > MAX_CHARS:
        raise Unusable(f'it has more than {MAX_VALUES} values, or {MAX_CHARS} characters')
    return dict(found)


def counts(text: str) -> dict[str, int]:
    """
    Parse counts by name, sent as a JSON object; none from an empty text.

    :raises Unusable: for anything else.
    """
    try:
        found = json.loads(text or '{}')
    except (ValueError, RecursionError):  # a number of 5000 digits, lists in lists in lists
        raise Unusable('its counts are not JSON') from None
    if not isinstance(found, dict) or not all(type(count) is int for count in found.values()):
        raise Unusable('its counts are not whole numbers by name')
    return found


def number(text: str | None) -> float | None:
    """Return a finite number; None for any other text."""
    try:
        value = math.nan if text is None else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class State(StrEnum):
    """State of the guard. Only ``TELEOP`` and ``DRIVING`` may move the base."""

    ESTOP = 'estop'
    DISARMED = 'disarmed'
    TELEOP = 'teleop'  # a person drives, or has just let go
    WAITING = 'waiting'  # armed; the policy proposes nothing yet, or holds
    FAULT = 'fault'  # images, computation or proposals of the policy must not be driven by
    DRIVING = 'driving'  # the policy drives


class StopReason(StrEnum):
    """Why the guard commands zero, or why a policy proposes nothing."""

    NONE = 'none'
    OTHER = 'other'  # not known to this version, or not given

    # Found by the guard.
    ESTOP = 'estop'
    NOT_ARMED = 'not_armed'  # since the guard was started
    DISARMED = 'disarmed'  # by a person
    ESTOP_LOST = 'estop_lost'  # its publisher disappeared
    ESTOP_SILENT = 'estop_silent'  # longer than its timeout
    STALLED = 'stalled'  # the guard itself stood still
    COMPETING_PUBLISHER = 'competing_publisher'  # of commands to the base
    COMPETING_INPUT = 'competing_input'  # two publishers of an input that must have one
    INPUT_NOT_RECEIVED = 'input_not_received'  # a publisher whose type cannot be received
    UNKNOWN_SUBSCRIBER = 'unknown_subscriber'  # to a guard that arms by itself
    UNCHECKED_POLICY = 'unchecked_policy'
    NO_PROPOSAL = 'no_proposal'
    POLICY_SILENT = 'policy_silent'
    PROPOSAL_NOT_FINITE = 'proposal_not_finite'
    OBSERVATION_OLD = 'observation_old'
    OBSERVATION_FUTURE = 'observation_future'
    TELEOP_SILENT = 'teleop_silent'
    TELEOP_NOT_FINITE = 'teleop_not_finite'
    AWAITING_RESUME = 'awaiting_resume'  # a person took over and has not handed back

    # Found by the policy's node.
    INACTIVE = 'inactive'
    NO_IMAGE = 'no_image'
    WINDOW_NOT_FULL = 'window_not_full'
    NO_INSTRUCTION = 'no_instruction'
    INSTRUCTION_TOO_LONG = 'instruction_too_long'
    NEW_INSTRUCTION = 'new_instruction'
    CHUNK_EXHAUSTED = 'chunk_exhausted'
    POLICY_NOT_FINITE = 'policy_not_finite'
    POLICY_REFUSED = 'policy_refused'  # its input
    POLICY_FAILED = 'policy_failed'

    # Found in the camera's messages and on the clocks they are compared with.
    CAMERA_SILENT = 'camera_silent'
    CAMERA_FROZEN = 'camera_frozen'
    CAMERA_DARK = 'camera_dark'
    CAMERA_UNREADABLE = 'camera_unreadable'
    CAMERA_CHANGED = 'camera_changed'  # size or encoding
    CAMERA_SEVERAL = 'camera_several'
    CAMERA_STAMP_INVALID = 'camera_stamp_invalid'
    CAMERA_STAMP_OLD = 'camera_stamp_old'
    CAMERA_STAMP_FUTURE = 'camera_stamp_future'
    CAMERA_CLOCK_JUMP = 'camera_clock_jump'
    CLOCK_JUMP = 'clock_jump'
    NO_CLOCK = 'no_clock'

    @classmethod
    def parse(cls, text: str) -> 'StopReason':
        """Return the reason of a value; ``OTHER`` for an unknown one."""
        try:
            return cls(text)
        except ValueError:
            return cls.OTHER


@dataclass(frozen=True)
class GuardStatus:
    """
    What the guard reports on ``guard/status``.

    :param source: of the command: a key of ``types.SOURCES``, or ``none``.
    :param sentence: why the guard commands zero, for people; '' while it does not.
    :param twist: (6,) m/s and rad/s; the command, of which x, y and the turn are reported.
    :param age_s: age of the observation or of the teleop command; NaN with neither.
    :param refused: why arming was last refused: names of checks, and a ``StopReason`` where there
        is one; empty once the guard has been armed.
    """

    state: State
    armed: bool
    source: str = 'none'
    stop_reason: StopReason = StopReason.NONE
    sentence: str = ''
    twist: np.ndarray = field(default_factory=lambda: np.zeros(6))
    age_s: float = math.nan
    dry_run: bool = False
    refused: tuple[str, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether commands of this state reach the base and may move it."""
        return self.state in (State.DRIVING, State.TELEOP) and not self.dry_run

    @property
    def released(self) -> bool:
        """Whether a person who was driving has let go."""
        return self.stop_reason == StopReason.TELEOP_SILENT

    def values(self) -> dict[str, str]:
        """Return the values of the message, whose text is the state."""
        return {
            'source': self.source,
            'stop_reason': self.stop_reason.value,
            'reason': self.sentence,
            'age_s': f'{self.age_s:.3f}',
            'armed': str(self.armed).lower(),
            **{key: f'{self.twist[column]:.3f}' for key, column in TWIST_KEYS.items()},
            'dry_run': str(self.dry_run).lower(),
            'refused': ','.join(self.refused),
        }

    @classmethod
    def parse(cls, state: str, values: Mapping[str, str]) -> 'GuardStatus | None':
        """
        Parse a message; return None when it lacks a known state or whether the guard is armed.

        Such a message counts as no report at all.
        """
        if state not in list(State) or values.get('armed') not in ('true', 'false'):
            return None
        age_s = number(values.get('age_s'))
        twist = np.zeros(6)
        for key, column in TWIST_KEYS.items():
            twist[column] = number(values.get(key)) or 0.0
        return cls(
            State(state),
            values['armed'] == 'true',
            values.get('source', 'none'),
            StopReason.parse(values.get('stop_reason', '')),
            values.get('reason', ''),
            twist,
            math.nan if age_s is None else age_s,
            values.get('dry_run') == 'true',
            tuple(filter(None, values.get('refused', '').split(','))),
        )


class Level(IntEnum):
    """Severity: the guard waits out a hold, and a fault disarms it."""

    OK = 0
    HOLD = 1  # no proposals, for a harmless reason
    FAULT = 2  # images or results must not be driven by


@dataclass(frozen=True)
class Health:
    """
    Whether the proposals of a policy may be driven.

    :param sentence: for people; empty while there are proposals.
    """

    level: Level
    stop_reason: StopReason = StopReason.NONE
    sentence: str = ''

    @classmethod
    def ok(cls) -> 'Health':
        """Return the health of a policy that proposes."""
        return cls(Level.OK)

    @classmethod
    def hold(cls, stop_reason: StopReason, sentence: str) -> 'Health':
        """Return the health of a policy that proposes nothing for a harmless reason."""
        return cls(Level.HOLD, stop_reason, sentence)

    @classmethod
    def fault(cls, stop_reason: StopReason, sentence: str) -> 'Health':
        """Return the health of a policy whose images or results must not be driven by."""
        return cls(Level.FAULT, stop_reason, sentence)


@dataclass(frozen=True)
class PolicyStatus:
    """
    What a policy's node reports in the first status on ``policy/health``.

    :param axes: that the policy drives, from ``types.TWIST_AXES``; None if unknown.
    """

    health: Health
    axes: tuple[str, ...] | None = None

    def values(self) -> dict[str, str]:
        """Return the values of the message, whose level and text are those of the health."""
        axes = {} if self.axes is None else {'axes': ','.join(self.axes)}
        return {'stop_reason': self.health.stop_reason.value, **axes}

    @classmethod
    def parse(cls, level: int, sentence: str, values: Mapping[str, str]) -> 'PolicyStatus':
        """
        Parse a message.

        :param level: of DiagnosticStatus; other than OK or WARN it is a fault.
        """
        axes = values.get('axes')
        if level == Level.OK:
            health = Health.ok()
        else:
            health = Health(
                Level.HOLD if level == Level.HOLD else Level.FAULT,
                StopReason.parse(values.get('stop_reason', '')),
                sentence or 'the policy proposes nothing',
            )
        return cls(health, None if axes is None else tuple(filter(None, axes.split(','))))
