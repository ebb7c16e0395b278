"""
Breaks a live drive in the arena in every way it knows, and measures how it stops.

    python -m mobile_vla_ros.nodes.drill_node --ros-args -p policy:=FOLDER -p log:=FOLDER

It starts the nodes itself. One line of JSON on standard output a fault (`drill_judge.Row`), as
soon as it is known. Times are of the steady clock, messages are counted from when DDS received
them.
"""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

from rclpy.node import Node

from mobile_vla_ros.drill import catalog as drill
from mobile_vla_ros.drill.cpu_wait import Load
from mobile_vla_ros.drill.judge import Heard, in_words, judge
from mobile_vla_ros.drill.measure import STANDS_MPS, is_zero
from mobile_vla_ros.drill.row import Row, last_of, sure
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.drill.faults import ACTS, DEFAULTS, PERSON, Act, Drive
from mobile_vla_ros.nodes.drill.rig import Rig
from mobile_vla_ros.nodes.drill.watch import Watch
from mobile_vla_ros.nodes.shared.messages import twist_array
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.run import run, work_to_end
from mobile_vla_ros.types import NANOSECONDS

# A network takes seconds to load, more on a busy machine.
START_S, ARM_S, SPEED_S, STAND_S = 90.0, 20.0, 4.0, 3.0
DRIVES_MPS = 0.97 * drill.SPEED_MPS
STEADY_S = 0.2
ZEROS_S = 0.5
# So long a drive that is to go on may take for it, and so long one that is not is watched.
GOES_ON_S, STAYS_S = 3.0, 0.5
REARM_S, REARMS, STARTS = 0.5, 4, 5
# What cannot be told is measured again, so often in all.
ATTEMPTS = 3


class DrillNode(Node):
    """Goes through the faults in a thread, while the executor's thread passes proposals on."""

    def __init__(self):
        super().__init__('drill')
        policy = declare(self, 'policy', '', 'folder of the policy bundle')
        params_file = declare(self, 'params_file', '', 'parameters of guard, inference and arena')
        log = declare(self, 'log', '', "folder of the nodes' logs")
        names = declare(self, 'faults', '', 'names with commas between them; empty for all')
        self._faults = drill.chosen([name for name in names.split(',') if name])
        if not policy or not log:
            raise UserError(
                'the drill needs a policy and a folder for logs',
                got=f'policy {policy!r}, log {log!r}',
            )
        self._watch, self._load = Watch(), Load()
        self._rig = Rig(self, self._watch, Path(log), policy, params_file)
        self._thread = threading.Thread(
            target=work_to_end,
            args=(self, 'drill_node', self._work, self._rig.closing),
            daemon=True,
        )
        self._thread.start()

    def on_exit(self):
        """Leave no process behind."""
        self._rig.closing.set()
        self._thread.join()
        self._rig.close()
        self._watch.close()
        self._load.close()

    def _work(self):
        for clock in (False, True):
            faults = [fault for fault in self._faults if fault.stepped_clock == clock]
            if not faults:
                continue
            self._rig.start(clock=clock)
            for fault in faults:
                print(json.dumps(self._measure(fault).as_dict()), flush=True)
        self.exit_status = 0

    def _measure(self, fault: drill.Fault) -> Row:
        """Return the row of a fault; measured again when nothing could be told."""
        rows = [self._once(fault)]
        while not sure(rows[-1]) and len(rows) < ATTEMPTS:
            rows.append(self._once(fault))
        return last_of(rows)

    def _once(self, fault: drill.Fault) -> Row:
        rig, watch, act = self._rig, self._watch, ACTS[fault.name]
        drive, stops = Drive(), []
        if act.standstill:
            self._begin()
            self._load.follow(rig.pids(*act.waits_for))
            drive.injected_ns = act.make(rig)
            self._rearm()
        else:
            stops = self._drive()
            self._load.follow(rig.pids(*act.waits_for))
            drive.injected_ns = act.make(rig)
        self._let_happen(fault, act)
        act.meanwhile(rig, drive)
        drive.until_ns = time.monotonic_ns()
        late_ns = self._load.late_ns()
        seen_ns = act.seen(rig, drive)
        act.undo(rig, drive)
        if fault.promise in (drill.STOPS, drill.LATE):
            self._see_it_stay(drive.until_ns)
        heard = Heard(
            drive.injected_ns,
            seen_ns,
            drive.until_ns,
            *(list(rows) for rows in (watch.commands, watch.odom, watch.status, watch.health)),
            tuple(twist_array(PERSON).tolist()),
            round(DEFAULTS.takeover_hold_s * NANOSECONDS),
            late_ns,
            tuple(drive.refusals),
        )
        row = judge(fault, heard)
        ended = '' if drive.status is None else f'it ended with status {drive.status}'
        told_ns = drive.until_ns if row.zero_ms is None else seen_ns + round(row.zero_ms * 1e6)
        return replace(
            row,
            note='; '.join(filter(None, (row.note, ended))),
            waited_ms=round(self._load.waited_ns(told_ns) / 1e6, 1),
            stops_before=stops,
        )

    def _begin(self):
        """Stand at the start of the scene with everything alive and proposing."""
        rig, watch = self._rig, self._watch
        rig.revive()
        rig.until(lambda: watch.odom, START_S, 'the arena is silent')
        rig.reset()
        watch.forget()
        self._await_proposals(time.monotonic_ns())
        rig.until(
            lambda: watch.odom and watch.speed < STANDS_MPS,
            STAND_S,
            'the base does not stand at the start',
        )

    def _await_proposals(self, since_ns: int):
        """Wait until something is proposed from an image that was taken after a moment."""
        self._rig.until(
            lambda: any(image > since_ns for _, image, _ in list(self._watch.proposals)),
            START_S,
            'inference did not come back: it proposes nothing',
        )

    def _drive(self) -> list[str]:
        """
        Drive at the drill's speed; return why the guard stopped it before, each time.

        A busy machine may have an image grow too old with nothing broken.
        """
        stops = []
        for _ in range(STARTS):
            self._begin()
            self._rig.arm(ARM_S)
            if self._reaches_speed():
                return stops
            newest = self._watch.status[-1:]
            stops.append(in_words(newest[0][1]) if newest else 'nothing')
        fastest = max((speed for *_, speed in self._watch.odom), default=0.0)
        raise UserError(
            f'the base does not reach {drill.SPEED_MPS:g} m/s',
            got=f'{fastest:.2f} m/s at most; the guard says: {stops[-1]}',
            remedy="give the guard limits of the drill's speed or "
            'more, and the machine less to do',
        )

    def _reaches_speed(self) -> bool:
        """Wait until the base has driven at its speed for a moment; whether it does."""
        watch, since, armed_ns = self._watch, None, time.monotonic_ns()

        def disarmed():
            newest = watch.status[-1:]
            return newest and newest[0][0] > armed_ns and not newest[0][1].armed

        def steady():
            nonlocal since
            if watch.speed < DRIVES_MPS:
                since = None
            elif since is None:
                since = time.monotonic()
            return since is not None and time.monotonic() - since > STEADY_S

        self._rig.wait(lambda: steady() or disarmed(), SPEED_S)
        return steady() and not disarmed()

    def _rearm(self):
        """Arm, and arm again after each fault."""
        for _ in range(REARMS):
            self._rig.arm(ARM_S)
            self._rig.pause(REARM_S)

    def _let_happen(self, fault: drill.Fault, act: Act):
        """
        Wait until the fault has lasted, and for what is promised of it, but not for too long.

        That is a base that has stood for a moment, or one that drives on.
        """
        watch = self._watch
        self._rig.pause(act.lasts_s)
        if fault.promise in (drill.HELD, drill.LETS_GO):
            self._rig.wait(
                lambda: watch.commands and not is_zero(watch.commands[-1][1]), GOES_ON_S
            )
        if fault.promise not in (drill.STOPS, drill.ENDS, drill.LATE, drill.BASE):
            return

        def over():
            zeros = watch.commands and is_zero(watch.commands[-1][1])
            return watch.speed < STANDS_MPS and (zeros or fault.promise == drill.BASE)

        if self._rig.wait(over, STAND_S):
            self._rig.pause(ZEROS_S)

    def _see_it_stay(self, undone_ns: int):
        """Let a moment pass with proposals that could be driven, where there can be any."""
        if self._rig.alive('inference', 'drill_camera'):
            self._await_proposals(undone_ns)
        self._rig.pause(STAYS_S)


def main(args: list[str] | None = None) -> int:
    """Run the drill."""
    return run('drill_node', DrillNode, args=args)
