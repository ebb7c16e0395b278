"""Which faults the drill knows, and the nodes that it makes them in."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass

from mobile_vla_ros.bringup.spec import NodeSpec
from mobile_vla_ros.bringup.stacks import DRIVE, SIM
from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.safety.status import State, StopReason

SPEED_MPS = 1.0
PROMISED_MS = 250.0
# A scene whose way straight on from the start is free up to the wall, 4.7 m ahead.
SUITE, TRIAL, RATE_HZ = 'unseen_layouts', 232, 10.0
# The drill passes on what the arena's camera sees and what inference proposes, or something else.
CAMERA = 'drill/camera/image_raw'
PROPOSALS = 'drill/policy/cmd_vel'
# What is promised of a fault.
STOPS, ENDS, LATE, LIMITED, NOTHING, HELD, TAKEN, LETS_GO, BASE = (
    'stops',
    'ends',
    'late',
    'limited',
    'nothing',
    'held',
    'taken',
    'lets_go',
    'base',
)
_ZERO = f'zero in {PROMISED_MS:.0f} ms'
PROMISES = {
    STOPS: f'{_ZERO}, until armed again',
    ENDS: _ZERO,
    LATE: f'{_ZERO}, and nothing else from late images',
    LIMITED: 'within the limits',
    NOTHING: 'no command but zero',
    HELD: f'{_ZERO}, until there is a new plan',
    TAKEN: f'their command in {PROMISED_MS:.0f} ms',
    LETS_GO: f'{_ZERO}, policy after the hold',
    BASE: "stopped by the base's own timeout",
}


@dataclass(frozen=True)
class Fault:
    """
    One thing that goes wrong, or is done, in a drive.

    :param name: as it is asked for.
    :param title: as the table says it.
    :param observable: from which moment on it can be known of.
    :param because: what the guard has to report of the stop (its stop reason, its state or who
        drives is one of these), or the stop was another fault's; empty where nobody is left to
        report anything.
    :param promise: one of ``PROMISES``.
    :param stepped_clock: the nodes take their time from /clock.
    """

    name: str
    title: str
    observable: str
    because: tuple[StopReason | State | str, ...]
    promise: str = STOPS
    stepped_clock: bool = False

    @property
    def promised(self) -> str:
        """What is promised of it, in words."""
        return PROMISES[self.promise]


_LATE_FRAME = "a frame is half a period late (the frame buffer's own tolerance)"
_LATE_PROPOSAL = 'a proposal does not come: one period after the last'
_FIRST = 'the first one arrives'
# Which of them is true first is a matter of milliseconds.
_NO_PROPOSAL = (StopReason.POLICY_SILENT, StopReason.OBSERVATION_OLD)
_NO_IMAGE = (*_NO_PROPOSAL, StopReason.CAMERA_SILENT, StopReason.CHUNK_EXHAUSTED)
# Inference names it, or the guard finds stamps that are ahead of a clock which was set back.
_CLOCK = (
    StopReason.CLOCK_JUMP,
    StopReason.CAMERA_CLOCK_JUMP,
    StopReason.CAMERA_STAMP_FUTURE,
    StopReason.OBSERVATION_FUTURE,
)
FAULTS = tuple(
    Fault(*row)
    for row in (
        ('inference_killed', 'inference SIGKILLed', _LATE_PROPOSAL, _NO_PROPOSAL),
        ('inference_stopped', 'inference SIGSTOPped', _LATE_PROPOSAL, _NO_PROPOSAL),
        (
            'inference_starved',
            'inference gets no CPU',
            'a proposal does not come, or its image has passed the age limit',
            (*_NO_IMAGE, StopReason.CAMERA_STAMP_OLD),
        ),
        (
            'inference_slow',
            '800 ms of inference, from standstill',
            'always',
            (StopReason.OBSERVATION_OLD,),
            NOTHING,
        ),
        ('camera_silent', 'camera silent', _LATE_FRAME, _NO_IMAGE),
        (
            'camera_frozen',
            'camera frozen',
            'the first frame arrives again, with a new stamp',
            (StopReason.CAMERA_FROZEN,),
        ),
        ('camera_late', 'camera 3 s late', _LATE_FRAME, _NO_IMAGE, LATE),
        ('camera_black', 'camera black', _FIRST, (StopReason.CAMERA_DARK,)),
        (
            'camera_stamps',
            'camera stamps that are no time',
            _FIRST,
            (StopReason.CAMERA_STAMP_INVALID,),
        ),
        ('camera_gone', "DDS peer gone: the camera's process SIGKILLed", _LATE_FRAME, _NO_IMAGE),
        ('proposal_nan', 'proposal NaN', _FIRST, (StopReason.PROPOSAL_NOT_FINITE,)),
        ('proposal_infinite', 'proposal infinite', _FIRST, (StopReason.PROPOSAL_NOT_FINITE,)),
        (
            'proposal_large',
            'proposal 10 times the limit (no stop)',
            _FIRST,
            (State.DRIVING,),
            LIMITED,
        ),
        (
            'instruction',
            'instruction changed in mid-drive',
            'it is sent',
            (StopReason.NEW_INSTRUCTION,),
            HELD,
        ),
        ('teleop', 'teleop takes over', 'its first message is sent', ('takeover',), TAKEN),
        (
            'teleop_lets_go',
            'teleop lets go',
            'its last message is teleop_timeout_s old',
            (StopReason.TELEOP_SILENT,),
            LETS_GO,
        ),
        ('estop', 'e-stop pressed', 'it is sent', (StopReason.ESTOP,)),
        ('guard_terminated', 'guard SIGTERMed', 'the signal is sent', (), ENDS),
        ('guard_killed', 'guard SIGKILLed', 'the signal is sent', (), BASE),
        (
            'clock_forward',
            'clock stepped by +10 s',
            'the first message of /clock',
            _CLOCK,
            STOPS,
            True,
        ),
        (
            'clock_back',
            'clock stepped by -10 s',
            'the first message of /clock',
            _CLOCK,
            STOPS,
            True,
        ),
    )
)


def chosen(names: Sequence[str]) -> list[Fault]:
    """
    Return the faults of these names, each once, in the order they are asked for; all for none.

    :raises UserError: for a name that there is not.
    """
    known = {fault.name: fault for fault in FAULTS}
    for name in names:
        if name not in known:
            raise UserError(
                'the drill knows no such fault',
                got=repr(name),
                expected=', '.join(known),
                remedy=did_you_mean(name, known),
            )
    return [known[name] for name in dict.fromkeys(names or known)]


def nodes(
    policy: str | os.PathLike,
    params_file: str = '',
    *,
    clock: bool = False,
) -> list[NodeSpec]:
    """
    Return the arena as the robot, the camera's relay, guard and inference as a drive has them.

    :param policy: the bundle's folder.
    :param params_file: parameters of the user's own, empty for none.
    :param clock: all of them take their time from /clock.
    """
    common = {'params_file': params_file, 'use_sim_time': clock}
    (sim,) = SIM.nodes(suite=SUITE, trial=TRIAL, image_topic=CAMERA, stamped=False, **common)
    sim.parameters.update(
        publish_clock=False,
        use_sim_time=clock,
        camera_rate_hz=RATE_HZ,
        base_speed_mps=SPEED_MPS,
        trial_timeout_s=600.0,
        next_scene_after_s=0.0,
    )
    guard, inference = DRIVE.nodes(policy=str(policy), image_transport='compressed', **common)
    return [
        sim,
        camera(),
        guard,
        dataclasses.replace(
            inference, remappings={**inference.remappings, 'policy/cmd_vel': PROPOSALS}
        ),
    ]


def camera() -> NodeSpec:
    """Return the relay that stands for the camera's driver."""
    return NodeSpec('drill_camera', 'drill_camera')
