"""How each fault is made, from when it can be known of, and how it is undone."""

import math
import os
import signal
import time
from dataclasses import dataclass, field

from geometry_msgs.msg import Twist

from mobile_vla_ros.drill import catalog as drill
from mobile_vla_ros.drill.measure import late_from, silent_from, starved_from
from mobile_vla_ros.nodes.drill import camera
from mobile_vla_ros.nodes.drill.rig import Rig
from mobile_vla_ros.safety.config import GuardConfig
from mobile_vla_ros.types import NANOSECONDS

# What is promised is promised of the default settings, whatever the guard was given.
DEFAULTS = GuardConfig()
PERIOD_NS = round(NANOSECONDS / drill.RATE_HZ)
PROPOSAL_PERIOD_NS = NANOSECONDS // 20
FRAME_LATE_PERIODS = 1.5
SILENT_NS = 200_000_000
PERSON = Twist()
PERSON.linear.x, PERSON.angular.z = 0.7, 0.4
PERSON_S = 0.6
OTHER_INSTRUCTION = 'stop'
# So many that inference has judged some; so often is armed with them.
LATE_FRAMES, LATE_FRAMES_S = 5, 15.0
TRIES, TRY_S = 3, 0.5


@dataclass
class Drive:
    """
    What is known of one drive while it lasts.

    :ivar injected_ns: when the fault was made.
    :ivar until_ns: when it was undone, or what was heard up to then is judged.
    :ivar status: what a node that was ended left, for the table.
    :ivar refusals: what refused each try to arm meanwhile (`drill_judge.Heard`).
    """

    injected_ns: int = 0
    until_ns: int = 0
    status: int | None = None
    refusals: list[tuple[str, ...]] = field(default_factory=list)


class Act:
    """
    One fault. By default it is there at once and known at once.

    :ivar standstill: it is made before the guard is armed.
    :ivar lasts_s: at least so long.
    :ivar waits_for: the nodes on which the stop rests.
    """

    waits_for = ('guard',)
    standstill = False
    lasts_s = 1.0

    def make(self, rig: Rig) -> int:
        """Make the fault; return the moment."""
        raise NotImplementedError

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        """Return from which moment on it could be known of; None when it could at no time."""
        return drive.injected_ns

    def meanwhile(self, rig: Rig, drive: Drive):
        """Do what else belongs to it, when the base has stood for a moment."""

    def undo(self, rig: Rig, drive: Drive):
        """Take the fault away again."""


class Ended(Act):
    """A node gets a signal that ends it."""

    def __init__(self, name: str, number: int):
        self.name, self.number = name, number

    def make(self, rig: Rig) -> int:
        rig.expect_the_end(self.name)
        return rig.signal(self.name, self.number)

    def undo(self, rig: Rig, drive: Drive):
        rig.wait(lambda: rig.ended(self.name) is not None, 3.0)
        drive.status = rig.ended(self.name)


class InferenceEnded(Ended):
    """No proposal comes any more."""

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return silent_from(
            [at for at, *_ in rig.watch.proposals], drive.injected_ns, PROPOSAL_PERIOD_NS
        )


class InferenceStopped(InferenceEnded):
    """Its process stands still, and goes on later."""

    def make(self, rig: Rig) -> int:
        return rig.signal(self.name, signal.SIGSTOP)

    def undo(self, rig: Rig, drive: Drive):
        rig.signal(self.name, signal.SIGCONT)


class Starved(Act):
    """Inference gets what busy loops leave of the CPU."""

    lasts_s = 1.5

    def make(self, rig: Rig) -> int:
        now_ns = time.monotonic_ns()
        rig.starve('inference')
        return now_ns

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return starved_from(
            [(at, image) for at, image, _ in rig.watch.proposals],
            drive.injected_ns,
            PROPOSAL_PERIOD_NS,
            SILENT_NS,
            round(DEFAULTS.observation_max_age_s * NANOSECONDS),
            drive.until_ns,
        )

    def undo(self, rig: Rig, drive: Drive):
        rig.idle()
        try:
            rig.schedule('inference', os.SCHED_OTHER)
        except PermissionError:  # not everybody may go back: it is started anew
            rig.expect_the_end('inference')


class Slow(Act):
    """Every proposal comes 0.8 s late, with the stamp of its image."""

    standstill = True
    lasts_s = 0.6

    def make(self, rig: Rig) -> int:
        rig.propose(slow=True)
        return time.monotonic_ns()

    def undo(self, rig: Rig, drive: Drive):
        rig.propose()


class Camera(Act):
    """The camera's relay does something else, known of with the first frame of the kind."""

    waits_for = ('guard', 'inference')

    def __init__(self, mode: str, lasts_s: float = 1.0):
        self.mode, self.lasts_s = mode, lasts_s

    def make(self, rig: Rig) -> int:
        rig.camera(self.mode)
        rig.until(lambda: self._said(rig, frame=False), 3.0, 'the relay of the camera is silent')
        return self._said(rig, frame=False)[0]

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return next(iter(self._said(rig, frame=True)), None)

    def undo(self, rig: Rig, drive: Drive):
        rig.camera()

    def _said(self, rig: Rig, *, frame: bool) -> list[int]:
        return [
            at for at, mode, sent in list(rig.watch.frames) if mode == self.mode and sent == frame
        ]


class CameraSilent(Camera):
    """No frame comes, for a while or at all."""

    waits_for = ('guard',)

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return frame_missing(rig, drive)


class CameraLate(CameraSilent):
    """Silence at first; then images that are late, with which somebody arms again."""

    def meanwhile(self, rig: Rig, drive: Drive):
        rig.until(
            lambda: len(self._said(rig, frame=True)) >= LATE_FRAMES,
            LATE_FRAMES_S,
            'no late image comes',
        )
        for _ in range(TRIES):
            drive.refusals.append(rig.try_to_arm(TRY_S))
            rig.pause(TRY_S)


class CameraGone(Ended):
    """The process that sends the images is gone without a word."""

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return frame_missing(rig, drive)


class Proposed(Act):
    """The proposals say something else."""

    def __init__(self, speed_mps: float):
        self.speed_mps = speed_mps

    def make(self, rig: Rig) -> int:
        now_ns = time.monotonic_ns()
        rig.propose(self.speed_mps)
        return now_ns

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return next(
            (
                at
                for at, _, speed in list(rig.watch.proposals)
                if at > drive.injected_ns and (speed == self.speed_mps or math.isnan(speed))
            ),
            None,
        )

    def undo(self, rig: Rig, drive: Drive):
        rig.propose()


class Instruction(Act):
    """Another instruction."""

    waits_for = ('guard', 'inference')
    lasts_s = 2.0

    def make(self, rig: Rig) -> int:
        return rig.tell(OTHER_INSTRUCTION)


class Teleop(Act):
    """A person drives."""

    def make(self, rig: Rig) -> int:
        return rig.teleop(PERSON)

    def undo(self, rig: Rig, drive: Drive):
        rig.teleop(None)


class TeleopEnds(Teleop):
    """A person who drove sends nothing any more."""

    lasts_s = 2.0

    def make(self, rig: Rig) -> int:
        rig.teleop(PERSON)
        rig.pause(PERSON_S)
        return rig.teleop(None)

    def seen(self, rig: Rig, drive: Drive) -> int | None:
        return drive.injected_ns + round(DEFAULTS.teleop_timeout_s * NANOSECONDS)


class Estop(Act):
    """The e-stop is pressed."""

    def make(self, rig: Rig) -> int:
        return rig.estop(True)

    def undo(self, rig: Rig, drive: Drive):
        rig.estop(False)


class Clock(Act):
    """The clock that the nodes follow is set."""

    def __init__(self, seconds: int):
        self.seconds = seconds

    def make(self, rig: Rig) -> int:
        return rig.step_clock(self.seconds)

    def undo(self, rig: Rig, drive: Drive):
        rig.step_clock(0)


def frame_missing(rig: Rig, drive: Drive) -> int | None:
    """Return when a frame was half a period late after the fault."""
    sent = [at for at, _, frame in rig.watch.frames if frame]
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
    'estop': Estop(),
    'guard_terminated': Ended('guard', signal.SIGTERM),
    'guard_killed': Ended('guard', signal.SIGKILL),
    'clock_forward': Clock(10),
    'clock_back': Clock(-10),
}
