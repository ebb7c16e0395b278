"""The keys of the console and what they mean. No ROS here."""

import re
import threading
from collections.abc import Callable, Sequence

import numpy as np

from mobile_vla_ros.types import NANOSECONDS

# x, y, turn: Q and E, Z and C are the diagonals, forward and backward, left and right.
MOTIONS = {
    'w': (1, 0, 0),
    's': (-1, 0, 0),
    'a': (0, 1, 0),
    'd': (0, -1, 0),
    'q': (1, 1, 0),
    'e': (1, -1, 0),
    'z': (-1, 1, 0),
    'c': (-1, -1, 0),
    'r': (0, 0, 1),
    't': (0, 0, -1),
}
RECORDER_KEYS = {
    'n': 'start',
    'm': 'stop',
    'b': 'discard',
    '1': 'success',
    '0': 'failure',
    'l': 'last_instruction',
    'o': 'last_outcome',
    'v': 'last_shorten',
    'u': 'last_undo',
    'k': 'black_box',
}
ONCE_KEYS = 'lovuk'  # act once per press: auto-repeat of V would drop 5 s each time
HELP = """\
W S  forward, back      N  start an episode   X  arm or disarm the guard
A D  left, right        M  end it             I  change the instruction
Q E Z C  diagonals      1  end it: success    F G  faster, slower
R T  turn               0  end it: failure    K  keep the last seconds
P    policy drives on   B  discard it         space  stop   Ctrl-C  leave
The last episode:  O outcome  L this instruction  V drop its last 5 s  U undo
Hold a key to move: the robot stops when you release it. A joystick moves it
while its enable button is held.
"""

# A terminal reports no key-up, only repeats (about 30 a second): the robot stops this long after
# the last one, and zeros follow for the trail.
HOLD_NS = NANOSECONDS // 4
TRAIL_NS = 3 * NANOSECONDS // 10
REPEAT_NS = 7 * NANOSECONDS // 10  # longest delay before a held key repeats
THROTTLE_STEP, MIN_THROTTLE = 0.1, 0.1
# Escape sequences of arrow and function keys are ignored: their letters must not drive.
FUNCTION_KEY = re.compile(r'\x1b(\[[0-?]*[ -/]*[@-~]?|O[ -~])')
ESCAPE, ENTER, ERASE = '\x1b', '\r\n', '\x7f\b'


class Console:
    """
    Turns keys into motion and actions; safe to use from several threads.

    :param max_linear_mps: speed over ground at full throttle; likewise ``max_angular_radps``.
    :param throttle: share of both, 0.1 to 1.
    :param on_drive: called whenever a key moves or stops the robot.
    """

    def __init__(
        self,
        max_linear_mps: float,
        max_angular_radps: float,
        throttle: float,
        on_drive: Callable[[], None] = lambda: None,
    ) -> None:
        self.throttle = throttle
        self._on_drive = on_drive
        self._max = np.array([max_linear_mps, max_linear_mps, 0, 0, 0, max_angular_radps])
        self._direction = np.zeros(6)
        self._pressed_ns: int | None = None
        self._called, self._called_ns = '', 0  # the newest of RECORDER_KEYS, and when
        self._lock = threading.Lock()
        self.typed: str | None = None  # the instruction being typed, or None
        self.choices: Sequence[str] = ()  # the instructions that a number selects

    @property
    def full(self) -> np.ndarray:
        """The (6,) speeds of full deflection at the present throttle, m/s and rad/s."""
        return self._max * self.throttle

    def keys(self, text: str, now_ns: int) -> list[tuple[str, str]]:
        """
        Process typed text.

        :param now_ns: time of it, on a clock that never jumps.
        :returns: the requests: ``('recorder', 'start')``, ``('guard', 'toggle')``,
            ``('guard', 'resume')``, ``('instruction', text)``.
        """
        actions = []
        with self._lock:
            for key in FUNCTION_KEY.sub('', text):
                action = self._type(key) if self.typed is not None else self._key(key, now_ns)
                if action is not None:
                    actions.append(action)
        return actions

    def twist(self, now_ns: int) -> np.ndarray | None:
        """Return the present (6,) command: zeros for a while after the last key, then None."""
        with self._lock:
            if self._pressed_ns is None:
                return None
            age_ns = now_ns - self._pressed_ns
            if age_ns > HOLD_NS + TRAIL_NS:
                self._pressed_ns = None
                return None
            if age_ns >= HOLD_NS:
                return np.zeros(6)
            return self._direction * self.full

    def end_motion(self) -> None:
        """End a motion and its trail of zeros: a person hands back."""
        with self._lock:
            self._pressed_ns = None

    def due_ns(self, now_ns: int) -> int | None:
        """Return how long the present motion still lasts, or None without one."""
        with self._lock:
            if self._pressed_ns is None or now_ns - self._pressed_ns >= HOLD_NS:
                return None
            return self._pressed_ns + HOLD_NS - now_ns

    def _key(self, key: str, now_ns: int) -> tuple[str, str] | None:
        key = key.lower()
        if key in MOTIONS:
            x, y, turn = MOTIONS[key]
            # A diagonal is no faster over ground than any other direction.
            planar = np.array([x, y]) / max(np.hypot(x, y), 1)
            self._drive(np.array([*planar, 0, 0, 0, turn]), now_ns)
        elif key == ' ':
            self._drive(np.zeros(6), now_ns)
        elif key in 'fg':
            step = THROTTLE_STEP if key == 'f' else -THROTTLE_STEP
            self.throttle = round(min(max(self.throttle + step, MIN_THROTTLE), 1.0), 2)
        elif key in RECORDER_KEYS:
            held = self._called == key and now_ns - self._called_ns < REPEAT_NS
            self._called, self._called_ns = key, now_ns
            return None if held and key in ONCE_KEYS else ('recorder', RECORDER_KEYS[key])
        elif key == 'x':
            return 'guard', 'toggle'
        elif key == 'p':
            return 'guard', 'resume'
        elif key == 'i':
            self._drive(np.zeros(6), now_ns)
            self.typed = ''
        return None

    def _drive(self, direction: np.ndarray, now_ns: int) -> None:
        self._direction, self._pressed_ns = direction, now_ns
        self._on_drive()

    def _type(self, key: str) -> tuple[str, str] | None:
        typed = self.typed or ''
        if key in ENTER:
            self.typed = None
            text = typed.strip()
            if text in (numbers := [str(n) for n in range(1, len(self.choices) + 1)]):
                text = self.choices[numbers.index(text)]
            return ('instruction', text) if text else None
        if key == ESCAPE:
            self.typed = None
        elif key in ERASE:
            self.typed = typed[:-1]
        elif key.isprintable():
            self.typed = typed + key
        return None
