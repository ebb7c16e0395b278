"""The faults of a camera, each found by one class; without ROS, clocks or decoding."""

import zlib
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobile_vla_ros.safety.status import Health, StopReason
from mobile_vla_ros.types import NANOSECONDS

# A frozen camera repeats its bytes; a driver may do so once.
FROZEN_REPEATS = 2
# How long a base must have been commanded to move before its camera must have moved.
START_S = 0.3
# Mean luma, 0 to 1, below which nothing can be seen (a lens cap gives up to 0.03).
DARK_BRIGHTNESS, DARK_FRAMES = 0.05, 2
OLD_FRAMES = 2
CLOCK_STEP_S, CAMERA_STEP_S = 0.1, 1.0
# No camera delivers its images this late: its clock is wrong.
CLOCK_APART_S = 60.0
CLOCK_REMEDY = (
    "synchronise the camera's clock (chrony), or set camera_time:=receipt if it has none"
)
NO_SENDING = 'the middleware does not report when images were sent'
NO_SENDING_REMEDY = 'use rmw_fastrtps_cpp, or a camera with a clock and camera_time:=stamp'
# A simulation's clock may run at up to ten times the real speed, and in steps.
SIM_SPEED, SIM_STEP_S = 10.0, 1.0
# A new size or encoding is accepted once it has been the only one for this long.
SETTLED_S = 2.0
# This many falls of the publishers' message count within this time mean two publishers.
RIVAL_FALLS, RIVAL_SPAN_S = 2, 2.0
MAX_HASHED_BYTES = 65536
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class FrameHeader:
    """
    What is known of an image message without its pixels.

    :param sec: and nanosec: its stamp, or the time of sending (``StampCheck``'s ``by_receipt``).
    :param received_ns: time of receipt on the node's clock, which stamps are compared with.
    :param now_ns: the same moment on the clock that measures durations: a steady one, or the
        simulation's.
    :param form: size and encoding, as text.
    :param sequence: its publisher's message count, None if unknown.
    """

    sec: int
    nanosec: int
    received_ns: int
    now_ns: int
    form: str
    sequence: int | None = None

    @property
    def stamp_ns(self) -> int:
        """The stamp in nanoseconds."""
        return self.sec * NANOSECONDS + self.nanosec

    @property
    def late_s(self) -> float:
        """Seconds from the stamp to the receipt."""
        return (self.received_ns - self.stamp_ns) / NANOSECONDS


def clock_remedy(late_s: float, by_receipt: bool) -> str:
    """
    Return what to do about images that are stamped too far from their receipt.

    Only what cannot be a delay is answered by ignoring the stamps.

    :param late_s: receipt minus stamp, seconds.
    :param by_receipt: whether stamps are not the camera's, but times of sending.
    """
    if not by_receipt and (late_s < 0 or late_s > CLOCK_APART_S):
        return CLOCK_REMEDY
    return (
        'synchronise the clocks of camera and this machine (chrony), or find out what delays '
        'the images'
    )


def content_hash(data: Any) -> int:
    """
    Return a hash of a message's bytes, of an even selection where they are many.

    :param data: anything with the buffer protocol.
    """
    values = np.frombuffer(data, np.uint8)
    step = max(1, len(values) // MAX_HASHED_BYTES) | 1  # odd, to vary the colour and the column
    return zlib.crc32(values[::step].tobytes())


def brightness(image: np.ndarray) -> float:
    """Return the mean luma, 0 to 1, of a sample of a (height, width, 3) uint8 RGB image."""
    step = max(1, min(image.shape[:2]) // 32)
    return float(image[::step, ::step].mean(axis=(0, 1)) @ LUMA) / 255


class PublisherCheck:
    """Finds two publishers: one publisher's count only rises, but for one fall at a restart."""

    def __init__(self) -> None:
        self._sequence: int | None = None
        self._falls_ns: deque[int] = deque()

    def judge(self, header: FrameHeader) -> Health | None:
        """Return the fault after a message, or None."""
        before, self._sequence = self._sequence, header.sequence
        if before is not None and header.sequence is not None and header.sequence <= before:
            self._falls_ns.append(header.now_ns)
        while self._falls_ns and not (
            0 <= header.now_ns - self._falls_ns[0] <= RIVAL_SPAN_S * NANOSECONDS
        ):
            self._falls_ns.popleft()
        if len(self._falls_ns) >= RIVAL_FALLS:
            return Health.fault(
                StopReason.CAMERA_SEVERAL,
                'images from more than one camera: stop all publishers of the topic but one '
                '(ros2 topic info --verbose)',
            )
        return None


class StampCheck:
    """
    Finds stamps that are invalid, old, in the future, or that jump.

    :param max_age_s: maximum age of an image.
    :param tolerance_s: how far a stamp may lie in the future.
    :param by_receipt: whether stamps are not the camera's, but the times of sending that the
        middleware reports.
    :param latency_s: how long before its sending such a stamp lies. It counts as age, but does
        not hide a clock of the sender that is ahead.
    """

    def __init__(
        self,
        max_age_s: float,
        tolerance_s: float,
        *,
        by_receipt: bool = False,
        latency_s: float = 0.0,
    ) -> None:
        self._max_age_s, self._tolerance_s = max_age_s, tolerance_s
        self._by_receipt, self._latency_s = by_receipt, latency_s
        self._in_time: FrameHeader | None = None
        self._last_ns: int | None = None
        self._old = 0

    def invalid(self, header: FrameHeader) -> Health | None:
        """Return the fault of a stamp or a clock that cannot be computed with, or None."""
        if not header.received_ns:
            return Health.fault(
                StopReason.NO_CLOCK,
                'use_sim_time is set, but no time is published on /clock: start the simulation, '
                'or unset use_sim_time',
            )
        if header.sec < 0 or header.stamp_ns <= 0 or header.nanosec >= NANOSECONDS:
            return Health.fault(
                StopReason.CAMERA_STAMP_INVALID,
                f'{NO_SENDING}, so that their age is unknown: {NO_SENDING_REMEDY}'
                if self._by_receipt
                else f'invalid image stamp: {header.sec} s and {header.nanosec} ns; '
                f'{CLOCK_REMEDY}',
            )
        return None

    def judge(self, header: FrameHeader) -> Health | None:
        """Return the fault of a message with a valid stamp, or None."""
        before, self._in_time = self._in_time, None
        standing, self._last_ns = header.stamp_ns == self._last_ns, header.stamp_ns
        if before is not None:
            stepped_s = (
                (header.stamp_ns - before.stamp_ns) - (header.received_ns - before.received_ns)
            ) / NANOSECONDS
            if abs(stepped_s) > CAMERA_STEP_S:
                return Health.fault(
                    StopReason.CAMERA_CLOCK_JUMP,
                    f"the camera's clock jumped by {stepped_s:+.1f} s; "
                    + clock_remedy(-stepped_s, self._by_receipt),
                )
        late_s = header.late_s
        transport_s = late_s - self._latency_s
        if transport_s < -self._tolerance_s:
            return Health.fault(
                StopReason.CAMERA_STAMP_FUTURE,
                f'images are stamped {-transport_s:.2f} s in the future: the clocks of camera and '
                f'this machine differ; {clock_remedy(transport_s, self._by_receipt)}',
            )
        self._old = self._old + 1 if late_s > self._max_age_s else 0
        if not self._old:
            self._in_time = header  # only a step away from a correct time is a jump
        if self._old >= OLD_FRAMES:
            why = (
                f"the camera's clock stands still; {CLOCK_REMEDY}"
                if standing
                else 'the camera is late or its clock differs; '
                + clock_remedy(late_s, self._by_receipt)
            )
            return Health.fault(
                StopReason.CAMERA_STAMP_OLD,
                f'images arrive {late_s:.2f} s old; the limit is {self._max_age_s:g} s: {why}',
            )
        return None


class FormCheck:
    """Finds another size or encoding, until it has been the only one for ``SETTLED_S``."""

    def __init__(self) -> None:
        self.form = ''
        self._other: tuple[str, int] | None = None

    def judge(self, header: FrameHeader) -> Health | None:
        """Return the fault of a message, or None."""
        if header.form == self.form or not self.form:
            self.form, self._other = header.form, None
            return None
        if self._other is None or self._other[0] != header.form:
            self._other = header.form, header.now_ns
        if header.now_ns - self._other[1] >= SETTLED_S * NANOSECONDS:
            self.form, self._other = header.form, None
            return None
        return Health.fault(
            StopReason.CAMERA_CHANGED,
            f'the images changed from {self.form} to {header.form} during the drive',
        )


class ContentCheck:
    """Finds a frozen or a dark camera."""

    def __init__(self) -> None:
        self._hash: int | None = None
        self._was_moving = False
        self._repeats = 0
        self._dark_frames = 0

    @property
    def dark(self) -> bool:
        """Whether the last image is dark."""
        return self._dark_frames > 0

    def forget_image(self) -> None:
        """Compare the next image with none: the last one could not be decoded."""
        self._hash = None

    def judge(self, hashed: int, bright: float, moving_s: float, frozen: bool) -> Health | None:
        """
        Return the fault of an image, or None.

        :param frozen: whether the camera was found to be frozen at the last image: then a repeat
            counts also while the base stands.
        """
        repeated = hashed == self._hash
        # Both images were taken in motion: at rest a camera without noise may repeat itself.
        moving = moving_s >= START_S
        if repeated and moving and self._was_moving:
            self._repeats += 1
        elif not (frozen and repeated):
            self._repeats = 0
        self._hash, self._was_moving = hashed, moving
        self._dark_frames = self._dark_frames + 1 if bright < DARK_BRIGHTNESS else 0
        if self._dark_frames >= DARK_FRAMES:
            return Health.fault(
                StopReason.CAMERA_DARK,
                f'the camera shows black (brightness {bright:.2f} of 1): its lens is covered or '
                'it is dead',
            )
        if self._repeats >= FROZEN_REPEATS:
            return Health.fault(
                StopReason.CAMERA_FROZEN,
                'the camera is frozen: new stamps with the same image while the base moves',
            )
        return None


class ClockCheck:
    """
    Finds steps of the node's clock.

    :param real_time: whether it is the machine's clock; otherwise it is a simulation's.
    """

    def __init__(self, real_time: bool) -> None:
        self._real_time = real_time
        self._before: tuple[int, int] | None = None

    def judge(self, ros_ns: int, steady_ns: int) -> Health | None:
        """Return the fault at two times of one moment, or None."""
        before, self._before = self._before, (ros_ns, steady_ns)
        if before is None:
            return None
        ros_step_ns, steady_step_ns = ros_ns - before[0], steady_ns - before[1]
        if self._real_time:
            jump_s = (ros_step_ns - steady_step_ns) / NANOSECONDS
            if abs(jump_s) <= CLOCK_STEP_S:
                return None
            return _clock_jump("this machine's", jump_s)
        started = before[0] > 0  # the time is zero before the first /clock
        if started and (
            ros_step_ns < 0 or ros_step_ns > SIM_SPEED * steady_step_ns + SIM_STEP_S * NANOSECONDS
        ):
            return _clock_jump("the simulation's", ros_step_ns / NANOSECONDS)
        return None


def _clock_jump(whose: str, seconds: float) -> Health:
    return Health.fault(StopReason.CLOCK_JUMP, f'{whose} clock jumped by {seconds:+.1f} s')
