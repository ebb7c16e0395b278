"""How late a message arrives, from clocks that may differ by any constant."""

from collections import deque

from mobile_vla_ros.types import NANOSECONDS

# Two clocks are compared over this time; a clock that was set counts as late for as long.
WINDOW_S = 5.0
# A longer silence counts as this much: what was sent before a stall is compared with the time
# before it, however long it was.
MAX_INTERVAL_S = 0.5


class Lateness:
    """
    Compares each message of a topic with the fastest of the last ``WINDOW_S``.

    The clocks of sender and receiver need not agree, and the usual transport does not count. Two
    senders whose clocks differ make the one behind seem late by the difference.
    """

    def __init__(self) -> None:
        self._clock_ns = 0
        self._last_ns: int | None = None
        # (time in the window, difference), both ascending: the first one is the smallest.
        self._fastest: deque[tuple[int, int]] = deque()

    def late_ns(self, sent_ns: int, received_ns: int) -> int:
        """
        Return how much later than the fastest a message arrived, 0 or more nanoseconds.

        :param sent_ns: on the sender's clock; 0 if unknown, which is never late.
        :param received_ns: on a clock of the receiver.
        """
        if sent_ns == 0:
            return 0
        if self._last_ns is not None:
            passed_ns = min(received_ns - self._last_ns, round(MAX_INTERVAL_S * NANOSECONDS))
            self._clock_ns += max(passed_ns, 0)  # a wall clock may be set back
        self._last_ns = received_ns
        difference = received_ns - sent_ns
        while self._fastest and self._fastest[-1][1] >= difference:
            self._fastest.pop()
        self._fastest.append((self._clock_ns, difference))
        while self._clock_ns - self._fastest[0][0] > round(WINDOW_S * NANOSECONDS):
            self._fastest.popleft()
        return difference - self._fastest[0][1]
