"""The faults that the drill can inject, and the nodes of its drive."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass

from mobile_vla_ros.bringup.spec import NodeSpec
from mobile_vla_ros.bringup.stacks import DRIVE, SIM
from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.safety.status import State, StopReason
from mobile_vla_ros.text_table import table

SPEED_MPS = 1.0
PROMISED_MS = 250.0
# The guard looks at the graph four times a second, and believes what it sees twice.
GRAPH_PROMISED_MS = 1000.0
# A scene that is free straight ahead from the start up to the wall, 4.7 m away.
SUITE, TRIAL, RATE_HZ = 'unseen_layouts', 232, 10.0
# The drill relays the arena's images and inference's proposals, unchanged or faulty.
CAMERA = 'drill/camera/image_raw'
PROPOSALS = 'drill/policy/cmd_vel'
# The kinds of promises.
STOPS, GRAPH, ENDS, LATE, LIMITED, NOTHING, HELD, TAKEOVER, RELEASE, BASE = (
    'stops',
    'graph',
    'ends',
    'late',
    'limited',
    'nothing',
    'held',
    'takeover',
    'release',
    'base',
)
_ZERO = f'zero in {PROMISED_MS:.0f} ms'
PROMISES = {
    STOPS: f'{_ZERO}, until armed again',
    GRAPH: f'zero in {GRAPH_PROMISED_MS:.0f} ms, until armed again',
    ENDS: _ZERO,
    LATE: f'{_ZERO}, and nothing else from late images',
    LIMITED: 'within the limits',
    NOTHING: 'no command but zero',
    HELD: f'{_ZERO}, until there is a new plan',
    TAKEOVER: f'their command in {PROMISED_MS:.0f} ms',
    RELEASE: f'{_ZERO}, policy after resume',
    BASE: "stopped by the base's own timeout",
}


@dataclass(frozen=True)
class Fault:
    """
    A fault, or an intervention, in a drive.

    :param name: on the command line.
    :param title: in the table.
    :param observable: from when on it can be known.
    :param because: stop reasons, states or sources, one of which the guard must report, or the
        stop was for another fault; empty if nobody is left to report anything.
    :param promise: one of ``PROMISES``.
    :param stepped_clock: the nodes follow /clock.
    """

    name: str
    title: str
    observable: str
    because: tuple[StopReason | State | str, ...]
    promise: str = STOPS
    stepped_clock: bool = False

    @property
    def promised(self) -> str:
        """Its promise in words."""
        return PROMISES[self.promise]

    @property
    def promised_ms(self) -> float:
        """The time in which its promise has to be kept."""
        return GRAPH_PROMISED_MS if self.promise == GRAPH else PROMISED_MS


_LATE_FRAME = "a frame is half a period late (the frame buffer's own tolerance)"
_LATE_PROPOSAL = 'a proposal does not come: one period after the last'
_FIRST = 'the first one arrives'
_ON_GRAPH = 'it is on the graph'
# Which of them is first is a matter of milliseconds.
_NO_PROPOSAL = (StopReason.POLICY_SILENT, StopReason.OBSERVATION_OLD)
_NO_IMAGE = (*_NO_PROPOSAL, StopReason.CAMERA_SILENT, StopReason.CHUNK_EXHAUSTED)
# Inference reports it, or the guard finds stamps ahead of a clock that was set back.
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
        ('teleop', 'teleop takes over', 'its first message is sent', ('takeover',), TAKEOVER),
        (
            'teleop_lets_go',
            'teleop lets go',
            'its last message is teleop_timeout_s old',
            (StopReason.TELEOP_SILENT,),
            RELEASE,
        ),
        (
            'teleop_unheard',
            'a joystick whose type the guard cannot receive beside the console',
            _ON_GRAPH,
            (StopReason.INPUT_NOT_RECEIVED,),
            GRAPH,
        ),
        (
            'second_policy',
            'a second policy in mid-drive',
            _ON_GRAPH,
            (StopReason.COMPETING_INPUT,),
            GRAPH,
        ),
        ('estop', 'e-stop pressed', 'it is sent', (StopReason.ESTOP,)),
        (
            'estop_lost',
            "the e-stop's publisher disappears",
            'it is no longer on the graph',
            (StopReason.ESTOP_LOST,),
            GRAPH,
        ),
        (
            'guard_stalled',
            'guard SIGSTOPped for 1 s',
            'it continues',
            (StopReason.STALLED,),
        ),
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
    Return the faults of these names, each once, in the given order; all for none.

    :raises UserError: for an unknown name.
    """
    known = {fault.name: fault for fault in FAULTS}
    for name in names:
        if name not in known:
            raise UserError(
                'unknown fault',
                got=repr(name),
                expected=', '.join(known),
                remedy=did_you_mean(name, known),
            )
    return [known[name] for name in dict.fromkeys(names or known)]


def listed(faults: Sequence[Fault]) -> list[dict[str, str]]:
    """Return what `drill --list --json` prints."""
    return [
        {
            'fault': fault.name,
            'title': fault.title,
            'promise': fault.promised,
            'observable': fault.observable,
        }
        for fault in faults
    ]


def text(faults: Sequence[Fault]) -> str:
    """Return what `drill --list` prints."""
    return table((fault.name, f'{fault.title}: {fault.promised}') for fault in faults)


def nodes(
    policy: str | os.PathLike,
    params_file: str = '',
    *,
    clock: bool = False,
) -> list[NodeSpec]:
    """
    Return the nodes of the drive: the arena as the robot, the camera's relay, guard and inference.

    :param policy: the bundle's folder.
    :param params_file: the user's own parameters; empty for none.
    :param clock: all of them follow /clock.
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
    """Return the relay in place of the camera's driver."""
    return NodeSpec('drill_camera', 'drill_camera')
