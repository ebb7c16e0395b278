"""
Proposes velocities from the camera: a lifecycle node around a policy.

What is where: `inference_params` its parameters; `inference_clocks` what time it is;
`inference_camera` each image, judged as it comes; `inference_worker` the thread that owns the
policy, and what is proposed; `inference_policies` loading and swapping; `inference_checks` its
lines of the preflight; `inference_told` health, diagnostics, path and picture.
"""

import os
import sys
import threading
import traceback
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Path
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.inference.camera import CameraGate
from mobile_vla_ros.nodes.inference.clocks import Clocks
from mobile_vla_ros.nodes.inference.params import declare_params
from mobile_vla_ros.nodes.inference.policies import NONE, Policies, in_the_way
from mobile_vla_ros.nodes.inference.preflight import checks, scarce, unmade
from mobile_vla_ros.nodes.inference.reports import (
    OverlayThread,
    diagnostics_message,
    path_message,
    view_of,
)
from mobile_vla_ros.nodes.shared.guard_status import GuardStatusListener, policy_message
from mobile_vla_ros.nodes.shared.lifecycle import PatientLifecycleNode, ended_at_once
from mobile_vla_ros.nodes.shared.messages import LATCHED, twist_message
from mobile_vla_ros.nodes.shared.run import run
from mobile_vla_ros.nodes.shared.topics import InstructionTopic, camera, wrong_camera
from mobile_vla_ros.runtime.camera_check import CameraCheck
from mobile_vla_ros.runtime.playback import Playback
from mobile_vla_ros.runtime.worker import PolicyWorker
from mobile_vla_ros.safety.status import Health, Level
from mobile_vla_ros.types import NANOSECONDS

HEALTH_PERIOD_S = 0.25
TICK_PERIOD_S = 0.05
REPORT_PERIOD_S = 1.0
# A thread that computes gives the others their turn after so long.
SWITCH_S = 0.001


class InferenceNode(PatientLifecycleNode):
    """
    Callbacks judge and store, a worker thread owns the network, a timer publishes.

    :param load: returns the ``ReadyPolicy`` of a name and ``PolicySettings``; tests replace it.
    """

    def __init__(self, load: Callable | None = None):
        super().__init__('inference')
        self.exit_status = None
        self._params = declare_params(self)
        self._load = load
        self._clocks = Clocks(self)
        self._saying = threading.RLock()
        self._said: Health | None = None
        self._checks = unmade('inference is not active')
        self._gate: CameraGate | None = None
        self._policies = None
        self._guard: GuardStatusListener | None = None
        self._proposed = self._reported_ns = self._reported = 0
        self._worker = PolicyWorker(
            steady_ns=self._clocks.steady_ns,
            on_change=self._on_news,
            on_failure=self.get_logger().error,
        )
        self._worker.set_instruction(self._params.instruction)
        self.add_on_set_parameters_callback(self._on_parameters)

    # --- lifecycle ---

    def start(self) -> None:
        """Configure and activate, when `autostart` is set; a refusal ends the process."""
        if not self._params.autostart:
            return
        if (
            self.trigger_configure() != TransitionCallbackReturn.SUCCESS
            or self.trigger_activate() != TransitionCallbackReturn.SUCCESS
        ):
            self.exit_status = 2

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy."""
        try:
            with ended_at_once():
                self._configure()
        except UserError as error:
            print(f'inference_node: error: {error}', file=sys.stderr, flush=True)
            return TransitionCallbackReturn.FAILURE
        except Exception:
            # rclpy would swallow it.
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        params = self._params
        self._camera_topic, self._camera_type = camera(self, params.image_transport)
        self._playback()  # a mode that there is none of is refused before anything is loaded
        import torch

        from mobile_vla_ros.runtime.loading import PolicySettings, load_policy

        torch.set_num_threads(params.torch_threads)
        settings = PolicySettings(
            params.device,
            params.precision,
            params.compile,
            params.blank,
            params.offline,
            params.max_velocity,
        )

        def load(name: str):
            ready = (self._load or load_policy)(name, settings)
            self._playback().check_age(ready.policy.spec.rate_hz, params.observation_max_age_s)
            return ready

        self._policies = Policies(
            load=load, room=scarce, take=self._take, say=self.get_logger().info
        )
        self._policies.first(params.policy)
        spec = self._policies.now.policy.spec
        self._proposals = self.create_lifecycle_publisher(TwistStamped, 'policy/cmd_vel', 10)
        self._paths = self.create_lifecycle_publisher(Path, '~/plan', 1)
        self._overlays = self.create_publisher(
            CompressedImage, '~/overlay/compressed', qos_profile_sensor_data
        )
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._healths = self.create_publisher(DiagnosticArray, 'policy/health', LATCHED)
        self._guard = GuardStatusListener(self, self._clocks.now_ns)
        self._swaps = [
            self.create_service(Trigger, '~/swap', self._on_swap),
            self.create_service(Trigger, '~/swap_back', self._on_swap_back),
        ]
        self.get_logger().info(
            f'policy {params.policy}: {spec.backbone.id}, {spec.rate_hz:g} Hz, window '
            f'{spec.window}, chunk {spec.chunk}, axes {", ".join(spec.actions.axes)}; '
            f'{self._policies.now.golden_sentence}'
        )

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to the camera and start proposing."""
        self._take(self._policies.now)
        self._images = self.create_subscription(
            self._camera_type, self._camera_topic, self._on_image, qos_profile_sensor_data
        )
        self._instructions = InstructionTopic(self, self._on_instruction)
        steady = self._clocks.steady
        self._timers_of_ours = [
            self.create_timer(1 / self._params.rate_hz, self._on_time, clock=self._clocks.timers),
            self.create_timer(TICK_PERIOD_S, self._tick, clock=steady),
            self.create_timer(HEALTH_PERIOD_S, self._say_health, clock=steady),
            self.create_timer(REPORT_PERIOD_S, self._report, clock=steady),
        ]
        result = super().on_activate(state)
        self._worker.start()
        self._report()
        self._overlay = OverlayThread(
            self._overlays,
            self._look,
            lambda: self.get_clock().now().to_msg(),
            self.get_logger().error,
        )
        if self._params.next_policy and self._policies.state == NONE:
            self._policies.ask(self._params.next_policy)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop proposing; the policy stays loaded."""
        self._stop()
        self._checks = unmade('inference is not active')
        self._propose()  # says that it is not active
        self.destroy_subscription(self._images)
        self._instructions.close()
        for timer in self._timers_of_ours:
            self.destroy_timer(timer)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unload the policy."""
        for publisher in (self._proposals, self._paths):
            self.destroy_lifecycle_publisher(publisher)
        for publisher in (self._overlays, self._diagnostics, self._healths):
            self.destroy_publisher(publisher)
        for service in self._swaps:
            self.destroy_service(service)
        self.destroy_subscription(self._guard.subscription)
        self._worker.forget()
        if self._policies is not None:
            self._policies.ask('')  # what is still being loaded is not kept
        self._policies = self._gate = None
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop proposing, from whatever state: rclpy by itself would let it go on."""
        if state.label == 'active':
            self.on_deactivate(state)
        if state.label != 'unconfigured':
            self.on_cleanup(state)
        return super().on_shutdown(state)

    def on_exit(self) -> None:
        """Let the threads end before the context goes."""
        self._stop()

    def _stop(self) -> None:
        self._worker.stop()
        if getattr(self, '_overlay', None) is not None:
            self._overlay.stop()
            self._overlay = None

    # --- what comes in ---

    def _on_image(self, message: Image | CompressedImage, info: dict) -> None:
        shot = self._gate.pass_on(
            message, *self._clocks.both(), info['publication_sequence_number']
        )
        self._take_fault()
        if shot is not None:
            self._worker.add_frame(shot)

    def _on_instruction(self, instruction: str) -> None:
        if self._worker.set_instruction(instruction):
            self._propose()
            self.get_logger().info(f'instruction: {self._worker.instruction!r}')

    def _on_time(self) -> None:
        self._tick()  # first, so that a step of the clock is told by its name
        self._propose()

    def _tick(self) -> None:
        self._gate.check.tick(*self._clocks.both())
        self._take_fault()

    def _take_fault(self) -> None:
        if self._worker.set_camera_fault(self._gate.check.fault):
            self._propose()

    def _on_news(self) -> None:
        """Say what the worker has to say, in its thread."""
        plan = self._worker.plan
        self._propose()
        if plan is not None and self._paths.get_subscription_count():
            self._paths.publish(path_message(plan))

    # --- the policy ---

    def _playback(self) -> Playback:
        return Playback(
            self._params.playback, self._params.receding_steps, self._params.stamp_tolerance_s
        )

    def _take(self, ready) -> None:
        """Let a policy drive, from the next window of frames on."""
        spec, params, real_time = ready.policy.spec, self._params, self._clocks.real_time
        self._gate = CameraGate(
            CameraCheck(
                spec.rate_hz,
                max_age_s=params.observation_max_age_s,
                stamp_tolerance_s=params.stamp_tolerance_s,
                real_time=real_time,
            ),
            self._guard,
            spec.image.size,
            real_time=real_time,
        )
        self._worker.use(ready.policy, self._playback())

    def _on_parameters(self, parameters) -> SetParametersResult:
        names = [parameter.value for parameter in parameters if parameter.name == 'next_policy']
        if names and self._policies is None:
            return SetParametersResult(successful=False, reason='no policy is loaded yet')
        for name in names:
            self._policies.ask(name)
        return SetParametersResult(successful=True)

    def _on_swap(self, _request, response):
        return self._swap(self._policies.swap, response)

    def _on_swap_back(self, _request, response):
        return self._swap(self._policies.swap_back, response)

    def _swap(self, swap: Callable, response):
        proposing = self._worker.health(self._clocks.ros_ns())[1] is not None
        response.success, response.message = swap(in_the_way(self._guard, proposing))
        self._propose()
        self.get_logger().info(response.message)
        return response

    # --- what goes out ---

    def _propose(self) -> None:
        """Publish what is proposed for now, and the health when it has changed; any thread."""
        with self._saying:
            health, proposal = self._worker.health(self._clocks.ros_ns())
            if health != self._said:
                self._say_health(health)
            if proposal is None:
                return
            message = TwistStamped()
            message.header.stamp = Time(nanoseconds=proposal.stamp_ns).to_msg()
            message.header.frame_id = 'base_link'
            message.twist = twist_message(proposal.twist)
            self._proposals.publish(message)
            self._proposed += 1

    def _say_health(self, health: Health | None = None) -> None:
        with self._saying:
            if health is None:
                health, _ = self._worker.health(self._clocks.ros_ns())
            if health.level == Level.FAULT and health != self._said:
                self.get_logger().warning(health.sentence)
            self._said = health
            self._healths.publish(
                policy_message(
                    health,
                    None
                    if self._policies is None
                    else self._policies.now.policy.spec.actions.axes,
                    self._checks,
                    self.get_clock().now().to_msg(),
                )
            )

    def _look(self):
        """Return what the operator's picture shows: in the overlay's thread."""
        return view_of(
            self._worker,
            self._gate,
            self._guard,
            self._params,
            ros_ns=self._clocks.ros_ns(),
            now_ns=self._clocks.now_ns(),
        )

    def _report(self) -> None:
        if self._gate.newest is None:
            self._refuse_wrong_camera()
        params, now_ns = self._params, self._clocks.now_ns()
        self._checks = checks(
            self._policies.now,
            self._gate,
            now_ns,
            max_velocity=params.max_velocity,
            tolerance_s=params.stamp_tolerance_s,
            max_age_s=params.observation_max_age_s,
        )
        ros_ns, steady_ns = self._clocks.both()
        elapsed_s = (steady_ns - self._reported_ns) / NANOSECONDS
        proposals_hz = (self._proposed - self._reported) / max(elapsed_s, 1e-9)
        self._reported_ns, self._reported = steady_ns, self._proposed
        self._diagnostics.publish(
            diagnostics_message(
                f'{self.get_fully_qualified_name()}: policy',
                self._worker,
                self._policies,
                self._gate,
                ros_ns=ros_ns,
                now_ns=now_ns,
                proposals_hz=proposals_hz,
                playback=params.playback,
            )
        )

    def _refuse_wrong_camera(self) -> None:
        """End when the camera's topic exists but is of a type that can never be heard."""
        problem = wrong_camera(
            self._camera_topic,
            self.get_publishers_info_by_topic(self._camera_topic),
            self._camera_type,
        )
        if problem:
            print(f'inference_node: error: {problem}', file=sys.stderr, flush=True)
            self.exit_status = 2


def build() -> InferenceNode:
    """Return the node, started when it is to start by itself."""
    node = InferenceNode()
    node.start()
    return node


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    sys.setswitchinterval(SWITCH_S)
    try:
        status = run('inference_node', build, args=args)
    except SystemExit as left:  # a signal, in a load
        status = left.code or 0
    # A policy that is being loaded meanwhile would make torch abort an ordinary end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
