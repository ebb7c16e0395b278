"""How the drill makes each fault, from when on it is observable, and how it is undone."""

import math
import os
import signal
import time
from dataclasses import dataclass, field

from geometry_msgs.msg import Twist, TwistStamped

from mobile_vla_ros.drill import catalog as drill
from mobile_vla_ros.drill.measure import late_from, silent_from, starved_from
from mobile_vla_ros.nodes.drill import camera
from mobile_vla_ros.nodes.drill.rig import Rig
from mobile_vla_ros.safety.config import GuardConfig
from mobile_vla_ros.types import NANOSECONDS

# The promises hold for the default settings, whatever the guard's are.
DEFAULTS = GuardConfig()
PERIOD_NS = round(NANOSECONDS / drill.RATE_HZ)
PROPOSAL_PERIOD_NS = NANOSECONDS // 20
FRAME_LATE_PERIODS = 1.5
SILENT_NS = 200_000_000
PERSON = Twist()
PERSON.linear.x, PERSON.angular.z = 0.7, 0.4
PERSON_S = 0.6
OTHER_INSTRUCTION = 'stop'
STALL_S = 1.0
# Enough that inference has judged some; then the guard is armed this often.
LATE_FRAMES, LATE_FRAMES_S = 5, 15.0
TRIES, TRY_S = 3, 0.5


@dataclass
class Drive:
    """
    One drive while it lasts.

    :ivar injected_ns: when the fault was made.
    :ivar until_ns: when it was undone; messages up to then are judged.
    :ivar exit_status: of a node that was ended.
    :ivar refusals: of each attempt to arm meanwhile (``judge.DriveLog``).
    :ivar resumed_ns: when a person handed back.
    """

    injected_ns: int = 0
    until_ns: int = 0
    exit_status: int | None = None
    refusals: list[tuple[str, ...]] = field(default_factory=list)
    resumed_ns: int = 0


class Act:
    """
    One fault. By default it happens and is observable at once.

    :ivar standstill: make it before the guard is armed.
    :ivar lasts_s: its least duration.
    :ivar stopped_by: the nodes that have to stop the base.
    """

    stopped_by: tuple[str, ...] = ('guard',)
    standstill = False
    lasts_s = 1.0

    def make(self, rig: Rig) -> int:
        """Make the fault; return the time."""
        raise NotImplementedError

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        """Return from when on it is observable; None: never."""
        return drive.injected_ns

    def meanwhile(self, rig: Rig, drive: Drive) -> None:
        """Do more that belongs to it, after the base has stood for a moment."""

    def undo(self, rig: Rig, drive: Drive) -> None:
        """Undo the fault."""


class Ended(Act):
    """A signal ends a node."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number

    def make(self, rig: Rig) -> int:
        rig.nodes.expect_exit(self.name)
        return rig.nodes.signal(self.name, self.number)

    def undo(self, rig: Rig, drive: Drive) -> None:
        rig.wait(lambda: rig.nodes.exit_status(self.name) is not None, 3.0)
        drive.exit_status = rig.nodes.exit_status(self.name)


class InferenceEnded(Ended):
    """Proposals end."""

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return silent_from(
            [at for at, *_ in rig.watch.received.proposals], drive.injected_ns, PROPOSAL_PERIOD_NS
        )


class InferenceStopped(InferenceEnded):
    """Its process is stopped, and continued later."""

    def make(self, rig: Rig) -> int:
        return rig.nodes.signal(self.name, signal.SIGSTOP)

    def undo(self, rig: Rig, drive: Drive) -> None:
        rig.nodes.signal(self.name, signal.SIGCONT)


class Starved(Act):
    """Inference gets the CPU time that busy loops leave."""

    lasts_s = 1.5

    def make(self, rig: Rig) -> int:
        now_ns = time.monotonic_ns()
        rig.nodes.starve('inference')
        return now_ns

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return starved_from(
            [(at, image) for at, image, _ in rig.watch.received.proposals],
            drive.injected_ns,
            PROPOSAL_PERIOD_NS,
            SILENT_NS,
            round(DEFAULTS.observation_max_age_s * NANOSECONDS),
            drive.until_ns,
        )

    def undo(self, rig: Rig, drive: Drive) -> None:
        rig.nodes.idle()
        try:
            rig.nodes.schedule('inference', os.SCHED_OTHER)
        except PermissionError:  # not every user may return to it: restart the node
            rig.nodes.expect_exit('inference')


class Slow(Act):
    """Every proposal is 0.8 s late, with the stamp of its image."""

    standstill = True
    lasts_s = 0.6

    def make(self, rig: Rig) -> int:
        rig.inputs.propose(slow=True)
        return time.monotonic_ns()

    def undo(self, rig: Rig, drive: Drive) -> None:
        rig.inputs.propose()


class Camera(Act):
    """The camera's relay changes its mode; observable with the first frame of that mode."""

    stopped_by: tuple[str, ...] = ('guard', 'inference')

    def __init__(self, mode: str, lasts_s: float = 1.0) -> None:
        self.mode, self.lasts_s = mode, lasts_s

    def make(self, rig: Rig) -> int:
        rig.inputs.camera(self.mode)
        rig.until(lambda: self._sent(rig, frame=False), 3.0, "the camera's relay is silent")
        return self._sent(rig, frame=False)[0]

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return next(iter(self._sent(rig, frame=True)), None)

    def undo(self, rig: Rig, drive: Drive) -> None:
        rig.inputs.camera()

    def _sent(self, rig: Rig, *, frame: bool) -> list[int]:
        wanted = (self.mode, frame)
        return [at for at, *report in list(rig.watch.received.frames) if (*report,) == wanted]


class CameraSilent(Camera):
    """Frames stop, for a while or for good."""

    stopped_by = ('guard',)

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return frame_missing(rig, drive)


class CameraLate(CameraSilent):
    """Silence at first; then late images, with which somebody arms again."""

    def meanwhile(self, rig: Rig, drive: Drive) -> None:
        rig.until(
            lambda: len(self._sent(rig, frame=True)) >= LATE_FRAMES,
            LATE_FRAMES_S,
            'no late image arrives',
        )
        for _ in range(TRIES):
            drive.refusals.append(rig.try_to_arm(TRY_S))
            rig.pause(TRY_S)


class CameraGone(Ended):
    """The process that sends the images disappears."""

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return frame_missing(rig, drive)


class Proposed(Act):
    """The proposals have another speed."""

    def __init__(self, speed_mps: float) -> None:
        self.speed_mps = speed_mps

    def make(self, rig: Rig) -> int:
        now_ns = time.monotonic_ns()
        rig.inputs.propose(self.speed_mps)
        return now_ns

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return next(
            (
                at
                for at, _, speed in list(rig.watch.received.proposals)
                if at > drive.injected_ns and (speed == self.speed_mps or math.isnan(speed))
            ),
            None,
        )

    def undo(self, rig: Rig, drive: Drive) -> None:
        rig.inputs.propose()


class Instruction(Act):
    """Another instruction."""

    stopped_by = ('guard', 'inference')
    lasts_s = 2.0

    def make(self, rig: Rig) -> int:
        return rig.inputs.instruct(OTHER_INSTRUCTION)


class Teleop(Act):
    """A person drives."""

    def make(self, rig: Rig) -> int:
        return rig.inputs.teleop(PERSON)

    def undo(self, rig: Rig, drive: Drive) -> None:
        rig.inputs.teleop(None)


class TeleopEnds(Teleop):
    """A person who drove stops sending."""

    lasts_s = 2.0

    def make(self, rig: Rig) -> int:
        rig.inputs.teleop(PERSON)
        rig.pause(PERSON_S)
        return rig.inputs.teleop(None)

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return drive.injected_ns + round(DEFAULTS.teleop_timeout_s * NANOSECONDS)

    def meanwhile(self, rig: Rig, drive: Drive) -> None:
        drive.resumed_ns = time.monotonic_ns()
        rig.ask('guard/resume')
        rig.wait_for_motion()


class Guest(Act):
    """Another node publishes an input of the guard."""

    def __init__(self, topic: str, kind: type) -> None:
        self.topic, self.kind = topic, kind

    def make(self, rig: Rig) -> int:
        return rig.inputs.publish_as_guest(self.topic, self.kind)

    def undo(self, rig: Rig, drive: Drive) -> None:
        rig.inputs.dismiss_guest()


class EstopLost(Act):
    """The publisher of the e-stop disappears."""

    def make(self, rig: Rig) -> int:
        return rig.inputs.remove_estop()

    def undo(self, rig: Rig, drive: Drive) -> None:
        rig.inputs.add_estop()


class GuardStalled(Act):
    """The guard stands still, and continues with what arrived meanwhile."""

    def make(self, rig: Rig) -> int:
        rig.nodes.signal('guard', signal.SIGSTOP)
        rig.pause(STALL_S)
        return rig.nodes.signal('guard', signal.SIGCONT)


class Estop(Act):
    """The e-stop is pressed."""

    def make(self, rig: Rig) -> int:
        return rig.inputs.estop(True)

    def undo(self, rig: Rig, drive: Drive) -> None:
        rig.inputs.estop(False)


class Clock(Act):
    """The clock that the nodes follow steps."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def make(self, rig: Rig) -> int:
        return rig.inputs.set_clock(self.seconds)

    def undo(self, rig: Rig, drive: Drive) -> None:
        rig.inputs.set_clock(0)


def frame_missing(rig: Rig, drive: Drive) -> int | None:
    """Return when a frame was half a period late after the fault."""
    sent = [at for at, _, frame in rig.watch.received.frames if frame]
    return late_from(sent, drive.injected_ns, PERIOD_NS, FRAME_LATE_PERIODS, drive.until_ns)


ACTS = {
    'inference_killed': InferenceEnded('inference', signal.SIGKILL),
    'inference_stopped': InferenceStopped('inference', signal.SIGSTOP),
    'inference_starved': Starved(),
    'inference_slow': Slow(),
    'camera_silent': CameraSilent(camera.SILENT),
    'camera_frozen': Camera(camera.FROZEN),
    'camera_late': CameraLate(camera.LATE),
    'camera_black': Camera(camera.BLACK),
    'camera_stamps': Camera(camera.STAMPS),
    'camera_gone': CameraGone('drill_camera', signal.SIGKILL),
    'proposal_nan': Proposed(math.nan),
    'proposal_infinite': Proposed(math.inf),
    'proposal_large': Proposed(10 * drill.SPEED_MPS),
    'instruction': Instruction(),
    'teleop': Teleop(),
    'teleop_lets_go': TeleopEnds(),
    'teleop_unheard': Guest('teleop/cmd_vel', TwistStamped),
    'second_policy': Guest('policy/cmd_vel', TwistStamped),
    'estop': Estop(),
    'estop_lost': EstopLost(),
    'guard_stalled': GuardStalled(),
    'guard_terminated': Ended('guard', signal.SIGTERM),
    'guard_killed': Ended('guard', signal.SIGKILL),
    'clock_forward': Clock(10),
    'clock_back': Clock(-10),
}
