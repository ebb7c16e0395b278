"""Stop a training run on Ctrl-C or SIGTERM after the current step, with its state saved."""

import contextlib
import signal
import time
from types import FrameType
from typing import Any

# A launcher of several processes forwards a Ctrl-C that the terminal has sent them already:
# signals within this time are the same one.
SAME_S = 2.0


class TrainingStopped(Exception):
    """A person or a scheduler stopped the training run; the message says how to continue."""


class StopSignal:
    """
    Record stop requests while entered.

    A second Ctrl-C ends the process at once; the saved state remains.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._since_s = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> 'StopSignal':
        with contextlib.suppress(ValueError):  # only the main thread can set handlers
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._since_s = True, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since_s > SAME_S:
            raise KeyboardInterrupt
