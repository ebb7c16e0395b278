"""
The guard: every command on its way to the wheels passes here, and nothing heavy lives here.

Callbacks only store; a thread on the steady clock decides, so that neither a ROS clock that stops
or jumps nor a slow callback can keep the guard from publishing zero. A stop that is asked for
does not wait for it.
"""

import threading
import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.guard.graph import Graph
from mobile_vla_ros.nodes.guard.params import AUTO, guard_params
from mobile_vla_ros.nodes.guard.ticker import Ticker
from mobile_vla_ros.nodes.shared.guard_status import policy_report
from mobile_vla_ros.nodes.shared.messages import (
    BEST_EFFORT,
    LATCHED,
    flush,
    status_array,
    status_message,
    time_ns,
    twist_array,
    twist_message,
)
from mobile_vla_ros.safety import preflight, strafing
from mobile_vla_ros.safety.guard import Decision, Guard
from mobile_vla_ros.safety.status import (
    STATUS_MAX_AGE_S,
    GuardStatus,
    Level,
    PolicyStatus,
    State,
    StopReason,
)
from mobile_vla_ros.types import NANOSECONDS, Check

COMMAND_DEPTH = 10
# Of the e-stop nothing may be lost, and one that was pressed before the guard was there counts.
ESTOPS = (COMMAND_DEPTH, BEST_EFFORT, LATCHED)
STATUS_PERIOD_NS = 100_000_000
DIAGNOSTICS_PERIOD_NS = 1_000_000_000
LOOK_PERIOD_S = 0.25
LEVELS = {
    State.ESTOP: DiagnosticStatus.ERROR,
    State.FAULT: DiagnosticStatus.ERROR,
    State.DISARMED: DiagnosticStatus.WARN,
}


class GuardNode(Node):
    """
    ROS around ``safety.guard.Guard``.

    :param turns: how the kernel was asked to schedule this process, for the log.
    """

    def __init__(self, turns: str):
        super().__init__('guard')
        self.exit_status: int | None = None
        self._params = guard_params(self)
        self._override = self._params.override
        self._guard = Guard(self._params.config, armed=self._params.arm_at_start)
        # Of the guard and of the commands: the ticker's thread and the callbacks share them.
        self._lock = threading.RLock()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        # Arming waits for a smoother's answer; the e-stop must be heard meanwhile.
        waiting = ReentrantCallbackGroup()
        self._graph = Graph(self, self.resolve_topic_name('cmd_vel'), steady, waiting)
        self._type = preflight.TYPES.get(self._params.cmd_vel_type, preflight.TWIST)
        self._commands = None
        self._open_commands()
        self._status = self.create_publisher(DiagnosticStatus, '~/status', COMMAND_DEPTH)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self._reported: tuple | None = None
        self._reported_ns = self._diagnosed_ns = 0
        self._refused: tuple[str, ...] = ()
        self._stops = 0  # asked for by a person
        self._policy: PolicyStatus | None = None
        self._policy_checks: list[Check] = []
        self._policy_ns: int | None = None
        self._person_alone = False  # when it was armed: no policy proposed

        self.create_subscription(TwistStamped, 'policy/cmd_vel', self._on_proposal, BEST_EFFORT)
        self.create_subscription(DiagnosticArray, 'policy/health', self._on_health, LATCHED)
        self.create_subscription(Twist, 'teleop/cmd_vel', self._on_teleop, BEST_EFFORT)
        self.create_subscription(
            Twist,
            'teleop/cmd_vel',
            self._on_teleop_stop,
            COMMAND_DEPTH,
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
        )
        for qos in ESTOPS:
            self.create_subscription(Bool, 'estop', self._on_estop, qos)
        self.create_service(Trigger, '~/arm', self._on_arm, callback_group=waiting)
        self.create_service(Trigger, '~/disarm', self._on_disarm)
        self.create_service(Trigger, '~/preflight', self._on_preflight, callback_group=waiting)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self.create_timer(LOOK_PERIOD_S, self._look, clock=steady)
        self._say_how(turns)
        self._ticker = Ticker(self._params.config.period_s, self._tick, self._defect)
        self._ticker.start()

    def on_exit(self):
        """Leave zero as the last command, whatever ended the node."""
        self._ticker.stop()
        self._publish(np.zeros(6))
        if self._commands is not None:
            flush(self._commands)

    def _defect(self):
        self.exit_status = 1
        self._publish(np.zeros(6))

    def _say_how(self, turns: str):
        limits, reaction_s = self._guard.limits, self._params.config.reaction_s
        self.get_logger().info(
            f'at most {limits.top_speed_mps:.2f} m/s: after the newest picture the base rolls '
            f'{limits.max_stop_distance_m(reaction_s):.2f} m at the worst: {reaction_s:.2f} s '
            f'until it is told zero, then braking at {limits.base_deceleration_mps2:g} m/s^2 '
            f'(base_deceleration_mps2); scheduling: {turns}'
        )

    def _on_proposal(self, message: TwistStamped):
        with self._lock:
            self._guard.proposal(
                twist_array(message.twist), time_ns(message.header.stamp), time.monotonic_ns()
            )

    def _on_health(self, message: DiagnosticArray):
        if not message.status:
            return
        self._policy, self._policy_checks = policy_report(message)
        self._policy_ns = time.monotonic_ns()
        with self._lock:
            if self._guard.policy_health(self._policy.health, self._policy_ns):
                self._tick()

    def _on_teleop(self, message: Twist):
        with self._lock:
            self._guard.teleop(twist_array(message), time.monotonic_ns())

    def _on_teleop_stop(self, message: Twist):
        """Of a person's stop nothing may be lost, and a late one only stops."""
        if not twist_array(message).any():
            self._on_teleop(message)

    def _on_estop(self, message: Bool):
        with self._lock:
            self._guard.estop(message.data)
            if message.data:
                self._stops += 1
                self._tick()

    async def _on_arm(self, _request, response):
        if self._guard.armed:  # whatever is red now: who reads "not armed" may go near the robot
            response.success, response.message = True, 'Armed already.'
            return response
        reason, why_not = self._guard.refusal()
        refused = () if reason == StopReason.NONE else (reason.value,)
        if not why_not:
            self._look()
            self._person_alone = not self._proposed_to()
            waived = self._override | (set(preflight.WHEELS) if self._params.dry_run else set())
            stops = self._stops
            checks = await self._checks()
            why_not = preflight.refusal(checks, waived)
            refused = tuple(check.name for check in preflight.red(checks, waived))
            if 'inference' in refused and self._policy is not None:
                refused += (self._policy.health.stop_reason.value,)
            if self._stops != stops:
                why_not = 'Not armed: it was stopped while the checks were made.'
                refused = (StopReason.DISARMED.value,)
        with self._lock:
            response.success, response.message = (False, why_not) if why_not else self._guard.arm()
            self._refused = () if response.success else refused
        if response.success:
            self.get_logger().info(response.message)
        else:
            self.get_logger().warning(response.message)
        return response

    def _on_disarm(self, _request, response):
        with self._lock:
            self._stops += 1
            response.success, response.message = self._guard.disarm()
            self._tick()
        self.get_logger().info(response.message)
        return response

    async def _on_preflight(self, _request, response):
        checks = await self._checks()
        response.success = all(check.ok for check in checks)
        response.message = preflight.report(checks)
        return response

    async def _checks(self) -> list[Check]:
        """Look at everything that has to be well before the robot is armed."""
        told = self._checks_of_inference() if self._proposed_to() else []
        checks = await self._graph.checks(
            self._type, self._commands is not None, self._with_y(), self._params.arm_at_start
        )
        return [*checks, *told]

    def _proposed_to(self) -> bool:
        """Whether a policy proposes, or is to: whoever does is driven when the guard is armed."""
        topic = self.resolve_topic_name('policy/cmd_vel')
        return self._params.expect_policy or self.count_publishers(topic) > 0

    def _checks_of_inference(self) -> list[Check]:
        age_s = None
        if self._policy_ns is not None:
            age_s = (time.monotonic_ns() - self._policy_ns) / NANOSECONDS
        health = None if self._policy is None else self._policy.health
        fault = health.sentence if health is not None and health.level == Level.FAULT else ''
        # What it found before it fell silent is no longer known.
        fresh = age_s is not None and age_s <= STATUS_MAX_AGE_S
        found = self._policy_checks if fresh else []
        return [preflight.check_inference(age_s, fault, {one.name for one in found}), *found]

    def _with_y(self) -> bool:
        """Whether a command can have a linear_y; the policy's node reports its axes."""
        axes = None if self._policy is None else self._policy.axes
        return self._guard.limits.max_velocity[1] > 0 and (
            not self._params.expect_policy or strafing.drives_linear_y(axes)
        )

    @staticmethod
    def _check_parameters(changes) -> SetParametersResult:
        try:
            _overrides(changes)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take_parameters(self, changes):
        """Take what was set, now that nothing of it was refused."""
        for names in _overrides(changes):
            self._override = names

    def _look(self):
        """Look who else commands what the guard commands, and whom it would move by itself."""
        self._choose_type()
        if self._commands is None:
            return
        rival, arena = self._graph.watch()
        with self._lock:
            self._guard.competing_publisher(
                '' if rival.ok or rival.name in self._override else rival.sentence
            )
            if (
                self._params.arm_at_start
                and self._guard.armed
                and not arena.ok
                and arena.name not in self._override
            ):
                self._guard.disarm(StopReason.UNKNOWN_SUBSCRIBER, arena.sentence)
                self._tick()
                self.get_logger().warning(arena.line)
            if (
                self._person_alone
                and self._guard.armed
                and 'inference' not in self._override
                and self._proposed_to()
            ):
                self._guard.disarm(
                    StopReason.UNCHECKED_POLICY,
                    'a policy began to propose after arming, and was not checked',
                )
                self._tick()

    def _choose_type(self):
        """By who listens; not while somebody may be driven by it, unless in a simulation."""
        if self._params.cmd_vel_type != AUTO or (
            self._guard.armed and not self._params.arm_at_start
        ):
            return
        wanted = preflight.select_cmd_vel_type(self._graph.listeners())
        if wanted != self._type:
            with self._lock:
                self._type = wanted
                self._open_commands()
            self.get_logger().info(f'publishing {wanted}: that is what is listened to')

    def _open_commands(self):
        """Publish the commands as the type that was chosen, and no longer as another."""
        if self._params.dry_run:
            return
        with self._lock:
            if self._commands is not None:
                self.destroy_publisher(self._commands)
            self._commands = self.create_publisher(
                TwistStamped if self._type == preflight.TWIST_STAMPED else Twist,
                'cmd_vel',
                COMMAND_DEPTH,
            )

    def _tick(self):
        with self._lock:
            decision = self._guard.update(self.get_clock().now().nanoseconds, time.monotonic_ns())
            self._publish(decision.twist)
            self._tell(decision)

    def _publish(self, twist: np.ndarray):
        if self._commands is None:
            return
        message = twist_message(twist)
        if self._type == preflight.TWIST_STAMPED:
            message = TwistStamped(twist=message)
            message.header.stamp = self.get_clock().now().to_msg()
            message.header.frame_id = self._params.frame_id
        self._commands.publish(message)

    def _tell(self, decision: Decision):
        """Publish the status at every change and every 0.1 s."""
        now_ns = time.monotonic_ns()
        status = GuardStatus(
            decision.state,
            self._guard.armed,
            decision.source,
            decision.stop_reason,
            decision.sentence,
            decision.twist,
            decision.age_s,
            self._params.dry_run,
            self._refused,
        )
        reported = (
            status.state,
            status.source,
            status.stop_reason,
            status.sentence,
            status.armed,
            status.refused,
        )
        changed = reported != self._reported
        # Half a tick early is in time: the next one would be late.
        slack_ns = round(self._params.config.period_s / 2 * NANOSECONDS)
        if not changed and now_ns - self._reported_ns < STATUS_PERIOD_NS - slack_ns:
            return
        if changed and status.state in (State.FAULT, State.ESTOP):
            self.get_logger().warning(f'{status.state}: {status.sentence}')
        message = status_message(
            self.get_fully_qualified_name().lstrip('/'),
            status.state.value,
            status.values(),
            LEVELS.get(status.state, DiagnosticStatus.OK),
        )
        self._status.publish(message)
        self._reported, self._reported_ns = reported, now_ns
        if changed or now_ns - self._diagnosed_ns >= DIAGNOSTICS_PERIOD_NS:
            self._diagnostics.publish(status_array(self.get_clock().now().to_msg(), message))
            self._diagnosed_ns = now_ns


def _overrides(changes) -> list[frozenset[str]]:
    """Return what the parameter override becomes in a set of changes; checks that it can be."""
    return [
        preflight.parse_override(change.value or [])
        for change in changes
        if change.name == 'override'
    ]
