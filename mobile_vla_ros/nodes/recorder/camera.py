"""The recorder's camera: its newest image, its rate, its clock, and the frames that were lost."""

import time
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image

from mobile_vla_ros.episode.timing import camera_clock as clock
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.recorder.params import ImageParams
from mobile_vla_ros.nodes.shared.clocks import receipt_ns
from mobile_vla_ros.nodes.shared.topics import (
    CAMERA_QOS,
    MessageCount,
    camera,
    several,
    wrong_camera,
)
from mobile_vla_ros.runtime.camera_faults import NO_SENDING, NO_SENDING_REMEDY
from mobile_vla_ros.types import NANOSECONDS

SPAN_S = 2.0
CLOCK_SPAN_S = 10.0
FRESH_S = 1.0
# A rate is learned only from nearly a whole span.
WHOLE_SHARE = 0.9


class CameraMonitor:
    """
    Measures a camera's stream over its last seconds. Reads no clock and knows no ROS.

    :param expected_hz: the camera's rate; 0: learn it, as the best rate over a whole span.
    """

    def __init__(self, expected_hz: float = 0.0) -> None:
        self._given_hz = expected_hz
        self._best_hz = 0.0
        self._times: deque[tuple[int, int, int]] = deque()
        self._stamps: deque[tuple[int, int, int]] = deque()
        self._count = MessageCount()

    def frame(self, now_ns: int, stamp_ns: int, received_ns: int, sequence: int | None) -> int:
        """
        Add one frame; return how many frames were lost before it.

        :param now_ns: a clock that never jumps, nanoseconds.
        :param received_ns: time of receipt on the node's clock, which may be a simulated one.
        :param sequence: the publisher's message count; None if the middleware does not report it.
        """
        self._times.append((now_ns, stamp_ns, received_ns))
        self._stamps.append((now_ns, stamp_ns, received_ns))
        self._drop_old(now_ns)
        return self._count.missing(sequence)

    @property
    def counted(self) -> bool:
        """Whether the publisher's message count shows lost frames."""
        return self._count.known

    def published_by(self, publishers: Hashable, count: int) -> None:
        """Set the publishers (see ``MessageCount``): another camera has another rate."""
        if self._count.published_by(publishers, count):
            self._best_hz = 0.0

    def learn(self, now_ns: int) -> None:
        """Raise the learned rate to the present one; call it often."""
        self._drop_old(now_ns)
        times = self._times
        if not times or times[-1][0] - times[0][0] < WHOLE_SHARE * SPAN_S * NANOSECONDS:
            return
        # Frames delayed and then delivered at once look too fast; their stamps show the rate.
        stamped_ns, received_ns = (times[-1][k] - times[0][k] for k in (1, 2))
        if received_ns <= 0:
            return
        span_ns = stamped_ns if received_ns < stamped_ns < 2 * received_ns else received_ns
        self._best_hz = max(self._best_hz, (len(times) - 1) / span_ns * NANOSECONDS)

    @property
    def expected_hz(self) -> float | None:
        """The rate that this camera should have; None while it is unknown."""
        return self._given_hz or self._best_hz or None

    def rate_hz(self, now_ns: int) -> float:
        """Return frames per second over the last span; 0 without frames."""
        self._drop_old(now_ns)
        times = self._times
        if len(times) < 2 or times[-1][0] <= times[0][0]:
            return 0.0
        return (len(times) - 1) / (times[-1][0] - times[0][0]) * NANOSECONDS

    def fresh(self, now_ns: int) -> bool:
        """Return whether a frame arrived within the last second."""
        return bool(self._times) and now_ns - self._times[-1][0] < FRESH_S * NANOSECONDS

    def clock(self) -> clock.ClockVerdict:
        """Return the verdict on the camera's clock over the last ten seconds."""
        times = np.array(self._stamps, dtype=np.int64).reshape(-1, 3)
        found = clock.check(times[:, 1], times[:, 2], times[:, 0])
        if found.kind in ('jumps', 'apart') and np.ptp(times[:, 0]) < SPAN_S * NANOSECONDS:
            return clock.ClockVerdict('sane', '')  # one late frame among a few proves nothing
        return found

    def _drop_old(self, now_ns: int) -> None:
        for times, span_s in ((self._times, SPAN_S), (self._stamps, CLOCK_SPAN_S)):
            while times and now_ns - times[0][0] > span_s * NANOSECONDS:
                times.popleft()


def clock_sentence(found: clock.ClockVerdict, *, by_receipt: bool) -> str:
    """
    Return what a clock that is not sane means for an episode, and what to do.

    :param by_receipt: whether stamps are not the camera's, but times of sending (``CameraTime``).
    """
    what, remedy = found.sentence, 'synchronise it, or set camera_time:=receipt if there is none'
    if by_receipt and found.kind == 'zero':
        what, remedy = NO_SENDING, NO_SENDING_REMEDY
    elif by_receipt:
        remedy = 'synchronise the clock of its machine (chrony)'
    return f'{what}: frames are timed by their receipt; {remedy}'


class CameraInput:
    """
    Subscribes to the camera and keeps its newest image.

    :param expected_hz: as of ``CameraMonitor``.
    :param wait_s: how long ``wait_for_image`` waits.
    :param steady_ns: ``EpisodeTime``.
    :param on_frame: called with each message, its time (``CameraTime``), its receipt on the
        node's clock and on ``steady_ns`` (nanoseconds), and how many frames were lost before it.
    :param on_lost: called with the number of frames that the middleware reports as lost, where
        messages carry no count.
    """

    def __init__(
        self,
        node: Node,
        images: ImageParams,
        expected_hz: float,
        *,
        wait_s: float,
        steady_ns: Callable[[], int],
        on_frame: Callable[[Image | CompressedImage, int, int, int, int], None],
        on_lost: Callable[[int], None],
    ) -> None:
        self.topic, self.type = camera(node, images.transport)
        self.images = images
        self.monitor = CameraMonitor(expected_hz)
        self.newest: Image | CompressedImage | None = None
        self.rate_hz = 0.0
        self.clock = clock.ClockVerdict('sane', '')
        self.fault = ''
        self._node = node
        self._wait_s = wait_s
        self._steady_ns = steady_ns
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._awaited: Future | None = None
        on_image: Callable[..., None] = self._on_image  # typed with one argument
        subscribe = partial(node.create_subscription, self.type, self.topic, on_image, CAMERA_QOS)
        try:
            subscribe(event_callbacks=SubscriptionEventCallbacks(message_lost=self._on_loss))
        except UnsupportedEventTypeError:
            subscribe()

    def check_publishers(self) -> str:
        """Update ``fault`` from the graph; return a sentence if several nodes publish, else ''."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        self.monitor.published_by(
            frozenset(tuple(info.endpoint_gid) for info in publishers), len(publishers)
        )
        rivals = several(self.topic, publishers)
        self.fault = (
            wrong_camera(self.topic, publishers, self.type) or rivals
            if publishers
            else f'no camera: nobody publishes {self.topic}'
        )
        return rivals

    @property
    def clock_sentence(self) -> str:
        """What ``clock`` means for an episode, and what to do; for a clock that is not sane."""
        return clock_sentence(self.clock, by_receipt=self.images.time.receipt)

    async def wait_for_image(self) -> None:
        """
        Wait for a fresh image; a recorder that has just started may need a moment.

        :raises UserError: when there is none in time.
        """
        if self.monitor.fresh(time.monotonic_ns()):
            return
        arrived = self._awaited = Future()
        timer = self._node.create_timer(
            self._wait_s,
            lambda: arrived.done() or arrived.set_result(False),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        in_time = await arrived
        self._node.destroy_timer(timer)
        self._awaited = None
        if not in_time:
            raise UserError(
                self.fault or f'no image arrived on {self.topic}',
                got=f'nothing in {self._wait_s} s',
                remedy='start the camera first',
            )

    def bytes_per_s(self) -> float:
        """Return the bytes that would be stored per second, by the newest image. Slow: encodes."""
        image = self.newest
        return len(self.images.encode(image)) * self.rate_hz if image and self.rate_hz else 0.0

    def _on_image(self, message: Image | CompressedImage, info: dict) -> None:
        steady, received_ns = self._steady_ns(), receipt_ns(self._node, info)
        stamp_ns = self.images.time.frame_ns(message.header.stamp, info)
        missing = self.monitor.frame(
            time.monotonic_ns(), stamp_ns, received_ns, info['publication_sequence_number']
        )
        message = self.images.named(message)
        self.newest = message
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(True)
        self._on_frame(message, stamp_ns, received_ns, steady, missing)

    def _on_loss(self, event) -> None:
        if not self.monitor.counted:
            self._on_lost(event.total_count_change)
