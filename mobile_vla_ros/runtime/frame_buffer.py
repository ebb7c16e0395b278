"""The newest frames, and the window of them that has the policy's spacing."""

from collections import deque

from mobile_vla_ros.types import NANOSECONDS, Frame

# A frame stands for an instant of the window when it was taken within half a period of it, as in
# training (episode.timeline).
TOLERANCE_PERIODS = 0.5


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

    def add(self, frame: Frame) -> None:
        """Keep a frame. One that is not newer than the newest empties the buffer first."""
        if self._frames and frame.stamp_ns <= self._frames[-1].stamp_ns:
            self._frames.clear()
        self._frames.append(frame)
        oldest = frame.stamp_ns - self.window_length * self.period_ns
        while self._frames[0].stamp_ns < oldest:
            self._frames.popleft()

    def clear(self) -> None:
        """Forget every frame."""
        self._frames.clear()

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
            if (abs(nearest.stamp_ns - wanted) > TOLERANCE_PERIODS * self.period_ns
                    or nearest.stamp_ns >= chosen[-1].stamp_ns):
                return None
            chosen.append(nearest)
        return chosen[::-1]
