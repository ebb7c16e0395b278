"""The guard's parameters; one error names everything wrong with them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from rclpy.node import Node

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.safety.config import AfterTakeover, GuardConfig
from mobile_vla_ros.safety.limits import Limits
from mobile_vla_ros.safety.preflight import GUARD_CHECKS, INFERENCE_CHECKS, TYPES, parse_override

AUTO = 'auto'
T = TypeVar('T')


@dataclass(frozen=True)
class GuardParams:
    """All values as given at start; only ``override`` may change afterwards."""

    config: GuardConfig
    cmd_vel_type: str
    frame_id: str
    dry_run: bool
    arm_at_start: bool
    expect_policy: bool
    override: frozenset[str]


class _Declared:
    """Declares parameters one by one and collects the errors."""

    def __init__(self, node: Node):
        self._node = node
        self.errors: list[str] = []

    def __call__(
        self,
        name: str,
        default: Any,
        description: str,
        limits: tuple[float, float] | None = None,
        read_only: bool = True,
    ) -> Any:
        try:
            value = declare(
                self._node, name, default, description, limits=limits, read_only=read_only
            )
        except UserError as error:
            self.errors.append(str(error))
            return default
        if value is None and not isinstance(default, list):
            self.errors.append(f'{name} is an empty list; it is: {description}.')
            return default
        return [] if value is None else value  # an empty list has no type to ROS, and no value

    def attempt(self, make: Callable[[], T], fallback: T) -> T:
        """Return ``make()``; collect its ``UserError`` and return the fallback."""
        try:
            return make()
        except UserError as error:
            self.errors.append(str(error))
            return fallback


def guard_params(node: Node) -> GuardParams:
    """
    Declare the guard's parameters and return them.

    :raises UserError: naming every invalid parameter.
    """
    config, limits, declared = GuardConfig(), Limits(), _Declared(node)
    rate_hz = declared('rate_hz', 20.0, 'commands per second to the base', (10.0, 100.0))
    if not 10.0 <= rate_hz <= 100.0:  # NaN, which ROS lets through
        declared.errors.append(f'rate_hz is {rate_hz}, and must be from 10.0 to 100.0.')
        rate_hz = 20.0
    kind = declared(
        'cmd_vel_type',
        AUTO,
        'type of the commands: twist, twist_stamped, or auto: the type that is subscribed to, '
        'Twist without a subscriber; chosen while not armed',
    )
    if kind not in (AUTO, *TYPES):
        declared.errors.append(
            f'cmd_vel_type is {kind!r}, and must be {AUTO}, {" or ".join(TYPES)}.'
        )
    frame_id = declared('frame_id', 'base_link', 'frame of stamped commands')
    dry_run = declared('dry_run', False, 'decide and report everything, but publish no command')
    arm_at_start = declared(
        'arm_at_start',
        False,
        'arm at start and after faults without a request: for the arena alone. Disarms when '
        'another node subscribes to the commands (override: arm_at_start, for another simulator)',
    )
    expect_policy = declared(
        'expect_policy', False, "require inference's checks too before arming"
    )
    override = declared(
        'override',
        [''],
        'names of checks that do not prevent arming: '
        + ', '.join((*GUARD_CHECKS, *INFERENCE_CHECKS)),
        read_only=False,
    )
    override = declared.attempt(lambda: parse_override(override), frozenset[str]())
    speeds = {
        'max_velocity': declared(
            'max_velocity',
            list(limits.max_velocity),
            'speed limits [x, y, theta] in m/s, m/s, '
            'rad/s; 0.0 for an axis that the base does not have',
        ),
        'max_planar_speed_mps': declared(
            'max_planar_speed_mps',
            limits.max_planar_speed_mps,
            'limit of the planar speed, m/s',
            (0.01, 10.0),
        ),
        'max_acceleration': declared(
            'max_acceleration',
            list(limits.max_acceleration),
            'acceleration limits [x, y, theta] in m/s^2, m/s^2, rad/s^2',
        ),
        'stop_distance_m': declared(
            'stop_distance_m',
            limits.stop_distance_m,
            'limits the planar speed such that the base stops within this distance, m; '
            '0.0: no such limit',
            (0.0, 100.0),
        ),
        'base_deceleration_mps2': declared(
            'base_deceleration_mps2',
            limits.base_deceleration_mps2,
            'deceleration of the base at a zero command, m/s^2',
            (0.01, 50.0),
        ),
    }
    limits = declared.attempt(lambda: Limits(**speeds), limits)
    times = {
        'observation_max_age_s': declared(
            'observation_max_age_s',
            config.observation_max_age_s,
            'maximum age of the image that a command comes from, seconds',
            (0.02, 10.0),
        ),
        'proposal_timeout_s': declared(
            'proposal_timeout_s',
            config.proposal_timeout_s,
            'timeout of proposals once they have begun, seconds',
            (0.02, 10.0),
        ),
        'stamp_tolerance_s': declared(
            'stamp_tolerance_s',
            config.stamp_tolerance_s,
            'how far a stamp may lie in the future, seconds',
            (0.0, 1.0),
        ),
        'teleop_timeout_s': declared(
            'teleop_timeout_s',
            config.teleop_timeout_s,
            "timeout of a person's command, seconds",
            (0.05, 5.0),
        ),
        'takeover_hold_s': declared(
            'takeover_hold_s',
            config.takeover_hold_s,
            "how long the policy is held after a person's last command at least, seconds; three "
            'times the interval between commands where that is longer',
            (0.05, 60.0),
        ),
        'estop_timeout_s': declared(
            'estop_timeout_s',
            config.estop_timeout_s,
            'timeout of the e-stop, seconds: for a button that sends continuously; 0.0: none',
            (0.0, 60.0),
        ),
    }
    after_takeover = declared(
        'after_takeover',
        config.after_takeover.value,
        'after a takeover: resume (the policy drives on after the hold), or stay_stopped (until '
        'guard/resume is called, or it is disarmed and armed)',
    )
    if after_takeover not in [*AfterTakeover]:
        declared.errors.append(
            f'after_takeover is {after_takeover!r}, and must be {" or ".join(AfterTakeover)}.'
        )
        after_takeover = config.after_takeover
    zero_while_disarmed = declared(
        'zero_while_disarmed',
        False,
        'command zero as long as the guard is disarmed: for a base that needs a stream of '
        'commands; otherwise it is silent once the base stands',
    )
    config = declared.attempt(
        lambda: GuardConfig(
            limits=limits,
            period_s=1.0 / rate_hz,
            max_tick_s=2.0 / rate_hz,
            disarm_on_fault=not arm_at_start,
            after_takeover=AfterTakeover(after_takeover),
            zero_while_disarmed=zero_while_disarmed,
            **times,
        ),
        config,
    )
    if declared.errors:
        raise UserError('the guard does not start: ' + ' '.join(declared.errors).rstrip('.'))
    return GuardParams(config, kind, frame_id, dry_run, arm_at_start, expect_policy, override)
