"""The axes and buttons of the console's joystick and their meanings. No ROS here."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.teleop.keyboard import HOLD_NS, TRAIL_NS

NONE = -1  # index of an axis or button that the joystick does not have
AXES = ('forward', 'left', 'turn')
# An Xbox pad as joy_node numbers it: left stick moves, right stick turns, hold LB to drive.
XBOX_AXES, XBOX_ENABLE = (1, 0, 3), 4
XBOX_BUTTONS = {'start': 7, 'success': 0, 'failure': 1, 'discard': 2, 'stop': 3, 'resume': 6}
LOST_NS = 1_000_000_000
NEVER, SILENT, BLOCKED, DRIVING, READY = 'none', 'silent', 'blocked', 'drives', 'ready'


@dataclass(frozen=True)
class Layout:
    """
    The meanings of axes and buttons; indices count from 0, -1 is none.

    :param axes: forward, left, turn.
    :param scale: fraction of full speed at full deflection, -1.0 to 1.0; negative reverses it.
    :param deadzone: deflection up to which an axis is at rest, 0 to below 1.
    :param enable_button: must be held to move.
    :param buttons: request to the recorder, or ``resume`` to the guard → button.
    :raises UserError: naming every mismatch.
    """

    axes: Sequence[int] = XBOX_AXES
    scale: Sequence[float] = (1.0, 1.0, 1.0)
    deadzone: float = 0.1
    enable_button: int = XBOX_ENABLE
    buttons: Mapping[str, int] = field(default_factory=lambda: dict(XBOX_BUTTONS))

    def __post_init__(self) -> None:
        faults = []
        if len(self.axes) != len(AXES) or any(axis < NONE for axis in self.axes):
            faults.append(
                f'joy_axes {list(self.axes)}: expected three indices [forward, left, turn], '
                '-1 for none'
            )
        used = [axis for axis in self.axes if axis != NONE]
        if len(set(used)) < len(used):
            faults.append(f'joy_axes {list(self.axes)}: one axis has two meanings')
        scale = np.asarray(self.scale, dtype=np.float64)
        if scale.shape != (len(AXES),) or not (np.abs(scale) <= 1).all():
            faults.append(f'joy_scale {list(self.scale)}: expected three numbers from -1.0 to 1.0')
        if not 0 <= self.deadzone < 1:
            faults.append(f'joy_deadzone {self.deadzone}: expected 0.0 to below 1.0')
        if self.enable_button < 0:
            faults.append(
                f'joy_enable_button {self.enable_button}: expected 0 or more; it cannot be left '
                'out'
            )
        used = [self.enable_button, *(b for b in self.buttons.values() if b != NONE)]
        if len(set(used)) < len(used):
            faults.append(
                f'one button has two meanings: enable {self.enable_button}, {dict(self.buttons)}'
            )
        if faults:
            raise UserError('invalid joystick layout: ' + '; '.join(faults))


class Joystick:
    """
    Turns a joystick's messages into motion and requests; safe to use from several threads.

    The enable button is a dead man's switch: it must have been seen released before it moves
    anything, and again after ``block`` and after the joystick fell silent during a drive.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.problem = ''  # names the axes and buttons that this joystick lacks
        self._direction = np.zeros(6)
        self._received_ns: int | None = None
        self._released_ns: int | None = None
        self._pressed = False
        self._free = False  # the button was released since it last had to be
        self._down: dict[str, bool] | None = None
        self._lock = threading.Lock()

    @property
    def driving(self) -> bool:
        """Whether its button is held and valid."""
        return self._pressed and self._free

    @property
    def moving(self) -> tuple[bool, bool]:
        """Whether it drives, and whether it moves the robot: a change must be acted on at once."""
        return self.driving, self.driving and bool(self._direction.any())

    def receive(
        self, axes: Sequence[float], buttons: Sequence[int], received_ns: int
    ) -> list[tuple[str, str]]:
        """
        Process one message.

        :param axes: deflections, -1 to 1.
        :param buttons: 1 for each pressed one.
        :param received_ns: time of receipt, on the clock of ``direction``.
        :returns: the requests: ``('recorder', 'start')``, ``('guard', 'resume')``.
        """
        with self._lock:
            was_driving, silent = self.driving, self._age_ns(received_ns) >= LOST_NS
            if was_driving and self._age_ns(received_ns) >= HOLD_NS:
                self._free = False  # a silence or a stall: this message may be old
            self._pressed = _at(buttons, self.layout.enable_button) == 1
            if not self._pressed:
                self._free = True
            if was_driving and not self.driving:
                self._released_ns = received_ns
            self._direction = self._deflection(axes)
            self._received_ns = received_ns
            self.problem = self._missing(len(axes), len(buttons))
            down = {name: _at(buttons, index) == 1 for name, index in self.layout.buttons.items()}
            # A button that is down in the first message was pressed before.
            before, self._down = self._down if self._down is not None else down, down
            return [
                ('guard' if name == 'resume' else 'recorder', name)
                for name in down
                # After a silence a press may be an old one: the robot must not move by it.
                if down[name] and not before[name] and not (name == 'resume' and silent)
            ]

    def end_trail(self) -> None:
        """Send no more zeros for a motion that has ended: a person hands back."""
        with self._lock:
            self._released_ns = None

    def block(self) -> None:
        """Move nothing until the enable button is released: a key was pressed."""
        with self._lock:
            self._free, self._released_ns = False, None

    def direction(self, now_ns: int) -> np.ndarray | None:
        """
        Return the present motion as (6,) fractions of full speed, at most 1 over ground.

        Zeros for a while after the button is released or the joystick falls silent, then None.
        """
        with self._lock:
            if self.driving:
                age_ns = self._age_ns(now_ns)
                if age_ns < HOLD_NS:
                    return self._direction.copy()
                return np.zeros(6) if age_ns <= HOLD_NS + TRAIL_NS else None
            if self._released_ns is not None and now_ns - self._released_ns <= TRAIL_NS:
                return np.zeros(6)
            return None

    def due_ns(self, now_ns: int) -> int | None:
        """Return how long the present motion lasts without another message; None: no motion."""
        with self._lock:
            left_ns = HOLD_NS - self._age_ns(now_ns) if self.driving else 0
            return round(left_ns) if left_ns > 0 else None

    def state(self, now_ns: int) -> str:
        """Return its state: one of the constants of this module."""
        with self._lock:
            if self._received_ns is None:
                return NEVER
            if self._age_ns(now_ns) >= (HOLD_NS if self.driving else LOST_NS):
                return SILENT
            if self._pressed:
                return DRIVING if self._free else BLOCKED
            return READY

    def _age_ns(self, now_ns: int) -> float:
        return math.inf if self._received_ns is None else now_ns - self._received_ns

    def _deflection(self, axes: Sequence[float]) -> np.ndarray:
        values = np.array([_at(axes, index) for index in self.layout.axes], dtype=np.float64)
        if not np.isfinite(values).all():
            return np.zeros(6)
        dead = self.layout.deadzone
        size = np.clip((np.abs(values) - dead) / (1 - dead), 0, 1)
        x, y, turn = np.sign(values) * size * np.asarray(self.layout.scale)
        over_ground = max(np.hypot(x, y), 1)
        return np.array([x / over_ground, y / over_ground, 0, 0, 0, turn])

    def _missing(self, axes: int, buttons: int) -> str:
        missing = [
            f'axis {index} ({name})'
            for name, index in zip(AXES, self.layout.axes, strict=True)
            if index >= axes
        ]
        wanted = {'enable': self.layout.enable_button, **self.layout.buttons}
        missing += [
            f'button {index} ({name})' for name, index in wanted.items() if index >= buttons
        ]
        if not missing:
            return ''
        return (
            f'the joystick has {axes} axes and {buttons} buttons, and lacks '
            f'{", ".join(missing)}: set joy_axes and joy_…_button'
        )


def _at(values: Sequence, index: int):
    """Return the value at an index, 0 outside."""
    return values[index] if 0 <= index < len(values) else 0
