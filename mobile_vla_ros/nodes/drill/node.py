"""
Injects faults into a live drive in the arena, and measures how it stops.

    python -m mobile_vla_ros.nodes.drill_node --ros-args -p policy:=FOLDER -p log:=FOLDER

It starts the nodes itself. Prints one line of JSON per fault (`drill.row.Row`) as soon as it is
judged. Times are of the steady clock; those of messages are when DDS received them.
"""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

from rclpy.node import Node

from mobile_vla_ros.drill import catalog
from mobile_vla_ros.drill.cpu_wait import Load
from mobile_vla_ros.drill.judge import DriveLog, in_words, judge
from mobile_vla_ros.drill.measure import STANDS_MPS, is_zero
from mobile_vla_ros.drill.row import Row, last_of, sure
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.drill.faults import ACTS, PERSON, Act, Drive
from mobile_vla_ros.nodes.drill.rig import Rig
from mobile_vla_ros.nodes.drill.watch import Watch
from mobile_vla_ros.nodes.shared.messages import twist_array
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.run import run, work_to_end

# A network takes seconds to load, more on a busy machine.
START_S, ARM_S, SPEED_S, STAND_S = 90.0, 20.0, 4.0, 3.0
DRIVES_MPS = 0.97 * catalog.SPEED_MPS
STEADY_S = 0.2
ZEROS_S = 0.5
# The timeout of a drive that must go on, and how long one that must not is watched.
GOES_ON_S, STAYS_S = 3.0, 0.5
REARM_S, REARMS, MAX_STARTS = 0.5, 4, 5
# Promises after which the base stands.
STANDS = (catalog.STOPS, catalog.GRAPH, catalog.ENDS, catalog.LATE, catalog.BASE)
# An undecided measurement is repeated, up to this many in all.
MAX_ATTEMPTS = 3


class DrillNode(Node):
    """Injects the faults in a thread, while the executor's thread relays proposals."""

    def __init__(self) -> None:
        super().__init__('drill')
        self.exit_status: int | None = None
        policy = declare(self, 'policy', '', 'folder of the policy bundle')
        params_file = declare(self, 'params_file', '', 'parameters of guard, inference and arena')
        log = declare(self, 'log', '', "folder of the nodes' logs")
        names = declare(self, 'faults', '', 'comma-separated names; empty for all')
        self._faults = catalog.chosen([name for name in names.split(',') if name])
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

    def on_exit(self) -> None:
        """End every process."""
        self._rig.closing.set()
        self._thread.join()
        self._rig.close()
        self._watch.close()
        self._load.close()

    def _work(self) -> None:
        for clock in (False, True):
            faults = [fault for fault in self._faults if fault.stepped_clock == clock]
            if not faults:
                continue
            self._rig.start(clock=clock)
            for fault in faults:
                print(json.dumps(self._measure(fault).as_dict()), flush=True)
        self.exit_status = 0

    def _measure(self, fault: catalog.Fault) -> Row:
        """Return the row of a fault; repeat an undecided measurement."""
        rows = [self._once(fault)]
        while not sure(rows[-1]) and len(rows) < MAX_ATTEMPTS:
            rows.append(self._once(fault))
        return last_of(rows)

    def _once(self, fault: catalog.Fault) -> Row:
        rig, act = self._rig, ACTS[fault.name]
        drive = Drive()
        stops: list[str] = []
        if act.standstill:
            self._begin()
        else:
            stops = self._drive()
        self._load.follow(rig.nodes.pids(*act.stopped_by))
        drive.injected_ns = act.make(rig)
        if act.standstill:
            self._rearm()
        self._let_happen(fault, act)
        act.meanwhile(rig, drive)
        drive.until_ns = time.monotonic_ns()
        late_ns = self._load.late_ns()
        seen_ns = act.seen(rig, drive)
        act.undo(rig, drive)
        if fault.promise in (catalog.STOPS, catalog.GRAPH, catalog.LATE):
            self._wait_after(drive.until_ns)
        received = self._watch.received
        row = judge(
            fault,
            DriveLog(
                injected_ns=drive.injected_ns,
                seen_ns=seen_ns,
                until_ns=drive.until_ns,
                commands=list(received.commands),
                odom=list(received.odom),
                status=list(received.status),
                health=list(received.health),
                person=tuple(twist_array(PERSON).tolist()),
                resumed_ns=drive.resumed_ns,
                late_ns=late_ns,
                refusals=tuple(drive.refusals),
            ),
        )
        ended = '' if drive.exit_status is None else f'it ended with status {drive.exit_status}'
        stopped_ns = drive.until_ns
        if row.zero_ms is not None and seen_ns is not None:
            stopped_ns = seen_ns + round(row.zero_ms * 1e6)
        return replace(
            row,
            note='; '.join(filter(None, (row.note, ended))),
            waited_ms=round(self._load.waited_ns(stopped_ns) / 1e6, 1),
            stops_before=stops,
        )

    def _begin(self) -> None:
        """Stand at the start of the scene with all nodes alive and proposing."""
        rig, watch = self._rig, self._watch
        rig.nodes.revive()
        rig.until(lambda: watch.received.odom, START_S, 'the arena is silent')
        rig.reset()
        watch.clear()
        self._await_proposals(time.monotonic_ns())
        rig.until(
            lambda: watch.received.odom and watch.received.speed < STANDS_MPS,
            STAND_S,
            'the base does not stand at the start',
        )

    def _await_proposals(self, since_ns: int) -> None:
        """Wait for a proposal from an image with a later stamp than ``since_ns``."""
        self._rig.until(
            lambda: any(
                image_ns > since_ns for _, image_ns, _ in list(self._watch.received.proposals)
            ),
            START_S,
            'inference did not come back: it proposes nothing',
        )

    def _drive(self) -> list[str]:
        """
        Drive at the drill's speed; return the guard's report of each stop before that.

        On a busy machine an image may grow too old without any fault.
        """
        stops: list[str] = []
        for _ in range(MAX_STARTS):
            self._begin()
            self._rig.arm(ARM_S)
            if self._reaches_speed():
                return stops
            newest = self._watch.received.status[-1:]
            stops.append(in_words(newest[0][1]) if newest else 'nothing')
        fastest = max((speed for *_, speed in self._watch.received.odom), default=0.0)
        raise UserError(
            f'the base does not reach {catalog.SPEED_MPS:g} m/s',
            got=f'{fastest:.2f} m/s at most; the guard reports: {stops[-1]}',
            remedy="give the guard limits of the drill's speed or more, and reduce the load",
        )

    def _reaches_speed(self) -> bool:
        """Wait until the base has driven at its speed for a moment; return whether it has."""
        received, since_s, armed_ns = self._watch.received, None, time.monotonic_ns()

        def disarmed() -> bool:
            newest = received.status[-1:]
            return bool(newest) and newest[0][0] > armed_ns and not newest[0][1].armed

        def steady() -> bool:
            nonlocal since_s
            if received.speed < DRIVES_MPS:
                since_s = None
            elif since_s is None:
                since_s = time.monotonic()
            return since_s is not None and time.monotonic() - since_s > STEADY_S

        self._rig.wait(lambda: steady() or disarmed(), SPEED_S)
        return steady() and not disarmed()

    def _rearm(self) -> None:
        """Arm, and arm again after each fault."""
        for _ in range(REARMS):
            self._rig.arm(ARM_S)
            self._rig.pause(REARM_S)

    def _let_happen(self, fault: catalog.Fault, act: Act) -> None:
        """
        Wait until the fault has lasted, and, up to a timeout, for the promised result.

        That is a base that has stood for a moment, or one that drives on.
        """
        received = self._watch.received
        self._rig.pause(act.lasts_s)
        if fault.promise == catalog.HELD:
            self._rig.wait_for_motion()
        if fault.promise not in STANDS:
            return

        def over():
            zeros = received.commands and is_zero(received.commands[-1][1])
            return received.speed < STANDS_MPS and (zeros or fault.promise == catalog.BASE)

        if self._rig.wait(over, STAND_S):
            self._rig.pause(ZEROS_S)

    def _wait_after(self, undone_ns: int) -> None:
        """Wait a moment with proposals that could drive, if there can be any."""
        if self._rig.nodes.alive('inference', 'drill_camera'):
            self._await_proposals(undone_ns)
        self._rig.pause(STAYS_S)


def main(args: list[str] | None = None) -> int:
    """Run the drill."""
    return run('drill_node', DrillNode, args=args)
