"""Judges a live camera: whether its newest image may be driven by, and if not, why."""

from collections import deque

from mobile_vla_ros.runtime.camera_faults import (
    ClockCheck,
    ContentCheck,
    FormCheck,
    FrameHeader,
    PublisherCheck,
    StampCheck,
)
from mobile_vla_ros.safety.status import Health, StopReason
from mobile_vla_ros.types import NANOSECONDS

# Minimum duration of a fault: a shorter one could be lost between two reports.
MIN_FAULT_S = 0.5
# Minimum time between two sentences of one fault, whose numbers differ with every image.
MIN_SENTENCE_S = 1.0
# Faults that a step of the node's own clock causes.
CLOCK_RELATED = (
    StopReason.CAMERA_CLOCK_JUMP,
    StopReason.CAMERA_STAMP_FUTURE,
    StopReason.CAMERA_STAMP_OLD,
    StopReason.CAMERA_SILENT,
)
# Faults that only the content of a later image can clear.
CONTENT_RELATED = (
    StopReason.CAMERA_FROZEN,
    StopReason.CAMERA_DARK,
    StopReason.CAMERA_UNREADABLE,
)
SILENT_S, SILENT_PERIODS = 0.5, 3.0
RATE_SPAN_S, SKEW_SPAN_S = 2.0, 5.0
# A content check is due from this share of a period after the last one, since cameras jitter.
EARLY_SHARE = 0.75


class CameraCheck:
    """
    Judges every message of a camera by its header and by what the caller computes from its pixels.

    A fault lasts for at least ``MIN_FAULT_S`` and for as long as its cause does. Call ``message``
    for every message, ``content`` for those that are ``due``, and ``tick`` from a timer.

    :param rate_hz: of the policy: how often the content is checked.
    :param max_age_s: maximum age of an image.
    :param stamp_tolerance_s: how far a stamp may lie in the future.
    :param real_time: whether the node's clock is the machine's; otherwise it is a simulation's.
    :param by_receipt: whether stamps are not the camera's, but times of sending.
    :param latency_s: how long before its sending such a stamp lies (``StampCheck``).
    """

    def __init__(
        self,
        rate_hz: float,
        *,
        max_age_s: float = 0.3,
        stamp_tolerance_s: float = 0.1,
        real_time: bool = True,
        by_receipt: bool = False,
        latency_s: float = 0.0,
    ) -> None:
        self._period_ns = round(NANOSECONDS / rate_hz)
        self._real_time = real_time
        self._latch = _FaultLatch()
        self._recent = _RecentImages()
        self._received_ns: int | None = None
        self._checked_ns: int | None = None
        self._publishers = PublisherCheck()
        self._stamps = StampCheck(
            max_age_s, stamp_tolerance_s, by_receipt=by_receipt, latency_s=latency_s
        )
        self._form = FormCheck()
        self._content = ContentCheck()
        self._clock = ClockCheck(real_time)

    @property
    def fault(self) -> Health | None:
        """The camera fault, None while there is none."""
        return self._latch.fault

    @property
    def form(self) -> str:
        """Accepted size and encoding, '' before the first image."""
        return self._form.form

    @property
    def usable(self) -> bool:
        """Whether the newest image may be given to the policy."""
        return self.fault is None and not self._content.dark

    def message(self, header: FrameHeader) -> None:
        """Judge a message by its header."""
        self._recent.add(header.now_ns)
        fault = (
            self._publishers.judge(header) or self._stamp_fault(header) or self._form.judge(header)
        )
        if fault is not None:
            self._latch.set(fault, header.now_ns)
        elif self._latch.reason not in CONTENT_RELATED:
            self._latch.clear(header.now_ns)
        self._received_ns = header.now_ns

    def _stamp_fault(self, header: FrameHeader) -> Health | None:
        invalid = self._stamps.invalid(header)
        if invalid is not None:
            return invalid
        self._recent.add_lateness(header.now_ns, header.late_s)
        return self._stamps.judge(header)

    def due(self, now_ns: int) -> bool:
        """Whether the content of a message should be checked."""
        return self._checked_ns is None or not (
            0 <= now_ns - self._checked_ns < EARLY_SHARE * self._period_ns
        )

    def content(self, now_ns: int, hashed: int, bright: float, moving_s: float) -> None:
        """
        Judge the content of an image.

        :param hashed: ``content_hash`` of its message.
        :param bright: its ``brightness``.
        :param moving_s: for how long the base has been moving, 0.0 at rest or if unknown.
        """
        self._checked_ns = now_ns
        frozen = self._latch.reason == StopReason.CAMERA_FROZEN
        fault = self._content.judge(hashed, bright, moving_s, frozen)
        if fault is not None:
            self._latch.set(fault, now_ns)
        elif self._latch.reason in CONTENT_RELATED:
            self._latch.clear(now_ns)

    def unreadable(self, now_ns: int, sentence: str) -> None:
        """Set the fault of an image that was due and could not be decoded."""
        self._checked_ns = now_ns
        self._content.forget_image()
        self._latch.set(Health.fault(StopReason.CAMERA_UNREADABLE, sentence.rstrip('.')), now_ns)

    def tick(self, ros_ns: int, steady_ns: int) -> None:
        """Check for a step of the node's clock and for a silent camera."""
        now_ns = steady_ns if self._real_time else ros_ns
        jump = self._clock.judge(ros_ns, steady_ns)
        if jump is not None:
            self._latch.set(jump, now_ns)
        silent_s = self.silent_s(now_ns)
        if silent_s is not None and silent_s > max(
            SILENT_S, SILENT_PERIODS * self._period_ns / NANOSECONDS
        ):
            self._latch.set(Health.fault(StopReason.CAMERA_SILENT, 'the camera is silent'), now_ns)

    def silent_s(self, now_ns: int) -> float | None:
        """Return the seconds since the last message, None before the first."""
        if self._received_ns is None:
            return None
        return max(0, now_ns - self._received_ns) / NANOSECONDS

    def rate_hz(self, now_ns: int) -> float:
        """Return the messages per second over the last two seconds; 0.0 with fewer than two."""
        return self._recent.rate_hz(now_ns)

    def lateness(self, now_ns: int) -> tuple[float, float] | None:
        """Return the recent minimum and maximum of receipt minus stamp, seconds, or None."""
        return self._recent.lateness(now_ns)


class _FaultLatch:
    """The fault that is reported, from its start to ``MIN_FAULT_S`` after its last cause."""

    def __init__(self) -> None:
        self.fault: Health | None = None
        self._set_ns = self._until_ns = 0

    @property
    def reason(self) -> StopReason:
        """Reason of the fault, or ``NONE``."""
        return StopReason.NONE if self.fault is None else self.fault.stop_reason

    def set(self, fault: Health, now_ns: int) -> None:
        """Set or prolong a fault, but none that a jump of the clock has just caused."""
        if (
            self.reason == StopReason.CLOCK_JUMP
            and fault.stop_reason in CLOCK_RELATED
            and self._lasts(now_ns)
        ):
            return
        same = fault.stop_reason == self.reason
        if not same or not 0 <= now_ns - self._set_ns < MIN_SENTENCE_S * NANOSECONDS:
            self.fault, self._set_ns = fault, now_ns
        self._until_ns = now_ns + round(MIN_FAULT_S * NANOSECONDS)

    def clear(self, now_ns: int) -> None:
        """Clear the fault if it has lasted long enough."""
        if not self._lasts(now_ns):
            self.fault = None

    def _lasts(self, now_ns: int) -> bool:
        return 0 < self._until_ns - now_ns <= MIN_FAULT_S * NANOSECONDS


class _RecentImages:
    """Times of receipt and lateness over the last seconds."""

    def __init__(self) -> None:
        self._times_ns: deque[int] = deque()
        self._lateness: deque[tuple[int, float]] = deque()

    def add(self, now_ns: int) -> None:
        """Add a message."""
        self._times_ns.append(now_ns)
        self._trim(now_ns)

    def add_lateness(self, now_ns: int, late_s: float) -> None:
        """Add the lateness of a message."""
        self._lateness.append((now_ns, late_s))

    def rate_hz(self, now_ns: int) -> float:
        self._trim(now_ns)
        times = self._times_ns
        if len(times) < 2 or times[-1] <= times[0]:
            return 0.0
        # A silence at the end counts as soon as it is longer than the mean period.
        mean_ns = (times[-1] - times[0]) / (len(times) - 1)
        silent_ns = max(0.0, now_ns - times[-1] - mean_ns)
        return (len(times) - 1) / (times[-1] - times[0] + silent_ns) * NANOSECONDS

    def lateness(self, now_ns: int) -> tuple[float, float] | None:
        while self._lateness and now_ns - self._lateness[0][0] > SKEW_SPAN_S * NANOSECONDS:
            self._lateness.popleft()
        if not self._lateness:
            return None
        late = [late_s for _, late_s in self._lateness]
        return min(late), max(late)

    def _trim(self, now_ns: int) -> None:
        if self._times_ns and now_ns < self._times_ns[0]:  # the clock was set back
            self._times_ns.clear()
            self._lateness.clear()
        while self._times_ns and now_ns - self._times_ns[0] > RATE_SPAN_S * NANOSECONDS:
            self._times_ns.popleft()
