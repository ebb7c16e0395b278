"""The logic of the console's keys."""

import numpy as np
import pytest

from mobile_vla_ros.nodes.teleop.keyboard import HELP, HOLD_NS, RECORDER_KEYS, TRAIL_NS, Console


def test_motion_ends_when_the_key_is_released():
    """A key moves for less than 0.3 s, followed by zeros for a while, then silence."""
    console = Console(0.6, 2.0, 0.5)
    assert console.twist(0) is None
    console.keys('w', 1000)
    assert console.twist(1000).tolist() == [0.3, 0, 0, 0, 0, 0]
    assert console.due_ns(1000) == HOLD_NS < 300_000_000
    assert not console.twist(1000 + HOLD_NS).any()
    assert not console.twist(1000 + HOLD_NS + TRAIL_NS).any()
    assert console.twist(1001 + HOLD_NS + TRAIL_NS) is None


@pytest.mark.parametrize(
    ('key', 'signs'),
    [
        ('w', (1, 0, 0)),
        ('s', (-1, 0, 0)),
        ('a', (0, 1, 0)),
        ('d', (0, -1, 0)),
        ('q', (1, 1, 0)),
        ('e', (1, -1, 0)),
        ('z', (-1, 1, 0)),
        ('c', (-1, -1, 0)),
        ('r', (0, 0, 1)),
        ('t', (0, 0, -1)),
    ],
)
def test_keys_drive_in_rep_103_axes(key, signs):
    """Every motion key in upper and lower case; diagonals are no faster."""
    for typed in (key, key.upper()):
        console = Console(0.5, 1.0, 1.0)
        console.keys(typed, 0)
        twist = console.twist(1)
        assert tuple(np.sign(twist[[0, 1, 5]])) == signs
        assert np.hypot(*twist[:2]) in (0, pytest.approx(0.5)) and not twist[2:5].any()


def test_space_stops_at_once():
    """Space gives zero immediately, without waiting for a release."""
    console = Console(0.5, 1.0, 1.0)
    console.keys('w', 0)
    console.keys(' ', 1)
    assert not console.twist(2).any()


def test_a_held_key_mends_once():
    """Its repeats must not drop five seconds each; a second press later counts."""
    console, s = Console(0.5, 1.0, 1.0), 1_000_000_000
    assert console.keys('V' * 3, 0) == [('recorder', 'last_shorten')]
    assert console.keys('v', s // 2) == []
    assert console.keys('v', 2 * s) == [('recorder', 'last_shorten')]
    assert console.keys('nn', 3 * s) == [('recorder', 'start')] * 2


def test_throttle_stays_between_its_bounds():
    """F and G change the speed in steps, up to full speed and never to zero."""
    console = Console(0.5, 1.0, 0.5)
    console.keys('f' * 9, 0)
    assert console.throttle == 1.0
    console.keys('g' * 20, 0)
    assert console.throttle == 0.1


def test_typing_an_instruction_moves_nothing():
    """Letters of an instruction do not drive; Enter sets it, Escape cancels."""
    console = Console(0.5, 1.0, 1.0)
    console.keys('w', 0)
    assert console.keys('i', 1) == []
    assert console.keys('go west zz\x7f\x7f', 2) == []
    assert not console.twist(3).any()
    assert console.keys('größe\r', 4) == [('instruction', 'go west größe')]
    console.keys('inm', 5)
    console.keys('\x1b', 6)
    assert console.typed is None
    assert console.keys('n', 7) == [('recorder', 'start')]


def test_function_keys_are_ignored():
    """The letters of an arrow key's escape sequence neither drive nor start an episode."""
    console = Console(0.5, 1.0, 1.0)
    for sequence in ('\x1b[A', '\x1b[D', '\x1bOB', '\x1b[1;5C'):
        assert console.keys(sequence, 0) == []
    assert console.twist(0) is None
    console.keys('w\x1b[D', 1)
    assert console.twist(1)[0] > 0
    console.keys('\x1b[A ', 2)
    assert not console.twist(2).any(), 'a space after an arrow key must still stop'


def test_a_number_selects_an_existing_instruction():
    """I, 2, Enter; a number without an instruction is text."""
    console = Console(0.5, 1.0, 1.0)
    console.choices = ('go left', 'go right')
    assert console.keys('i2\r', 0) == [('instruction', 'go right')]
    assert console.keys('i3\r', 0) == [('instruction', '3')]
    assert console.keys('i2 boxes\r', 0) == [('instruction', '2 boxes')]


def test_the_help_names_every_key_and_fits_a_terminal():
    """Of 80 columns, where a wrapped line would be two."""
    assert max(map(len, HELP.splitlines())) < 80
    assert set(RECORDER_KEYS) <= {word.lower() for word in HELP.split() if len(word) == 1}
