"""Odometry, Ackermann and joystick messages as the commands of a bag."""

import math

import numpy as np
import pytest

from bags import (
    PERIOD_NS,
    START_NS,
    drive,
    header,
    import_one,
    imported_episode,
    make,
    odometry,
    write_bag,
)
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.imports import FAILED
from mobile_vla_ros.interop.source import ImportOptions

ROWS = np.arange(12)


def ackermann(index, stamp_ns, stamped=True):
    """Return an AckermannDriveStamped, or the drive alone."""
    one = make('ackermann_msgs/msg/AckermannDrive', 0.25, 0.0, 0.5 + index / 4, 0.0, 0.0)
    if not stamped:
        return one
    return make('ackermann_msgs/msg/AckermannDriveStamped', header(stamp_ns - 7), one)


def joy(index, stamp_ns):
    """Return a Joy: forward on axis 1, left on 0, turn on 3."""
    axes = np.array([0.5, index / 16, 0.25, -0.5], np.float32)
    return make('sensor_msgs/msg/Joy', header(stamp_ns - 7), axes, np.array([1], np.int32))


def twists(linear_x, linear_y=0.0, angular_z=0.0):
    """Return (12, 6) of a planar base."""
    rows = np.zeros((12, 6))
    rows[:, 0], rows[:, 1], rows[:, 5] = linear_x, linear_y, angular_z
    return rows


SPEEDS = 0.5 + ROWS / 4
TURNS = SPEEDS * math.tan(0.25) / 0.5
OF_ODOMETRY = (lambda i, ns: odometry(ns - 7, (0.1 + i / 100, 0.02, 0.3)), {})


@pytest.mark.parametrize('storage', ['mcap', 'none'])
@pytest.mark.parametrize(
    ('message', 'options', 'expected'),
    [
        (*OF_ODOMETRY, twists(0.1 + ROWS / 100, 0.02, 0.3)),
        (ackermann, {'wheelbase_m': 0.5}, twists(SPEEDS, 0, TURNS)),
        (lambda i, ns: ackermann(i, ns, False), {'wheelbase_m': 0.5}, twists(SPEEDS, 0, TURNS)),
        (joy, {'scale': 'linear_x=2,angular_z=1.5'}, twists(ROWS / 8, 0, -0.75)),
        (
            joy,
            {'scale': 'linear_x=2,linear_y=1', 'actions': 'linear_x=axes[2],linear_y=buttons[0]'},
            twists(0.5, 1.0),
        ),
    ],
    ids=['odometry', 'ackermann stamped', 'ackermann', 'joy', 'joy, mapped'],
)
def test_a_topic_that_is_named_gives_the_commands(tmp_path, storage, message, options, expected):
    """Exact speeds, the stamps of headers and the receipts of the bag."""
    bag = write_bag(tmp_path / 'drive', drive(command_of=message), storage)
    assert (
        'it has no topic of commands'
        in import_one(bag, tmp_path / 'o', ImportOptions('go')).reason
    )
    named = ImportOptions('go', command_topic='/cmd_vel', **options)
    with imported_episode(bag, tmp_path / 'out', named) as episode:
        assert np.allclose(episode.commands.twist, expected, atol=1e-12)
        received_ns = START_NS + ROWS * PERIOD_NS + 20_000_001
        stamped = hasattr(message(0, START_NS), 'header')
        stamps_ns = START_NS + ROWS * PERIOD_NS - 7 if stamped else received_ns
        assert episode.commands.received_ns.tolist() == received_ns.tolist()
        assert episode.commands.stamp_ns.tolist() == stamps_ns.tolist()


@pytest.mark.parametrize(
    ('message', 'options', 'sentence'),
    [
        (ackermann, {}, '--wheelbase'),
        (joy, {}, '--scale'),
        (joy, {'scale': 'linear_x=1', 'actions': 'linear_x=buttons'}, 'cannot be mapped so'),
        (joy, {'scale': 'linear_x=1', 'actions': 'linear_x=axes[1],linear_y=axes[0]'}, '--scale'),
        (joy, {'scale': 'linear_x=1', 'wheelbase_m': 0.5}, 'do not heed the option wheelbase_m'),
        (OF_ODOMETRY[0], {'scale': 'linear_x=1'}, 'do not heed the option scale'),
        (lambda i, ns: odometry(ns, (0.0, 0.0, 0.0), i / 10), {}, 'has no velocities'),
    ],
)
def test_what_is_missing_is_asked_for(tmp_path, message, options, sentence):
    """A unit that nobody gave would be a guess."""
    bag = write_bag(tmp_path / 'drive', drive(command_of=message))
    named = ImportOptions('go', command_topic='/cmd_vel', **options)
    outcome = import_one(bag, tmp_path / 'out', named)
    assert outcome.status == FAILED and sentence in outcome.reason, outcome.reason
    assert not list((tmp_path / 'out').iterdir())


def test_a_joystick_with_fewer_axes_is_counted(tmp_path):
    """Its messages are no commands of zero."""
    bag = write_bag(tmp_path / 'drive', drive(command_of=joy))
    options = {'scale': 'linear_x=1', 'actions': 'linear_x=axes[9]'}
    outcome = import_one(
        bag, tmp_path / 'out', ImportOptions('go', command_topic='/cmd_vel', **options)
    )
    assert outcome.status == FAILED and 'no command' in outcome.reason


@pytest.mark.parametrize(
    'values',
    [
        {'scale': 'linear_x'},
        {'scale': 'linear_x=fast'},
        {'scale': 'linear_x=inf'},
        {'wheelbase_m': 0.0},
        {'wheelbase_m': math.nan},
    ],
)
def test_a_scale_is_a_number_for_each_axis(values):
    """Anything else is refused before a file is opened."""
    with pytest.raises(UserError):
        ImportOptions('go', **values)
