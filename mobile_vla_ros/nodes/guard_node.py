"""
The guard: every command on its way to the wheels passes here, and nothing heavy lives here.

Callbacks only store; a timer on the steady clock decides, so that a ROS clock that stops or
jumps cannot keep the guard from publishing zero.
"""

import sys

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from mobile_vla_ros.nodes.common import (
    declare,
    let_arrive,
    run,
    status_message,
    time_ns,
    twist_array,
    twist_message,
)
from mobile_vla_ros.safety.guard import Decision, Guard, GuardConfig, State
from mobile_vla_ros.safety.limits import Limits

COMMAND_DEPTH = 10
STATUS_PERIOD_NS = 500_000_000
DIAGNOSTICS_PERIOD_NS = 1_000_000_000
LEVELS = {State.ESTOP: DiagnosticStatus.ERROR, State.FAULT: DiagnosticStatus.ERROR,
          State.DISARMED: DiagnosticStatus.WARN}


class GuardNode(Node):
    """ROS around ``safety.guard.Guard``."""

    def __init__(self):
        super().__init__('guard')
        defaults, limits = GuardConfig(), Limits()
        rate_hz = declare(self, 'rate_hz', 20.0, 'commands a second to the base',
                          limits=(10.0, 100.0))
        self._stamped = declare(self, 'stamped', False,
                                'publish TwistStamped instead of Twist on cmd_vel')
        self._frame_id = declare(self, 'frame_id', 'base_link',
                                 'frame of the commands when they are stamped')
        arm_at_start = declare(
            self, 'arm_at_start', False,
            'arm at start and after faults with nobody asked: for a simulation alone')
        config = GuardConfig(
            limits=Limits(
                max_velocity=declare(
                    self, 'max_velocity', list(limits.max_velocity),
                    'speed limits [x, y, theta] in m/s, m/s, rad/s; 0.0 for an axis that the '
                    'base does not have'),
                max_planar_speed_mps=declare(
                    self, 'max_planar_speed_mps', limits.max_planar_speed_mps,
                    'limit of the speed over ground, m/s', limits=(0.01, 10.0)),
                max_acceleration=declare(
                    self, 'max_acceleration', list(limits.max_acceleration),
                    'acceleration limits [x, y, theta] in m/s^2, m/s^2, rad/s^2')),
            observation_max_age_s=declare(
                self, 'observation_max_age_s', defaults.observation_max_age_s,
                'oldest image, seconds, that a command may come from', limits=(0.02, 10.0)),
            stamp_tolerance_s=declare(
                self, 'stamp_tolerance_s', defaults.stamp_tolerance_s,
                'how far, seconds, a stamp may lie in the future', limits=(0.0, 1.0)),
            teleop_timeout_s=declare(
                self, 'teleop_timeout_s', defaults.teleop_timeout_s,
                "a person's command is zero when it is older, seconds", limits=(0.05, 5.0)),
            takeover_hold_s=declare(
                self, 'takeover_hold_s', defaults.takeover_hold_s,
                "seconds after a person's last command in which the policy stays out",
                limits=(0.05, 60.0)),
            longest_tick_s=2.0 / rate_hz,
            disarm_on_fault=not arm_at_start)
        self._guard = Guard(config, armed=arm_at_start)

        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        command_type = TwistStamped if self._stamped else Twist
        self._commands = self.create_publisher(command_type, 'cmd_vel', COMMAND_DEPTH)
        self._status = self.create_publisher(DiagnosticStatus, '~/status', COMMAND_DEPTH)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self._said: tuple | None = None
        self._said_ns = self._diagnosed_ns = 0

        self.create_subscription(TwistStamped, 'policy/cmd_vel', self._on_proposal, COMMAND_DEPTH)
        self.create_subscription(Twist, 'teleop/cmd_vel', self._on_teleop, COMMAND_DEPTH)
        self.create_subscription(Bool, 'estop', self._on_estop, COMMAND_DEPTH)
        self.create_service(Trigger, '~/arm', self._on_arm)
        self.create_service(Trigger, '~/disarm', self._on_disarm)
        self.create_timer(1.0 / rate_hz, self._tick, clock=self._steady)

    def on_exit(self):
        """Leave zero as the last command, whatever ended the node."""
        self._publish(np.zeros(6))
        let_arrive(self._commands)

    def _steady_ns(self) -> int:
        return self._steady.now().nanoseconds

    def _on_proposal(self, message: TwistStamped):
        self._guard.proposal(twist_array(message.twist), time_ns(message.header.stamp),
                             self._steady_ns())

    def _on_teleop(self, message: Twist):
        self._guard.teleop(twist_array(message), self._steady_ns())

    def _on_estop(self, message: Bool):
        self._guard.estop(message.data)
        self._tick()

    def _on_arm(self, _request, response):
        response.success, response.message = self._guard.arm()
        self.get_logger().info(response.message)
        return response

    def _on_disarm(self, _request, response):
        response.success, response.message = self._guard.disarm()
        self._tick()
        self.get_logger().info(response.message)
        return response

    def _tick(self):
        decision = self._guard.update(self.get_clock().now().nanoseconds, self._steady_ns())
        self._publish(decision.twist)
        self._tell(decision)

    def _publish(self, twist: np.ndarray):
        message = twist_message(twist)
        if self._stamped:
            message = TwistStamped(twist=message)
            message.header.stamp = self.get_clock().now().to_msg()
            message.header.frame_id = self._frame_id
        self._commands.publish(message)

    def _tell(self, decision: Decision):
        """Publish the status on every change and at least twice a second."""
        now_ns = self._steady_ns()
        said = (decision.state, decision.source, decision.reason, self._guard.armed)
        changed = said != self._said
        if not changed and now_ns - self._said_ns < STATUS_PERIOD_NS:
            return
        if changed and decision.state in (State.FAULT, State.ESTOP):
            self.get_logger().warning(f'{decision.state}: {decision.reason}')
        status = status_message(
            self.get_fully_qualified_name().lstrip('/'), str(decision.state),
            {'source': decision.source, 'reason': decision.reason,
             'age_s': f'{decision.age_s:.3f}', 'armed': str(self._guard.armed).lower(),
             'linear_x': f'{decision.twist[0]:.3f}', 'linear_y': f'{decision.twist[1]:.3f}',
             'angular_z': f'{decision.twist[5]:.3f}'},
            LEVELS.get(decision.state, DiagnosticStatus.OK))
        self._status.publish(status)
        self._said, self._said_ns = said, now_ns
        if changed or now_ns - self._diagnosed_ns >= DIAGNOSTICS_PERIOD_NS:
            array = DiagnosticArray(status=[status])
            array.header.stamp = self.get_clock().now().to_msg()
            self._diagnostics.publish(array)
            self._diagnosed_ns = now_ns


def main(args: list[str] | None = None) -> int:
    """Run the guard."""
    return run('guard_node', GuardNode, args=args)


if __name__ == '__main__':
    sys.exit(main())
