"""What is wrong with a camera while it is driven by: frozen, black, changed, out of time."""

import zlib
from collections import deque
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.safety.status import Health, StopReason
from mobile_vla_ros.types import NANOSECONDS

# A fault is told for at least so long: a shorter one could be lost between two readers' looks.
STAND_S = 0.5
# A reason with a number in it would be another one with every image.
REASON_S = 1.0
# A frozen camera gives the same bytes; two repeats are more than a driver's hiccup.
REPEATS = 2
# A base that is told to move needs a moment until its camera moves as well.
START_S = 0.3
# Mean luma, 0 to 1, under which nothing can be seen (a lens cap gives up to 0.03), and in a row.
DARK_BRIGHTNESS, DARK_FRAMES = 0.05, 2
OLD_FRAMES = 2
# What a step of the node's own clock looks like at first.
OF_A_CLOCK = (
    StopReason.CAMERA_CLOCK_JUMP,
    StopReason.CAMERA_STAMP_FUTURE,
    StopReason.CAMERA_STAMP_OLD,
    StopReason.CAMERA_SILENT,
)
# The next look at the content decides about these.
OF_THE_CONTENT = (
    StopReason.CAMERA_FROZEN,
    StopReason.CAMERA_DARK,
    StopReason.CAMERA_UNREADABLE,
)
CLOCK_STEP_S, CAMERA_STEP_S = 0.1, 1.0
# A simulation's clock may run at up to ten times the real speed, in steps of its own.
SIM_SPEED, SIM_STEP_S = 10.0, 1.0
SILENT_S, SILENT_PERIODS = 0.5, 3.0
# A new size or encoding is the camera's own once it has been the only one for so long.
SETTLED_S = 2.0
# So often within so long the publishers' count of their messages falls where two take turns.
RIVAL_FALLS, RIVAL_SPAN_S = 2, 2.0
RATE_SPAN_S, SKEW_SPAN_S = 2.0, 5.0
# A frame this share of a period after the last one looked at is the next one: cameras jitter.
EARLY_SHARE = 0.75
HASHED = 65536
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Look:
    """
    What one image message says of itself, before its pixels are looked at.

    :param sec: and nanosec: its stamp as it came.
    :param received_ns: time of receipt on the node's clock, which stamps are compared with.
    :param now_ns: the same moment on the clock that durations are measured by: a steady one, or
        the simulation's.
    :param form: its size and encoding in words.
    :param sequence: its publisher's count of its messages, None where it is not told.
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


def content_hash(data) -> int:
    """
    Return a hash of a message's bytes, of an even selection where they are many.

    :param data: anything with the buffer protocol.
    """
    values = np.frombuffer(data, np.uint8)
    step = max(1, len(values) // HASHED) | 1  # odd: not always the same colour or column
    return zlib.crc32(np.ascontiguousarray(values[::step]))


def brightness(image: np.ndarray) -> float:
    """Return the mean luma, 0 (black) to 1, of a (height, width, 3) uint8 RGB image's sample."""
    step = max(1, min(image.shape[:2]) // 32)
    return float(image[::step, ::step].mean(axis=(0, 1)) @ LUMA) / 255


class CameraCheck:
    """
    Judges every message of a camera; reads no clock and no pixels but those it is given.

    A fault stands for at least ``STAND_S`` and for as long as its cause does. ``message`` is
    for every message, ``content`` for those that are ``due``, ``tick`` for a timer.

    :param rate_hz: of the policy: how often the content is looked at.
    :param max_age_s: oldest image that is driven by.
    :param stamp_tolerance_s: how far a stamp may lie in the future.
    :param real_time: whether stamps are of the real time; else a simulation makes it.
    """

    def __init__(
        self,
        rate_hz: float,
        *,
        max_age_s: float = 0.3,
        stamp_tolerance_s: float = 0.1,
        real_time: bool = True,
    ):
        self._period_ns = round(NANOSECONDS / rate_hz)
        self._max_age_s, self._tolerance_s = max_age_s, stamp_tolerance_s
        self._real_time = real_time
        self._fault: Health | None = None
        self._fault_ns = self._until_ns = 0
        self._last: Look | None = None
        self._in_time: Look | None = None
        self._looked_ns: int | None = None
        self._times: deque[int] = deque()
        self._offsets: deque[tuple[int, float]] = deque()
        self._old = self._repeats = self._dark = 0
        self._hash: int | None = None
        self._moved_before = False
        self.form = ''
        self._other_form: tuple[str, int] | None = None
        self._clocks: tuple[int, int] | None = None
        self._sequence: int | None = None
        self._falls: deque[int] = deque()

    @property
    def fault(self) -> Health | None:
        """The camera fault, None while there is none."""
        return self._fault

    def message(self, look: Look) -> None:
        """Judge a message by its stamp, its form and the time that it came."""
        self._times.append(look.now_ns)
        self._forget(look.now_ns)
        late_s = (look.received_ns - look.stamp_ns) / NANOSECONDS
        fault = (
            self._several_fault(look) or self._stamp_fault(look, late_s) or self._form_fault(look)
        )
        if fault is not None:
            self._set_fault(fault, look.now_ns)
        elif self._reason not in OF_THE_CONTENT:
            self._clear(look.now_ns)
        self._last = look

    def due(self, now_ns: int) -> bool:
        """Whether it is time to look at the content of a message."""
        return self._looked_ns is None or not (
            0 <= now_ns - self._looked_ns < EARLY_SHARE * self._period_ns
        )

    def content(self, now_ns: int, hashed: int, bright: float, moving_s: float) -> None:
        """
        Judge what an image shows.

        :param hashed: ``content_hash`` of its message.
        :param bright: its ``brightness``.
        :param moving_s: for how long the base has been moving, 0.0 when it stands or nobody knows.
        """
        self._looked_ns = now_ns
        repeated = hashed == self._hash
        # Both images were taken in motion: at rest a camera without noise may well repeat itself.
        moving = moving_s >= START_S
        counts = repeated and moving and self._moved_before
        stuck = self._reason == StopReason.CAMERA_FROZEN and repeated
        self._repeats = self._repeats + 1 if counts else self._repeats if stuck else 0
        self._hash, self._moved_before = hashed, moving
        self._dark = self._dark + 1 if bright < DARK_BRIGHTNESS else 0
        if self._dark >= DARK_FRAMES:
            self._set_fault(
                Health.fault(
                    StopReason.CAMERA_DARK,
                    f'the camera shows black (brightness {bright:.2f} of 1): its lens is covered '
                    'or it is dead',
                ),
                now_ns,
            )
        elif self._repeats >= REPEATS:
            self._set_fault(
                Health.fault(
                    StopReason.CAMERA_FROZEN,
                    'the camera is frozen: new stamps with the same image while the base moves',
                ),
                now_ns,
            )
        elif self._reason in OF_THE_CONTENT:
            self._clear(now_ns)

    def broken(self, now_ns: int, problem: str) -> None:
        """Take that an image which was due could not be decoded."""
        self._looked_ns = now_ns
        self._hash = None
        self._set_fault(Health.fault(StopReason.CAMERA_UNREADABLE, problem.rstrip('.')), now_ns)

    @property
    def usable(self) -> bool:
        """Whether the newest image may be shown to the policy."""
        return self._fault is None and not self._dark

    def tick(self, ros_ns: int, steady_ns: int) -> None:
        """Look for a camera that has fallen silent and for a step of the node's own clock."""
        now_ns = steady_ns if self._real_time else ros_ns
        if self._clocks is not None:
            self._clock_step(ros_ns - self._clocks[0], steady_ns - self._clocks[1], now_ns)
        self._clocks = ros_ns, steady_ns
        silent_s = self.silent_s(now_ns)
        if silent_s is not None and silent_s > max(
            SILENT_S, SILENT_PERIODS * self._period_ns / NANOSECONDS
        ):
            self._set_fault(Health.fault(StopReason.CAMERA_SILENT, 'the camera is silent'), now_ns)

    def silent_s(self, now_ns: int) -> float | None:
        """Seconds since the last message, None before the first."""
        return None if self._last is None else max(0, now_ns - self._last.now_ns) / NANOSECONDS

    def rate_hz(self, now_ns: int) -> float:
        """Messages a second over the last two seconds; 0.0 with fewer than two."""
        self._forget(now_ns)
        if len(self._times) < 2 or self._times[-1] <= self._times[0]:
            return 0.0
        # A silence at the end counts as soon as it is longer than one frame's turn.
        mean_ns = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        silent_ns = max(0.0, now_ns - self._times[-1] - mean_ns)
        return (
            (len(self._times) - 1) / (self._times[-1] - self._times[0] + silent_ns) * NANOSECONDS
        )

    def lateness(self, now_ns: int) -> tuple[float, float] | None:
        """Least and most seconds between stamp and receipt of late, None without an image."""
        while self._offsets and now_ns - self._offsets[0][0] > SKEW_SPAN_S * NANOSECONDS:
            self._offsets.popleft()
        if not self._offsets:
            return None
        late = [late_s for _, late_s in self._offsets]
        return min(late), max(late)

    def _several_fault(self, look: Look) -> Health | None:
        """A publisher's count only rises, but once for a camera that was started again."""
        before, self._sequence = self._sequence, look.sequence
        if None not in (before, look.sequence) and look.sequence <= before:
            self._falls.append(look.now_ns)
        while self._falls and not (
            0 <= look.now_ns - self._falls[0] <= RIVAL_SPAN_S * NANOSECONDS
        ):
            self._falls.popleft()
        if len(self._falls) >= RIVAL_FALLS:
            return Health.fault(
                StopReason.CAMERA_SEVERAL,
                'the images are of more than one camera: end all publishers of the '
                'topic but one (ros2 topic info --verbose)',
            )
        return None

    def _stamp_fault(self, look: Look, late_s: float) -> Health | None:
        if not look.received_ns:
            return Health.fault(
                StopReason.NO_CLOCK,
                'use_sim_time is set, and no time comes on /clock: start the '
                'simulation, or leave use_sim_time out',
            )
        if look.sec < 0 or look.stamp_ns <= 0 or look.nanosec >= NANOSECONDS:
            return Health.fault(
                StopReason.CAMERA_STAMP_INVALID,
                f'the stamp of the images is no time: {look.sec} s and {look.nanosec} ns',
            )
        self._offsets.append((look.now_ns, late_s))
        before, self._in_time = self._in_time, None
        if before is not None:
            stepped_s = (
                (look.stamp_ns - before.stamp_ns) - (look.received_ns - before.received_ns)
            ) / NANOSECONDS
            if abs(stepped_s) > CAMERA_STEP_S:
                return Health.fault(
                    StopReason.CAMERA_CLOCK_JUMP,
                    f"the camera's clock jumped by {stepped_s:+.1f} s",
                )
        if late_s < -self._tolerance_s:
            return Health.fault(
                StopReason.CAMERA_STAMP_FUTURE,
                f'images are stamped {-late_s:.2f} s in the future: the clocks of '
                'camera and this machine differ',
            )
        self._old = self._old + 1 if late_s > self._max_age_s else 0
        if not self._old:
            self._in_time = look  # a jump is one from a time that was right
        if self._old >= OLD_FRAMES:
            return Health.fault(
                StopReason.CAMERA_STAMP_OLD,
                f'images arrive {late_s:.2f} s old, and may be {self._max_age_s:g} s: '
                'the camera is late or its clock differs',
            )
        return None

    def _form_fault(self, look: Look) -> Health | None:
        if look.form == self.form or not self.form:
            self.form, self._other_form = look.form, None
            return None
        if self._other_form is None or self._other_form[0] != look.form:
            self._other_form = look.form, look.now_ns
        if look.now_ns - self._other_form[1] >= SETTLED_S * NANOSECONDS:
            self.form, self._other_form = look.form, None
            return None
        return Health.fault(
            StopReason.CAMERA_CHANGED,
            f'the images changed from {self.form} to {look.form} in mid-drive',
        )

    def _clock_step(self, ros_ns: int, steady_ns: int, now_ns: int) -> None:
        if self._real_time:
            stepped_s = (ros_ns - steady_ns) / NANOSECONDS
            if abs(stepped_s) > CLOCK_STEP_S:
                self._jumped("this machine's", stepped_s, now_ns)
            return
        started = self._clocks[0] > 0  # before the first /clock the time is zero
        if started and (ros_ns < 0 or ros_ns > SIM_SPEED * steady_ns + SIM_STEP_S * NANOSECONDS):
            self._jumped("the simulation's", ros_ns / NANOSECONDS, now_ns)

    def _jumped(self, whose: str, seconds: float, now_ns: int) -> None:
        sentence = f'{whose} clock jumped by {seconds:+.1f} s'
        self._set_fault(Health.fault(StopReason.CLOCK_JUMP, sentence), now_ns)

    @property
    def _reason(self) -> StopReason:
        return StopReason.NONE if self._fault is None else self._fault.stop_reason

    def _set_fault(self, fault: Health, now_ns: int) -> None:
        """Set a fault; its sentence, which may hold a number, changes once a second at most."""
        left_ns = self._until_ns - now_ns
        if (
            self._reason == StopReason.CLOCK_JUMP
            and fault.stop_reason in OF_A_CLOCK
            and 0 < left_ns <= STAND_S * NANOSECONDS
        ):
            return  # the clock's jump is the cause of this one
        same = fault.stop_reason == self._reason
        if not same or not 0 <= now_ns - self._fault_ns < REASON_S * NANOSECONDS:
            self._fault, self._fault_ns = fault, now_ns
        self._until_ns = now_ns + round(STAND_S * NANOSECONDS)

    def _clear(self, now_ns: int) -> None:
        left_ns = self._until_ns - now_ns
        if 0 < left_ns <= STAND_S * NANOSECONDS:
            return
        self._fault = None

    def _forget(self, now_ns: int) -> None:
        if self._times and now_ns < self._times[0]:  # the clock was set back
            self._times.clear()
            self._offsets.clear()
        while self._times and now_ns - self._times[0] > RATE_SPAN_S * NANOSECONDS:
            self._times.popleft()
