"""What a configured inference node publishes: proposals, plans, health and diagnostics."""

import threading

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Path
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage

from mobile_vla_ros.nodes.inference.camera import CameraFrame, CameraGate
from mobile_vla_ros.nodes.inference.clocks import Clocks
from mobile_vla_ros.nodes.inference.params import InferenceParams
from mobile_vla_ros.nodes.inference.policies import Policies, failed_checks, policy_checks
from mobile_vla_ros.nodes.shared.camera_time import CameraTime
from mobile_vla_ros.nodes.shared.guard_status import LEVELS, policy_message
from mobile_vla_ros.nodes.shared.messages import (
    LATCHED,
    status_array,
    status_message,
    twist_message,
)
from mobile_vla_ros.runtime.playback import Plan, Proposal, path_of
from mobile_vla_ros.runtime.worker import PolicyWorker
from mobile_vla_ros.safety.status import Health, Level
from mobile_vla_ros.types import NANOSECONDS


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


def proposal_message(proposal: Proposal) -> TwistStamped:
    """Return a proposal with the stamp of the image that it comes from."""
    message = TwistStamped()
    message.header.stamp = Time(nanoseconds=proposal.stamp_ns).to_msg()
    message.header.frame_id = 'base_link'
    message.twist = twist_message(proposal.twist)
    return message


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
    camera_time: CameraTime,
) -> DiagnosticArray:
    """
    Return the message for /diagnostics: rates and ages.

    :param ros_ns: the node's clock, which stamps refer to.
    :param now_ns: the clock that durations are measured by.
    """
    health, _ = worker.health(ros_ns)
    stats = worker.stats
    median, p99 = stats.to_proposal_ms or (None, None)
    lateness_s = gate.check.lateness(now_ns)
    transport_s = None
    if camera_time.receipt and lateness_s is not None:
        transport_s = lateness_s[1] - camera_time.latency_s

    def age(stamped: CameraFrame | Plan | None) -> str:
        return '' if stamped is None else f'{(ros_ns - stamped.stamp_ns) / NANOSECONDS:.3f}'

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
                'camera_time': camera_time.by,
                'camera_transport_max_s': number(transport_s, 3),  # of the last 5 s
                'unreadable_images': gate.unreadable,
                'plan_age_s': age(worker.plan),
                'inference_s': number(stats.inference_s, 4),
                'proposals_hz': number(proposals_hz, 1),
                'callback_to_proposal_p50_ms': number(median, 2),
                'callback_to_proposal_p99_ms': number(p99, 2),
                'encoded_frames': stats.encoded_frames,
                'playback': playback,
                'next_policy': policies.state,
                'next_policy_said': policies.sentence,  # key in messages
            },
            LEVELS[health.level],
        ),
    )


class Publishers:
    """The publishers of a configured node."""

    def __init__(self, node: LifecycleNode):
        self._node = node
        self.proposals = node.create_lifecycle_publisher(TwistStamped, 'policy/cmd_vel', 10)
        self.plans = node.create_lifecycle_publisher(Path, '~/plan', 1)
        self.overlays = node.create_publisher(
            CompressedImage, '~/overlay/compressed', qos_profile_sensor_data
        )
        self.diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.healths = node.create_publisher(DiagnosticArray, 'policy/health', LATCHED)

    def close(self) -> None:
        """Destroy them."""
        for publisher in (self.proposals, self.plans):
            self._node.destroy_lifecycle_publisher(publisher)
        for publisher in (self.overlays, self.diagnostics, self.healths):
            self._node.destroy_publisher(publisher)


class EventRate:
    """Counts events and gives their rate since it was last read."""

    def __init__(self) -> None:
        self._count = self._read_count = self._read_ns = 0

    def add(self) -> None:
        """Count one event."""
        self._count += 1

    def read_hz(self, steady_ns: int) -> float:
        """Return the rate since the last call, on a steady clock."""
        count, elapsed_s = self._count, (steady_ns - self._read_ns) / NANOSECONDS
        rate_hz = (count - self._read_count) / max(elapsed_s, 1e-9)
        self._read_ns, self._read_count = steady_ns, count
        return rate_hz


class Reports:
    """
    Publishes what the worker proposes and how it is.

    ``propose`` may be called by any thread, the rest by the executor's.

    :param camera: name of the camera that the policies drive with.
    """

    def __init__(
        self,
        node: LifecycleNode,
        params: InferenceParams,
        clocks: Clocks,
        worker: PolicyWorker,
        policies: Policies,
        camera: str,
    ):
        self._camera = camera
        self._node, self._params, self._clocks = node, params, clocks
        self._worker, self._policies = worker, policies
        self.publishers = Publishers(node)
        self._lock = threading.RLock()
        self._health: Health | None = None  # the newest one published
        self._checks = failed_checks('inference is not active')
        self._proposal_rate = EventRate()

    def close(self) -> None:
        """Destroy the publishers."""
        self.publishers.close()

    def propose(self) -> None:
        """Publish the proposal for now, and the health if it has changed; any thread."""
        with self._lock:
            health, proposal = self._worker.health(self._clocks.ros_ns())
            if health != self._health:
                self._publish_health(health)
            if proposal is not None:
                self.publishers.proposals.publish(proposal_message(proposal))
                self._proposal_rate.add()

    def publish_plan(self) -> None:
        """Publish the first proposal of the newest plan, and the plan as a path; any thread."""
        plan = self._worker.plan
        self.propose()
        if plan is not None and self.publishers.plans.get_subscription_count():
            self.publishers.plans.publish(path_message(plan))

    def publish_health(self) -> None:
        """Publish the health, also if it has not changed."""
        with self._lock:
            self._publish_health(self._worker.health(self._clocks.ros_ns())[0])

    def _publish_health(self, health: Health) -> None:
        if health.level == Level.FAULT and health != self._health:
            self._node.get_logger().warning(health.sentence)
        self._health = health
        axes = self._policies.now.policy.spec.actions.axes
        stamp = self._node.get_clock().now().to_msg()
        self.publishers.healths.publish(policy_message(health, axes, self._checks, stamp))

    def measure(self, gate: CameraGate) -> None:
        """Make the preflight checks, which go with the health, and publish diagnostics."""
        params, now_ns = self._params, self._clocks.now_ns()
        self._checks = policy_checks(
            self._policies.now,
            self._worker.instruction,
            gate,
            now_ns,
            max_velocity=params.max_velocity,
            tolerance_s=params.stamp_tolerance_s,
            max_age_s=params.observation_max_age_s,
            camera_time=params.camera_time,
            camera=self._camera,
        )
        ros_ns, steady_ns = self._clocks.both()
        self.publishers.diagnostics.publish(
            diagnostics_message(
                f'{self._node.get_fully_qualified_name()}: policy',
                self._worker,
                self._policies,
                gate,
                ros_ns=ros_ns,
                now_ns=now_ns,
                proposals_hz=self._proposal_rate.read_hz(steady_ns),
                playback=params.playback,
                camera_time=params.camera_time,
            )
        )

    def deactivate(self) -> None:
        """Publish that the node is not active; the worker has been stopped."""
        self._checks = failed_checks('inference is not active')
        self.propose()
