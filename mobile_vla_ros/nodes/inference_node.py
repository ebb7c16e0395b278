"""Proposes velocities from the camera: a lifecycle node around a policy."""

import sys
import threading
import traceback
from collections import deque
from functools import cached_property

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Path
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images import compressed_to_rgb, encode, to_rgb
from mobile_vla_ros.nodes.common import declare, run, status_message, time_ns, twist_message
from mobile_vla_ros.nodes.images import to_compressed
from mobile_vla_ros.nodes.topics import LATCHED, camera, wrong_camera
from mobile_vla_ros.runtime.frame_buffer import FrameBuffer
from mobile_vla_ros.runtime.health import Health, Level
from mobile_vla_ros.runtime.overlay import PREDICTED, draw_arrows
from mobile_vla_ros.runtime.playback import Plan, command_at, path_of
from mobile_vla_ros.types import NANOSECONDS

OVERLAY_FULL_SPEED_MPS = 0.6
HEALTH_PERIOD_S = 0.25
LEVELS = {Level.OK: DiagnosticStatus.OK, Level.HOLD: DiagnosticStatus.WARN,
          Level.FAULT: DiagnosticStatus.ERROR}


class Shot:
    """
    A camera message as a frame that is decoded when somebody looks at it.

    :param side: of the square that the policy sees (`encoded.decode`).
    """

    def __init__(self, message: Image | CompressedImage, received_ns: int, side: int):
        self.message = message
        self.side = side
        self.stamp_ns = time_ns(message.header.stamp)
        self.received_ns = received_ns

    @cached_property
    def image(self):
        """(height, width, 3) uint8, RGB; of a large JPEG at a reduced scale, as in training."""
        if isinstance(self.message, Image):
            return to_rgb(self.message)
        return compressed_to_rgb(self.message, self.side)


class InferenceNode(LifecycleNode):
    """
    Callbacks store, a worker thread owns the network, a timer publishes.

    A frame that arrives while the network is busy is kept; the worker goes on with the newest.
    """

    def __init__(self):
        super().__init__('inference')
        self.exit_status = None
        self._policy_folder = declare(self, 'policy', '', 'folder of the policy bundle')
        self._transport = declare(self, 'image_transport', 'raw', 'raw or compressed')
        self._device = declare(self, 'device', 'auto', 'auto, cpu or cuda')
        self._precision = declare(self, 'precision', 'fp32', 'fp32, bf16 or fp16')
        self._threads = declare(self, 'torch_threads', 1, 'cores that torch may use',
                                limits=(1, 256))
        self._rate_hz = declare(self, 'rate_hz', 20.0, 'proposals a second', limits=(1.0, 200.0))
        self._blank = declare(self, 'blank', '', 'control: image shows the network the mean '
                              'colour instead of the image, instruction tells it nothing')
        self._offline = declare(self, 'offline', False, 'never ask the hub for a backbone')
        self._autostart = declare(self, 'autostart', True, 'configure and activate by itself')
        self._instruction = declare(self, 'instruction', '',
                                    'what to do, until one is heard on the topic')
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._policy = None
        self._plan: Plan | None = None
        self._health = Health.hold('not active')
        self._health_said = None
        self._health_lock = threading.Lock()
        self._wake = threading.Condition()
        self._worker: threading.Thread | None = None
        self._stopping = False
        self._durations_s: deque[float] = deque(maxlen=50)

    def start(self) -> None:
        """Configure and activate, when `autostart` is set; a refusal ends the process."""
        if not self._autostart:
            return
        if (self.trigger_configure() != TransitionCallbackReturn.SUCCESS
                or self.trigger_activate() != TransitionCallbackReturn.SUCCESS):
            self.exit_status = 2

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy."""
        try:
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
        import torch

        from mobile_vla_ros.runtime.policy import VlaPolicy
        precisions = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
        if self._precision not in precisions:
            raise UserError('unknown precision', got=repr(self._precision),
                            expected=', '.join(precisions))
        self._camera_topic, self._camera_type = camera(self, self._transport)
        if not self._policy_folder:
            raise UserError('no policy is given', expected='a policy bundle',
                            remedy='give policy:=FOLDER, or policy:=builtin:demo')
        torch.set_num_threads(self._threads)
        self._policy = VlaPolicy.load(
            self._policy_folder, device=self._device, dtype=precisions[self._precision],
            blank=self._blank, offline=self._offline)
        spec = self._policy.spec
        self._buffer = FrameBuffer(spec.rate_hz, spec.window)
        self._proposals = self.create_lifecycle_publisher(TwistStamped, 'policy/cmd_vel', 10)
        self._paths = self.create_lifecycle_publisher(Path, '~/plan', 1)
        self._overlays = self.create_lifecycle_publisher(
            CompressedImage, '~/overlay/compressed', qos_profile_sensor_data)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._healths = self.create_publisher(DiagnosticArray, 'policy/health', LATCHED)
        self.get_logger().info(
            f'policy {self._policy_folder}: {spec.backbone.id}, {spec.rate_hz:g} Hz, window '
            f'{spec.window}, chunk {spec.chunk}, axes {", ".join(spec.actions.axes)}')

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Listen to the camera and start proposing."""
        self._inputs = [
            self.create_subscription(self._camera_type, self._camera_topic, self._on_image,
                                     qos_profile_sensor_data),
            self.create_subscription(String, 'instruction', self._on_instruction, LATCHED)]
        self._timers_of_ours = [
            self.create_timer(1 / self._rate_hz, self._propose),
            self.create_timer(HEALTH_PERIOD_S, self._say_health, clock=self._steady),
            self.create_timer(1.0, self._report)]
        self._stopping = False
        self._plan = None
        self._now(Health.hold('no image yet'))
        self._worker = threading.Thread(target=self._work, name='policy', daemon=True)
        self._worker.start()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop proposing; the policy stays loaded."""
        self._stop_worker()
        self._now(Health.hold('not active'))
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        for timer in self._timers_of_ours:
            self.destroy_timer(timer)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unload the policy."""
        for publisher in (self._proposals, self._paths, self._overlays):
            self.destroy_lifecycle_publisher(publisher)
        self.destroy_publisher(self._diagnostics)
        self.destroy_publisher(self._healths)
        self._policy = None
        return TransitionCallbackReturn.SUCCESS

    def on_exit(self) -> None:
        """Let the worker end before the context goes."""
        self._stop_worker()

    def _stop_worker(self) -> None:
        with self._wake:
            self._stopping = True
            self._plan = None
            self._wake.notify()
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    def _on_image(self, message: Image | CompressedImage) -> None:
        shot = Shot(message, self.get_clock().now().nanoseconds, self._policy.spec.image.size)
        with self._wake:
            self._buffer.add(shot)
            self._wake.notify()

    def _on_instruction(self, message: String) -> None:
        with self._wake:
            # A new instruction begins anew: neither the plan nor what was seen before counts.
            self._instruction = message.data
            self._plan = None
            self._buffer.clear()
            self._now(Health.hold('a new instruction is being looked at'))
        self.get_logger().info(f'instruction: {message.data!r}')

    def _work(self) -> None:
        """Run the network on the newest window, at most once a period; owns the policy."""
        while True:
            with self._wake:
                window = None
                while not self._stopping and (window := self._next_window()) is None:
                    self._wake.wait()
                if self._stopping:
                    return
                instruction = self._instruction
            started = self._steady.now()
            plan, health = None, Health.ok()
            try:
                plan = self._policy.infer(window, instruction)
            except UserError as error:
                health = (Health.fault(str(error)) if instruction.strip()
                          else Health.hold(str(error)))
            except Exception as error:
                health = Health.fault(f'the policy failed: {type(error).__name__}: '
                                      f'{first_line(error)}')
                self.get_logger().error(traceback.format_exc())
            took = self._steady.now() - started
            self._durations_s.append(took.nanoseconds / NANOSECONDS)
            with self._wake:
                if instruction != self._instruction:
                    continue
                self._plan = plan
                self._now(health)
            if plan is not None:
                self._propose()
                self._show(plan, window[-1])

    def _next_window(self) -> list[Shot] | None:
        """Return the window to run next, or None (and why) while there is none."""
        if not self._buffer.due:
            return None
        window = self._buffer.take()
        if window is None:
            self._plan = None
            self._now(Health.hold('the window of frames is not full yet'))
        return window

    def _propose(self) -> None:
        with self._wake:
            plan = self._plan
            if plan is None:
                return
            twist = command_at(plan, self.get_clock().now().nanoseconds)
            if twist is None:
                self._now(Health.fault(
                    'the last plan is played out: no newer image was understood'))
                return
        message = TwistStamped()
        message.header.stamp = Time(nanoseconds=plan.stamp_ns).to_msg()
        message.header.frame_id = 'base_link'
        message.twist = twist_message(twist)
        self._proposals.publish(message)

    def _show(self, plan: Plan, shot: Shot) -> None:
        """Publish the plan as a path and drawn on its image, where somebody looks."""
        stamp = Time(nanoseconds=plan.stamp_ns).to_msg()
        if self._paths.get_subscription_count():
            path = Path()
            path.header.stamp = stamp
            path.header.frame_id = 'base_link'
            for x, y, _ in path_of(plan):
                pose = PoseStamped(header=path.header)
                pose.pose.position.x, pose.pose.position.y = float(x), float(y)
                pose.pose.orientation.w = 1.0
                path.poses.append(pose)
            self._paths.publish(path)
        if self._overlays.get_subscription_count():
            picture = draw_arrows(shot.image, [(plan.twists[0], PREDICTED)],
                                  OVERLAY_FULL_SPEED_MPS, self._instruction)
            header = shot.message.header
            self._overlays.publish(to_compressed(encode(picture), stamp=header.stamp,
                                                 frame_id=header.frame_id))

    def _now(self, health: Health) -> None:
        """Take what is the matter now, and say it at once when it is news."""
        self._health = health
        if health != self._health_said:
            self._say_health()

    def _say_health(self) -> None:
        with self._health_lock:
            health = self._health
            array = DiagnosticArray(status=[status_message(
                'policy', health.reason, {}, LEVELS[health.level])])
            array.header.stamp = self.get_clock().now().to_msg()
            self._healths.publish(array)
            self._health_said = health

    def _refuse_wrong_camera(self) -> None:
        """End when the camera's topic exists but is of a type that can never be heard."""
        problem = wrong_camera(self._camera_topic, self.get_publishers_info_by_topic(
            self._camera_topic), self._camera_type)
        if problem:
            print(f'inference_node: error: {problem}', file=sys.stderr, flush=True)
            self.exit_status = 2

    def _report(self) -> None:
        newest = self._buffer.newest
        if newest is None:
            self._refuse_wrong_camera()
        now_ns = self.get_clock().now().nanoseconds
        values = {
            'instruction': self._instruction, 'policy': self._policy_folder,
            'image_age_s': f'{(now_ns - newest.stamp_ns) / NANOSECONDS:.3f}' if newest else '',
            'inference_s': (f'{sum(self._durations_s) / len(self._durations_s):.4f}'
                            if self._durations_s else ''),
            'encoded_frames': self._policy.encoded_frames}
        health = self._health
        array = DiagnosticArray(status=[status_message(
            self.get_fully_qualified_name() + ': policy', health.reason or 'proposing', values,
            LEVELS[health.level])])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def build() -> InferenceNode:
    """Return the node, started when it is to start by itself."""
    node = InferenceNode()
    node.start()
    return node


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run('inference_node', build, args=args)


if __name__ == '__main__':
    sys.exit(main())
