"""The verdict on an episode and its reasons."""

import json

import numpy as np
import pytest

from mobile_vla_ros.episode.quality import verdict as health
from mobile_vla_ros.episode.quality.image_quality import ImageQuality

PERIOD_NS = 100_000_000
CLEAR, DARK, BLURRED = (
    ImageQuality(0.5, 0.8),
    ImageQuality(0.01, float('nan')),
    ImageQuality(0.5, 0.2),
)


def judge(frames=50, **changes):
    """Judge a good episode of 10 Hz with some values changed."""
    times = np.arange(frames, dtype=np.int64) * PERIOD_NS
    steady = {
        'frame_stamp_ns': times,
        'frame_received_ns': times + 4_000_000,
        'frame_steady_ns': changes.get('frame_received_ns', times + 4_000_000),
        'frozen': np.zeros(frames, dtype=bool),
        'command_steady_ns': times,
        'twist': np.tile([0.3, 0, 0, 0, 0, 0], (frames, 1)),
        'drops': 0,
    }
    return health.judge(**{**steady, **changes})


def test_a_good_episode_has_no_reasons():
    """A steady episode is good, and its measures match the input."""
    found = judge()
    assert (found['verdict'], found['reasons']) == ('good', [])
    assert found['frame_rate_hz'] == pytest.approx(10)
    assert found['worst_gap_s'] == pytest.approx(0.1)
    assert found['skew_s'] == pytest.approx(0.004)
    assert (found['clock'], found['expected_rate_hz'], found['looked_at']) == ('sane', None, 0)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ('change', 'verdict', 'words'),
    [
        ({'drops': 5}, 'poor', '5 frames dropped'),
        ({'twist': np.zeros((50, 6))}, 'poor', 'never commanded to move'),
        ({'twist': np.repeat([[0.3] * 6, [0] * 6], (20, 30), axis=0)}, 'poor', 'idle for 60%'),
        ({'frozen': np.ones(50, dtype=bool)}, 'bad', 'image stood still'),
        ({'frozen': np.arange(50) % 5 == 0}, 'poor', 'image stood still'),
        (
            {'command_steady_ns': np.zeros(0, np.int64), 'twist': np.zeros((0, 6))},
            'bad',
            'no command',
        ),
        ({'frame_stamp_ns': np.zeros(50, np.int64)}, 'poor', 'camera clock'),
        (
            {
                'frame_received_ns': np.arange(50) * PERIOD_NS
                + (np.arange(50) > 25) * 2_000_000_000
            },
            'poor',
            '2.10 s without a frame',
        ),
        (
            {'command_steady_ns': np.arange(150) * PERIOD_NS, 'twist': np.full((150, 6), 0.3)},
            'poor',
            '10.00 s without a frame',
        ),
        (
            {'frame_stamp_ns': np.arange(50, dtype=np.int64)[::-1] * PERIOD_NS},
            'poor',
            'does not go forward',
        ),
        (
            {'frame_stamp_ns': np.arange(50) * PERIOD_NS + (np.arange(50) > 25) * 2_000_000_000},
            'poor',
            'jumps once',
        ),
        ({'frame_stamp_ns': np.arange(50) * PERIOD_NS - 800_000_000}, 'poor', '0.80 s behind'),
        ({'twist': np.full((50, 6), np.nan)}, 'bad', 'not a finite number'),
        ({'expected_rate_hz': 15.0}, 'poor', '10.0 frames a second where 15.0 were expected'),
        ({'expected_rate_hz': 30.0}, 'bad', '10.0 frames a second where 30.0 were expected'),
        ({'samples': [DARK, *[CLEAR] * 4]}, 'poor', 'dark in 20%'),
        ({'samples': [DARK] * 5}, 'bad', 'dark in 100% of the sampled frames: a lens cap'),
        ({'samples': [BLURRED] * 2 + [CLEAR] * 4}, 'poor', 'blurred in 33%'),
        ({'samples': [BLURRED] * 5}, 'poor', 'out of focus'),
    ],
)
def test_each_fault_is_named(change, verdict, words):
    """Each fault alone lowers the verdict and is named in the reasons."""
    found = judge(**change)
    assert found['verdict'] == verdict
    assert any(words in reason for reason in found['reasons'])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_standing_before_a_static_scene_is_no_frozen_camera():
    """Equal images are expected while the robot stands."""
    still = np.arange(50) < 10
    found = judge(frozen=still, twist=np.where(still[:, None], 0, 0.3) * np.ones(6))
    assert found['frozen_share'] == 0


@pytest.mark.parametrize(
    'change',
    [
        {'expected_rate_hz': 12.0},
        {'expected_rate_hz': 0.0},
        {'samples': [BLURRED, *[CLEAR] * 5]},
        {'samples': [ImageQuality(0.06, float('nan'))] * 5},
        {
            'frame_received_ns': np.maximum.accumulate(
                np.arange(50) * PERIOD_NS + (np.arange(50) == 25) * 900_000_000
            )
        },
        {'drops': 0, 'frozen': np.arange(50) == 4},
    ],
)
def test_small_defects_leave_an_episode_good(change):
    """One blurred frame, a plain wall, a late delivery, 83 % of the rate: still good."""
    found = judge(**change)
    assert (found['verdict'], found['reasons']) == ('good', [])


def test_the_period_of_a_slow_camera_is_no_gap():
    """At 1 Hz a second without a frame is normal; three periods are a gap."""
    times = np.arange(20, dtype=np.int64) * 10 * PERIOD_NS
    slow = {
        'frame_stamp_ns': times,
        'frame_received_ns': times,
        'expected_rate_hz': 1.0,
        'frozen': np.zeros(20, dtype=bool),
    }
    assert not any('without' in reason for reason in judge(20, **slow)['reasons'])
    late = times + (np.arange(20) > 9) * 30 * PERIOD_NS
    slow.update(frame_stamp_ns=late, frame_received_ns=late)
    assert '4.00 s without a frame' in judge(20, **slow)['reasons']


def test_the_rate_follows_the_stamps():
    """Delivery in bursts changes neither rate nor gaps if the camera's clock is sane."""
    times = np.arange(60, dtype=np.int64) * PERIOD_NS
    bunched = times[np.minimum(np.arange(60) // 4 * 4 + 3, 59)]
    found = judge(60, frame_stamp_ns=times + 1, frame_received_ns=bunched + 2)
    assert found['worst_gap_s'] == pytest.approx(0.1)
    assert found['frame_rate_hz'] == pytest.approx(10)


@pytest.mark.parametrize('frames', [0, 1])
def test_an_empty_episode_is_bad(frames):
    """No frame or one: a verdict, not an exception."""
    assert judge(frames=frames)['verdict'] == 'bad'
