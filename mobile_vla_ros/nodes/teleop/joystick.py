"""The joystick of the console: what its axes and buttons mean. No ROS here."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.teleop.keyboard import HOLD_NS, TRAIL_NS

NONE = -1  # index of an axis or button that the joystick does not have
AXES = ('forward', 'left', 'turn')
# An Xbox pad as joy_node numbers it: left stick moves, right stick turns, LB is held to drive.
XBOX_AXES, XBOX_ENABLE = (1, 0, 3), 4
XBOX_BUTTONS = {'start': 7, 'success': 0, 'failure': 1, 'discard': 2, 'stop': 3}
LOST_NS = 1_000_000_000
NEVER, SILENT, BLOCKED, DRIVING, READY = 'none', 'silent', 'blocked', 'drives', 'ready'


@dataclass(frozen=True)
class Layout:
    """
    Which axis and which button is what; indices count from 0, -1 is none.

    :param axes: forward, left, turn.
    :param scale: share of full speed at full deflection, -1.0 to 1.0; negative turns it round.
    :param deadzone: deflection up to which an axis counts as at rest, 0 to below 1.
    :param enable_button: nothing moves unless it is held.
    :param buttons: what is asked of the recorder → button.
    :raises UserError: naming everything that does not fit.
    """

    axes: Sequence[int] = XBOX_AXES
    scale: Sequence[float] = (1.0, 1.0, 1.0)
    deadzone: float = 0.1
    enable_button: int = XBOX_ENABLE
    buttons: Mapping[str, int] = field(default_factory=lambda: dict(XBOX_BUTTONS))

    def __post_init__(self):
        wrong = []
        if len(self.axes) != len(AXES) or any(axis < NONE for axis in self.axes):
            wrong.append(
                f'the axes are {list(self.axes)}, and must be three numbers (forward, '
                'left, turn), -1 for none'
            )
        used = [axis for axis in self.axes if axis != NONE]
        if len(set(used)) < len(used):
            wrong.append(f'one axis has two meanings: {list(self.axes)}')
        scale = np.asarray(self.scale, dtype=np.float64)
        if scale.shape != (len(AXES),) or not (np.abs(scale) <= 1).all():
            wrong.append(
                f'the scale is {list(self.scale)}, and must be three numbers from -1.0 to 1.0'
            )
        if not 0 <= self.deadzone < 1:
            wrong.append(f'the deadzone is {self.deadzone}, and must be from 0.0 to below 1.0')
        if self.enable_button < 0:
            wrong.append(
                f'the enable button is {self.enable_button}, and must be one that the '
                'joystick has: nothing moves without it'
            )
        used = [self.enable_button, *(b for b in self.buttons.values() if b != NONE)]
        if len(set(used)) < len(used):
            wrong.append(
                f'one button has two meanings: enable {self.enable_button}, {dict(self.buttons)}'
            )
        if wrong:
            raise UserError('a joystick that cannot be: ' + '; '.join(wrong))


class Joystick:
    """
    Turns what a joystick says into motion and actions; safe to use from several threads.

    The enable button is a dead man's: it moves nothing until it has been seen let go, and again
    after ``block`` and after the joystick fell silent in the middle of a drive.
    """

    def __init__(self, layout: Layout):
        self.layout = layout
        self.problem = ''  # in words, what the layout asks for and this joystick does not have
        self._direction = np.zeros(6)
        self._heard_ns: int | None = None
        self._let_go_ns: int | None = None
        self._pressed = self._free = False
        self._down: dict[str, bool] | None = None
        self._lock = threading.Lock()

    @property
    def driving(self) -> bool:
        """Whether its button is held and counts."""
        return self._pressed and self._free

    @property
    def moving(self) -> tuple[bool, bool]:
        """Whether it drives, and whether that is a motion: what has to be acted on at once."""
        return self.driving, self.driving and bool(self._direction.any())

    def heard(
        self, axes: Sequence[float], buttons: Sequence[int], heard_ns: int
    ) -> list[tuple[str, str]]:
        """
        Take one message.

        :param axes: deflections, -1 to 1.
        :param buttons: 1 for one that is pressed.
        :param heard_ns: when it arrived, on the clock of ``direction``.
        :returns: what is asked for: ``('recorder', 'start')``.
        """
        with self._lock:
            was_driving = self.driving
            if was_driving and heard_ns - self._heard_ns >= HOLD_NS:
                self._free = False  # it was silent, or we were held up: this may be an old one
            self._pressed = _at(buttons, self.layout.enable_button) == 1
            if not self._pressed:
                self._free = True
            if was_driving and not self.driving:
                self._let_go_ns = heard_ns
            self._direction = self._deflection(axes)
            self._heard_ns = heard_ns
            self.problem = self._missing(len(axes), len(buttons))
            down = {name: _at(buttons, index) == 1 for name, index in self.layout.buttons.items()}
            # What is down at the first message was not pressed for us.
            before, self._down = self._down if self._down is not None else down, down
            return [('recorder', name) for name in down if down[name] and not before[name]]

    def block(self):
        """Move nothing more until the enable button has been let go: a key was pressed."""
        with self._lock:
            self._free, self._let_go_ns = False, None

    def direction(self, now_ns: int) -> np.ndarray | None:
        """
        Return the motion of now as (6,) shares of full speed, at most 1 over ground.

        Zeros for a while after the button is let go or the joystick falls silent, then None.
        """
        with self._lock:
            if self.driving:
                age_ns = now_ns - self._heard_ns
                if age_ns < HOLD_NS:
                    return self._direction.copy()
                return np.zeros(6) if age_ns <= HOLD_NS + TRAIL_NS else None
            if self._let_go_ns is not None and now_ns - self._let_go_ns <= TRAIL_NS:
                return np.zeros(6)
            return None

    def due_ns(self, now_ns: int) -> int | None:
        """Return how long the present motion lasts if nothing more is heard; None: no motion."""
        with self._lock:
            if not self.driving or now_ns - self._heard_ns >= HOLD_NS:
                return None
            return self._heard_ns + HOLD_NS - now_ns

    def state(self, now_ns: int) -> str:
        """Return in a word how it is: one of the constants of this module."""
        with self._lock:
            if self._heard_ns is None:
                return NEVER
            age_ns = now_ns - self._heard_ns
            if age_ns >= (HOLD_NS if self.driving else LOST_NS):
                return SILENT
            if self._pressed:
                return DRIVING if self._free else BLOCKED
            return READY

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
        lacks = [
            f'axis {index} ({name})'
            for name, index in zip(AXES, self.layout.axes, strict=True)
            if index >= axes
        ]
        wanted = {'enable': self.layout.enable_button, **self.layout.buttons}
        lacks += [f'button {index} ({name})' for name, index in wanted.items() if index >= buttons]
        return (
            (
                f'the joystick has {axes} axes and {buttons} buttons, and lacks '
                f'{", ".join(lacks)}: set joy_axes and joy_…_button'
            )
            if lacks
            else ''
        )


def _at(values: Sequence, index: int):
    """Return a value by its index, 0 where there is none."""
    return values[index] if 0 <= index < len(values) else 0
