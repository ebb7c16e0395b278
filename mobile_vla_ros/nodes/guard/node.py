"""
The guard: every command to the wheels passes through this node, which imports nothing heavy.

Callbacks only store; a thread on the steady clock decides, so that neither a ROS clock that stops
or jumps nor a slow callback can keep the guard from publishing zero. A requested stop does not
wait for that thread.
"""

import gc
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.guard.graph import ESTOP, Graph, Seen
from mobile_vla_ros.nodes.guard.inputs import (
    EstopTopic,
    TeleopTopic,
    subscribe_to_policy,
)
from mobile_vla_ros.nodes.guard.params import AUTO, guard_params
from mobile_vla_ros.nodes.guard.publishers import CommandPublisher, StatusPublisher
from mobile_vla_ros.nodes.shared.clocks import steady_ns
from mobile_vla_ros.safety import preflight, strafing
from mobile_vla_ros.safety.guard import Guard
from mobile_vla_ros.safety.status import (
    STATUS_MAX_AGE_S,
    GuardStatus,
    Level,
    PolicyStatus,
    StopReason,
)
from mobile_vla_ros.types import NANOSECONDS, Check

GRAPH_PERIOD_S = 0.25


@dataclass(frozen=True)
class PolicyReport:
    """
    The newest message on ``policy/health``.

    :param checks: the preflight checks of the policy's node.
    :param sent_ns: on ``steady_ns``.
    """

    status: PolicyStatus
    checks: list[Check]
    sent_ns: int


@dataclass
class Arming:
    """
    How people last armed or stopped the guard.

    :param stops: number of stops that people requested.
    :param refused: why it was not armed: names of red checks, or values of ``StopReason``.
    :param without_policy: no policy proposed when it was armed.
    """

    stops: int = 0
    refused: tuple[str, ...] = ()
    without_policy: bool = False


class Ticker:
    """
    Calls a function at a fixed rate, and reports when it fails.

    Other work of the process (services, graph queries) delays a call only while it holds the
    interpreter lock.

    :param period_s: from one call to the next; missed calls are not repeated.
    :param work: the function to call.
    :param failed: called after ``work`` has raised and the traceback is printed; the ticker has
        ended then.
    """

    def __init__(self, period_s: float, work: Callable[[], None], failed: Callable[[], None]):
        self._period_ns = round(period_s * NANOSECONDS)
        self._work, self._failed = work, failed
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin with a call at once; all objects that exist now count as permanent."""
        gc.collect()
        gc.freeze()  # or the collector would traverse all of them again and again
        self._thread.start()

    def stop(self) -> None:
        """End, after a call that is under way."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        next_ns = steady_ns()
        try:
            while True:
                self._work()
                now_ns = steady_ns()
                next_ns = max(next_ns + self._period_ns, now_ns)
                if self._closing.wait((next_ns - now_ns) / NANOSECONDS):
                    return
        except Exception:
            traceback.print_exc()
            self._failed()


class GuardNode(Node):
    """
    ROS around ``safety.guard.Guard``.

    :param scheduling: a sentence on how the kernel schedules this process, for the log.
    """

    def __init__(self, scheduling: str):
        super().__init__('guard')
        self.exit_status: int | None = None
        self._params = guard_params(self)
        self._override = self._params.override
        self._guard = Guard(self._params.config, armed=self._params.arm_at_start)
        # For the guard and its commands, which the ticker's thread and the callbacks share.
        self._lock = threading.RLock()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        # Arming waits for a smoother's answer; the e-stop must be received meanwhile.
        waiting = ReentrantCallbackGroup()
        self._graph = Graph(
            self,
            self.resolve_topic_name('cmd_vel'),
            steady,
            waiting,
            TeleopTopic(self, self._on_teleop),
        )
        self._commands = CommandPublisher(
            self,
            preflight.TYPES.get(self._params.cmd_vel_type, preflight.TWIST),
            self._params.frame_id,
            dry_run=self._params.dry_run,
        )
        self._status = StatusPublisher(self, self._params.config.period_s)
        self._policy: PolicyReport | None = None
        self._arming = Arming()

        subscribe_to_policy(self, self._on_proposal, self._on_health)
        self._estop = EstopTopic(self, self._on_estop)
        self.create_service(Trigger, '~/arm', self._on_arm, callback_group=waiting)
        self.create_service(Trigger, '~/disarm', self._on_disarm)
        self.create_service(Trigger, '~/resume', self._on_resume)
        self.create_service(Trigger, '~/preflight', self._on_preflight, callback_group=waiting)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._set_parameters)
        self.create_timer(GRAPH_PERIOD_S, self._watch_graph, clock=steady)
        self._log_limits(scheduling)
        self._ticker = Ticker(self._params.config.period_s, self._tick, self._on_defect)
        self._ticker.start()

    def on_exit(self) -> None:
        """Leave zero as the last command, whatever ended the node; nothing if it was silent."""
        self._ticker.stop()
        self._commands.close()

    def _on_defect(self) -> None:
        self.exit_status = 1
        self._commands.publish(np.zeros(6))

    def _log_limits(self, scheduling: str) -> None:
        limits, reaction_s = self._guard.limits, self._params.config.reaction_s
        self.get_logger().info(
            f'worst-case stopping distance {limits.max_stop_distance_m(reaction_s):.2f} m '
            f'(v <= {limits.top_speed_mps:.2f} m/s, reaction {reaction_s:.2f} s, '
            f'base_deceleration_mps2 {limits.base_deceleration_mps2:g} m/s^2); '
            f'scheduling: {scheduling}'
        )

    def _on_proposal(self, twist: np.ndarray, stamp_ns: int, sent_ns: int) -> None:
        with self._lock:
            self._guard.proposal(twist, stamp_ns, sent_ns)

    def _on_health(self, status: PolicyStatus, checks: list[Check], sent_ns: int) -> None:
        self._policy = PolicyReport(status, checks, sent_ns)
        with self._lock:
            if self._guard.policy_health(status.health, sent_ns):
                self._tick()

    def _on_teleop(self, twist: np.ndarray, received_ns: int, late_ns: int) -> None:
        with self._lock:
            self._guard.teleop(twist, received_ns, late_ns)

    def _on_estop(self, pressed: bool, sent_ns: int) -> None:
        with self._lock:
            self._guard.estop(pressed, sent_ns)
            if pressed:
                self._arming.stops += 1
                self._tick()

    async def _on_arm(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        if self._guard.armed:  # "not armed" would tell somebody that the robot is safe to approach
            response.success, response.message = True, 'Armed already.'
            return response
        reason, why_not = self._guard.refusal()
        refused: tuple[str, ...] = () if reason == StopReason.NONE else (reason.value,)
        if not why_not:
            why_not, refused = await self._preflight()
        with self._lock:
            response.success, response.message = (False, why_not) if why_not else self._guard.arm()
            self._arming.refused = () if response.success else refused
            if response.success:
                self._estop.watch.rely_on(self._graph.estop_publishers(), alone=True)
        if response.success:
            self.get_logger().info(response.message)
        else:
            self.get_logger().warning(response.message)
        return response

    async def _preflight(self) -> tuple[str, tuple[str, ...]]:
        """Make the checks before arming; return why it must not be armed, and ``refused``."""
        self._watch_graph()
        arming = self._arming
        arming.without_policy = not self._policy_expected()
        waived = self._override | (set(preflight.WHEELS) if self._params.dry_run else set())
        stops = arming.stops
        checks = await self._checks()
        if arming.stops != stops:
            return (
                'Not armed: it was stopped while the checks were made.',
                (StopReason.DISARMED.value,),
            )
        refused = tuple(check.name for check in preflight.red(checks, waived))
        if 'inference' in refused and self._policy is not None:
            refused += (self._policy.status.health.stop_reason.value,)
        return preflight.refusal(checks, waived), refused

    def _on_disarm(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        with self._lock:
            self._arming.stops += 1
            response.success, response.message = self._guard.disarm()
            self._tick()
        self.get_logger().info(response.message)
        return response

    def _on_resume(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        with self._lock:
            response.success, response.message = self._guard.resume()
        self.get_logger().info(response.message)
        return response

    async def _on_preflight(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        checks = await self._checks()
        response.success = all(check.ok for check in checks)
        response.message = preflight.report(checks)
        return response

    async def _checks(self) -> list[Check]:
        """Make every check before arming."""
        of_policy = self._policy_checks() if self._policy_expected() else []
        checks = await self._graph.checks(
            self._commands.type, self._commands.enabled, self._with_y(), self._params.arm_at_start
        )
        return [*checks, *of_policy]

    def _policy_expected(self) -> bool:
        """Whether a policy proposes, or is expected to: an armed guard would drive by it."""
        topic = self.resolve_topic_name('policy/cmd_vel')
        return self._params.expect_policy or self.count_publishers(topic) > 0

    def _policy_checks(self) -> list[Check]:
        report = self._policy
        if report is None:
            return [preflight.check_inference(None, '', set())]
        age_s = (steady_ns() - report.sent_ns) / NANOSECONDS
        health = report.status.health
        fault = health.sentence if health.level == Level.FAULT else ''
        # The checks of a node that has fallen silent may no longer hold.
        checks = report.checks if age_s <= STATUS_MAX_AGE_S else []
        return [preflight.check_inference(age_s, fault, {one.name for one in checks}), *checks]

    def _with_y(self) -> bool:
        """Whether a command can have a linear_y; the policy's node reports its axes."""
        axes = None if self._policy is None else self._policy.status.axes
        return self._guard.limits.max_velocity[1] > 0 and (
            not self._params.expect_policy or strafing.drives_linear_y(axes)
        )

    @staticmethod
    def _check_parameters(changes: list[Parameter]) -> SetParametersResult:
        try:
            _overrides(changes)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _set_parameters(self, changes: list[Parameter]) -> None:
        for names in _overrides(changes):
            self._override = names

    def _watch_graph(self) -> None:
        """Watch, armed or not, who publishes the guard's inputs and who else commands the base."""
        seen = self._graph.watch()
        if self._commands.enabled:
            self._choose_type()
        with self._lock:
            self._guard.graph_fault(*self._graph_fault(seen))
            self._watch_estop(seen)
            self._watch_unchecked(seen.arena)

    def _graph_fault(self, seen: Seen) -> tuple[StopReason, str]:
        """Return why the nodes around the guard forbid driving; ``NONE`` and '' if none does."""
        if self._commands.enabled and not seen.rival.ok and seen.rival.name not in self._override:
            return StopReason.COMPETING_PUBLISHER, seen.rival.sentence
        for problem in preflight.input_problems(seen.inputs):
            if problem.check not in self._override:
                return problem.reason, problem.sentence
        return StopReason.NONE, ''

    def _watch_estop(self, seen: Seen) -> None:
        """Disarm when a publisher of the e-stop has disappeared that was there while armed."""
        if self._guard.armed:
            self._estop.watch.rely_on(seen.inputs[ESTOP].publishers, alone=False)
        lost = self._estop.watch.lost(seen.estops)
        if lost and self._guard.armed:
            self._guard.disarm(
                StopReason.ESTOP_LOST, f'the e-stop of {lost} has disappeared: restart it'
            )
            self._tick()

    def _watch_unchecked(self, arena: Check) -> None:
        """Disarm when an unknown base listens in the arena, or an unchecked policy proposes."""
        if not self._guard.armed:
            return
        if self._params.arm_at_start and not arena.ok and arena.name not in self._override:
            self._guard.disarm(StopReason.UNKNOWN_SUBSCRIBER, arena.sentence)
            self._tick()
            self.get_logger().warning(arena.line)
        elif (
            self._arming.without_policy
            and 'inference' not in self._override
            and self._policy_expected()
        ):
            self._guard.disarm(
                StopReason.UNCHECKED_POLICY,
                'a policy began to propose after arming, and was not checked',
            )
            self._tick()

    def _choose_type(self) -> None:
        """Publish the type that is subscribed to; no change while armed, unless in simulation."""
        if self._params.cmd_vel_type != AUTO or (
            self._guard.armed and not self._params.arm_at_start
        ):
            return
        wanted = preflight.select_cmd_vel_type(self._graph.listeners())
        if wanted != self._commands.type:
            with self._lock:
                self._commands.set_type(wanted)
            self.get_logger().info(f'publishing {wanted}, the type that is subscribed to')

    def _tick(self) -> None:
        with self._lock:
            decision = self._guard.update(self.get_clock().now().nanoseconds, steady_ns())
            self._commands.follow(decision)
            self._status.publish(
                GuardStatus(
                    decision.state,
                    self._guard.armed,
                    decision.source,
                    decision.stop_reason,
                    decision.sentence,
                    decision.twist,
                    decision.age_s,
                    self._params.dry_run,
                    self._arming.refused,
                )
            )


def _overrides(changes: list[Parameter]) -> list[frozenset[str]]:
    """Return the new values of the parameter override in a set of changes, checked."""
    return [
        preflight.parse_override(change.value or [])
        for change in changes
        if change.name == 'override'
    ]
