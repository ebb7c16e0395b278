"""Trials in the arena and the policy's driver: time, frames and results."""

from types import SimpleNamespace

import numpy as np
import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.rollout.policy_driver import PolicyDriver
from mobile_vla_ros.rollout.trials import (
    ConstantDriver,
    Drive,
    ExpertDriver,
    Trial,
    drive_scene,
    live_drive,
    run_trial,
    scenes_of,
    summarise,
    wilson,
)
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.types import Frame

MS = 1_000_000


@pytest.fixture
def arena():
    """A small arena."""
    one = Arena(32, 32)
    yield one
    one.close()


class Recorder:
    """A driver that stands still and records its frames."""

    wants_images = True

    def reset(self, instruction):
        """Start a scene."""
        self.instruction = instruction
        self.frames, self.asked = [], []

    def see(self, frame):
        """Record a frame."""
        self.frames.append(frame)

    def command(self, now_ns):
        """Record the time and return zero."""
        self.asked.append((now_ns, len(self.frames)))
        return np.zeros(6)


MEASURING_SUITES = [name for name, suite in suites.SUITES.items() if suite.yardstick]


@pytest.mark.parametrize('suite', MEASURING_SUITES)
def test_the_expert_succeeds_in_every_suite(suite, arena):
    """A suite that the expert cannot solve measures nothing."""
    trials = [run_trial(arena, suite, number, ExpertDriver(arena)) for number in range(4)]
    assert all(trial.success for trial in trials)
    for trial in trials:
        for drive in trial.drives:
            assert drive.expert_s == drive.elapsed_s  # compared with itself
            assert drive.expert_length_m == drive.length_m
    assert arena._camera is None, 'the expert needs no image'


def test_a_drive_has_the_pose_every_tenth_of_a_second(arena):
    """The page and its films are drawn from the path."""
    drive = drive_scene(arena, 'unseen_layouts', 1, ExpertDriver(arena))
    scene = suites.scene('unseen_layouts', 1)
    assert drive.path[0] == pytest.approx(scene.start, abs=1e-4)
    assert len(drive.path) == 1 + np.ceil(drive.elapsed_s / 0.1)
    steps = np.hypot(*np.diff(np.array(drive.path)[:, :2], axis=0).T)
    assert steps.max() <= 0.06 + 1e-3  # 0.6 m/s for 0.1 s
    assert drive.length_m == pytest.approx(steps.sum(), rel=0.02)
    assert 0 < drive.min_gap_m < 1
    assert (drive.kind, drive.instruction) == (scene.task.kind, scene.instruction)


def test_the_same_trial_ends_the_same_way(arena):
    """Trials are comparable only if the driver alone decides the result."""
    ahead = ConstantDriver(np.array([0.5, 0, 0, 0, 0, 0.1]))
    once = run_trial(arena, 'disturbed', 3, ahead)
    assert run_trial(arena, 'disturbed', 3, ahead) == once
    assert run_trial(arena, 'disturbed', 4, ahead).drives[0].path != once.drives[0].path


def test_a_constant_driver_renders_no_image_and_fails(arena):
    """Controls without images run at the arena's full speed."""
    assert drive_scene(arena, 'seen', 0, ConstantDriver(np.zeros(6))).outcome == 'timeout'
    crash = drive_scene(arena, 'seen', 0, ConstantDriver(np.array([0.6, 0, 0, 0, 0, 0])))
    assert crash.outcome in ('collision', 'wrong', 'timeout')
    assert crash.length_m > 1
    assert crash.expert_s is not None
    assert arena._camera is None


def test_the_change_of_command_counts_from_rest_and_older_logs_lack_it(arena):
    """One step to a constant command, m/s and rad/s, over the time of the drive."""
    crash = drive_scene(arena, 'seen', 0, ConstantDriver(np.array([0.3, 0.4, 0, 0, 0, -0.2])))
    assert crash.change_mps2 == pytest.approx(0.5 / crash.elapsed_s, abs=1e-4)
    assert crash.change_radps2 == pytest.approx(0.2 / crash.elapsed_s, abs=1e-4)
    line = crash.to_json()
    assert Drive.from_json(line) == crash
    del line['change_mps2'], line['change_radps2']
    assert Drive.from_json(line).change_mps2 is None
    del line['outcome']
    with pytest.raises(ValueError, match='outcome'):
        Drive.from_json(line)


def test_a_driver_without_images_gets_frames_on_time_without_images(arena):
    """The same frames, lost and late as before, but nothing is rendered."""
    seeing, blind = Recorder(), Recorder()
    blind.wants_images = False
    drive_scene(arena, 'disturbed', 0, blind)
    assert arena._camera is None
    drive_scene(arena, 'disturbed', 0, seeing)
    times = [
        [(frame.stamp_ns, frame.received_ns) for frame in one.frames] for one in (seeing, blind)
    ]
    assert times[0] == times[1] and len(times[0]) > 50
    assert {frame.image.size for frame in blind.frames} == {3}


def test_a_blind_policy_drives_the_same_without_rendering(arena):
    """The control saves work, not information."""
    drives = []
    for drawn in (True, False):
        driver = PolicyDriver(VlaPolicy.load('builtin:demo', blank='image'))
        assert not driver.wants_images
        driver.wants_images = drawn
        drives.append(drive_scene(arena, 'unseen_layouts', 0, driver))
    assert drives[0] == drives[1] and drives[0].length_m > 0.1


def test_frames_are_lost_and_late_as_the_scene_defines(arena):
    """The camera has 10 Hz; a late frame arrives after a newer one, a lost one never."""
    driver = Recorder()
    drive = drive_scene(arena, 'disturbed', 0, driver)
    scene = suites.scene('disturbed', 0)
    assert driver.instruction == scene.instruction == drive.instruction
    last_ns = driver.asked[-1][0]
    delays = {
        stamp: scene.disturbance.delay_of(scene.seed, stamp)
        for stamp in range(0, last_ns + 1, 100 * MS)
    }
    expected = {
        stamp: delay
        for stamp, delay in delays.items()
        if delay is not None and stamp + delay <= last_ns
    }
    assert {
        frame.stamp_ns: frame.received_ns - frame.stamp_ns for frame in driver.frames
    } == expected
    assert 0 < sum(delay is None for delay in delays.values()) < len(delays) / 2
    assert 150 * MS in expected.values()
    arrivals = [frame.received_ns for frame in driver.frames]
    assert arrivals == sorted(arrivals)
    stamps = [frame.stamp_ns for frame in driver.frames]
    assert stamps != sorted(stamps), 'a newer frame overtakes a late one'
    # The driver gets no frame before its arrival, and gives a command 20 times a second.
    for now_ns, seen in driver.asked:
        assert seen == sum(arrival <= now_ns for arrival in arrivals)
    assert [now for now, _ in driver.asked] == list(range(0, last_ns + 1, 50 * MS))


def test_a_frame_has_the_image_of_its_time(arena):
    """Also a late one: its image shows the scene at its stamp."""
    driver = Recorder()
    drive_scene(arena, 'disturbed', 0, driver)
    late = next(frame for frame in driver.frames if frame.received_ns > frame.stamp_ns)
    arena.reset(suites.scene('disturbed', 0))
    while arena.time_ns < late.stamp_ns:
        arena.step(np.zeros(6), 50 * MS)
    np.testing.assert_array_equal(late.image, arena.render())


def drive(outcome='success', kind='go_to', elapsed_s=10.0, expert_s=8.0, length_m=3.0) -> Drive:
    """Return the record of a drive."""
    return Drive(
        'swap',
        0,
        'go to the red box',
        kind,
        outcome,
        elapsed_s,
        [[0, 0, 0]],
        length_m,
        0.1,
        expert_s,
        None if expert_s is None else 2.0,
        [[0, 0, 0]],
    )


def test_a_trial_of_two_drives_needs_both():
    """A driver that ignores the instruction and succeeds once has not solved the trial."""
    assert Trial(0, (drive(), drive())).success
    assert not Trial(0, (drive(), drive('wrong'))).success
    assert Trial(0, (drive('collision'), drive())).collision
    assert not Trial(0, (drive('wrong'), drive('timeout'))).collision
    assert list(scenes_of('swap', 3)) == [6, 7]
    assert list(scenes_of('seen', 3)) == [3]


def test_the_interval_is_wilson_s():
    """Known values, and shares at the ends stay within 0 and 1."""
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0, 1)


def test_the_summary_counts_trials_and_drives():
    """Rates and intervals are over trials; tasks and outcomes are over drives."""
    summary = summarise(
        'swap',
        [
            Trial(0, (drive(), drive(kind='stop', elapsed_s=2.0, expert_s=4.0, length_m=1.0))),
            Trial(1, (drive(), drive('wrong'))),
            Trial(2, (drive('collision'), drive('collision'))),
            Trial(3, (drive('timeout', expert_s=None), drive(expert_s=None))),
        ],
    )
    assert (summary['suite'], summary['suites_version']) == ('swap', suites.VERSION)
    assert (summary['trials'], summary['success_rate'], summary['collision_rate']) == (
        4,
        0.25,
        0.25,
    )
    assert summary['success_interval'] == list(wilson(1, 4))
    assert summary['ends'] == {'success': 4, 'wrong': 1, 'collision': 2, 'timeout': 1}
    assert summary['kinds']['stop'] == {
        'drives': 1,
        'success': 1,
        'wrong': 0,
        'collision': 0,
        'timeout': 0,
    }
    # A scene that the expert failed gives no ratio.
    assert summary['time_s'] == pytest.approx({'mean': 22 / 3, 'expert': 20 / 3, 'ratio': 1.1})
    assert summary['length_m'] == pytest.approx({'mean': 7 / 3, 'expert': 2.0, 'ratio': 7 / 6})
    assert [entry['trial'] for entry in summary['outcomes']] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert 'path' not in summary['outcomes'][0]


def test_without_a_success_there_is_no_mean():
    """Not a division by zero."""
    summary = summarise('seen', [Trial(0, (drive('timeout'),))])
    assert summary['time_s'] == {'mean': None, 'expert': None, 'ratio': None}


@pytest.mark.parametrize(
    'rows', [[[0, 0], [0, 0.5], [1, 0.5]], [[0, 0, 1], [0, 0.5, 1], [1, 0.5, 1]]]
)
def test_a_live_drive_is_compared_with_the_expert_too(rows, arena):
    """Records of live nodes, with or without yaw, are summarised like those of the arena."""
    one = live_drive(
        arena,
        'seen',
        {
            'trial': 2,
            'outcome': 'wrong',
            'elapsed_s': 4.5,
            'instruction': 'go',
            'path': rows,
            'extra': 1,
        },
    )
    assert (one.scene, one.outcome, one.elapsed_s, one.path) == (2, 'wrong', 4.5, rows)
    assert one.length_m == 1.5
    assert one.min_gap_m is None
    assert one.expert_s > 1
    assert len(one.expert_path[0]) == 3


@pytest.mark.parametrize(
    ('suite', 'number', 'text'),
    [('sen', 0, "'seen'"), ('seen', -1, 'no such trial'), ('swap', 5_000_000, '4999999')],
)
def test_a_trial_that_does_not_exist_is_refused(suite, number, text):
    """With a UserError."""
    with pytest.raises(UserError, match=text):
        scenes_of(suite, number)


class CountingPolicy:
    """A policy whose plan identifies its window: step k of the plan from t is t ms + k."""

    def __init__(self, rate_hz=10.0, window=3, chunk=5):
        self.spec = SimpleNamespace(rate_hz=rate_hz, window=window, blank='')
        self.chunk = chunk
        self.windows = []

    def reset(self):
        """Clear the list of windows."""
        self.windows.clear()

    def infer(self, window, instruction):
        """Return a plan that differs from every other."""
        stamps = [frame.stamp_ns // MS for frame in window]
        self.windows.append((stamps, instruction))
        twists = np.zeros((self.chunk, 6))
        twists[:, 0] = stamps[-1] + np.arange(self.chunk)
        return Plan(window[-1].stamp_ns, twists, self.spec.rate_hz)


def give_frames(driver, *stamps_ms):
    """Give the driver frames with these times in milliseconds."""
    for ms in stamps_ms:
        driver.see(Frame(np.zeros((2, 2, 3), np.uint8), ms * MS, ms * MS))


def test_the_driver_stands_until_it_has_a_window_and_then_plays_its_plan():
    """No window, no motion; then the step for the current time; after the plan's end zero."""
    policy = CountingPolicy()
    driver = PolicyDriver(policy)
    driver.reset('go')
    give_frames(driver, 0, 100)
    assert not driver.command(100 * MS).any()
    give_frames(driver, 200)
    assert policy.windows == [([0, 100, 200], 'go')]
    assert [driver.command(ms * MS)[0] for ms in (200, 250, 300, 699, 700)] == [
        200,
        200,
        201,
        204,
        0,
    ]


def test_the_driver_uses_each_frame_once_and_skips_those_between():
    """A 30 Hz camera and a 10 Hz policy: about every third frame, like the inference node."""
    policy = CountingPolicy()
    driver = PolicyDriver(policy)
    driver.reset('go')
    give_frames(driver, *(round(number * 1000 / 30) for number in range(15)))
    driver.command(500 * MS)
    driver.command(550 * MS)
    assert [stamps[-1] for stamps, _ in policy.windows] == [167, 267, 367, 467]


def test_the_driver_names_each_unknown_word_once():
    """By `simulate` and `replay`; a hundred trials need no hundred lines."""
    policy, named = CountingPolicy(), []
    policy.unknown_words = lambda text: [word for word in text.split() if word != 'go']
    driver = PolicyDriver(policy, named.append)
    for instruction in ('go far', 'go far', 'go far now', 'go'):
        driver.reset(instruction)
    assert named == [
        "the policy does not know far in 'go far'",
        "the policy does not know now in 'go far now'",
    ]


def test_a_gap_leaves_the_last_plan_playing():
    """A lost frame empties the window, and the last plan continues to its end."""
    policy = CountingPolicy()
    driver = PolicyDriver(policy)
    driver.reset('go')
    give_frames(driver, 0, 100, 200, 400)
    assert len(policy.windows) == 1
    assert driver.command(400 * MS)[0] == 202
    give_frames(driver, 500, 600)
    assert policy.windows[-1][0] == [400, 500, 600]
    assert driver.command(600 * MS)[0] == 600


def test_a_new_scene_starts_without_frames_or_plan():
    """Its clock starts at zero again, so earlier frames and plans do not count."""
    driver = PolicyDriver(CountingPolicy())
    driver.reset('go')
    give_frames(driver, 0, 100, 200)
    driver.reset('stop')
    assert not driver.command(250 * MS).any()
    give_frames(driver, 0, 100)
    assert driver.plan is None
    give_frames(driver, 200)
    assert driver.policy.windows == [([0, 100, 200], 'stop')]
