"""
Proposes velocities from the camera: a lifecycle node around a policy.

What is where: `params` its parameters; `activation` what it has while active, with the callbacks,
and while configured; `camera` judges each image on arrival, by the `clocks`; `policies` loads and
swaps policies and makes inference's preflight checks; `reports` publishes; `overlay` draws the
operator's image. The thread that owns the policy is `runtime.worker`.
"""

import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from mobile_vla_ros.episode.cameras import camera_name
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.inference.activation import Activation, Configuration
from mobile_vla_ros.nodes.inference.clocks import Clocks
from mobile_vla_ros.nodes.inference.lifecycle import PatientLifecycleNode, exit_on_signal
from mobile_vla_ros.nodes.inference.params import declare_params
from mobile_vla_ros.nodes.inference.policies import LOADS, NONE, Policies, memory_shortage
from mobile_vla_ros.nodes.shared.run import run
from mobile_vla_ros.nodes.shared.startup import SWITCH_S
from mobile_vla_ros.nodes.shared.topics import camera
from mobile_vla_ros.runtime.own_policy import is_own
from mobile_vla_ros.runtime.policy import read_ahead
from mobile_vla_ros.runtime.preflight import check_camera_topic
from mobile_vla_ros.runtime.process_policy import end_all
from mobile_vla_ros.runtime.worker import PolicyWorker

if TYPE_CHECKING:  # it imports torch
    from mobile_vla_ros.runtime.loading import PolicySettings, ReadyPolicy


class InferenceNode(PatientLifecycleNode):
    """
    Moves through the lifecycle; one object holds what belongs to each state.

    :param load: loads a policy by name and ``PolicySettings``; ``runtime.loading.load_policy``
        unless a test gives its own.
    """

    def __init__(self, load: 'Callable[[str, PolicySettings], ReadyPolicy] | None' = None):
        super().__init__('inference')
        self._params = declare_params(self)
        self._load = load
        self._clocks = Clocks(self)
        self._worker = PolicyWorker(
            steady_ns=self._clocks.steady_ns,
            on_change=self._on_news,
            on_failure=self.get_logger().error,
        )
        self._worker.set_instruction(self._params.instruction)
        self._configuration: Configuration | None = None
        self._activation: Activation | None = None
        self.add_on_set_parameters_callback(self._on_parameters)

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
            with exit_on_signal():
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
        camera_topic = camera(self, params.image_transport)
        params.check()  # before the policy is loaded
        read_ahead(params.policy, params.backbone)
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
            params.cuda_graph,
            params.backbone,
        )

        def load(name: str) -> 'ReadyPolicy':
            ready = (self._load or load_policy)(name, settings)
            trained, driven = ready.policy.spec.camera, camera_name(camera_topic[0])
            if trained and trained != driven:
                self.get_logger().warning(check_camera_topic(trained, driven).sentence)
            params.new_playback().check_age(
                ready.policy.spec.rate_hz, params.observation_max_age_s
            )
            return ready

        with LOADS:
            first = load(params.policy)
        policies = Policies(
            first,
            load=load,
            shortage=memory_shortage,
            use=self._use,
            log=self.get_logger().info,
        )
        self._configuration = Configuration(
            self, params, self._clocks, self._worker, policies, camera_topic
        )
        spec = first.policy.spec
        self.get_logger().info(
            f'policy {params.policy}: {spec.backbone.label}, {spec.rate_hz:g} Hz, window '
            f'{spec.window}, chunk {spec.chunk}, axes {", ".join(spec.actions.axes)}; '
            f'{first.golden_sentence}'
        )

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the camera and start proposing."""
        assert self._configuration is not None
        self._activation = Activation(
            self, self._params, self._clocks, self._worker, self._configuration
        )
        result = super().on_activate(state)
        self._activation.start()
        policies = self._configuration.policies
        if self._params.next_policy and policies.state == NONE:
            policies.request(self._params.next_policy)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop proposing; the policy stays loaded."""
        assert self._activation is not None
        self._activation.close()
        self._activation = None
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unload the policy."""
        assert self._configuration is not None
        self._configuration.close()
        self._configuration = None
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop proposing, from any state; rclpy alone would leave timers and threads running."""
        if self._activation is not None:
            self.on_deactivate(state)
        if self._configuration is not None:
            self.on_cleanup(state)
        return super().on_shutdown(state)

    def on_exit(self) -> None:
        """Let the threads end before the context goes."""
        if self._activation is not None:
            self._activation.stop()

    def _on_news(self) -> None:
        """Publish the worker's plan or health, in its thread, which runs only while active."""
        assert self._configuration is not None
        self._configuration.reports.publish_plan()

    def _use(self, ready: 'ReadyPolicy') -> None:
        if self._activation is not None:
            self._activation.use(ready)

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        names = [parameter.value for parameter in parameters if parameter.name == 'next_policy']
        if names and self._configuration is None:
            return SetParametersResult(successful=False, reason='no policy is loaded yet')
        # Whoever reaches the topics may name a bundle, but not what this process imports.
        at_start = (self._params.policy, self._params.next_policy)
        if any(is_own(name) and name not in at_start for name in names):
            reason = 'a policy that is code must be named when the node is started'
            return SetParametersResult(successful=False, reason=reason)
        for name in names:
            assert self._configuration is not None
            self._configuration.policies.request(name)
        return SetParametersResult(successful=True)


def build() -> InferenceNode:
    """Return the node, started if `autostart` is set."""
    node = InferenceNode()
    node.start()
    return node


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    sys.setswitchinterval(SWITCH_S)
    try:
        status = run('inference_node', build, args=args)
    except SystemExit as left:  # a signal during a load
        status = left.code if isinstance(left.code, int) else 0
    end_all()
    # A policy that is loading in its thread would make torch abort an ordinary exit.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
