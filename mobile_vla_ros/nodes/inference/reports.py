"""What inference tells: its health, diagnostics, the planned path, and the operator's picture."""

import threading
import traceback
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.time import Time

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.messages import encode
from mobile_vla_ros.nodes.inference.camera import CameraFrame, CameraGate
from mobile_vla_ros.nodes.inference.params import InferenceParams
from mobile_vla_ros.nodes.inference.policies import Policies
from mobile_vla_ros.nodes.shared.guard_status import LEVELS, GuardStatusListener
from mobile_vla_ros.nodes.shared.image_messages import to_compressed
from mobile_vla_ros.nodes.shared.messages import status_array, status_message
from mobile_vla_ros.runtime.overlay import NO_GUARD, OverlayState, draw_drive
from mobile_vla_ros.runtime.playback import Plan, path_of
from mobile_vla_ros.runtime.worker import PolicyWorker
from mobile_vla_ros.safety.status import Level
from mobile_vla_ros.types import NANOSECONDS

OVERLAY_PERIOD_S = 0.1


def path_message(plan: Plan) -> Path:
    """Return a plan as a path in the base's frame at the time of observation."""
    path = Path()
    path.header.stamp = Time(nanoseconds=plan.stamp_ns).to_msg()
    path.header.frame_id = 'base_link'
    for x, y, yaw in path_of(plan):
        pose = PoseStamped(header=path.header)
        pose.pose.position.x, pose.pose.position.y = float(x), float(y)
        pose.pose.orientation.z = float(np.sin(yaw / 2))
        pose.pose.orientation.w = float(np.cos(yaw / 2))
        path.poses.append(pose)
    return path


def diagnostics_message(
    name: str,
    worker: PolicyWorker,
    policies: Policies,
    gate: CameraGate,
    *,
    ros_ns: int,
    now_ns: int,
    proposals_hz: float,
    playback: str,
) -> DiagnosticArray:
    """
    Return what goes to /diagnostics: rates and ages.

    :param ros_ns: the node's clock, which stamps are of.
    :param now_ns: the clock that durations are measured by.
    """
    health, _ = worker.health(ros_ns)
    stats = worker.stats
    median, p99 = stats.to_proposal_ms or (None, None)

    def age(thing) -> str:
        return '' if thing is None else f'{(ros_ns - thing.stamp_ns) / NANOSECONDS:.3f}'

    def number(value: float | None, digits: int) -> str:
        return '' if value is None else f'{value:.{digits}f}'

    return status_array(
        Time(nanoseconds=ros_ns).to_msg(),
        status_message(
            name,
            health.sentence or 'proposing',
            {
                'instruction': worker.instruction,
                'policy': policies.now.name,
                'camera_hz': number(gate.check.rate_hz(now_ns), 1),
                'image_age_s': age(gate.newest),
                'plan_age_s': age(worker.plan),
                'inference_s': number(stats.inference_s, 4),
                'proposals_hz': number(proposals_hz, 1),
                'callback_to_proposal_p50_ms': number(median, 2),
                'callback_to_proposal_p99_ms': number(p99, 2),
                'encoded_frames': stats.encoded_frames,
                'playback': playback,
                'next_policy': policies.state,
                'next_policy_said': policies.said,
            },
            LEVELS[health.level],
        ),
    )


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
    Return the newest frame and what the operator is to see beside it; why nothing is driven is
    the guard's word, or the policy's where that has a fault or the guard says nothing.

    :param ros_ns: and now_ns: as of ``diagnostics_message``.
    """
    health, _ = worker.health(ros_ns)
    shot = gate.newest
    status = guard.status
    reason = health.sentence
    if health.level != Level.FAULT and status is not None:
        reason = status.sentence or reason
    return shot, OverlayState(
        state=NO_GUARD if status is None else status.state.value,
        reason=reason,
        instruction=worker.instruction,
        plan=worker.plan,
        command=guard.twist,
        max_velocity=params.max_velocity,
        age_s=None if shot is None else (ros_ns - shot.stamp_ns) / NANOSECONDS,
        camera_hz=gate.check.rate_hz(now_ns),
        now_ns=ros_ns,
        age_limit_s=params.observation_max_age_s,
        source='' if status is None else status.source,
        dry_run=status is not None and status.dry_run,
    )


class OverlayThread:
    """
    Draws ten times a second while somebody looks, also when no image comes.

    :param publisher: of CompressedImage.
    :param look: gives the newest frame, or None, and what is to be seen beside it.
    :param failed: called with the traceback when a picture cannot be drawn.
    """

    def __init__(
        self,
        publisher,
        look: Callable[[], tuple[CameraFrame | None, OverlayState]],
        now: Callable[[], object],
        failed: Callable[[str], None],
    ):
        self._publisher, self._look, self._now, self._failed = publisher, look, now, failed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name='overlay', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Draw no more."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        told = False
        while not self._stop.wait(OVERLAY_PERIOD_S):
            if not self._publisher.get_subscription_count():
                continue
            try:
                self._draw()
            except Exception:  # a picture must not end a drive
                if not told:
                    self._failed(traceback.format_exc())
                told = True

    def _draw(self) -> None:
        shot, view = self._look()
        image, frame_id = None, ''
        if shot is not None:
            frame_id = shot.message.header.frame_id
            try:
                image = shot.image
            except UserError:
                image = None  # the reason is in the view
        self._publisher.publish(
            to_compressed(encode(draw_drive(image, view)), stamp=self._now(), frame_id=frame_id)
        )
