"""What the console shows, as lines of text."""

import json

import pytest

from mobile_vla_ros.nodes.teleop import joystick
from mobile_vla_ros.nodes.teleop.status_lines import Heard, choices_of, rows, takes_of, typing_rows
from mobile_vla_ros.nodes.teleop.terminal import clean, columns, cut, wrap
from mobile_vla_ros.safety.status import GuardStatus, State

TAKES = {'go to the red box': 3, 'go to the blue ball': 11, 'circle the cone': 1}
VALUES = {
    'instruction': 'go to the red box',
    'seconds': '83.5',
    'frames': '835',
    'camera_hz': '9.9',
    'expected_hz': '10.0',
    'queue': '2',
    'drops': '7',
    'disk_minutes': '512.3',
    'takes': json.dumps(TAKES),
    'last_verdict': 'poor',
    'problem': '',
    'last_reasons': 'camera at 7.1 Hz of 10.0; worst gap 0.4 s',
}
GUARD = Heard(9.9, 'teleop', GuardStatus(State.TELEOP, armed=True).values())


def shown(state='recording', *, now_s=10.0, guard=GUARD, stick=joystick.NEVER, **values):
    """Return the text of every line for a recorder's status of time 9."""
    return [
        row.text for row in rows(now_s, Heard(9.0, state, {**VALUES, **values}), guard, 0.5, stick)
    ]


def test_a_take_in_progress():
    """Clock, frames, rate, queue, drops, disk; then the instruction, the last take, the guard."""
    assert shown() == [
        'REC 1:23, 835 frames, 9.9 of 10.0 Hz, queue 2, 7 dropped, disk 512 min',
        '"go to the red box": 3 takes, 12 of 2 other instructions',
        'last take poor: camera at 7.1 Hz of 10.0; worst gap 0.4 s',
        'throttle 50% | guard teleop',
    ]


def test_nothing_running():
    """Idle shows the camera; what is not known yet is left out."""
    assert shown(
        'idle', expected_hz='0.0', disk_minutes='', takes='{}', last_verdict='', last_reasons=''
    ) == ['idle, camera 9.9 Hz', '"go to the red box"', 'throttle 50% | guard teleop']


def test_a_guard_that_holds_the_robot_names_the_key_that_arms_it():
    """On a robot nothing moves before: the reason and the remedy stand in the line."""
    status = GuardStatus(State.DISARMED, armed=False, sentence='not armed yet')
    guard = Heard(9.9, 'disarmed', status.values())
    assert shown(guard=guard)[-1] == 'throttle 50% | guard disarmed: not armed yet (X arms it)'


def test_hours_and_little_room():
    """Much room is in hours; little is shouted."""
    assert shown('idle', disk_minutes='5100')[0].endswith('disk 85 h')
    line = rows(
        10.0, Heard(9.0, 'idle', {**VALUES, 'disk_minutes': '4.2'}), None, 0.5, joystick.NEVER
    )[0]
    assert line.text.endswith('disk 4 min')
    assert line.style == 'alarm'


def test_a_missing_instruction_names_its_remedy():
    """Before the first take is refused for it."""
    assert shown(instruction='')[1] == 'no instruction yet: press I and type one'


def test_a_problem_is_the_last_line():
    """In the recorder's own words."""
    assert shown(problem='no command yet')[-1] == '! no command yet'


def test_what_is_old_is_not_shown_as_true():
    """A recorder or a guard that fell silent is said to be silent, and for how long."""
    lines = shown(now_s=14.4)
    assert lines == [
        'recorder silent for 5 s (it was recording)',
        'throttle 50% | guard silent for 4 s (it was teleop)',
    ]
    assert [row.text for row in rows(1.0, None, None, 1.0, joystick.SILENT)] == [
        'no recorder heard yet',
        'throttle 100% | no guard heard yet | joystick silent',
    ]


def test_older_recorders_and_rubbish_do_not_end_the_console():
    """Values that are missing or no numbers become question marks or nothing."""
    assert rows(1.0, Heard(1.0, 'recording', {}), None, 0.5, joystick.NEVER)[0].text == (
        'REC ?, ? frames, ? Hz, queue ?, ? dropped'
    )
    for takes in ('', 'rubbish', '[1]', '{"a": "b"}', 'null'):
        assert takes_of(Heard(0.0, 'idle', {'takes': takes})) == {}
    assert takes_of(None) == {}


def test_typing_offers_the_instructions_that_exist():
    """A number stands for each, in the order of their names; what it stands for is shown."""
    choices = choices_of(TAKES)
    assert choices == sorted(TAKES)
    assert [row.text for row in typing_rows('', choices, TAKES)] == [
        'instruction (Enter: take it, Esc: leave it): _',
        '  1  circle the cone  (1 take)',
        '  2  go to the blue ball  (11 takes)',
        '  3  go to the red box  (3 takes)',
    ]
    assert typing_rows('2', choices, TAKES)[0].text.endswith('2_  = go to the blue ball')
    assert typing_rows('4', choices, TAKES)[0].text.endswith(': 4_')
    assert len(choices_of({f'go {n}': n for n in range(30)})) == 9


def test_takes_may_go_while_an_instruction_is_typed():
    """A recorder that starts anew counts none at first: what was offered stays offered."""
    assert [row.text for row in typing_rows('1', choices_of(TAKES), {})] == [
        'instruction (Enter: take it, Esc: leave it): 1_  = circle the cone',
        '  1  circle the cone  (0 takes)',
        '  2  go to the blue ball  (0 takes)',
        '  3  go to the red box  (0 takes)',
    ]


@pytest.mark.parametrize(
    ('text', 'width', 'height', 'lines'),
    [
        ('a b c', 10, 1, ['a b c']),
        ('abc defg', 6, 1, ['abc d…']),
        ('abc def ghi', 7, 2, ['abc def', '  ghi']),
        ('abc def ghi jkl', 6, 2, ['abc', '  def…']),
        ('빨간 상자로 가', 8, 1, ['빨간 상…']),
        ('빨간 상자', 9, 1, ['빨간 상자']),
    ],
)
def test_lines_fit_the_terminal(text, width, height, lines):
    """In columns, of which a Korean letter takes two."""
    assert wrap(text, width, height) == lines
    assert all(columns(line) <= width for line in lines)


def test_every_line_of_a_long_take_fits_80_columns():
    """The largest numbers that a day of work gives."""
    first = shown(
        seconds='3599',
        frames='107970',
        camera_hz='29.9',
        expected_hz='30.0',
        queue='60',
        drops='1170',
        disk_minutes='59999',
    )[0]
    assert columns(first) < 80, first


def test_text_of_others_cannot_steer_the_terminal():
    """An instruction from a topic may hold anything."""
    assert clean('go\x1b[2J\nwest\t더') == 'go?[2J?west?더'
    assert cut('', 5) == ''
