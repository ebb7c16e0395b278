"""The keys of the console: what they mean, and the terminal they come from. No ROS here."""

import codecs
import contextlib
import os
import select
import termios
import threading
import tty

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS

TERMINAL = '/dev/tty'

# x, y, turn: Q and E, Z and C are the diagonals, forward and backward, left and right.
MOTIONS = {'w': (1, 0, 0), 's': (-1, 0, 0), 'a': (0, 1, 0), 'd': (0, -1, 0),
           'q': (1, 1, 0), 'e': (1, -1, 0), 'z': (-1, 1, 0), 'c': (-1, -1, 0),
           'r': (0, 0, 1), 't': (0, 0, -1)}
TAKES = {'n': 'start', 'm': 'stop', 'b': 'discard', '1': 'success', '0': 'failure'}
HELP = """\
W S  forward, back      N  start a take       X  arm or disarm the guard
A D  left, right        M  end it             I  change the instruction
Q E Z C  diagonals      1  end it: success    F G  faster, slower
R T  turn               0  end it: failure    space  stop
                        B  discard it         Ctrl-C  leave
Hold a key to move: the robot stops when it is let go.
"""

# A terminal knows no key-up, only repeats (about 30 a second): the robot stops so long after one.
HOLD_NS = NANOSECONDS // 4
TRAIL_NS = 3 * NANOSECONDS // 10
THROTTLE_STEP, LOWEST_THROTTLE = 0.1, 0.1
FUNCTION_KEY_S = 0.03  # the rest of a function key may arrive a little after its Escape
ESCAPE, ENTER, ERASE = '\x1b', '\r\n', '\x7f\b'


class Console:
    """
    Turns keys into motion and actions; safe to use from several threads.

    :param max_linear_mps: speed over ground at full throttle; likewise ``max_angular_radps``.
    :param throttle: share of both, 0.1 to 1.
    """

    def __init__(self, max_linear_mps: float, max_angular_radps: float, throttle: float):
        self.throttle = throttle
        self._max = np.array([max_linear_mps, max_linear_mps, 0, 0, 0, max_angular_radps])
        self._direction = np.zeros(6)
        self._pressed_ns: int | None = None
        self._lock = threading.Lock()
        self.typed: str | None = None  # the instruction being typed, None when none is

    def keys(self, text: str, now_ns: int) -> list[tuple[str, str]]:
        """
        Take what was typed.

        :param now_ns: when, on a clock that never jumps.
        :returns: what is asked for: ``('recorder', 'start')``, ``('guard', 'toggle')``,
            ``('instruction', text)``.
        """
        if text.startswith(ESCAPE):
            # Escape alone leaves the typing; a longer one is a function key, which means nothing.
            if text == ESCAPE:
                self.typed = None
            return []
        actions = []
        with self._lock:
            for key in text:
                action = self._type(key) if self.typed is not None else self._key(key, now_ns)
                if action is not None:
                    actions.append(action)
        return actions

    def twist(self, now_ns: int) -> np.ndarray | None:
        """Return the (6,) command of now: zero for a while after the last key, then None."""
        with self._lock:
            if self._pressed_ns is None:
                return None
            age_ns = now_ns - self._pressed_ns
            if age_ns > HOLD_NS + TRAIL_NS:
                self._pressed_ns = None
                return None
            if age_ns >= HOLD_NS:
                return np.zeros(6)
            return self._direction * self._max * self.throttle

    def due_ns(self, now_ns: int) -> int | None:
        """Return how long the present motion still lasts, None when there is none."""
        with self._lock:
            if self._pressed_ns is None or now_ns - self._pressed_ns >= HOLD_NS:
                return None
            return self._pressed_ns + HOLD_NS - now_ns

    def _key(self, key: str, now_ns: int) -> tuple[str, str] | None:
        key = key.lower()
        if key in MOTIONS:
            x, y, turn = MOTIONS[key]
            # A diagonal is as fast over ground as any other way.
            planar = np.array([x, y]) / max(np.hypot(x, y), 1)
            self._direction = np.array([*planar, 0, 0, 0, turn])
            self._pressed_ns = now_ns
        elif key == ' ':
            self._stop(now_ns)
        elif key in 'fg':
            step = THROTTLE_STEP if key == 'f' else -THROTTLE_STEP
            self.throttle = round(min(max(self.throttle + step, LOWEST_THROTTLE), 1.0), 2)
        elif key in TAKES:
            return 'recorder', TAKES[key]
        elif key == 'x':
            return 'guard', 'toggle'
        elif key == 'i':
            self._stop(now_ns)
            self.typed = ''
        return None

    def _stop(self, now_ns: int):
        self._direction = np.zeros(6)
        self._pressed_ns = now_ns

    def _type(self, key: str) -> tuple[str, str] | None:
        if key in ENTER:
            text, self.typed = self.typed.strip(), None
            return ('instruction', text) if text else None
        if key in ERASE:
            self.typed = self.typed[:-1]
        elif key.isprintable():
            self.typed += key
        return None


class Terminal:
    """
    The controlling terminal, read key by key, whatever standard input is.

    ``ros2 launch`` gives its processes no standard input, but they share its terminal.

    :raises UserError: when there is none.
    """

    def __init__(self):
        try:
            self._keys = os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY)
            # A terminal that is held (Ctrl-S, a slow line) must not hold us: lines are lost.
            self._screen = os.open(TERMINAL, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            self._before = termios.tcgetattr(self._keys)
        except (OSError, termios.error) as error:
            raise UserError(
                'the console has no terminal to read keys from', got=error, expected=TERMINAL,
                remedy='start it in a terminal (with ssh: ssh -t), or without it: console:=false',
                ) from None
        self._decoder = codecs.getincrementaldecoder('utf-8')('ignore')
        tty.setcbreak(self._keys, termios.TCSANOW)

    def read(self, timeout_s: float) -> str | None:
        """Return what was typed, '' when nothing was, None when the terminal is gone."""
        try:
            if not select.select([self._keys], [], [], timeout_s)[0]:
                return ''
            data = os.read(self._keys, 1024)
            if data == ESCAPE.encode() and select.select([self._keys], [], [], FUNCTION_KEY_S)[0]:
                data += os.read(self._keys, 1024)
        except OSError:
            return None
        return self._decoder.decode(data) if data else None

    def status(self, line: str):
        """Show the one line that changes."""
        width = self._width()
        self._write('\r\x1b[K' + (line if len(line) < width else line[:width - 2] + '…'))

    def say(self, text: str):
        """Print lines that stay, above the status."""
        self._write('\r\x1b[K' + text.rstrip('\n') + '\n')

    def restore(self):
        """Leave the terminal as it was found."""
        try:
            termios.tcsetattr(self._keys, termios.TCSANOW, self._before)
        except termios.error:
            return  # it is gone
        self._write('\n')

    def _write(self, text: str):
        with contextlib.suppress(OSError):
            os.write(self._screen, text.encode())

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._screen).columns or 80
        except OSError:
            return 80
