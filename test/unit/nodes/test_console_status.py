"""The state on the console, as lines of text."""

import json

import pytest

from mobile_vla_ros.nodes.teleop import joystick
from mobile_vla_ros.nodes.teleop.status_lines import (
    NodeReport,
    choices_of,
    episodes_of,
    rows,
    typing_rows,
)
from mobile_vla_ros.nodes.teleop.terminal import columns, cut, wrap
from mobile_vla_ros.plain_text import plain
from mobile_vla_ros.safety.status import GuardStatus, State

EPISODES = {'go to the red box': 3, 'go to the blue ball': 11, 'circle the cone': 1}
VALUES = {
    'instruction': 'go to the red box',
    'seconds': '83.5',
    'frames': '835',
    'camera_hz': '9.9',
    'expected_hz': '10.0',
    'queue': '2',
    'drops': '7',
    'disk_minutes': '512.3',
    'takes': json.dumps(EPISODES),
    'last_verdict': 'poor',
    'problem': '',
    'last_reasons': 'camera at 7.1 Hz of 10.0; worst gap 0.4 s',
}
HOSTILE_COUNTS = (
    '[' * 100_000,
    '{"a": ' * 100_000,
    '{"a": NaN}',
    '{"a": Infinity}',
    '{"a": 1e999}',
    '{"a": 1.5}',
    '{"a": true}',
    '{"a": ' + '9' * 10_000 + '}',
)
GUARD = NodeReport(9.9, 'teleop', GuardStatus(State.TELEOP, armed=True).values())


def lines_for(state='recording', *, now_s=10.0, guard=GUARD, stick=joystick.NEVER, **values):
    """Return every line for a recorder's status received at 9 s."""
    return [
        row.text
        for row in rows(now_s, NodeReport(9.0, state, {**VALUES, **values}), guard, 0.5, stick)
    ]


def test_an_episode_in_progress():
    """Clock, frames, rate, queue, drops, disk; then instruction, last verdict, guard."""
    assert lines_for() == [
        'REC 1:23, 835 frames, 9.9 of 10.0 Hz, queue 2, 7 dropped, disk 512 min',
        '"go to the red box": 3 episodes, 12 of 2 other instructions',
        'last episode poor: camera at 7.1 Hz of 10.0; worst gap 0.4 s',
        'throttle 50% | guard teleop',
    ]


def test_idle():
    """The camera is lines_for; unknown values are left out."""
    assert lines_for(
        'idle', expected_hz='0.0', disk_minutes='', takes='{}', last_verdict='', last_reasons=''
    ) == ['idle, camera 9.9 Hz', '"go to the red box"', 'throttle 50% | guard teleop']


def test_a_disarmed_guard_names_the_key_that_arms_it():
    """The line has the reason for the stop and the remedy."""
    status = GuardStatus(State.DISARMED, armed=False, sentence='not armed yet')
    guard = NodeReport(9.9, 'disarmed', status.values())
    assert lines_for(guard=guard)[-1] == 'throttle 50% | guard disarmed: not armed yet (X arms it)'


def test_disk_space_is_in_hours_or_raises_an_alarm():
    """Much space is in hours; little raises an alarm."""
    assert lines_for('idle', disk_minutes='5100')[0].endswith('disk 85 h')
    line = rows(
        10.0, NodeReport(9.0, 'idle', {**VALUES, 'disk_minutes': '4.2'}), None, 0.5, joystick.NEVER
    )[0]
    assert line.text.endswith('disk 4 min')
    assert line.style == 'alarm'


def test_a_missing_instruction_names_its_remedy():
    """Before a start is refused without one."""
    assert lines_for(instruction='')[1] == 'no instruction yet: press I and type one'


def test_a_problem_is_the_last_line():
    """With the recorder's own sentence."""
    assert lines_for(problem='no command yet')[-1] == '! no command yet'


def test_old_reports_are_shown_as_silence():
    """A silent recorder or guard is named with the duration."""
    lines = lines_for(now_s=14.4)
    assert lines == [
        'recorder silent for 5 s (it was recording)',
        'throttle 50% | guard silent for 4 s (it was teleop)',
    ]
    assert [row.text for row in rows(1.0, None, None, 1.0, joystick.SILENT)] == [
        'no recorder yet',
        'throttle 100% | no guard yet | joystick silent',
    ]


def test_missing_and_invalid_values_do_not_end_the_console():
    """They become question marks or are left out."""
    assert rows(1.0, NodeReport(1.0, 'recording', {}), None, 0.5, joystick.NEVER)[0].text == (
        'REC ?, ? frames, ? Hz, queue ?, ? dropped'
    )
    for counts in ('', 'rubbish', '[1]', '{"a": "b"}', 'null', *HOSTILE_COUNTS):
        assert episodes_of(NodeReport(0.0, 'idle', {'takes': counts})) == {}
    assert episodes_of(None) == {}
    for value in ('nan', 'inf', '1e999', '-inf', 'x' * 100_000):
        shown = lines_for(seconds=value, expected_hz=value, disk_minutes=value)
        assert shown[0] == 'REC ?, 835 frames, 9.9 Hz, queue 2, 7 dropped'


def test_typing_offers_existing_instructions():
    """In alphabetical order, selected by number; the screen shows the selected one."""
    choices = choices_of(EPISODES)
    assert choices == sorted(EPISODES)
    assert [row.text for row in typing_rows('', choices, EPISODES)] == [
        'instruction (Enter: set it, Esc: cancel): _',
        '  1  circle the cone  (1 episode)',
        '  2  go to the blue ball  (11 episodes)',
        '  3  go to the red box  (3 episodes)',
    ]
    assert typing_rows('2', choices, EPISODES)[0].text.endswith('2_  = go to the blue ball')
    assert typing_rows('4', choices, EPISODES)[0].text.endswith(': 4_')
    assert len(choices_of({f'go {n}': n for n in range(30)})) == 9


def test_counts_may_disappear_while_an_instruction_is_typed():
    """A restarted recorder has no counts at first: the choices stay."""
    assert [row.text for row in typing_rows('1', choices_of(EPISODES), {})] == [
        'instruction (Enter: set it, Esc: cancel): 1_  = circle the cone',
        '  1  circle the cone  (0 episodes)',
        '  2  go to the blue ball  (0 episodes)',
        '  3  go to the red box  (0 episodes)',
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
    """Widths are in columns: a Korean letter needs two."""
    assert wrap(text, width, height) == lines
    assert all(columns(line) <= width for line in lines)


def test_the_first_line_of_a_long_episode_fits_80_columns():
    """With the largest numbers of a day."""
    first = lines_for(
        seconds='3599',
        frames='107970',
        camera_hz='29.9',
        expected_hz='30.0',
        queue='60',
        drops='1170',
        disk_minutes='59999',
    )[0]
    assert columns(first) < 80, first


def test_text_of_other_nodes_cannot_control_the_terminal():
    """An instruction from a topic may contain any characters."""
    assert plain('go\x1b[2J\nwest\t더') == 'go?[2J?west?더'
    assert cut('', 5) == ''
    assert cut('x' * 1_000_000, 5) == 'xxxx…'
