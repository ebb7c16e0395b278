"""The newest frames, and the window of them that has the policy's spacing."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from mobile_vla_ros.types import NANOSECONDS, Frame

# A frame stands for an instant of the window when it was taken within half a period of it, as in
# training (episode.timeline).
TOLERANCE_PERIODS = 0.5
# A frame this share of a period after the last one used is the next one: cameras jitter.
EARLY_SHARE = 0.75


class FrameBuffer:
    """
    Keeps the frames of a little more than one window.

    :param rate_hz: rate of the policy.
    :param window: frames of its window.
    """

    def __init__(self, rate_hz: float, window: int):
        self.period_ns = round(NANOSECONDS / rate_hz)
        self.window_length = window
        self._frames: deque[Frame] = deque()
        self._used_ns: int | None = None

    def add(self, frame: Frame) -> None:
        """
        Keep a frame at its place in time, also one that newer ones have overtaken.

        One that is older than the whole buffer's span, or has a stamp that is there already, is of
        a clock that was set back: it empties the buffer first.
        """
        span_ns = self.window_length * self.period_ns
        newest = self.newest
        if newest and (
            frame.stamp_ns < newest.stamp_ns - span_ns
            or any(frame.stamp_ns == kept.stamp_ns for kept in self._frames)
        ):
            self._frames.clear()
        after = sum(kept.stamp_ns > frame.stamp_ns for kept in self._frames)
        self._frames.insert(len(self._frames) - after, frame)
        while self._frames[0].stamp_ns < self._frames[-1].stamp_ns - span_ns:
            self._frames.popleft()

    def clear(self) -> None:
        """Forget every frame."""
        self._frames.clear()

    def again(self) -> None:
        """Have the newest frame count as one that the policy is yet to see."""
        self._used_ns = None

    @property
    def newest(self) -> Frame | None:
        """The newest frame, or None."""
        return self._frames[-1] if self._frames else None

    def window(self) -> list[Frame] | None:
        """
        Return the window that ends in the newest frame, oldest first.

        Each earlier place is filled by the frame nearest to a whole number of periods before the
        newest; None when a place has no frame within half a period of it.
        """
        if not self._frames:
            return None
        newest = self._frames[-1]
        chosen = [newest]
        for back in range(1, self.window_length):
            wanted = newest.stamp_ns - back * self.period_ns
            nearest = min(self._frames, key=lambda frame: abs(frame.stamp_ns - wanted))
            if (
                abs(nearest.stamp_ns - wanted) > TOLERANCE_PERIODS * self.period_ns
                or nearest.stamp_ns >= chosen[-1].stamp_ns
            ):
                return None
            chosen.append(nearest)
        return chosen[::-1]

    @property
    def due(self) -> bool:
        """Whether the newest frame is the next one that the policy is to see."""
        if not self._frames:
            return False
        early_ns = EARLY_SHARE * self.period_ns
        return self._used_ns is None or not (
            0 <= self._frames[-1].stamp_ns - self._used_ns < early_ns
        )

    def take(self) -> list[Frame] | None:
        """Return the window, if it is full, and count its newest frame as seen."""
        window = self.window()
        if window is not None:
            self._used_ns = window[-1].stamp_ns
        return window


@dataclass(frozen=True)
class _Stamp:
    stamp_ns: int


def looks(stamps_ns: Iterable[int], rate_hz: float, window: int) -> list[bool | None]:
    """
    Say what comes of each frame, in the order of their arrival, by the rule that drives.

    :returns: True: a plan; False: it was due and its window had a gap; None: it was not due.
    """
    buffer = FrameBuffer(rate_hz, window)
    found: list[bool | None] = []
    for stamp_ns in stamps_ns:
        buffer.add(_Stamp(int(stamp_ns)))
        found.append(buffer.take() is not None if buffer.due else None)
    return found
