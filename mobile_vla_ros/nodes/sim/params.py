"""The parameters of the arena's node and of its trial runner."""

from dataclasses import dataclass

from rclpy.node import Node

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import Judge
from mobile_vla_ros.sim.scene import DIFF, KINDS, OMNI
from mobile_vla_ros.sim.world import BaseLimits
from mobile_vla_ros.types import NANOSECONDS


@dataclass(frozen=True)
class SimParams:
    """Parameters of the arena's node that are fixed at its start."""

    width: int
    height: int
    camera_rate_hz: float
    jpeg_quality: int
    real_time_factor: float
    publish_clock: bool
    stamped: bool
    command_timeout_s: float
    trial_timeout_s: float
    base_speed_mps: float
    next_scene_after_s: float

    @property
    def image_period_ns(self) -> int:
        """Nanoseconds of the arena's time from image to image."""
        return round(NANOSECONDS / self.camera_rate_hz)


@dataclass
class SimControls:
    """
    Parameters of the arena's node that may be set at any time.

    :ivar base: fixed at the start: scenes of every suite are for it.
    """

    suite: str
    trial: int
    paused: bool
    base: str


def sim_params(node: Node) -> SimParams:
    """
    Declare the fixed parameters of the arena's node; return their values.

    :raises UserError: when one has the wrong type, is out of range, or does not fit another.
    """
    params = SimParams(
        width=declare(node, 'width', 224, 'width of the image, pixels', limits=(16, 1920)),
        height=declare(node, 'height', 224, 'height of the image, pixels', limits=(16, 1920)),
        camera_rate_hz=declare(
            node,
            'camera_rate_hz',
            10.0,
            "images per second of the arena's time",
            limits=(1.0, 40.0),
        ),
        jpeg_quality=declare(
            node, 'jpeg_quality', 90, 'quality of the compressed images', limits=(1, 100)
        ),
        real_time_factor=declare(
            node,
            'real_time_factor',
            1.0,
            "speed of the arena's time; other than 1.0 needs publish_clock",
            limits=(0.05, 50.0),
        ),
        publish_clock=declare(
            node, 'publish_clock', False, "publish the arena's time on /clock and stamp with it"
        ),
        stamped=declare(node, 'stamped', False, 'cmd_vel is TwistStamped instead of Twist'),
        command_timeout_s=declare(
            node,
            'command_timeout_s',
            0.5,
            'seconds without a command after which the base stops',
            limits=(0.05, 10.0),
        ),
        trial_timeout_s=declare(
            node,
            'trial_timeout_s',
            Judge().timeout_s,
            'seconds after which an unfinished trial has failed',
            limits=(1.0, 600.0),
        ),
        base_speed_mps=declare(
            node,
            'base_speed_mps',
            BaseLimits().planar,
            'top speed of the base over the floor, m/s',
            limits=(0.1, 5.0),
        ),
        next_scene_after_s=declare(
            node,
            'next_scene_after_s',
            0.0,
            'seconds from the end of a trial to the next scene; 0.0: only on ~/reset',
            limits=(0.0, 60.0),
        ),
    )
    if params.real_time_factor != 1.0 and not params.publish_clock:
        raise UserError(
            "the arena's time cannot run at its own speed without /clock",
            got=f'real_time_factor {params.real_time_factor} without publish_clock',
            remedy='set publish_clock:=true, and use_sim_time:=true on all other nodes',
        )
    return params


def sim_controls(node: Node) -> SimControls:
    """
    Declare the other parameters of the arena's node; return their values.

    :raises UserError: when one has the wrong type or is out of range.
    """
    names = ', '.join(suites.SUITES)
    suite = declare(node, 'suite', 'train', f'family of scenes: {names}', read_only=False)
    base = declare(node, 'base', OMNI, f'{OMNI}, or {DIFF}, which cannot strafe')
    if base not in (OMNI, DIFF):
        raise UserError('unknown base', got=repr(base), expected=f'{OMNI} or {DIFF}')
    return SimControls(
        suite=suites.for_base(suite, base),
        trial=declare(
            node,
            'trial',
            0,
            'scene of the suite that the next ~/reset loads',
            limits=(0, suites.SEEDS_PER_SUITE - 1),
            read_only=False,
        ),
        paused=declare(
            node,
            'paused',
            False,
            'the scene stands still; images and clock go on',
            read_only=False,
        ),
        base=base,
    )


@dataclass(frozen=True)
class RunnerParams:
    """Parameters of the trial runner."""

    suite: str
    first_trial: int
    trials: int
    expert: bool
    correct: bool
    kind: str
    record: bool
    wobble: float
    hold_s: float
    timeout_s: float
    policy_timeout_s: float

    @property
    def records(self) -> bool:
        """Whether trials are recorded."""
        return self.correct or (self.expert and self.record)

    @property
    def drives(self) -> bool:
        """Whether the expert drives, always or in takeovers."""
        return self.expert or self.correct


def runner_params(node: Node) -> RunnerParams:
    """
    Declare the trial runner's parameters; return their values.

    :raises UserError: when one has the wrong type, is out of range, or does not fit another.
    """
    params = RunnerParams(
        suite=declare(node, 'suite', 'train', f'one of {", ".join(suites.SUITES)}'),
        first_trial=declare(
            node,
            'first_trial',
            0,
            'scene of the first trial',
            limits=(0, suites.SEEDS_PER_SUITE - 1),
        ),
        trials=declare(node, 'trials', 1, 'number of trials', limits=(1, 100_000)),
        expert=declare(node, 'expert', False, 'drive as the expert, and record'),
        correct=declare(
            node,
            'correct',
            False,
            'record the policy, and take over as the expert when it goes wrong',
        ),
        kind=declare(
            node, 'kind', '', 'only scenes of this task: ' + ', '.join(KINDS) + '; empty: all'
        ),
        record=declare(node, 'record', True, "record the expert's trials"),
        wobble=declare(
            node, 'wobble', 0.0, "size of the expert's own errors, m/s", limits=(0.0, 0.3)
        ),
        hold_s=declare(
            node,
            'hold_s',
            0.8,
            'seconds that the expert stays at the target before an episode ends',
            limits=(0.0, 10.0),
        ),
        timeout_s=declare(
            node,
            'patience_s',
            20.0,
            'seconds to wait for another node',
            limits=(1.0, 600.0),
        ),
        policy_timeout_s=declare(
            node,
            'policy_patience_s',
            120.0,
            "seconds to wait for the policy's first proposal",
            limits=(1.0, 3600.0),
        ),
    )
    suites.scene(params.suite, params.first_trial + params.trials - 1)
    if params.kind and params.kind not in KINDS:
        raise UserError('unknown task', got=repr(params.kind), expected=', '.join(KINDS))
    if params.correct and params.expert:
        raise UserError(
            'either the expert drives or it corrects a policy', got='expert and correct'
        )
    return params
