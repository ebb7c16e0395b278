"""The newest frames, and the window of them that has the policy's spacing."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from mobile_vla_ros.episode.timing.windows import window_rows
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS

# A frame is due from this share of a period after the last one used, since cameras jitter.
EARLY_SHARE = 0.75


class Stamped(Protocol):
    """Anything with a time of exposure."""

    @property
    def stamp_ns(self) -> int:
        """Time of exposure, nanoseconds."""


class PolicyFrame(Stamped, Protocol):
    """A frame that a policy can read: ``types.Frame``, or one that is decoded on demand."""

    @property
    def image(self) -> np.ndarray:
        """(height, width, 3) uint8, RGB."""


S = TypeVar('S', bound=Stamped)


class FrameBuffer(Generic[S]):
    """
    Keeps the frames of slightly more than one window.

    :param rate_hz: rate of the policy.
    :param window: frames of its window.
    """

    def __init__(self, rate_hz: float, window: int) -> None:
        self._rate_hz = rate_hz
        self.period_ns = round(NANOSECONDS / rate_hz)
        self.window_length = window
        self._frames: deque[S] = deque()
        self._used_ns: int | None = None

    def add(self, frame: S) -> None:
        """
        Insert a frame at its place in time, also after newer ones.

        A frame older than the span of the buffer, or with the stamp of another frame, means that
        the clock was set back: it empties the buffer first.
        """
        span_ns = self.window_length * self.period_ns
        newest = self.newest
        if newest is not None and (
            frame.stamp_ns < newest.stamp_ns - span_ns
            or any(frame.stamp_ns == kept.stamp_ns for kept in self._frames)
        ):
            self._frames.clear()
        after = sum(kept.stamp_ns > frame.stamp_ns for kept in self._frames)
        self._frames.insert(len(self._frames) - after, frame)
        while self._frames[0].stamp_ns < self._frames[-1].stamp_ns - span_ns:
            self._frames.popleft()

    def clear(self) -> None:
        """Remove every frame."""
        self._frames.clear()

    def revisit(self) -> None:
        """Make the newest frame due again."""
        self._used_ns = None

    @property
    def newest(self) -> S | None:
        """The newest frame, or None."""
        return self._frames[-1] if self._frames else None

    def window(self) -> list[S] | None:
        """
        Return the window that ends in the newest frame, oldest first.

        None when a place has no frame within half a period, by the rule that training uses too
        (``episode.timing.windows``).
        """
        if not self._frames:
            return None
        frames = list(self._frames)
        times_ns = np.array([frame.stamp_ns for frame in frames], dtype=np.int64)
        newest = np.array([len(frames) - 1])
        (rows,), (accepted,) = window_rows(times_ns, newest, self._rate_hz, self.window_length)
        return [frames[row] for row in rows] if accepted else None

    @property
    def due(self) -> bool:
        """Whether the policy should process the newest frame."""
        if not self._frames:
            return False
        early_ns = EARLY_SHARE * self.period_ns
        return self._used_ns is None or not (
            0 <= self._frames[-1].stamp_ns - self._used_ns < early_ns
        )

    def use_window(self) -> list[S] | None:
        """Return the window, if it is full, and mark its newest frame as used."""
        window = self.window()
        if window is not None:
            self._used_ns = window[-1].stamp_ns
        return window


@dataclass(frozen=True)
class _Stamp:
    stamp_ns: int


def step_outcomes(stamps_ns: Iterable[int], rate_hz: float, window: int) -> list[bool | None]:
    """
    Return what each frame leads to, in order of arrival, by the rule that drives.

    :returns: True: a plan; False: it was due and its window had a gap; None: it was not due.
    """
    buffer: FrameBuffer[_Stamp] = FrameBuffer(rate_hz, window)
    outcomes: list[bool | None] = []
    for stamp_ns in stamps_ns:
        buffer.add(_Stamp(int(stamp_ns)))
        outcomes.append(buffer.use_window() is not None if buffer.due else None)
    return outcomes


def check_window(window: Sequence[PolicyFrame], length: int) -> None:
    """Raise UserError for a window of another length than the policy's."""
    if len(window) != length:
        raise UserError('the window has the wrong length', got=len(window), expected=length)
