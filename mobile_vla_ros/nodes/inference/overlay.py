"""The operator's image: the newest frame with what the policy plans and the guard reports."""

import threading
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.publisher import Publisher

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.nodes.inference.camera import CameraFrame, CameraGate
from mobile_vla_ros.nodes.inference.params import InferenceParams
from mobile_vla_ros.nodes.shared.guard_status import GuardStatusListener
from mobile_vla_ros.nodes.shared.image_messages import to_compressed
from mobile_vla_ros.runtime.overlay import NO_GUARD, OverlayState, draw_drive
from mobile_vla_ros.runtime.worker import PolicyWorker
from mobile_vla_ros.safety.status import Level
from mobile_vla_ros.types import NANOSECONDS

PERIOD_S = 0.1


def view_of(
    worker: PolicyWorker,
    gate: CameraGate,
    guard: GuardStatusListener,
    params: InferenceParams,
    *,
    ros_ns: int,
    now_ns: int,
) -> tuple[CameraFrame | None, OverlayState]:
    """
    Return the newest frame and what to draw on it.

    The reason for not driving is the guard's, or the policy's where that reports a fault or no
    guard reports.

    :param ros_ns: the node's clock, which stamps refer to.
    :param now_ns: the clock that durations are measured by.
    """
    health, _ = worker.health(ros_ns)
    frame = gate.newest
    status = guard.status
    reason = health.sentence
    if health.level != Level.FAULT and status is not None:
        reason = status.sentence or reason
    return frame, OverlayState(
        state=NO_GUARD if status is None else status.state.value,
        reason=reason,
        instruction=worker.instruction,
        plan=worker.plan,
        command=guard.twist,
        max_velocity=params.max_velocity,
        age_s=None if frame is None else (ros_ns - frame.stamp_ns) / NANOSECONDS,
        camera_hz=gate.check.rate_hz(now_ns),
        now_ns=ros_ns,
        age_limit_s=params.observation_max_age_s,
        source='' if status is None else status.source,
        dry_run=status is not None and status.dry_run,
    )


class OverlayThread:
    """
    Draws ten images a second while there are subscribers, also when the camera is silent.

    :param publisher: of CompressedImage.
    :param view: returns the newest frame, or None, and what to draw on it.
    :param stamp: returns the current time as a builtin_interfaces/Time.
    :param log: logs the traceback of the first image that cannot be drawn.
    """

    def __init__(
        self,
        publisher: Publisher,
        view: Callable[[], tuple[CameraFrame | None, OverlayState]],
        stamp: Callable[[], Any],
        log: Callable[[str], object],
    ):
        self._publisher, self._view, self._stamp, self._log = publisher, view, stamp, log
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name='overlay', daemon=True)

    def start(self) -> None:
        """Begin to draw."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, after the image that is being drawn."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        failed = False
        while not self._closing.wait(PERIOD_S):
            if not self._publisher.get_subscription_count():
                continue
            try:
                self._draw()
            except Exception:  # an image must not end a drive
                if not failed:
                    self._log(traceback.format_exc())
                failed = True

    def _draw(self) -> None:
        frame, view = self._view()
        image, frame_id = None, ''
        if frame is not None:
            frame_id = frame.message.header.frame_id
            try:
                image = frame.image
            except UserError:
                image = None  # the view has the reason
        self._publisher.publish(
            to_compressed(encode(draw_drive(image, view)), stamp=self._stamp(), frame_id=frame_id)
        )
