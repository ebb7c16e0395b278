"""What is known of a camera's stream while it runs: its rate, its clock, what never came."""

from collections import deque
from collections.abc import Hashable

import numpy as np

from mobile_vla_ros.episode.timing import camera_clock as clock
from mobile_vla_ros.nodes.shared.sequence import MessageCount
from mobile_vla_ros.types import NANOSECONDS

SPAN_S = 2.0
CLOCK_SPAN_S = 10.0
FRESH_S = 1.0
# A rate is learned only from nearly a whole span.
WHOLE_SHARE = 0.9


class CameraWatch:
    """
    Keeps the times of the last seconds' frames. Reads no clock and knows no ROS.

    :param expected_hz: the camera's rate; 0 has it learned: the best whole span seen.
    """

    def __init__(self, expected_hz: float = 0.0):
        self._given_hz = expected_hz
        self._best_hz = 0.0
        self._times: deque[tuple[int, int, int]] = deque()
        self._stamps: deque[tuple[int, int, int]] = deque()
        self._count = MessageCount()

    def frame(self, now_ns: int, stamp_ns: int, received_ns: int, sequence: int | None) -> int:
        """
        Note one frame; return how many before it were published and never came.

        :param now_ns: a clock that never jumps, nanoseconds.
        :param received_ns: time of receipt on the node's clock, which may be a simulated one.
        :param sequence: the publisher's count of its messages, None where it is not told.
        """
        self._times.append((now_ns, stamp_ns, received_ns))
        self._stamps.append((now_ns, stamp_ns, received_ns))
        self._forget(now_ns)
        return self._count.missing(sequence)

    @property
    def counted(self) -> bool:
        """Whether missing frames are told by the publisher's count."""
        return self._count.known

    def published_by(self, publishers: Hashable, count: int):
        """Note who publishes (see ``MessageCount``): another camera has another rate."""
        if self._count.published_by(publishers, count):
            self._best_hz = 0.0

    def learn(self, now_ns: int):
        """Compare the present rate with the best one; to be called often."""
        self._forget(now_ns)
        times = self._times
        if not times or times[-1][0] - times[0][0] < WHOLE_SHARE * SPAN_S * NANOSECONDS:
            return
        # Frames held up and then delivered at once look too fast; their stamps know better.
        stamped_ns, received_ns = (times[-1][k] - times[0][k] for k in (1, 2))
        if received_ns <= 0:
            return
        span_ns = stamped_ns if received_ns < stamped_ns < 2 * received_ns else received_ns
        self._best_hz = max(self._best_hz, (len(times) - 1) / span_ns * NANOSECONDS)

    @property
    def expected_hz(self) -> float | None:
        """The rate that this camera ought to have, None while it is not known."""
        return self._given_hz or self._best_hz or None

    def rate_hz(self, now_ns: int) -> float:
        """Frames a second over the last span, 0 when there are none."""
        self._forget(now_ns)
        times = self._times
        if len(times) < 2 or times[-1][0] <= times[0][0]:
            return 0.0
        return (len(times) - 1) / (times[-1][0] - times[0][0]) * NANOSECONDS

    def fresh(self, now_ns: int) -> bool:
        """Whether a frame came within the last second."""
        return bool(self._times) and now_ns - self._times[-1][0] < FRESH_S * NANOSECONDS

    def clock(self) -> clock.ClockVerdict:
        """Return what the camera's clock was like over the last ten seconds."""
        times = np.array(self._stamps, dtype=np.int64).reshape(-1, 3)
        found = clock.check(times[:, 1], times[:, 2])
        if found.kind in ('jumps', 'apart') and np.ptp(times[:, 0]) < SPAN_S * NANOSECONDS:
            return clock.ClockVerdict('sane', '')  # one late frame among a few proves nothing
        return found

    def _forget(self, now_ns: int):
        for times, span_s in ((self._times, SPAN_S), (self._stamps, CLOCK_SPAN_S)):
            while times and now_ns - times[0][0] > span_s * NANOSECONDS:
                times.popleft()
