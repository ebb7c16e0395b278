"""The drill's measures: what counts as a stop, from when, how far, and how certain it is."""

import json
import math
import os
import subprocess
import sys

import pytest

from mobile_vla_ros.drill import measure
from mobile_vla_ros.drill.catalog import FAULTS, LATE, STOPS, chosen, nodes
from mobile_vla_ros.drill.cpu_wait import Load
from mobile_vla_ros.drill.judge import DriveLog, judge
from mobile_vla_ros.drill.row import Row, in_short, last_of, sure
from mobile_vla_ros.drill.table import foot, kept, markdown, table
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.safety.status import GuardStatus, State, StopReason
from ros_helpers import wait_until

MS = 1_000_000
BY_NAME = {fault.name: fault for fault in FAULTS}
OLD, SILENT = StopReason.OBSERVATION_OLD, StopReason.POLICY_SILENT
FROZEN, ESTOP = StopReason.CAMERA_FROZEN, StopReason.ESTOP
PERSON = (0.7, 0.0, 0.0, 0.0, 0.0, 0.4)


def twist(x: float = 0.0, turn: float = 0.0) -> tuple[float, ...]:
    return (x, 0.0, 0.0, 0.0, 0.0, turn)


def commands(*speeds: float, step_ms: int = 50) -> list:
    """Return a command every 50 ms from 0 on."""
    return [(number * step_ms * MS, twist(speed)) for number, speed in enumerate(speeds)]


def report(state: str, reason: StopReason = StopReason.NONE, source='none', armed=False):
    """Return a report of the guard; its sentence is for people only."""
    words = '' if reason == StopReason.NONE else f'because of {reason.value}'
    return GuardStatus(State(state), armed, source, reason, words)


def reports(*reasons, at: int = 30, state: str = 'fault', armed: bool = False) -> list:
    """Return a report of the guard for each reason, from a moment in ms on."""
    return [
        ((at + number) * MS, report(state, reason, armed=armed))
        for number, reason in enumerate(reasons)
    ]


AFTER = reports(OLD, at=2100, state='disarmed')


def drive(
    speeds=(),
    *,
    injected=0,
    seen=0,
    until=2000,
    odom=(),
    status=(),
    health=(),
    late=0,
    sent=None,
    why=None,
    after=AFTER,
    refusals=(),
) -> DriveLog:
    """Return the log of a drive; times in ms; ``why``: the guard's stop reason."""
    return DriveLog(
        injected * MS,
        None if seen is None else seen * MS,
        until * MS,
        sent or commands(*speeds),
        list(odom),
        [*(reports(why, at=injected + 1) if why else ()), *status, *after],
        list(health),
        PERSON,
        1000 * MS,
        late * MS,
        refusals,
    )


def test_zero_counts_from_the_first_of_the_last_zeros():
    """A zero in between is not the stop."""
    rows = commands(1.0, 0.0, 1.0, 0.5, 0.0, 0.0)
    assert measure.zero_from(rows, -1) == 200 * MS
    assert measure.zero_from(rows, -1, 60 * MS) == 50 * MS


@pytest.mark.parametrize('speeds', [(), (1.0,), (0.0, 0.0, 0.3), (0.0, math.nan)])
def test_a_command_that_is_not_zero_at_the_end_is_no_stop(speeds):
    """Nor is silence: a base may hold the last command forever."""
    assert measure.zero_from(commands(*speeds), -1) is None


def test_zero_is_zero_on_every_axis():
    """A turn on the spot is a movement, however small."""
    assert measure.zero_from([(1, twist(0.0, 1e-9))], 0) is None


def test_nan_is_the_largest_speed():
    """A NaN must not hide behind a comparison."""
    assert measure.largest(commands(0.5, math.nan, 0.2), -1) == math.inf
    assert measure.largest(commands(0.5, 0.2), 0) == 0.2


def test_a_gap_begins_with_the_last_command_before_the_fault():
    """Silence after the last command is none: other measures show a guard that ended."""
    rows = [(at, twist()) for at in (0, 500, 900, 1000, 1700)]
    assert measure.longest_gap(rows, 600) == 700
    assert measure.longest_gap(rows, 600, 1000) == 400
    assert measure.longest_gap(rows[:1], 600) == 0


def test_rolled_is_the_length_of_the_path_from_the_fault_on():
    """From between two poses, there and back, until the first standstill."""
    odom = [
        (0, 0.0, 0.0, 1.0),
        (100, 1.0, 0.0, 1.0),
        (200, 1.0, 1.0, 1.0),
        (300, 1.0, 0.5, 0.0),
        (400, 9.0, 0.0, 0.0),
    ]
    assert measure.rolled(odom, 50) == (pytest.approx(0.5 + 1.0 + 0.5), 300)
    assert measure.rolled(odom[:3], 50) == (pytest.approx(1.5), None)


def test_a_frame_is_late_half_a_period_after_it_was_due():
    """Counted from the last one in time, also from one before the fault."""
    frames = [0, 100, 200]
    assert measure.late_from(frames, 230, 100, 1.5, 1000) == 350
    assert measure.late_from(frames, 400, 100, 1.5, 1000) == 400  # it was late before the fault
    assert measure.late_from([0, 100, 200, 300], 90, 100, 1.5, 320) is None
    assert measure.late_from([0, 100, 400], 90, 100, 1.5, 400) == 250  # 3 periods late, it came


def test_starving_shows_as_silence_or_as_old_images():
    """Whichever is first; a gap within the guard's timeout is none."""
    period, silent, age = 50, 200, 300

    def seen(proposals, until):
        return measure.starved_from(proposals, 100, period, silent, age, until)

    assert seen([(100, 60), (150, 110), (250, 210)], 300) is None
    assert seen([(100, 60), (150, 110)], 600) == 200  # silent, known a period after
    assert seen([(100, 60), (150, 60), (200, 60), (250, 60), (300, 60), (380, 60)], 420) == 360
    assert seen([(90, 60), (100, 60), (180, 150), (200, 190)], 220) is None


def test_a_stop_is_measured_from_when_the_fault_is_observable():
    """Not from the fault, which may not be observable yet; an earlier stop is negative."""
    rows = (1.0,) * 5 + (0.0,) * 5
    row = judge(BY_NAME['camera_silent'], drive(rows, injected=10, seen=150, why=OLD))
    assert (row.zero_ms, row.observable_ms, row.kept) == (100.0, 140.0, True)
    assert judge(BY_NAME['camera_silent'], drive(rows, injected=10, seen=300)).zero_ms == -50.0


@pytest.mark.parametrize(
    ('name', 'why', 'is_kept'),
    [
        ('camera_frozen', FROZEN, True),
        ('camera_frozen', OLD, None),
        ('camera_black', OLD, None),
        ('camera_black', None, None),
        ('proposal_nan', SILENT, None),
        ('clock_back', OLD, None),
        ('estop', OLD, None),
        ('clock_back', StopReason.OBSERVATION_FUTURE, True),
        ('inference_killed', SILENT, True),
        ('inference_killed', OLD, True),
        ('inference_killed', FROZEN, None),
    ],
)
def test_a_stop_for_another_reason_proves_nothing(name, why, is_kept):
    """On a busy machine an image is soon too old: that once kept the row of a frozen camera."""
    row = judge(BY_NAME[name], drive((1.0, 0.0, 0.0), why=why))
    assert (row.kept, sure(row)) == (is_kept, is_kept is not None)
    if why and not is_kept:
        assert why.value in row.guard
        assert 'another reason' in row.note
    late = judge(BY_NAME[name], drive((1.0,) * 9 + (0.0,), why=why))
    assert late.kept is False  # whatever the reason


def test_every_fault_with_a_guard_left_has_a_stop_reason():
    """All but those after which no guard is left to report."""
    assert [fault.name for fault in FAULTS if not fault.because] == [
        'guard_terminated',
        'guard_killed',
    ]


@pytest.mark.parametrize(
    'name', [fault.name for fault in FAULTS if fault.promise in (STOPS, LATE)]
)
def test_a_base_that_drives_again_by_itself_is_broken(name):
    """When the fault is gone nobody has armed: only zeros, and a disarmed guard."""
    why, rest = BY_NAME[name].because[0], [0.0] * 41  # up to 2 s, when it is undone

    def judged(after, tail=(0.0, 0.0)):
        return judge(
            BY_NAME[name],
            drive((1.0, *rest, *tail), why=why, after=after, refusals=((OLD.value,),)),
        )

    assert judged(AFTER).kept is True
    drives = judged(AFTER, (0.0, 0.1, 0.0))
    assert (drives.kept, sure(drives)) == (False, True)
    assert 'drove again by itself' in drives.note
    armed = judged(reports(StopReason.NO_PROPOSAL, at=2100, state='waiting', armed=True))
    assert (armed.kept, sure(armed)) == (False, True)
    assert 'was armed' in armed.note
    assert judged([]).kept is None  # a guard that reports nothing proves nothing
    never = judge(BY_NAME[name], drive((1.0,) * 50, why=why))
    assert 'again' not in never.note  # it had not stopped


def test_late_images_are_refused_whoever_arms():
    """Not only the silence before the first of them; for their age, every time."""
    late = BY_NAME['camera_late']

    def judged(*refusals, speeds=()):
        return judge(late, drive((1.0, 0.0, 0.0, *speeds), why=OLD, refusals=refusals))

    old = (OLD.value,)
    camera_old = ('inference', StopReason.CAMERA_STAMP_OLD.value)
    assert judged(camera_old, old).kept is True
    assert StopReason.CAMERA_STAMP_OLD.value in judged(camera_old).note
    for nothing in ((), ((),), (old, ()), ((SILENT.value,),)):
        assert judged(*nothing).kept is None
    assert judged(old, speeds=(0.1,)).kept is False
    assert judged(old, speeds=(0.0,) * 9 + (0.1, 0.0)).kept is False


def test_a_stop_that_is_late_or_missing_is_broken():
    """251 ms is; so is a command that never became zero, and silence."""
    late = [(0, twist(1.0)), (251 * MS, twist())]
    assert judge(BY_NAME['estop'], drive(sent=late)).kept is False
    assert judge(
        BY_NAME['estop'],
        drive(sent=[(1, twist(1.0)), (250 * MS, twist())], why=ESTOP),
    ).kept
    never = judge(BY_NAME['estop'], drive((1.0,) * 9))
    assert (never.kept, never.zero_ms) == (False, None)
    assert 'not zero' in never.note
    dead = judge(BY_NAME['guard_terminated'], drive((1.0,), injected=10))
    assert dead.kept is False
    assert 'no command' in dead.note


def test_ten_times_the_limit_must_be_limited_and_not_stopped():
    """Speed within the limits; a base that stands proves nothing."""
    large, on = BY_NAME['proposal_large'], reports(StopReason.NONE, state='driving')
    assert judge(large, drive((1.0, 1.0, 1.0), status=on)).kept is True
    assert judge(large, drive((1.0, 1.01, 1.0), status=on)).kept is False
    assert judge(large, drive((1.0, 0.0, 0.0), status=on)).kept is False
    for stopped in ((1.0, 1.0, 0.0), (0.0, 0.0, 0.0)):
        assert judge(large, drive(stopped, why=OLD)).kept is None


def test_a_slow_policy_must_have_been_refused_not_absent():
    """All zeros because nobody was armed would be an empty promise."""
    slow = BY_NAME['inference_slow']
    assert judge(slow, drive((0.0,) * 5, why=OLD)).kept is True
    assert judge(slow, drive((0.0, 0.0, 0.1, 0.0), why=OLD)).kept is False
    assert judge(slow, drive((0.0,) * 5)).kept is None
    assert judge(slow, drive(())).kept is None
    assert judge(slow, drive((0.0, 0.1))).kept is False
    assert judge(slow, drive((0.0,) * 5, why=SILENT)).kept is None


def test_a_plan_of_an_earlier_instruction_is_not_played_on():
    """Zero first; and only zeros before inference reports that it proposes again."""
    rows = (1.0, 1.0, 0.0, 0.0, 0.1, 0.2)
    instruction = BY_NAME['instruction']
    on = drive(
        rows,
        health=[(90 * MS, False), (180 * MS, True)],
        status=reports(StopReason.NEW_INSTRUCTION, state='waiting'),
    )
    assert judge(instruction, on).kept is True
    for health in ([(90 * MS, False), (220 * MS, True)], [(180 * MS, True)], []):
        early = judge(instruction, drive(rows, health=health))
        assert (early.kept, early.note) == (False, 'it went on without a new plan')
        assert sure(early)
    # Two threads receive the command and the report of inference, one of them 40 ms late.
    order = judge(instruction, drive(rows, health=[(90 * MS, False), (220 * MS, True)], late=40))
    assert (order.kept, sure(order)) == (False, False)
    assert judge(instruction, drive((1.0,) * 9)).kept is False


@pytest.mark.parametrize('name', ['instruction', 'teleop_lets_go'])
def test_a_drive_that_does_not_go_on_is_not_kept(name):
    """The promise is that the hold ends; a drive that a fault ended is undecided."""
    stays = judge(
        BY_NAME[name],
        drive((1.0,) + (0.0,) * 39, status=reports(BY_NAME[name].because[0], state='waiting')),
    )
    assert (stays.kept, sure(stays)) == (False, True)
    assert 'did not go on' in stays.note
    ended = judge(
        BY_NAME[name],
        drive(
            (1.0,) + (0.0,) * 39,
            status=[*reports(BY_NAME[name].because[0], state='waiting'), *reports(OLD, at=90)],
        ),
    )
    assert (ended.kept, sure(ended)) == (None, False)
    assert OLD.value in ended.note


def test_a_person_s_own_command_must_be_published():
    """Not a command on the way to it."""
    rows = [(50 * MS, twist(0.9, 0.2)), (100 * MS, PERSON)]
    teleop = BY_NAME['teleop']
    status = [(60 * MS, report('teleop', source='takeover'))]
    row = judge(teleop, drive(sent=rows, status=status))
    assert (row.kept, row.zero_ms) == (True, 100.0)
    assert judge(teleop, drive(sent=rows[:1], status=status)).kept is False
    ended = judge(teleop, drive(sent=rows[:1], why=OLD))  # before they took over
    assert (ended.kept, sure(ended)) == (None, False)
    mixed = judge(teleop, drive(sent=[*rows, (150 * MS, twist(1.0))], status=status))
    assert (mixed.kept, sure(mixed)) == (False, True)
    silent = judge(teleop, drive(sent=[*rows, (150 * MS, twist())], status=status))
    assert silent.kept is None
    assert (
        judge(teleop, drive(sent=rows, status=reports(StopReason.NONE, state='driving'))).kept
        is None
    )


def test_what_has_to_be_seen_on_the_graph_may_take_a_second():
    """And no longer; the other promises are 250 ms."""
    for zeros_at, expected in ((12, True), (22, False)):
        speeds = (1.0,) * zeros_at + (0.0,) * 30
        why = StopReason.COMPETING_INPUT
        assert judge(BY_NAME['second_policy'], drive(speeds, why=why)).kept is expected
        assert judge(BY_NAME['estop'], drive(speeds, why=StopReason.ESTOP)).kept is False


def test_after_a_person_the_policy_stays_out_until_resume():
    """Zero up to resume, 1 s after the last message, and the policy only then."""
    on = (1.0,) * 7 + (0.0,) * 14 + (0.5,) * 3  # zero at 350 ms, on at 1050 ms
    row = judge(
        BY_NAME['teleop_lets_go'],
        drive(
            on,
            injected=0,
            seen=300,
            status=[
                (5 * MS, report('teleop', source='takeover')),
                *reports(StopReason.TELEOP_SILENT, at=310, state='teleop'),
            ],
        ),
    )
    assert (row.kept, row.zero_ms) == (True, 50.0)
    assert '50 ms after resume' in row.note
    early = (1.0,) * 7 + (0.0,) * 12 + (0.5,) * 5
    assert judge(BY_NAME['teleop_lets_go'], drive(early, injected=0, seen=300)).kept is False


def test_a_base_without_a_timeout_is_reported():
    """After a killed guard only the base can stop; the note has the time that it took."""
    stops = [
        (0, 0.0, 0.0, 1.0),
        (500 * MS, 0.5, 0.0, 1.0),
        (600 * MS, 0.6, 0.0, 0.5),
        (900 * MS, 0.7, 0.0, 0.0),
    ]
    row = judge(BY_NAME['guard_killed'], drive((1.0, 1.0), injected=60, odom=stops))
    assert row.kept is True
    assert '0.55 s after the last command' in row.note
    rolls = judge(BY_NAME['guard_killed'], drive((1.0, 1.0), injected=60, odom=stops[:2]))
    assert rolls.kept is False
    assert 'no timeout' in rolls.note


def test_a_fault_that_could_not_be_made_is_undecided():
    """A machine with many cores may starve no process."""
    row = judge(BY_NAME['inference_starved'], drive((1.0, 0.0), seen=None))
    assert (row.kept, sure(row)) == (None, False)
    assert not kept([row.as_dict()])


@pytest.mark.parametrize(
    ('zero', 'late', 'waited', 'is_kept', 'certain'),
    [
        (100.0, 20.0, 900.0, True, True),
        (240.0, 20.0, 0.0, True, False),
        (260.0, 20.0, 0.0, False, False),
        (300.0, 20.0, 0.0, False, True),
        (400.0, 20.0, 200.0, False, False),
        (500.0, 20.0, 200.0, False, True),
        (None, 500.0, 500.0, False, True),
    ],
)
def test_a_busy_machine_can_leave_a_verdict_undecided(zero, late, waited, is_kept, certain):
    """Kept with the drill's lateness added; broken with the nodes' waiting taken off."""
    row = Row('estop', '', '', '', is_kept, zero_ms=zero, late_ms=late, waited_ms=waited)
    assert sure(row) is certain


def test_a_lucky_attempt_lists_the_results_before_it():
    """Kept after broken shows in the row's note, and beside its mark."""
    broken = Row('estop', 'e', '', '', False, zero_ms=312.0, waited_ms=200.0)
    other = Row('estop', 'e', '', '', None, zero_ms=90.0, guard='too old', note='another reason')
    row = last_of([broken, other, Row('estop', 'e', '', '', True, zero_ms=100.0, note='so')])
    assert (row.kept, row.attempts) == (True, 3)
    assert row.note == (
        'so; before: broken (312 ms) while a node waited 200 ms for a CPU, too old; another reason'
    )
    assert 'kept (attempt 3)' in table([row.as_dict()])
    assert last_of([row]).attempts == 1


def test_what_no_attempt_decides_is_undecided_and_no_success():
    """With the result of the last one, and equal results only once."""
    rows = [Row('estop', 'e', '', '', False, zero_ms=312.0, waited_ms=200.0)] * 3
    row = last_of(rows)
    assert (row.kept, row.note) == (None, in_short(rows[0]))
    near = last_of([Row('estop', 'e', '', '', True, zero_ms=245.0, late_ms=20.0)])
    assert (near.kept, near.note) == (None, 'kept (245 ms) with the drill itself 20 ms late')
    assert not kept([row.as_dict()])


def test_waiting_for_a_cpu_is_measured():
    """Of a process that shares one core with two busy ones."""
    code = 'import time\nend = time.monotonic() + 5\nwhile time.monotonic() < end: pass'
    processes = [
        subprocess.Popen([sys.executable, '-c', code], preexec_fn=_on_one_core) for _ in range(3)
    ]
    load = Load()
    try:
        load.follow({'one': processes[0].pid})
        wait_until(lambda: load.waited_ns(2**62) > 50 * MS, what='the wait for a CPU')
        load.follow({'gone': 2**22 + 1})
        assert load.waited_ns(2**62) == 0
    finally:
        load.close()
        for process in processes:
            process.kill()
            process.wait()


def _on_one_core():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def test_the_guard_s_first_report_after_the_fault_is_quoted():
    """Not the report before it, nor that of being disarmed afterwards."""
    row = judge(
        BY_NAME['estop'],
        drive(
            (1.0, 0.0),
            status=[
                (-5, report('driving')),
                (20 * MS, report('driving', source='policy')),
                (40 * MS, report('estop', ESTOP)),
                (60 * MS, report('disarmed')),
            ],
        ),
    )
    assert row.guard == 'estop: because of estop'


def test_tables_show_every_row_and_how_certain_it_is():
    """Text, Markdown and JSON of the same rows; a broken promise stands out."""
    rows = [
        judge(BY_NAME['estop'], drive((1.0, 0.0), why=ESTOP)).as_dict(),
        {
            **judge(BY_NAME['camera_black'], drive((1.0, 1.0), late=31)).as_dict(),
            'attempts': 2,
            'stops_before': ['fault observation is too old'],
        },
    ]
    assert not kept(rows)
    assert kept(rows[:1])
    text = table(rows)
    assert 'e-stop pressed' in text
    assert [line for line in text.splitlines() if 'BROKEN' in line] == text.splitlines()[2:]
    assert len(markdown(rows).splitlines()) == 4
    assert all(line.count('|') == 8 for line in markdown(rows).splitlines())
    assert '31 ms late' in foot(rows)
    assert 'Measured again' in foot(rows)
    assert 'camera_black (fault observation is too old)' in foot(rows)
    assert json.loads(json.dumps(rows))[0]['fault'] == 'estop'


def test_faults_are_chosen_by_name():
    """Each once, in the given order; the error for a typo names the nearest one."""
    assert [fault.name for fault in chosen(['estop', 'camera_gone', 'estop'])] == [
        'estop',
        'camera_gone',
    ]
    assert len(chosen([])) == len(FAULTS)
    with pytest.raises(UserError, match="mean 'estop'"):
        chosen(['e-stop'])


def test_the_drill_drives_what_a_robot_would_drive():
    """Guard and inference as in drive.launch.py; nothing arms by itself, nothing makes time."""
    specs = {spec.name: spec for spec in nodes('p')}
    assert list(specs) == ['sim', 'drill_camera', 'guard', 'inference']
    assert 'arm_at_start' not in specs['guard'].parameters
    assert specs['guard'].parameters['expect_policy'] is True
    assert specs['sim'].remappings['camera/image_raw'] == 'drill/camera/image_raw'
    assert specs['inference'].remappings['policy/cmd_vel'] == 'drill/policy/cmd_vel'
    assert specs['sim'].parameters['publish_clock'] is False
    assert all(
        spec.parameters['use_sim_time']
        for spec in nodes('p', clock=True)
        if spec.name != 'drill_camera'
    )
