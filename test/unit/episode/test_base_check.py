"""Does a base drive what it is commanded, by its odometry?"""

import numpy as np
import pytest

from driven_bases import SECOND, Base, joystick, keyboard, message, odometry_of
from mobile_vla_ros.episode.odometry import Odometry, read_odometry
from mobile_vla_ros.episode.quality.base_check import check_base
from mobile_vla_ros.episode.timing.command_rule import HOLDS, CommandLog, CommandRule, KnownBy

KINDS = (keyboard, joystick)
OBEDIENT = {
    'quick': Base(),
    'with the ramp of a guard': Base(acceleration=2.0, tau_s=0.0, lag_s=0.05),
    'slow': Base(acceleration=0.5, lag_s=0.3, tau_s=0.2),
    'very slow': Base(acceleration=0.3, lag_s=0.2),
    'late': Base(lag_s=0.5),
    'sluggish': Base(acceleration=5.0, lag_s=0.2, tau_s=0.5),
    'slipping': Base(slip=0.06),
    'noisy': Base(slip=0.12, noise=0.2),
    'measured ahead of its middle': Base(((1, 0, 0), (0, 1, 0.3), (0, 0, 1)), slip=0.03),
    'pulling to a side': Base(((0.9, 0.1, 0), (-0.1, 0.9, 0), (0.3, 0, 0.85)), slip=0.06),
    'seldom measured': Base(rate_hz=5.0),
}
SWAPPED = ((0, 1, 0), (1, 0, 0), (0, 0, 1))
DISOBEDIENT = {
    'linear_x and linear_y are swapped': Base(SWAPPED),
    'drives in angular_z what is commanded in linear_y': Base(((1, 0, 0), (0, 0, 0), (0, 2, 1))),
    'drives angular_z the other way, 0.9': Base(((1, 0, 0), (0, 1, 0), (0, 0, -1))),
    'drives linear_x 0.4': Base(((0.44, 0, 0), (0, 1, 0), (0, 0, 1))),
    'drives angular_z 3.': Base(((1, 0, 0), (0, 1, 0), (0, 0, 3.3)), acceleration=5.0),
    'does not move in linear_x': Base(((0, 0, 0),) * 3),
    'does not move in linear_y': Base(((1, 0, 0), (0, 0, 0), (0, 0, 1))),
}


def drive(base, commands, seconds, *, seed=0, rule=None, world=False):
    """Return the check of a drive."""
    at_s, twist = commands
    time_s, pose, velocity = base.drive(at_s, twist, seconds, seed)
    if world:
        cos, sin = np.cos(pose[:, 2]), np.sin(pose[:, 2])
        ahead, aside, turn = velocity.T
        velocity = np.column_stack([cos * ahead - sin * aside, sin * ahead + cos * aside, turn])
    log = CommandLog(np.round(at_s * SECOND).astype(np.int64), twist, rule or CommandRule(HOLDS))
    return check_base(log, odometry_of((time_s, pose, velocity)))


def false_alarms(seeds, lengths):
    """Return the sentences about bases that obey."""
    found = []
    for name, base in OBEDIENT.items():
        for seed in range(seeds):
            for seconds in lengths:
                commands = KINDS[seed % 2](np.random.default_rng(seed), seconds)
                poor = drive(base, commands, seconds, seed=seed).poor
                found += [(name, seed, seconds, *poor)] if poor else []
    return found


def test_a_base_that_obeys_is_never_accused():
    """However slowly or late it follows, and however its wheels slip."""
    assert false_alarms(4, (6.0, 25.0)) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize('seconds', [5.0, 10.0, 20.0, 40.0])
def test_a_base_that_obeys_is_never_accused_whatever_it_is_told(seconds):
    """The same over 1,100 drives of each length."""
    assert false_alarms(100, (seconds,)) == []


@pytest.mark.parametrize('words', DISOBEDIENT)
def test_a_base_that_does_not_obey_is_named(words):
    """Each fault, in every drive of 25 s, and no other axis with it."""
    for seed in range(6):
        commands = KINDS[seed % 2](np.random.default_rng(seed), 25.0)
        poor = drive(DISOBEDIENT[words], commands, 25.0, seed=seed).poor
        assert any(words in one for one in poor), (seed, poor)
        assert len(poor) == 1 or 'does not move in linear_x' in words


def test_scale_and_lag_are_measured():
    """Of the axes that were commanded for long enough; a small difference is only noted."""
    commands = keyboard(np.random.default_rng(3), 40.0, axes=(0, 5))
    found = drive(Base(((0.7, 0, 0), (0, 1, 0), (0, 0, 1)), lag_s=0.2), commands, 40.0)
    assert found.scale == pytest.approx({'linear_x': 0.7, 'angular_z': 1.0}, abs=0.03)
    assert drive(Base(((0,) * 3,) * 3), commands, 40.0).lag_s == {}
    assert found.lag_s == pytest.approx({'linear_x': 0.2, 'angular_z': 0.2}, abs=0.11)
    assert found.poor == () and 'the base drives linear_x 0.70 times' in found.notes[0]


def test_too_little_is_not_judged():
    """A short touch of an axis, no odometry beside the commands, gaps in it, and no command."""
    at_s = np.arange(0, 10, 0.1)
    touch = np.zeros((100, 6))
    touch[20:35, 0] = 0.4
    still = Base(((0, 0, 0),) * 3)
    assert drive(still, (at_s, touch), 10.0).scale == {}
    moving = np.tile([0.3, 0, 0, 0, 0, 0.0], (100, 1))
    assert drive(still, (at_s + 100, moving), 10.0).scale == {}
    assert drive(Base(still.matrix, rate_hz=1.0), (at_s, moving), 10.0).scale == {}
    assert drive(still, (at_s, moving * 0), 10.0).scale == {}
    assert drive(still, (at_s, moving * np.nan), 10.0).scale == {}
    assert drive(still, (at_s, moving), 10.0).poor


def test_odometry_without_a_twist_is_checked_by_its_pose():
    """And the note says so; messages that were left out are counted beside it."""
    at_s, twist = keyboard(np.random.default_rng(2), 25.0)
    time_s, pose, _ = Base(SWAPPED).drive(at_s, twist, 25.0)
    time_ns = np.round(time_s * SECOND).astype(np.int64)
    rows = [message(one) for one in pose] + [b'']
    odometry = read_odometry(rows, np.append(time_ns, time_ns[-1]))
    log = CommandLog(np.round(at_s * SECOND).astype(np.int64), twist, CommandRule(HOLDS))
    found = check_base(log, odometry)
    assert found.poor == ('linear_x and linear_y are swapped (by its odometry)',)
    assert [one.split()[0] for one in found.notes] == ['1', 'the']


def test_times_far_apart_are_not_compared_at_length():
    """A foreign file may state any time: the memory is bounded."""
    ends = np.array([0, 2**62], np.int64)
    odometry = Odometry(ends, np.zeros((2, 3)), np.zeros((2, 6)))
    log = CommandLog(ends, np.ones((2, 6)), CommandRule(HOLDS))
    assert check_base(log, odometry).scale == {}


def test_a_twist_in_the_wrong_frame_is_named_and_accuses_nobody():
    """A driver that reports its velocity in the room's axes, and turns."""
    commands = keyboard(np.random.default_rng(1), 40.0)
    found = drive(Base(), commands, 40.0, world=True)
    assert found.poor == () and found.scale == {}
    assert 'does not match the change of its pose' in found.notes[0]


@pytest.mark.parametrize(
    ('stated', 'real_s', 'words'),
    [(HOLDS, 0.5, 'by the odometry'), (0.5, np.inf, 'the base holds'), (1.0, 1.0, '')],
)
def test_a_base_that_stops_otherwise_than_stated_is_named(stated, real_s, words):
    """The setting is wrong, not the base: it is checked by what it really does."""
    at_s = np.arange(0.5, 40, 2.0)
    twist = np.zeros((len(at_s), 6))
    twist[:, 0] = np.resize([0.4, 0.3, 0.0, -0.4], len(at_s))
    rule = CommandRule(stated, KnownBy.RECORDED)
    found = drive(Base(stops_after_s=real_s), (at_s, twist), 40.0, rule=rule)
    assert len(found.poor) == bool(words) and all(words in one for one in found.poor)
    assert found.scale.get('linear_x', 1.0) == pytest.approx(1.0, abs=0.1)
