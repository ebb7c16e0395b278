"""The arena as a robot: follows cmd_vel, publishes camera, odometry and the trial's state."""

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.nodes.shared.image_messages import from_rgb, to_compressed
from mobile_vla_ros.nodes.shared.messages import LATCHED, status_message, twist_array
from mobile_vla_ros.nodes.shared.run import run
from mobile_vla_ros.nodes.sim.params import sim_controls, sim_params
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import RUNNING, SUCCESS, Arena, Judge
from mobile_vla_ros.sim.world import BaseLimits
from mobile_vla_ros.types import NANOSECONDS

TICK_NS = 25_000_000
ODOM_PERIOD_NS = 50_000_000
STATUS_PERIOD_NS = 100_000_000
MAX_TICKS_AT_ONCE = 8
# A ROS time of zero means "no time yet".
FIRST_NS = NANOSECONDS
OPTICAL_FRAME, BASE_FRAME, ODOM_FRAME = 'camera', 'base_link', 'odom'


@dataclass
class LoadedScene:
    """
    What belongs to one load of a scene; times are the arena's, in nanoseconds.

    :ivar number: of the load, from 1.
    :ivar twist: (6,) newest command, m/s and rad/s.
    :ivar running_ns: when the trial was last running.
    :ivar reported: the state in the newest status.
    :ivar late: frames to publish later: when, and each publisher with its message.
    """

    suite: str
    trial: int
    number: int
    running_ns: int
    twist: np.ndarray = field(default_factory=lambda: np.zeros(6))
    twist_ns: int = 0
    reported: str = ''
    image_due_ns: int = 0
    odom_due_ns: int = 0
    status_due_ns: int = 0
    late: deque[tuple[int, list[tuple[Publisher, object]]]] = field(default_factory=deque)


class SimNode(Node):
    """
    ROS around ``sim.arena.Arena``.

    A timer on the steady clock moves the arena by fixed ticks; callbacks only store. A machine
    that is too slow makes the arena's time slower, never its steps larger. Frames that the
    scene's disturbance loses are not published; late ones are published later, with their own
    stamp.
    """

    def __init__(self) -> None:
        super().__init__('sim')
        self._controls = sim_controls(self)
        self._params = params = sim_params(self)
        self._arena = Arena(
            params.width,
            params.height,
            judge=replace(Judge(), timeout_s=params.trial_timeout_s),
            limits=BaseLimits(planar=params.base_speed_mps),
        )
        self._now_ns = FIRST_NS
        self._warned = False
        self._raw = self.create_publisher(Image, 'camera/image_raw', qos_profile_sensor_data)
        self._compressed = self.create_publisher(
            CompressedImage, 'camera/image_raw/compressed', qos_profile_sensor_data
        )
        self._out = {
            'odom': self.create_publisher(Odometry, 'odom', 10),
            'status': self.create_publisher(DiagnosticStatus, '~/status', 10),
            'instruction': self.create_publisher(String, 'instruction', LATCHED),
        }
        if params.publish_clock:
            self._out['clock'] = self.create_publisher(ClockMessage, '/clock', 10)
        self._loaded = self._load(1)
        self._arena.render()  # report missing GL now, not at the first image

        if params.stamped:
            self.create_subscription(TwistStamped, 'cmd_vel', self._on_stamped, 10)
        else:
            self.create_subscription(Twist, 'cmd_vel', self._on_command, 10)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._tick_s = TICK_NS / NANOSECONDS / params.real_time_factor
        self._next_tick_s = time.monotonic()
        self.create_timer(
            self._tick_s, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def on_exit(self) -> None:
        """Release the GL context before the interpreter ends."""
        self._arena.close()

    def _load(self, number: int) -> LoadedScene:
        """Load the scene of the controls."""
        suite, trial = self._controls.suite, self._controls.trial
        scene = suites.scene(suite, trial)
        self._arena.reset(scene)
        self._out['instruction'].publish(String(data=scene.instruction))
        self.get_logger().info(f'{suite} {trial}: {scene.instruction}')
        return LoadedScene(suite, trial, number, self._now_ns)

    def _on_reset(self, _request, response: Trigger.Response) -> Trigger.Response:
        self._loaded = loaded = self._load(self._loaded.number + 1)
        response.success = True
        response.message = json.dumps(
            {
                'suite': loaded.suite,
                'trial': loaded.trial,
                'instruction': self._arena.scene.instruction,
                'load': loaded.number,
            }
        )
        if self._controls.trial + 1 < suites.SEEDS_PER_SUITE:
            self._controls.trial += 1
        return response

    def _on_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        """Set the suite and trial of the next reset; pause the scene, or resume it."""
        values = {parameter.name: parameter.value for parameter in parameters}
        known = {name: values[name] for name in vars(self._controls) if name in values}
        if 'suite' in known:
            known['suite'] = suites.for_base(known['suite'], self._controls.base)
        controls = replace(self._controls, **known)
        try:
            suites.scene(controls.suite, controls.trial)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._controls = controls
        return SetParametersResult(successful=True)

    def _on_stamped(self, message: TwistStamped) -> None:
        self._on_command(message.twist)

    def _on_command(self, message: Twist) -> None:
        twist = twist_array(message)
        if not np.isfinite(twist).all():
            if not self._warned:
                self.get_logger().warning(f'a command that is not finite stops the base: {twist}')
            self._warned = True
            twist = np.zeros(6)
        self._loaded.twist, self._loaded.twist_ns = twist, self._now_ns

    def _on_timer(self) -> None:
        """Run the ticks that are due; skip those beyond the limit."""
        now_s = time.monotonic()
        ticks = min(int((now_s - self._next_tick_s) / self._tick_s) + 1, MAX_TICKS_AT_ONCE)
        for _ in range(ticks):
            self._tick()
            self._next_tick_s += self._tick_s
        self._next_tick_s = max(self._next_tick_s, now_s - self._tick_s)

    def _tick(self) -> None:
        self._now_ns += TICK_NS
        now_ns, loaded = self._now_ns, self._loaded
        fresh = now_ns - loaded.twist_ns <= self._params.command_timeout_s * NANOSECONDS
        if not self._controls.paused:
            self._arena.step(loaded.twist if fresh else np.zeros(6), TICK_NS)
        if 'clock' in self._out:
            self._out['clock'].publish(ClockMessage(clock=self._stamp()))
        if now_ns >= loaded.odom_due_ns:
            loaded.odom_due_ns = now_ns + ODOM_PERIOD_NS
            self._publish_odom()
        if now_ns >= loaded.image_due_ns:
            loaded.image_due_ns = now_ns + self._params.image_period_ns
            self._publish_image()
        while loaded.late and loaded.late[0][0] <= now_ns:
            for publisher, message in loaded.late.popleft()[1]:
                publisher.publish(message)
        if self._arena.state == RUNNING:
            loaded.running_ns = now_ns
        elif self._params.next_scene_after_s and (
            now_ns - loaded.running_ns >= self._params.next_scene_after_s * NANOSECONDS
        ):
            self._controls.trial = loaded.trial + 1
            self._loaded = loaded = self._load(loaded.number + 1)
        if self._arena.state != loaded.reported or now_ns >= loaded.status_due_ns:
            loaded.status_due_ns = now_ns + STATUS_PERIOD_NS
            self._publish_status()

    def _stamp(self) -> Time:
        if not self._params.publish_clock:
            return self.get_clock().now().to_msg()
        return Time(sec=self._now_ns // NANOSECONDS, nanosec=self._now_ns % NANOSECONDS)

    def _publish_odom(self) -> None:
        x, y, yaw = self._arena.pose
        message = Odometry(child_frame_id=BASE_FRAME)
        message.header.stamp = self._stamp()
        message.header.frame_id = ODOM_FRAME
        message.pose.pose.position.x, message.pose.pose.position.y = x, y
        message.pose.pose.orientation.z = float(np.sin(yaw / 2))
        message.pose.pose.orientation.w = float(np.cos(yaw / 2))
        twist = message.twist.twist
        twist.linear.x, twist.linear.y, twist.angular.z = self._arena.velocity
        self._out['odom'].publish(message)

    def _publish_image(self) -> None:
        raw = self._raw.get_subscription_count() > 0
        compressed = self._compressed.get_subscription_count() > 0
        if not (raw or compressed):
            return
        # By the scene's own time, so that every drive of a scene loses the same frames.
        scene = self._arena.scene
        delay_ns = scene.disturbance.delay_of(scene.seed, self._arena.time_ns)
        if delay_ns is None:
            return
        header = {'stamp': self._stamp(), 'frame_id': OPTICAL_FRAME}
        image = self._arena.render()
        out: list[tuple[Publisher, object]] = []
        if raw:
            out.append((self._raw, from_rgb(image, **header)))
        if compressed:
            jpeg = encode(image, quality=self._params.jpeg_quality)
            out.append((self._compressed, to_compressed(jpeg, **header)))
        if delay_ns:  # the same for all late ones, so they stay in order
            self._loaded.late.append((self._now_ns + delay_ns, out))
            return
        for publisher, message in out:
            publisher.publish(message)

    def _publish_status(self) -> None:
        arena, loaded = self._arena, self._loaded
        goal, (x, y, yaw) = arena.scene.goal, arena.pose
        loaded.reported = arena.state
        self._out['status'].publish(
            status_message(
                self.get_fully_qualified_name().lstrip('/'),
                arena.state,
                {
                    'suite': loaded.suite,
                    'trial': loaded.trial,
                    'load': loaded.number,
                    'instruction': arena.scene.instruction,
                    'target': goal.name if goal else '',
                    'elapsed_s': f'{arena.elapsed_ns / NANOSECONDS:.3f}',
                    'x': f'{x:.4f}',
                    'y': f'{y:.4f}',
                    'yaw': f'{yaw:.4f}',
                    'gap': f'{arena.gap():.3f}',
                    'min_gap': f'{arena.min_gap:.3f}',
                },
                DiagnosticStatus.OK
                if arena.state in (RUNNING, SUCCESS)
                else DiagnosticStatus.WARN,
            )
        )


def main(args: list[str] | None = None) -> int:
    """Run the arena."""
    return run('sim_node', SimNode, args=args)
