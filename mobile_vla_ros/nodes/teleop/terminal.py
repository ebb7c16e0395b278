"""The terminal of the console: reads its keys and shows the state in a few lines at its foot."""

import codecs
import contextlib
import os
import re
import select
import termios
import tty
import unicodedata
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.plain_text import plain

TERMINAL = '/dev/tty'
FUNCTION_KEY_S = 0.03  # the rest of a function key may arrive a little after its beginning
BEGUN = re.compile(rb'\x1b(\[[0-?]*[ -/]*|O)?$')
STYLES = {'plain': '', 'strong': '\x1b[1m', 'alarm': '\x1b[7m'}
HIDE_CURSOR, SHOW_CURSOR = '\x1b[?25l', '\x1b[?25h'
MAX_CHARS = 4000  # of a row or a text: more than any terminal shows
# Redraw now and then even without a change: others write here, and sizes change.
REDRAW_EVERY = 5


class Row(NamedTuple):
    """
    One line of the state.

    :param style: plain, strong (bold) or alarm (inverse).
    :param height: lines it may use in a terminal that is too narrow for it.
    """

    text: str
    style: str = 'plain'
    height: int = 1


class Terminal:
    """
    The controlling terminal, read key by key, whatever standard input is.

    ``ros2 launch`` gives its processes no standard input, but they share its terminal. They also
    write to it: the cursor rests on a blank line above the state, so that their lines stay whole
    and the state moves down.

    :raises UserError: without a controlling terminal.
    """

    def __init__(self) -> None:
        try:
            self._keys = os.open(TERMINAL, os.O_RDONLY | os.O_NOCTTY)
            # A blocked terminal (Ctrl-S, a slow line) loses lines, but must not block the console.
            self._screen = os.open(TERMINAL, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            self._before = termios.tcgetattr(self._keys)
        except (OSError, termios.error) as error:
            raise UserError(
                'the console has no terminal to read keys from',
                got=error,
                expected=TERMINAL,
                remedy='start it in a terminal (with ssh: ssh -t), with a joystick alone: '
                'joy:=true, or without it: console:=false',
            ) from None
        self._decoder = codecs.getincrementaldecoder('utf-8')('ignore')
        self._drawn, self._times_same = '', 0
        tty.setcbreak(self._keys, termios.TCSANOW)
        # Ctrl-Z and Ctrl-\ would also stop or kill the guard, in the middle of a movement.
        modes = termios.tcgetattr(self._keys)
        modes[6][termios.VSUSP] = modes[6][termios.VQUIT] = b'\0'
        termios.tcsetattr(self._keys, termios.TCSANOW, modes)
        self._write(HIDE_CURSOR)

    def read(self, timeout_s: float) -> str | None:
        """Return the typed text ('' for none), or None when the terminal is gone."""
        try:
            if not select.select([self._keys], [], [], timeout_s)[0]:
                return ''
            data = os.read(self._keys, 1024)
            while BEGUN.search(data) and select.select([self._keys], [], [], FUNCTION_KEY_S)[0]:
                rest = os.read(self._keys, 1024)
                if not rest:
                    return None
                data += rest
        except OSError:
            return None
        return self._decoder.decode(data) if data else None

    def status(self, rows: Sequence[Row]) -> None:
        """Show the state below all other lines."""
        width, height = self._size()
        lines = [
            STYLES[row.style] + line + '\x1b[0m'
            for row in rows
            for line in wrap(plain(shortened(row.text)), width - 1, row.height)
        ]
        lines = lines[: max(height - 2, 1)]
        drawn = ''.join(f'\n{line}\x1b[K' for line in lines)
        self._times_same = self._times_same + 1 if drawn == self._drawn else 0
        if self._times_same % REDRAW_EVERY == 0:
            self._write(f'\r\x1b[K{drawn}\x1b[J\x1b[{len(lines)}A\r')
            self._drawn = drawn

    def log(self, text: str) -> None:
        """Print lines that stay, above the state."""
        self._drawn = ''
        self._write('\r\x1b[J' + '\n'.join(plain(line) for line in text.splitlines()) + '\n')

    def restore(self) -> None:
        """Restore the original modes and the cursor."""
        try:
            termios.tcsetattr(self._keys, termios.TCSANOW, self._before)
        except termios.error:
            return  # it is gone
        self._write('\r\x1b[J' + SHOW_CURSOR)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._screen, text.encode())

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self._screen)
        except OSError:
            size = os.terminal_size((0, 0))
        return size.columns or 80, size.lines or 24


def shortened(text: str) -> str:
    """Cut a text to ``MAX_CHARS``, ending in … if something is missing."""
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + '…'


def columns(text: str) -> int:
    """Return the width of a text in columns: 2 for a wide character, 0 for an accent."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in 'WF')
        for c in text
    )


def cut(text: str, width: int) -> str:
    """Cut a text to a width in columns, ending in … if something is missing."""
    if columns(text) <= width:
        return text
    ends = accumulate(map(columns, text))
    return ''.join(c for c, end in zip(text, ends, strict=True) if end < width) + '…'


def wrap(text: str, width: int, height: int) -> list[str]:
    """Break a text between words into at most ``height`` lines; cut the last one."""
    if columns(text) <= width:
        return [text]
    lines = ['']
    for word in text.split(' '):
        longer = f'{lines[-1]} {word}' if lines[-1] else word
        if len(lines) == height or columns(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(f'  {word}')
    return [cut(line, width) for line in lines]
