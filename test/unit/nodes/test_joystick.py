"""The logic of the console's joystick."""

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
    """Return a joystick whose enable button was released at time 0."""
    one = Joystick(Layout(**layout))
    one.receive(axes(), down(), 0)
    return one


def test_nothing_moves_without_the_enable_button():
    """Full deflection alone publishes nothing, not even zero."""
    one = ready()
    one.receive(axes(1, 1, 1), down(), MS)
    assert one.direction(2 * MS) is None
    one.receive(axes(1), down(ENABLE), 3 * MS)
    assert one.direction(4 * MS).tolist() == [1, 0, 0, 0, 0, 0]


def test_releasing_stops_at_once_then_zeros_then_silence():
    """The message with the released button is a zero for any deflection of the stick."""
    one = ready()
    one.receive(axes(1), down(ENABLE), MS)
    one.receive(axes(1), down(), 50 * MS)
    assert one.direction(50 * MS).tolist() == [0] * 6
    assert one.direction(50 * MS + TRAIL_NS).tolist() == [0] * 6
    assert one.direction(51 * MS + TRAIL_NS) is None


def test_after_silence_in_a_drive_the_button_must_be_released():
    """No message for 0.25 s stops; a later one with the button still held moves nothing."""
    one = ready()
    one.receive(axes(1), down(ENABLE), MS)
    assert one.due_ns(MS) == HOLD_NS < STOP_S * 1e9
    assert one.direction(HOLD_NS).any()
    assert one.direction(MS + HOLD_NS).tolist() == [0] * 6
    assert one.state(MS + HOLD_NS) == joystick.SILENT
    assert one.direction(2 * MS + HOLD_NS + TRAIL_NS) is None
    late = 1000 * MS
    one.receive(axes(1), down(ENABLE), late)
    assert not (one.direction(late) if one.direction(late) is not None else np.zeros(1)).any()
    assert one.state(late) == joystick.BLOCKED
    one.receive(axes(1), down(), late + MS)
    one.receive(axes(1), down(ENABLE), late + 2 * MS)
    assert one.direction(late + 3 * MS).any()


def test_a_button_that_is_held_at_the_start_moves_nothing():
    """A pad that lies on its button, or a driver with invalid first values."""
    one = Joystick(Layout())
    one.receive(axes(1), down(ENABLE), 0)
    assert one.direction(MS) is None
    assert one.state(MS) == joystick.BLOCKED


def test_space_blocks_the_joystick_until_its_button_is_released():
    """Keys that move or stop block the joystick until the enable button is pressed again."""
    one = ready()
    keys = Console(0.5, 1.0, 1.0, on_drive=one.block)
    for key in ' wi':
        one.receive(axes(1), down(), 0)
        one.receive(axes(1), down(ENABLE), MS)
        assert one.direction(2 * MS).any()
        keys.keys(key, 3 * MS)
        one.receive(axes(1), down(ENABLE), 4 * MS)
        assert one.direction(5 * MS) is None, key
        keys.keys('\x1b', 5 * MS)
    one.receive(axes(1), down(), 6 * MS)
    one.receive(axes(1), down(ENABLE), 7 * MS)
    assert one.direction(8 * MS).any()
    keys.keys('nfg', 9 * MS)
    assert one.direction(9 * MS).any(), 'a key that does not drive must not block'


def test_axes_scale_and_deadzone():
    """Rest is exactly zero, full deflection full speed; a negative scale reverses an axis."""
    one = ready(axes=(1, 0, 3), scale=(1.0, -0.5, 0.25), deadzone=0.2)
    one.receive(axes(0.2, -0.2, 0.1), down(ENABLE), MS)
    assert one.direction(MS).tolist() == [0] * 6
    one.receive(axes(0.6, 0, 1.0), down(ENABLE), 2 * MS)
    assert one.direction(2 * MS) == pytest.approx([0.5, 0, 0, 0, 0, 0.25])
    one.receive(axes(0, 1.0), down(ENABLE), 3 * MS)
    assert one.direction(3 * MS) == pytest.approx([0, -0.5, 0, 0, 0, 0])
    one = ready(axes=(1, -1, -1))
    one.receive(axes(1, 1, 1), down(ENABLE), MS)
    assert one.direction(MS) == pytest.approx([1, 0, 0, 0, 0, 0])


def test_no_direction_is_faster_than_full_speed():
    """Also in the corner of a square gate, or with values above 1."""
    one = ready()
    one.receive(axes(3.0, 3.0, -5.0), down(ENABLE), MS)
    x, y, turn = one.direction(MS)[[0, 1, 5]]
    assert np.hypot(x, y) == pytest.approx(1)
    assert turn == -1


@pytest.mark.parametrize('rubbish', [np.nan, np.inf, -np.inf])
def test_an_axis_of_nan_or_inf_moves_nothing(rubbish):
    """Zero while the button is held, also on the other axes."""
    one = ready()
    one.receive(axes(rubbish, 1), down(ENABLE), MS)
    assert one.direction(MS).tolist() == [0] * 6


def test_buttons_request_once_for_each_press():
    """Start, success, failure, discard and stop, once when pressed and not while held."""
    one = ready()
    at = itertools.count(MS, MS)
    for button, name in (
        (START, 'start'),
        (A, 'success'),
        (B, 'failure'),
        (X, 'discard'),
        (Y, 'stop'),
    ):
        assert one.receive(axes(), down(button), next(at)) == [('recorder', name)]
        assert one.receive(axes(), down(button), next(at)) == []
        assert one.receive(axes(), down(), next(at)) == []
    one = ready(buttons={'start': joystick.NONE, 'stop': 7})
    assert one.receive(axes(), down(A, B, START), next(at)) == [('recorder', 'stop')]


def test_a_button_held_at_the_start_requests_nothing():
    """A console that is started with a pressed button starts no episode."""
    one = Joystick(Layout())
    assert one.receive(axes(), down(START), 0) == []
    one.receive(axes(), down(), MS)
    assert one.receive(axes(), down(START), 2 * MS) == [('recorder', 'start')]


def test_missing_axes_and_buttons_are_named():
    """With few axes and buttons: no error, no motion from a missing axis, and a sentence."""
    one = Joystick(Layout())
    for stamp, pressed in ((0, [0] * 5), (MS, [0, 0, 0, 0, 1])):
        assert one.receive([0.0, 1.0], pressed, stamp) == []
    assert one.direction(MS).tolist() == [1, 0, 0, 0, 0, 0]
    assert 'axis 3 (turn)' in one.problem
    assert 'button 7 (start)' in one.problem
    one.receive([], [], 2 * MS)
    assert not one.driving
    assert 'button 4 (enable)' in one.problem
    one.receive(axes(), down(), 3 * MS)
    assert one.problem == ''


@pytest.mark.parametrize(
    ('layout', 'word'),
    [
        ({'axes': (0, 1)}, 'joy_axes'),
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
def test_an_invalid_layout_is_refused(layout, word):
    """One sentence that names the mismatch."""
    with pytest.raises(UserError, match=word):
        Layout(**layout)
