"""The joystick of the console: pure logic first, then a live console without a terminal."""

import itertools

import numpy as np
import pytest

from hands import ENABLE, START, A, B, X, Y, axes, down
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.teleop import joystick
from mobile_vla_ros.nodes.teleop.joystick import Joystick, Layout
from mobile_vla_ros.nodes.teleop.keyboard import HOLD_NS, TRAIL_NS, Console

STOP_S = 0.3
MS = 1_000_000


def ready(**layout) -> Joystick:
    """Return a joystick whose enable button was seen let go, at time 0."""
    one = Joystick(Layout(**layout))
    one.heard(axes(), down(), 0)
    return one


# --- logic ---


def test_nothing_moves_without_the_enable_button():
    """Full deflection alone is not even a zero on the wire."""
    one = ready()
    one.heard(axes(1, 1, 1), down(), MS)
    assert one.direction(2 * MS) is None
    one.heard(axes(1), down(ENABLE), 3 * MS)
    assert one.direction(4 * MS).tolist() == [1, 0, 0, 0, 0, 0]


def test_letting_go_stops_at_once_then_zeros_then_silence():
    """The message that says released is a zero, whatever the stick still says."""
    one = ready()
    one.heard(axes(1), down(ENABLE), MS)
    one.heard(axes(1), down(), 50 * MS)
    assert one.direction(50 * MS).tolist() == [0] * 6
    assert one.direction(50 * MS + TRAIL_NS).tolist() == [0] * 6
    assert one.direction(51 * MS + TRAIL_NS) is None


def test_silence_in_a_drive_stops_and_has_to_be_let_go():
    """No message for 0.25 s is zero; when it speaks again, held as before, nothing moves."""
    one = ready()
    one.heard(axes(1), down(ENABLE), MS)
    assert one.due_ns(MS) == HOLD_NS < STOP_S * 1e9
    assert one.direction(HOLD_NS).any()
    assert one.direction(MS + HOLD_NS).tolist() == [0] * 6
    assert one.state(MS + HOLD_NS) == joystick.SILENT
    assert one.direction(2 * MS + HOLD_NS + TRAIL_NS) is None
    late = 1000 * MS
    one.heard(axes(1), down(ENABLE), late)
    assert not (one.direction(late) if one.direction(late) is not None else np.zeros(1)).any()
    assert one.state(late) == joystick.BLOCKED
    one.heard(axes(1), down(), late + MS)
    one.heard(axes(1), down(ENABLE), late + 2 * MS)
    assert one.direction(late + 3 * MS).any()


def test_a_button_that_is_held_at_the_start_moves_nothing():
    """A pad that lies on its button, or a driver that starts with rubbish."""
    one = Joystick(Layout())
    one.heard(axes(1), down(ENABLE), 0)
    assert one.direction(MS) is None
    assert one.state(MS) == joystick.BLOCKED


def test_space_beats_the_joystick_until_its_button_was_let_go():
    """Any key that moves or stops takes the robot: the joystick has to ask for it anew."""
    one = ready()
    keys = Console(0.5, 1.0, 1.0, taken=one.block)
    for key in ' wi':
        one.heard(axes(1), down(), 0)
        one.heard(axes(1), down(ENABLE), MS)
        assert one.direction(2 * MS).any()
        keys.keys(key, 3 * MS)
        one.heard(axes(1), down(ENABLE), 4 * MS)
        assert one.direction(5 * MS) is None, key
        keys.keys('\x1b', 5 * MS)
    one.heard(axes(1), down(), 6 * MS)
    one.heard(axes(1), down(ENABLE), 7 * MS)
    assert one.direction(8 * MS).any()
    keys.keys('nfg', 9 * MS)
    assert one.direction(9 * MS).any(), 'a key that does not drive takes nothing'


def test_axes_scale_and_deadzone():
    """Rest is exactly zero, full is exactly full, a negative scale turns an axis round."""
    one = ready(axes=(1, 0, 3), scale=(1.0, -0.5, 0.25), deadzone=0.2)
    one.heard(axes(0.2, -0.2, 0.1), down(ENABLE), MS)
    assert one.direction(MS).tolist() == [0] * 6
    one.heard(axes(0.6, 0, 1.0), down(ENABLE), 2 * MS)
    assert one.direction(2 * MS) == pytest.approx([0.5, 0, 0, 0, 0, 0.25])
    one.heard(axes(0, 1.0), down(ENABLE), 3 * MS)
    assert one.direction(3 * MS) == pytest.approx([0, -0.5, 0, 0, 0, 0])
    one = ready(axes=(1, -1, -1))
    one.heard(axes(1, 1, 1), down(ENABLE), MS)
    assert one.direction(MS) == pytest.approx([1, 0, 0, 0, 0, 0])


def test_no_direction_is_faster_than_full_speed():
    """A square gate in its corner, or a driver that says more than 1, is no faster."""
    one = ready()
    one.heard(axes(3.0, 3.0, -5.0), down(ENABLE), MS)
    x, y, turn = one.direction(MS)[[0, 1, 5]]
    assert np.hypot(x, y) == pytest.approx(1)
    assert turn == -1


@pytest.mark.parametrize('rubbish', [np.nan, np.inf, -np.inf])
def test_an_axis_that_is_no_number_moves_nothing(rubbish):
    """Zero, while the button is held: not the other axes either."""
    one = ready()
    one.heard(axes(rubbish, 1), down(ENABLE), MS)
    assert one.direction(MS).tolist() == [0] * 6


def test_buttons_ask_once_for_each_press():
    """Start, success, failure, discard and stop, at the moment of pressing; held is not again."""
    one = ready()
    at = itertools.count(MS, MS)
    for button, name in (
        (START, 'start'),
        (A, 'success'),
        (B, 'failure'),
        (X, 'discard'),
        (Y, 'stop'),
    ):
        assert one.heard(axes(), down(button), next(at)) == [('recorder', name)]
        assert one.heard(axes(), down(button), next(at)) == []
        assert one.heard(axes(), down(), next(at)) == []
    one = ready(buttons={'start': joystick.NONE, 'stop': 7})
    assert one.heard(axes(), down(A, B, START), next(at)) == [('recorder', 'stop')]


def test_a_button_that_is_down_at_first_was_not_pressed_for_us():
    """A console that is started while a button is down starts no take."""
    one = Joystick(Layout())
    assert one.heard(axes(), down(START), 0) == []
    one.heard(axes(), down(), MS)
    assert one.heard(axes(), down(START), 2 * MS) == [('recorder', 'start')]


def test_a_joystick_that_lacks_what_is_asked_for_is_told_in_words():
    """Few axes and buttons: no error, no motion from what is not there, and a sentence."""
    one = Joystick(Layout())
    for stamp, pressed in ((0, [0] * 5), (MS, [0, 0, 0, 0, 1])):
        assert one.heard([0.0, 1.0], pressed, stamp) == []
    assert one.direction(MS).tolist() == [1, 0, 0, 0, 0, 0]
    assert 'axis 3 (turn)' in one.problem
    assert 'button 7 (start)' in one.problem
    one.heard([], [], 2 * MS)
    assert not one.driving
    assert 'button 4 (enable)' in one.problem
    one.heard(axes(), down(), 3 * MS)
    assert one.problem == ''


@pytest.mark.parametrize(
    ('layout', 'word'),
    [
        ({'axes': (0, 1)}, 'axes'),
        ({'axes': (0, 1, -2)}, 'axes'),
        ({'axes': (1, 1, 3)}, 'meanings'),
        ({'scale': (1.0, 1.0)}, 'scale'),
        ({'scale': (1.0, float('nan'), 1.0)}, 'scale'),
        ({'scale': (2.0, 1.0, 1.0)}, 'scale'),
        ({'deadzone': 1.0}, 'deadzone'),
        ({'enable_button': -1}, 'enable'),
        ({'enable_button': 7}, 'button has two meanings'),
    ],
)
def test_a_layout_that_cannot_be_is_refused(layout, word):
    """One sentence that names what does not fit."""
    with pytest.raises(UserError, match=word):
        Layout(**layout)


# --- the live console, with no terminal ---
