"""Ctrl-C and SIGTERM in the middle of a training: finish the step, save, say how to go on."""

import contextlib
import signal
import time

# A launcher of several processes passes on the Ctrl-C that they have had from the terminal: what
# comes sooner than this is the same one.
SAME_S = 2.0


class TrainingStopped(Exception):
    """A person or a scheduler stopped the training; the message says how to go on."""


class StopSignal:
    """
    Remembers that a stop was asked for, while it is entered.

    A second Ctrl-C ends the process at once; what was saved before stays.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.asked = False
        self._since_s = 0.0
        self._before: dict = {}

    def __enter__(self) -> 'StopSignal':
        with contextlib.suppress(ValueError):  # signals belong to the main thread
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame):
        if not self.asked:
            self.asked, self._since_s = True, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since_s > SAME_S:
            raise KeyboardInterrupt
