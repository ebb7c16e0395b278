"""The drill's arithmetic: what counts as stopped, from when, how far, and how certainly."""

import json
import math
import os
import subprocess
import sys

import pytest

from mobile_vla_ros.drill import measure
from mobile_vla_ros.drill.catalog import FAULTS, LATE, STOPS, chosen, nodes
from mobile_vla_ros.drill.cpu_wait import Load
from mobile_vla_ros.drill.judge import Heard, judge
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
    """Return a report of the guard; its sentence is for people and never the same."""
    words = '' if reason == StopReason.NONE else f'because of {reason.value}'
    return GuardStatus(State(state), armed, source, reason, words)


def said(*reasons, at: int = 30, state: str = 'fault', armed: bool = False) -> list:
    """Return a report of the guard for each reason, from a moment in ms on."""
    return [
        ((at + number) * MS, report(state, reason, armed=armed))
        for number, reason in enumerate(reasons)
    ]


AFTER = said(OLD, at=2100, state='disarmed')


def heard(
    speeds=(),
    *,
    injected=0,
    seen=0,
    until=2000,
    odom=(),
    status=(),
    health=(),
    late=0,
    told=None,
    why=None,
    after=AFTER,
    refusals=(),
) -> Heard:
    """Return what was heard of a drive; times in ms; ``why`` is what the guard stopped for."""
    return Heard(
        injected * MS,
        None if seen is None else seen * MS,
        until * MS,
        told or commands(*speeds),
        list(odom),
        [*(said(why, at=injected + 1) if why else ()), *status, *after],
        list(health),
        PERSON,
        1000 * MS,
        late * MS,
        refusals,
    )


def test_zero_counts_from_where_it_stays():
    """A zero in between is not the stop; the first of the last ones is."""
    rows = commands(1.0, 0.0, 1.0, 0.5, 0.0, 0.0)
    assert measure.zero_from(rows, -1) == 200 * MS
    assert measure.zero_from(rows, -1, 60 * MS) == 50 * MS


@pytest.mark.parametrize('speeds', [(), (1.0,), (0.0, 0.0, 0.3), (0.0, math.nan)])
def test_a_command_that_is_not_zero_at_the_end_is_no_stop(speeds):
    """Nor is silence: a base may hold the last command for ever."""
    assert measure.zero_from(commands(*speeds), -1) is None


def test_zero_is_zero_on_every_axis():
    """A turn on the spot is a movement, however small."""
    assert measure.zero_from([(1, twist(0.0, 1e-9))], 0) is None


def test_what_is_no_number_is_the_largest():
    """A NaN must not hide behind a comparison."""
    assert measure.largest(commands(0.5, math.nan, 0.2), -1) == math.inf
    assert measure.largest(commands(0.5, 0.2), 0) == 0.2


def test_a_gap_begins_with_the_last_command_before_the_fault():
    """And silence after the last command is none: a guard that ended is told by other means."""
    rows = [(at, twist()) for at in (0, 500, 900, 1000, 1700)]
    assert measure.longest_gap(rows, 600) == 700
    assert measure.longest_gap(rows, 600, 1000) == 400
    assert measure.longest_gap(rows[:1], 600) == 0


def test_rolled_is_the_way_not_the_distance_and_begins_at_the_fault():
    """From between two places that were heard, there and back, until the first standstill."""
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
    """Counted from the last one that came in time, also from one before the fault."""
    frames = [0, 100, 200]
    assert measure.late_from(frames, 230, 100, 1.5, 1000) == 350
    assert measure.late_from(frames, 400, 100, 1.5, 1000) == 400  # it was late before the fault
    assert measure.late_from([0, 100, 200, 300], 90, 100, 1.5, 320) is None
    assert measure.late_from([0, 100, 400], 90, 100, 1.5, 400) == 250  # 3 periods late, it came


def test_starving_shows_as_silence_or_as_old_images():
    """Whichever comes first; a gap that the guard stands is none."""
    period, silent, age = 50, 200, 300

    def seen(proposals, until):
        return measure.starved_from(proposals, 100, period, silent, age, until)

    assert seen([(100, 60), (150, 110), (250, 210)], 300) is None
    assert seen([(100, 60), (150, 110)], 600) == 200  # silent, known a period after
    assert seen([(100, 60), (150, 60), (200, 60), (250, 60), (300, 60), (380, 60)], 420) == 360
    assert seen([(90, 60), (100, 60), (180, 150), (200, 190)], 220) is None


def test_a_stop_is_measured_from_when_it_could_be_known():
    """Not from the fault, which nobody may be able to see yet; before it is less than nothing."""
    rows = (1.0,) * 5 + (0.0,) * 5
    row = judge(BY_NAME['camera_silent'], heard(rows, injected=10, seen=150, why=OLD))
    assert (row.zero_ms, row.observable_ms, row.kept) == (100.0, 140.0, True)
    assert judge(BY_NAME['camera_silent'], heard(rows, injected=10, seen=300)).zero_ms == -50.0


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
def test_a_stop_for_another_reason_shows_nothing(name, why, is_kept):
    """On a busy machine an image is too old soon: that once kept the row of a frozen camera."""
    row = judge(BY_NAME[name], heard((1.0, 0.0, 0.0), why=why))
    assert (row.kept, sure(row)) == (is_kept, is_kept is not None)
    if why and not is_kept:
        assert why.value in row.guard
        assert 'another reason' in row.note
    late = judge(BY_NAME[name], heard((1.0,) * 9 + (0.0,), why=why))
    assert late.kept is False  # whatever stopped it then


def test_every_stop_that_somebody_can_explain_names_its_reason():
    """But for those after which no guard is left to say anything."""
    assert [fault.name for fault in FAULTS if not fault.because] == [
        'guard_terminated',
        'guard_killed',
    ]


@pytest.mark.parametrize(
    'name', [fault.name for fault in FAULTS if fault.promise in (STOPS, LATE)]
)
def test_a_base_that_drives_again_by_itself_is_broken(name):
    """When the fault is gone nobody has armed: no command but zero, and no guard that is armed."""
    why, rest = BY_NAME[name].because[0], [0.0] * 41  # up to 2 s, when it is undone

    def told(after, tail=(0.0, 0.0)):
        return judge(
            BY_NAME[name],
            heard((1.0, *rest, *tail), why=why, after=after, refusals=((OLD.value,),)),
        )

    assert told(AFTER).kept is True
    drives = told(AFTER, (0.0, 0.1, 0.0))
    assert (drives.kept, sure(drives)) == (False, True)
    assert 'drove again by itself' in drives.note
    armed = told(said(StopReason.NO_PROPOSAL, at=2100, state='waiting', armed=True))
    assert (armed.kept, sure(armed)) == (False, True)
    assert 'was armed' in armed.note
    assert told([]).kept is None  # a guard that says nothing shows nothing
    never = judge(BY_NAME[name], heard((1.0,) * 50, why=why))
    assert 'again' not in never.note  # it had not stopped


def test_late_images_are_refused_whoever_arms():
    """Not only the silence before the first of them; for their age, every time."""
    late = BY_NAME['camera_late']

    def told(*refusals, speeds=()):
        return judge(late, heard((1.0, 0.0, 0.0, *speeds), why=OLD, refusals=refusals))

    old = (OLD.value,)
    camera_old = ('inference', StopReason.CAMERA_STAMP_OLD.value)
    assert told(camera_old, old).kept is True
    assert StopReason.CAMERA_STAMP_OLD.value in told(camera_old).note
    for nothing in ((), ((),), (old, ()), ((SILENT.value,),)):
        assert told(*nothing).kept is None
    assert told(old, speeds=(0.1,)).kept is False
    assert told(old, speeds=(0.0,) * 9 + (0.1, 0.0)).kept is False


def test_a_stop_that_is_late_or_not_there_is_broken():
    """251 ms is; so is a command that never became zero, and silence."""
    late = [(0, twist(1.0)), (251 * MS, twist())]
    assert judge(BY_NAME['estop'], heard(told=late)).kept is False
    assert judge(
        BY_NAME['estop'],
        heard(told=[(1, twist(1.0)), (250 * MS, twist())], why=ESTOP),
    ).kept
    never = judge(BY_NAME['estop'], heard((1.0,) * 9))
    assert (never.kept, never.zero_ms) == (False, None)
    assert 'not zero' in never.note
    dead = judge(BY_NAME['guard_terminated'], heard((1.0,), injected=10))
    assert dead.kept is False
    assert 'no command' in dead.note


def test_ten_times_the_limit_must_be_limited_and_not_stopped():
    """Speed within the limits; a base that stands shows nothing."""
    large, on = BY_NAME['proposal_large'], said(StopReason.NONE, state='driving')
    assert judge(large, heard((1.0, 1.0, 1.0), status=on)).kept is True
    assert judge(large, heard((1.0, 1.01, 1.0), status=on)).kept is False
    assert judge(large, heard((1.0, 0.0, 0.0), status=on)).kept is False
    for stopped in ((1.0, 1.0, 0.0), (0.0, 0.0, 0.0)):
        assert judge(large, heard(stopped, why=OLD)).kept is None


def test_a_slow_policy_must_have_been_refused_not_absent():
    """All zeros because nobody was armed would be an empty promise."""
    slow = BY_NAME['inference_slow']
    assert judge(slow, heard((0.0,) * 5, why=OLD)).kept is True
    assert judge(slow, heard((0.0, 0.0, 0.1, 0.0), why=OLD)).kept is False
    assert judge(slow, heard((0.0,) * 5)).kept is None
    assert judge(slow, heard(())).kept is None
    assert judge(slow, heard((0.0, 0.1))).kept is False
    assert judge(slow, heard((0.0,) * 5, why=SILENT)).kept is None


def test_a_plan_of_before_another_instruction_is_not_played_on():
    """Zero first; and nothing else before inference has said that it proposes again."""
    rows = (1.0, 1.0, 0.0, 0.0, 0.1, 0.2)
    told = BY_NAME['instruction']
    on = heard(
        rows,
        health=[(90 * MS, False), (180 * MS, True)],
        status=said(StopReason.NEW_INSTRUCTION, state='waiting'),
    )
    assert judge(told, on).kept is True
    for health in ([(90 * MS, False), (220 * MS, True)], [(180 * MS, True)], []):
        early = judge(told, heard(rows, health=health))
        assert (early.kept, early.note) == (False, 'it went on without a new plan')
        assert sure(early)
    # The command and the word of inference are heard by two threads, one of them 40 ms late.
    order = judge(told, heard(rows, health=[(90 * MS, False), (220 * MS, True)], late=40))
    assert (order.kept, sure(order)) == (False, False)
    assert judge(told, heard((1.0,) * 9)).kept is False


@pytest.mark.parametrize('name', ['instruction', 'teleop_lets_go'])
def test_a_drive_that_does_not_go_on_is_not_kept(name):
    """The hold ends, is the promise; one that a fault ended shows neither, and is made again."""
    stays = judge(
        BY_NAME[name],
        heard((1.0,) + (0.0,) * 39, status=said(BY_NAME[name].because[0], state='waiting')),
    )
    assert (stays.kept, sure(stays)) == (False, True)
    assert 'did not go on' in stays.note
    ended = judge(
        BY_NAME[name],
        heard(
            (1.0,) + (0.0,) * 39,
            status=[*said(BY_NAME[name].because[0], state='waiting'), *said(OLD, at=90)],
        ),
    )
    assert (ended.kept, sure(ended)) == (None, False)
    assert OLD.value in ended.note


def test_a_person_s_own_command_must_come_out():
    """Not something on the way to it."""
    rows = [(50 * MS, twist(0.9, 0.2)), (100 * MS, PERSON)]
    teleop = BY_NAME['teleop']
    status = [(60 * MS, report('teleop', source='takeover'))]
    row = judge(teleop, heard(told=rows, status=status))
    assert (row.kept, row.zero_ms) == (True, 100.0)
    assert judge(teleop, heard(told=rows[:1], status=status)).kept is False
    ended = judge(teleop, heard(told=rows[:1], why=OLD))  # before they took over
    assert (ended.kept, sure(ended)) == (None, False)
    mixed = judge(teleop, heard(told=[*rows, (150 * MS, twist(1.0))], status=status))
    assert (mixed.kept, sure(mixed)) == (False, True)
    silent = judge(teleop, heard(told=[*rows, (150 * MS, twist())], status=status))
    assert silent.kept is None
    assert (
        judge(teleop, heard(told=rows, status=said(StopReason.NONE, state='driving'))).kept is None
    )


def test_after_a_person_the_policy_stays_out_for_the_hold():
    """Zero up to 1 s after the last message, and the policy only then."""
    on = (1.0,) * 7 + (0.0,) * 14 + (0.5,) * 3  # zero at 350 ms, on at 1050 ms
    row = judge(
        BY_NAME['teleop_lets_go'],
        heard(
            on,
            injected=0,
            seen=300,
            status=[
                (5 * MS, report('teleop', source='takeover')),
                *said(StopReason.TELEOP_SILENT, at=310, state='teleop'),
            ],
        ),
    )
    assert (row.kept, row.zero_ms) == (True, 50.0)
    assert '1050 ms' in row.note
    early = (1.0,) * 7 + (0.0,) * 12 + (0.5,) * 5
    assert judge(BY_NAME['teleop_lets_go'], heard(early, injected=0, seen=300)).kept is False


def test_a_base_without_a_timeout_is_told():
    """A killed guard is stopped by the base alone, and the drill says after how long."""
    stops = [
        (0, 0.0, 0.0, 1.0),
        (500 * MS, 0.5, 0.0, 1.0),
        (600 * MS, 0.6, 0.0, 0.5),
        (900 * MS, 0.7, 0.0, 0.0),
    ]
    row = judge(BY_NAME['guard_killed'], heard((1.0, 1.0), injected=60, odom=stops))
    assert row.kept is True
    assert '0.55 s after the last command' in row.note
    rolls = judge(BY_NAME['guard_killed'], heard((1.0, 1.0), injected=60, odom=stops[:2]))
    assert rolls.kept is False
    assert 'no timeout' in rolls.note


def test_what_could_not_be_made_is_neither_kept_nor_broken():
    """A machine with cores enough may starve nobody."""
    row = judge(BY_NAME['inference_starved'], heard((1.0, 0.0), seen=None))
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
def test_a_busy_machine_can_leave_an_answer_open(zero, late, waited, is_kept, certain):
    """Kept with the drill's lateness added; broken with the nodes' waiting taken off."""
    row = Row('estop', '', '', '', is_kept, zero_ms=zero, late_ms=late, waited_ms=waited)
    assert sure(row) is certain


def test_a_lucky_attempt_says_what_came_before_it():
    """Kept after broken is told: in the row's note, and beside its mark."""
    broken = Row('estop', 'e', '', '', False, zero_ms=312.0, waited_ms=200.0)
    other = Row('estop', 'e', '', '', None, zero_ms=90.0, guard='too old', note='another reason')
    row = last_of([broken, other, Row('estop', 'e', '', '', True, zero_ms=100.0, note='so')])
    assert (row.kept, row.attempts) == (True, 3)
    assert row.note == (
        'so; before: broken (312 ms) while a node waited 200 ms for a CPU, too old; another reason'
    )
    assert 'kept (attempt 3)' in table([row.as_dict()])
    assert last_of([row]).attempts == 1


def test_what_no_attempt_can_tell_stays_open_and_is_no_success():
    """With what the last one gave, and the same only once."""
    rows = [Row('estop', 'e', '', '', False, zero_ms=312.0, waited_ms=200.0)] * 3
    row = last_of(rows)
    assert (row.kept, row.note) == (None, in_short(rows[0]))
    near = last_of([Row('estop', 'e', '', '', True, zero_ms=245.0, late_ms=20.0)])
    assert (near.kept, near.note) == (None, 'kept (245 ms) with the drill itself 20 ms late')
    assert not kept([row.as_dict()])


def test_waiting_for_a_cpu_is_seen():
    """Of a process that more than one core's worth of others keep from running."""
    code = 'import time\nend = time.monotonic() + 5\nwhile time.monotonic() < end: pass'
    processes = [
        subprocess.Popen([sys.executable, '-c', code], preexec_fn=_on_one_core) for _ in range(3)
    ]
    load = Load()
    try:
        load.follow({'one': processes[0].pid})
        wait_until(lambda: load.waited_ns(2**62) > 50 * MS, 5.0, 'the wait for a CPU')
        load.follow({'gone': 2**22 + 1})
        assert load.waited_ns(2**62) == 0
    finally:
        load.close()
        for process in processes:
            process.kill()
            process.wait()


def _on_one_core():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def test_the_guard_s_first_word_after_the_fault_is_quoted():
    """Not what it said before, nor what it says of being disarmed afterwards."""
    row = judge(
        BY_NAME['estop'],
        heard(
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


def test_tables_show_every_row_and_say_how_far_to_trust_it():
    """Text, Markdown and JSON of the same rows; a broken promise stands out."""
    rows = [
        judge(BY_NAME['estop'], heard((1.0, 0.0), why=ESTOP)).as_dict(),
        {
            **judge(BY_NAME['camera_black'], heard((1.0, 1.0), late=31)).as_dict(),
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
    """Each once, in the order they are asked for; a slip is answered with the nearest name."""
    assert [fault.name for fault in chosen(['estop', 'camera_gone', 'estop'])] == [
        'estop',
        'camera_gone',
    ]
    assert len(chosen([])) == len(FAULTS)
    with pytest.raises(UserError, match="mean 'estop'"):
        chosen(['e-stop'])


def test_the_drill_drives_what_a_robot_would_drive():
    """Guard and inference as drive.launch.py has them; nobody arms by itself, no time is made."""
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
