"""
What the inference node has while it is active, with the callbacks, and while it is configured.

Every image, instruction and tick of the clock comes in here.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from mobile_vla_ros.episode.cameras import camera_name
from mobile_vla_ros.images.messages import with_encoding
from mobile_vla_ros.nodes.inference.camera import CameraFrame, CameraGate
from mobile_vla_ros.nodes.inference.clocks import Clocks
from mobile_vla_ros.nodes.inference.lifecycle import PatientLifecycleNode
from mobile_vla_ros.nodes.inference.overlay import OverlayThread, view_of
from mobile_vla_ros.nodes.inference.params import InferenceParams
from mobile_vla_ros.nodes.inference.policies import Policies, swap_refusal
from mobile_vla_ros.nodes.inference.reports import Reports
from mobile_vla_ros.nodes.shared.guard_status import GuardStatusListener
from mobile_vla_ros.nodes.shared.messages import with_info
from mobile_vla_ros.nodes.shared.topics import InstructionTopic, wrong_camera
from mobile_vla_ros.runtime.camera_check import CameraCheck
from mobile_vla_ros.runtime.overlay import OverlayState
from mobile_vla_ros.runtime.preflight import check_instruction
from mobile_vla_ros.runtime.worker import PolicyWorker

if TYPE_CHECKING:  # it imports torch
    from mobile_vla_ros.runtime.loading import ReadyPolicy

TICK_PERIOD_S = 0.05
HEALTH_PERIOD_S = 0.25
REPORT_PERIOD_S = 1.0


class Configuration:
    """
    From configure to cleanup: the policies, the guard's status, publishers and services.

    :param policies: with a first policy loaded.
    :param camera: full name and message type of the camera's topic.
    """

    def __init__(
        self,
        node: PatientLifecycleNode,
        params: InferenceParams,
        clocks: Clocks,
        worker: PolicyWorker,
        policies: Policies,
        camera: tuple[str, type],
    ):
        self._node, self._clocks, self._worker = node, clocks, worker
        self.policies = policies
        self.camera_topic, self.camera_type = camera
        self.reports = Reports(
            node, params, clocks, worker, policies, camera_name(self.camera_topic)
        )
        self.guard = GuardStatusListener(node, clocks.now_ns)
        self._services = [
            node.create_service(Trigger, '~/swap', self._on_swap),
            node.create_service(Trigger, '~/swap_back', self._on_swap_back),
        ]

    def close(self) -> None:
        """Destroy all of it, and drop a policy that is still loading."""
        self.reports.close()
        for service in self._services:
            self._node.destroy_service(service)
        self._node.destroy_subscription(self.guard.subscription)
        self._worker.forget()
        self.policies.request('')

    def _on_swap(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._swap(self.policies.swap, response)

    def _on_swap_back(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        return self._swap(self.policies.swap_back, response)

    def _swap(
        self, swap: Callable[[str], tuple[bool, str]], response: Trigger.Response
    ) -> Trigger.Response:
        proposing = self._worker.health(self._clocks.ros_ns())[1] is not None
        response.success, response.message = swap(swap_refusal(self.guard, proposing))
        self.reports.propose()
        self._node.get_logger().info(response.message)
        return response


class Activation:
    """
    From activate to deactivate: the camera's gate, subscriptions, timers, the overlay's thread.

    Callbacks judge and store frames, the worker's thread runs the policy, a timer publishes.
    """

    def __init__(
        self,
        node: PatientLifecycleNode,
        params: InferenceParams,
        clocks: Clocks,
        worker: PolicyWorker,
        configuration: Configuration,
    ):
        self._node, self._params, self._clocks, self._worker = node, params, clocks, worker
        self._configuration = configuration
        policy = configuration.policies.now
        self._gate = self._gate_for(policy)
        worker.use(policy.policy, params.new_playback())
        self._images = node.create_subscription(
            configuration.camera_type,
            configuration.camera_topic,
            with_info(self._on_image),
            qos_profile_sensor_data,
        )
        self._instructions = InstructionTopic(node, self._on_instruction)
        reports, steady = configuration.reports, clocks.steady
        self._timers = [
            node.create_timer(1 / params.rate_hz, self._on_time, clock=clocks.timers),
            node.create_timer(TICK_PERIOD_S, self._tick, clock=steady),
            node.create_timer(HEALTH_PERIOD_S, reports.publish_health, clock=steady),
            node.create_timer(REPORT_PERIOD_S, self._report, clock=steady),
        ]
        self._overlay = OverlayThread(
            reports.publishers.overlays,
            self._view,
            lambda: node.get_clock().now().to_msg(),
            node.get_logger().error,
        )

    def start(self) -> None:
        """Start the worker, report for the first time, and draw."""
        self._worker.start()
        self._warn_of_words()
        self._report()
        self._overlay.start()

    def stop(self) -> None:
        """Propose nothing more, and wait for the threads."""
        self._worker.stop()
        self._overlay.stop()

    def close(self) -> None:
        """Stop, publish that the node is not active, and destroy all of it."""
        self.stop()
        self._configuration.reports.deactivate()
        self._node.destroy_subscription(self._images)
        self._instructions.close()
        for timer in self._timers:
            self._node.destroy_timer(timer)

    def use(self, ready: 'ReadyPolicy') -> None:
        """Let another policy drive, from its first full window of frames on."""
        self._gate = self._gate_for(ready)
        self._worker.use(ready.policy, self._params.new_playback())
        self._warn_of_words()

    def _warn_of_words(self) -> None:
        policy = self._configuration.policies.now.policy
        check = check_instruction(policy, self._worker.instruction)
        if not check.ok:
            self._node.get_logger().warning(check.sentence)

    def _gate_for(self, ready: 'ReadyPolicy') -> CameraGate:
        spec, params, real_time = ready.policy.spec, self._params, self._clocks.real_time
        check = CameraCheck(
            spec.rate_hz,
            max_age_s=params.observation_max_age_s,
            stamp_tolerance_s=params.stamp_tolerance_s,
            real_time=real_time,
            by_receipt=params.camera_time.receipt,
            latency_s=params.camera_time.latency_s,
        )
        return CameraGate(check, self._configuration.guard, spec.image.size, real_time=real_time)

    def _on_image(self, message: Image | CompressedImage, info: dict) -> None:
        named, timed_by = with_encoding(message, self._params.encoding), self._params.camera_time
        frame = self._gate.pass_on(
            named,
            *self._clocks.both(),
            info['publication_sequence_number'],
            timed_by.frame_ns(message.header.stamp, info) if timed_by.receipt else None,
        )
        self._set_camera_fault()
        if frame is not None:
            self._worker.add_frame(frame)

    def _on_instruction(self, instruction: str) -> None:
        if self._worker.set_instruction(instruction):
            self._configuration.reports.propose()
            self._node.get_logger().info(f'instruction: {self._worker.instruction!r}')
            self._warn_of_words()

    def _on_time(self) -> None:
        self._tick()  # first, so that a step of the clock is reported as such
        self._configuration.reports.propose()

    def _tick(self) -> None:
        self._gate.check.tick(*self._clocks.both())
        self._set_camera_fault()

    def _set_camera_fault(self) -> None:
        if self._worker.set_camera_fault(self._gate.check.fault):
            self._configuration.reports.propose()

    def _report(self) -> None:
        if self._gate.newest is None:
            self._refuse_wrong_camera()
        self._configuration.reports.measure(self._gate)

    def _refuse_wrong_camera(self) -> None:
        """End the node when the camera publishes another type than it subscribes to."""
        topic, kind = self._configuration.camera_topic, self._configuration.camera_type
        refusal = wrong_camera(topic, self._node.get_publishers_info_by_topic(topic), kind)
        if refusal:
            print(f'inference_node: error: {refusal}', file=sys.stderr, flush=True)
            self._node.exit_status = 2

    def _view(self) -> tuple[CameraFrame | None, OverlayState]:
        """Return what the overlay shows, in its thread."""
        return view_of(
            self._worker,
            self._gate,
            self._configuration.guard,
            self._params,
            ros_ns=self._clocks.ros_ns(),
            now_ns=self._clocks.now_ns(),
        )
