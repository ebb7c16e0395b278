"""The verdict on a take, and its words."""

import json

import numpy as np
import pytest

from mobile_vla_ros.episode import health

PERIOD_NS = 100_000_000


def judge(frames=50, **changes):
    """Judge a good take of 10 Hz with some of it changed."""
    times = np.arange(frames, dtype=np.int64) * PERIOD_NS
    take = {
        'frame_stamp_ns': times, 'frame_received_ns': times + 4_000_000,
        'frozen': np.zeros(frames, dtype=bool), 'command_received_ns': times,
        'twist': np.tile([0.3, 0, 0, 0, 0, 0], (frames, 1)), 'drops': 0}
    return health.judge(**{**take, **changes})


def test_good_take_has_no_reason_against_it():
    """A steady take is good, and its measures are what was put in."""
    found = judge()
    assert (found['verdict'], found['reasons']) == ('good', [])
    assert found['frame_rate_hz'] == pytest.approx(10)
    assert found['worst_gap_s'] == pytest.approx(0.1)
    assert found['skew_s'] == pytest.approx(0.004)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(('change', 'verdict', 'words'), [
    ({'drops': 5}, 'poor', '5 frames dropped'),
    ({'twist': np.zeros((50, 6))}, 'poor', 'never told to move'),
    ({'twist': np.repeat([[0.3] * 6, [0] * 6], (20, 30), axis=0)}, 'poor', 'idle for 60%'),
    ({'frozen': np.ones(50, dtype=bool)}, 'bad', 'picture stood still'),
    ({'frozen': np.arange(50) % 5 == 0}, 'poor', 'picture stood still'),
    ({'command_received_ns': np.zeros(0, np.int64), 'twist': np.zeros((0, 6))}, 'bad',
     'no command'),
    ({'frame_stamp_ns': np.zeros(50, np.int64)}, 'poor', 'camera clock'),
    ({'frame_received_ns': np.arange(50) * PERIOD_NS + (np.arange(50) > 25) * 2_000_000_000},
     'poor', '2.10 s without a frame'),
])
def test_fault_is_named(change, verdict, words):
    """Each fault alone spoils the verdict and is named in the reasons."""
    found = judge(**change)
    assert found['verdict'] == verdict
    assert any(words in reason for reason in found['reasons'])


def test_standing_before_a_still_scene_is_no_frozen_camera():
    """Equal pictures while the robot stands are as they should be."""
    still = np.arange(50) < 10
    found = judge(frozen=still, twist=np.where(still[:, None], 0, 0.3) * np.ones(6))
    assert found['frozen_share'] == 0


@pytest.mark.parametrize('frames', [0, 1])
def test_take_of_nothing_is_bad(frames):
    """No frames or one: a verdict, not a failure."""
    assert judge(frames=frames)['verdict'] == 'bad'
