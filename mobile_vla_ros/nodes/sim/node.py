"""The arena as a robot: it listens to cmd_vel, shows its camera and tells how a trial goes."""

import json
import time
from collections import deque
from dataclasses import replace

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.messages import encode
from mobile_vla_ros.nodes.shared.image_messages import from_rgb, to_compressed
from mobile_vla_ros.nodes.shared.messages import LATCHED, status_message, twist_array
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.run import run
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import RUNNING, SUCCESS, Arena, BaseLimits, Judge
from mobile_vla_ros.types import NANOSECONDS

TICK_NS = 25_000_000
ODOM_PERIOD_NS = 50_000_000
STATUS_PERIOD_NS = 100_000_000
MOST_TICKS_AT_ONCE = 8
# A ROS time of zero means "no time yet".
FIRST_NS = NANOSECONDS
OPTICAL_FRAME, BASE_FRAME, ODOM_FRAME = 'camera', 'base_link', 'odom'


class SimNode(Node):
    """
    ROS around ``sim.arena.Arena``.

    A timer on the steady clock moves the arena by fixed ticks; callbacks only store. A machine
    that is too slow makes the arena's time slower, never its steps larger. Frames that the
    scene's disturbance loses are not published, late ones are so later, with their own stamp.
    """

    def __init__(self):
        super().__init__('sim')
        names = ', '.join(suites.SUITES)
        self._suite = declare(
            self, 'suite', 'train', f'family of scenes: {names}', read_only=False
        )
        self._trial = declare(
            self,
            'trial',
            0,
            'scene of the suite that ~/reset loads next',
            limits=(0, suites.SEEDS_PER_SUITE - 1),
            read_only=False,
        )
        width = declare(self, 'width', 224, 'of the picture, pixels', limits=(16, 1920))
        height = declare(self, 'height', 224, 'of the picture, pixels', limits=(16, 1920))
        camera_rate_hz = declare(
            self,
            'camera_rate_hz',
            10.0,
            "pictures a second of the arena's time",
            limits=(1.0, 40.0),
        )
        self._quality = declare(
            self, 'jpeg_quality', 90, 'of the compressed pictures', limits=(1, 100)
        )
        self._factor = declare(
            self,
            'real_time_factor',
            1.0,
            "speed of the arena's time; other than 1.0 needs publish_clock",
            limits=(0.05, 50.0),
        )
        self._makes_time = declare(
            self, 'publish_clock', False, "publish the arena's time on /clock and stamp with it"
        )
        stamped = declare(self, 'stamped', False, 'cmd_vel is TwistStamped instead of Twist')
        self._command_timeout_ns = int(
            NANOSECONDS
            * declare(
                self,
                'command_timeout_s',
                0.5,
                'the base stops when no command comes for so many seconds',
                limits=(0.05, 10.0),
            )
        )
        timeout_s = declare(
            self,
            'trial_timeout_s',
            Judge().timeout_s,
            'a trial that is not done after so many seconds has failed',
            limits=(1.0, 600.0),
        )
        speed_mps = declare(
            self,
            'base_speed_mps',
            BaseLimits().planar,
            'what the base can do over the floor, m/s',
            limits=(0.1, 5.0),
        )
        self._paused = declare(
            self,
            'paused',
            False,
            'the scene stands still, though it is shown and its clock runs',
            read_only=False,
        )
        self._next_scene_after_ns = int(
            NANOSECONDS
            * declare(
                self,
                'next_scene_after_s',
                0.0,
                'the next scene comes so many seconds after the end of a trial; '
                '0.0: on ~/reset alone',
                limits=(0.0, 60.0),
            )
        )
        if self._factor != 1.0 and not self._makes_time:
            raise UserError(
                "the arena's time cannot run at another speed than everyone's",
                got=f'real_time_factor {self._factor} without publish_clock',
                remedy='set publish_clock:=true, and use_sim_time:=true on all other nodes',
            )

        self._arena = Arena(
            width,
            height,
            judge=replace(Judge(), timeout_s=timeout_s),
            limits=BaseLimits(planar=speed_mps),
        )
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._now_ns = self._running_ns = FIRST_NS
        self._image_period_ns = round(NANOSECONDS / camera_rate_hz)
        self._image_due = self._odom_due = self._status_due = 0
        self._late: deque[tuple[int, list]] = deque()
        self._loads = 0
        self._said = ''
        self._twist = np.zeros(6)
        self._twist_ns = 0
        self._warned = False

        self._raw = self.create_publisher(Image, 'camera/image_raw', qos_profile_sensor_data)
        self._compressed = self.create_publisher(
            CompressedImage, 'camera/image_raw/compressed', qos_profile_sensor_data
        )
        self._odom = self.create_publisher(Odometry, 'odom', 10)
        self._status = self.create_publisher(DiagnosticStatus, '~/status', 10)
        self._instruction = self.create_publisher(String, 'instruction', LATCHED)
        self._clock_out = (
            self.create_publisher(ClockMessage, '/clock', 10) if self._makes_time else None
        )
        self._load()
        self._arena.render()  # a machine without GL is told so now, not at the first picture

        if stamped:
            self.create_subscription(
                TwistStamped, 'cmd_vel', lambda message: self._on_command(message.twist), 10
            )
        else:
            self.create_subscription(Twist, 'cmd_vel', self._on_command, 10)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._tick_wall_s = TICK_NS / NANOSECONDS / self._factor
        self._next_tick_s = time.monotonic()
        self.create_timer(self._tick_wall_s, self._on_timer, clock=self._steady)

    def on_exit(self):
        """Give the GL context back before the interpreter goes."""
        self._arena.close()

    def _load(self):
        scene = suites.scene(self._suite, self._trial)
        self._arena.reset(scene)
        self._loads += 1
        self._loaded_trial, self._loaded_suite = self._trial, self._suite
        self._twist = np.zeros(6)
        self._image_due = self._odom_due = self._status_due = 0
        self._late.clear()
        self._instruction.publish(String(data=scene.instruction))
        self.get_logger().info(f'{self._suite} {self._trial}: {scene.instruction}')

    def _on_reset(self, _request, response):
        self._load()
        response.success = True
        response.message = json.dumps(
            {
                'suite': self._loaded_suite,
                'trial': self._loaded_trial,
                'instruction': self._arena.scene.instruction,
                'load': self._loads,
            }
        )
        if self._trial + 1 < suites.SEEDS_PER_SUITE:
            self._trial += 1
        return response

    def _on_parameters(self, parameters):
        """Take another suite or trial for the next reset; halt the scene, or let it go on."""
        given = {parameter.name: parameter.value for parameter in parameters}
        try:
            suites.scene(given.get('suite', self._suite), given.get('trial', self._trial))
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._suite = given.get('suite', self._suite)
        self._trial = given.get('trial', self._trial)
        self._paused = given.get('paused', self._paused)
        return SetParametersResult(successful=True)

    def _on_command(self, message: Twist):
        twist = twist_array(message)
        if not np.isfinite(twist).all():
            if not self._warned:
                self.get_logger().warning(f'a command that is not finite stops the base: {twist}')
            self._warned = True
            twist = np.zeros(6)
        self._twist, self._twist_ns = twist, self._now_ns

    def _on_timer(self):
        """Run the ticks that are due; what cannot be made up is given up."""
        now_s = time.monotonic()
        ticks = min(int((now_s - self._next_tick_s) / self._tick_wall_s) + 1, MOST_TICKS_AT_ONCE)
        for _ in range(ticks):
            self._tick()
            self._next_tick_s += self._tick_wall_s
        self._next_tick_s = max(self._next_tick_s, now_s - self._tick_wall_s)

    def _tick(self):
        self._now_ns += TICK_NS
        fresh = self._now_ns - self._twist_ns <= self._command_timeout_ns
        if not self._paused:
            self._arena.step(self._twist if fresh else np.zeros(6), TICK_NS)
        if self._clock_out is not None:
            self._clock_out.publish(ClockMessage(clock=self._stamp()))
        if self._now_ns >= self._odom_due:
            self._odom_due = self._now_ns + ODOM_PERIOD_NS
            self._publish_odom()
        if self._now_ns >= self._image_due:
            self._image_due = self._now_ns + self._image_period_ns
            self._publish_image()
        while self._late and self._late[0][0] <= self._now_ns:
            for publisher, message in self._late.popleft()[1]:
                publisher.publish(message)
        if self._arena.state == RUNNING:
            self._running_ns = self._now_ns
        elif self._next_scene_after_ns and (
            self._now_ns - self._running_ns >= self._next_scene_after_ns
        ):
            self._trial = self._loaded_trial + 1
            self._load()
        if self._arena.state != self._said or self._now_ns >= self._status_due:
            self._status_due = self._now_ns + STATUS_PERIOD_NS
            self._publish_status()

    def _stamp(self) -> Time:
        if not self._makes_time:
            return self.get_clock().now().to_msg()
        return Time(sec=self._now_ns // NANOSECONDS, nanosec=self._now_ns % NANOSECONDS)

    def _publish_odom(self):
        x, y, yaw = self._arena.pose
        message = Odometry(child_frame_id=BASE_FRAME)
        message.header.stamp = self._stamp()
        message.header.frame_id = ODOM_FRAME
        message.pose.pose.position.x, message.pose.pose.position.y = x, y
        message.pose.pose.orientation.z = float(np.sin(yaw / 2))
        message.pose.pose.orientation.w = float(np.cos(yaw / 2))
        twist = message.twist.twist
        twist.linear.x, twist.linear.y, twist.angular.z = self._arena.velocity
        self._odom.publish(message)

    def _publish_image(self):
        raw = self._raw.get_subscription_count() > 0
        compressed = self._compressed.get_subscription_count() > 0
        if not (raw or compressed):
            return
        # By the scene's own time, so that every drive of a scene loses the same frames.
        scene = self._arena.scene
        delay_ns = scene.disturbance.delay_of(scene.seed, self._arena.time_ns)
        if delay_ns is None:
            return
        head = {'stamp': self._stamp(), 'frame_id': OPTICAL_FRAME}
        picture = self._arena.render()
        out = []
        if raw:
            out.append((self._raw, from_rgb(picture, **head)))
        if compressed:
            jpeg = encode(picture, quality=self._quality)
            out.append((self._compressed, to_compressed(jpeg, **head)))
        if delay_ns:  # the same for all late ones, so they stay in order
            self._late.append((self._now_ns + delay_ns, out))
            return
        for publisher, message in out:
            publisher.publish(message)

    def _publish_status(self):
        arena = self._arena
        goal, (x, y, yaw) = arena.scene.goal, arena.pose
        self._said = arena.state
        self._status.publish(
            status_message(
                self.get_fully_qualified_name().lstrip('/'),
                arena.state,
                {
                    'suite': self._loaded_suite,
                    'trial': self._loaded_trial,
                    'load': self._loads,
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
