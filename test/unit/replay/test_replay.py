"""mobile_vla replay: an episode through the real inference path, offline."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.model.golden import GOLDEN, read_golden
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.replay.compare import measured, predictors, summary, text
from mobile_vla_ros.replay.live import compare
from mobile_vla_ros.replay.run import replay
from mobile_vla_ros.runtime.frame_buffer import step_outcomes
from mobile_vla_ros.runtime.golden_check import check_golden
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.types import ActionSpec, Command
from small_episodes import CREATED_NS, encoded

MS = 1_000_000


class Clockwork:
    """A policy whose plan identifies step and frame: x is the step, y the stamp in seconds."""

    def __init__(self, spec):
        self.spec = spec

    def infer(self, window, instruction):
        """Return the plan of the window's newest frame."""
        twists = np.zeros((self.spec.chunk, 6))
        twists[:, 0] = np.arange(self.spec.chunk) / 100
        twists[:, 1] = (window[-1].stamp_ns - CREATED_NS) / 1e9
        return Plan(window[-1].stamp_ns, twists, self.spec.rate_hz)

    def reset(self):
        """Do nothing: it has no state."""


@pytest.fixture
def clockwork(small_run):
    """The policy of 10 Hz with a window of 4 and a chunk of 10."""
    return Clockwork(read_spec(small_run / 'best'))


def write(folder, stamps_ms, *, late_ms=0, commands=(), images=None):
    """Write an episode of frames with these stamps; commands are (ms, vx, vy)."""
    writer = EpisodeWriter(folder, EpisodeInfo('go to the box'), CREATED_NS)
    events = [(ms + late_ms, 0, ms, index) for index, ms in enumerate(stamps_ms)]
    events += [(ms, 1, vx, vy) for ms, vx, vy in commands]
    for at, kind, *what in sorted(events):
        now = CREATED_NS + at * MS
        if kind:
            writer.add_command(Command([*what, 0, 0, 0, 0], now, now, 'teleop'))
        else:
            stamp_ms, index = what
            image = images[index] if images else encoded(index)
            writer.add_frame(image, CREATED_NS + stamp_ms * MS, now)
    return writer.close('success')


@pytest.fixture(scope='module')
def one(episode_folder):
    """The first of the expert's episodes."""
    return min(episode_folder.glob('*.h5'))


def test_each_frame_has_the_policy_s_plan_for_its_window(small_run, one):
    """In the real path each plan belongs to the four frames that end with its frame."""
    policy = VlaPolicy.load(small_run / 'best')
    found = replay(one, policy, None)
    with Episode.open(one) as episode:
        assert found.instruction == episode.instruction
        assert found.new.tolist() == [False] * 3 + [True] * (len(episode) - 3)
        for end in (3, 10, len(episode) - 1):
            policy.reset()
            frames = [
                episode.frame(index, policy.spec.image.size) for index in range(end - 3, end + 1)
            ]
            plan = policy.infer(frames, episode.instruction)
            np.testing.assert_allclose(found.twist[end], plan.twists[0], atol=1e-5)
    assert found.commanded.tolist() == found.new.tolist()
    assert len(found.seconds) == found.new.sum() - 1


def test_a_late_frame_is_compared_with_the_command_at_its_receipt(clockwork, tmp_path):
    """Received 150 ms after its stamp: step 1 of its plan, and the command at that time."""
    commands = [(ms, ms / 1000, 0.0) for ms in range(0, 2000, 50)]
    found = replay(
        write(tmp_path, range(0, 1500, 100), late_ms=150, commands=commands), clockwork, None
    )
    np.testing.assert_allclose(found.twist[5, :2], [0.01, 0.5])
    np.testing.assert_allclose(found.driven[5, 0], 0.65)
    np.testing.assert_allclose(found.before[5, 0], 0.55)


def test_between_plans_a_faster_camera_gets_later_steps(clockwork, tmp_path):
    """At 30 Hz every third frame gives a plan, the others get that plan's step at their time."""
    stamps = [round(number * 1000 / 30) for number in range(30)]
    found = replay(write(tmp_path, stamps), clockwork, None)
    first = int(np.flatnonzero(found.new)[0])
    assert 8 <= first <= 10
    assert found.new[first:].sum() == pytest.approx((30 - first) / 3, abs=1)
    between = first + 1
    assert not found.new[between]
    np.testing.assert_allclose(found.twist[between], found.twist[first])


def test_gaps_and_refused_windows_are_named(clockwork, tmp_path):
    """For a gap of 0.5 s: its place, its length and the number of frames without a plan."""
    stamps = [*range(0, 1000, 100), *range(1400, 2400, 100)]
    found = replay(write(tmp_path, stamps), clockwork, None)
    assert found.gaps == ['at 0.90 s: 0.50 s without a frame']
    assert found.refused == [
        'at 0.00 s to 0.30 s: 3 frames without a plan, the first window fills',
        'at 1.40 s to 1.70 s: 3 frames without a plan, the window has a gap',
    ]
    assert not found.commanded[10:13].any() and found.commanded[13:].all()


def test_the_frames_with_a_plan_are_known_in_advance():
    """The live side waits for them, by the rule of the frame buffer."""
    ms = [0, 100, 200, 250, 300, 700]
    assert step_outcomes([one * MS for one in ms], 10.0, 3) == [
        False,
        False,
        True,
        None,
        True,
        False,
    ]


def test_an_unreadable_frame_is_named_and_the_rest_is_replayed(clockwork, small_run, tmp_path):
    """There is no plan while it is in the window, as in the node."""
    images = [encoded(index) for index in range(20)]
    images[8] = b'\x89PNG\r\n\x1a\n nothing'
    path = write(tmp_path, range(0, 2000, 100), images=images)
    found = replay(path, VlaPolicy.load(small_run / 'best'), 'go to the red box')
    assert any('broken at frame 8' in sentence for sentence in found.refused)
    assert (
        not found.commanded[8:12].any()
        and found.commanded[4:8].all()
        and found.commanded[12:].all()
    )


def test_receipt_times_replace_an_untrusted_camera_clock(clockwork, tmp_path):
    """For stamps of zero, with a sentence."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    for index in range(10):
        writer.add_frame(encoded(index), 0, CREATED_NS + index * 100 * MS)
    found = replay(writer.close('success'), clockwork, None)
    assert found.new.sum() == 7
    assert 'timed by their receipt' in found.notes[0]


def test_oddities_of_an_episode_are_reported(clockwork, tmp_path):
    """NaN commands are left out; an episode without commands counts as zero."""
    found = replay(
        write(tmp_path, range(0, 600, 100), commands=[(0, 0.1, 0), (5, np.nan, 0)]),
        clockwork,
        None,
    )
    assert found.notes == ['1 commands with NaN or inf are left out']
    assert np.isfinite(found.driven).all()
    found = replay(write(tmp_path / 'none', range(0, 800, 100)), clockwork, None)
    assert found.notes == ['the episode has no command: zero is assumed']
    found = replay(
        write(
            tmp_path / 'late',
            range(0, 800, 100),
            late_ms=400,
            commands=[(ms, 0.1, 0.2) for ms in (0, 400, 800)],
        ),
        clockwork,
        None,
    )
    assert found.notes == [
        'images were received 0.40 s after their stamps; by default the guard stops '
        'when they are older than 0.3 s'
    ]


def test_a_replay_compares_with_what_the_base_did(clockwork, tmp_path):
    """As the episode states it; otherwise by the bundle's number, and the share is a note."""
    path = write(tmp_path, range(0, 2000, 100), commands=[(0, 0.1, 0)])
    found = replay(path, clockwork, None)
    assert np.count_nonzero(found.driven[:, 0]) == 6
    assert any('70% of the driven time counts as standing still' in note for note in found.notes)
    with h5py.File(path, 'r+') as file:
        file.attrs['base_command_timeout_s'] = 0.0
    assert np.count_nonzero(replay(path, clockwork, None).driven[:, 0]) == 20


def test_errors_bias_and_sign_flips_by_hand():
    """Values from 0.05 of the scale on have a sign; flips are a share of all instants."""
    spec = ActionSpec(('linear_x', 'angular_z'), (1.0, 2.0))
    predicted, driven = np.zeros((4, 6)), np.zeros((4, 6))
    predicted[:, 0], driven[:, 0] = [0.5, -0.5, -0.04, 0.1], [0.2, 0.3, 0.3, 0.1]
    predicted[:, 5] = 0.2
    found = measured(predicted, driven, spec)
    assert found['linear_x'] == {
        'unit': 'm/s',
        'mae': pytest.approx((0.3 + 0.8 + 0.34) / 4),
        'rmse': pytest.approx(((0.09 + 0.64 + 0.34**2) / 4) ** 0.5),
        'bias': pytest.approx((0.3 - 0.8 - 0.34) / 4),
        'sign_flips': 0.25,
    }
    assert found['angular_z'] == {
        'unit': 'rad/s',
        'mae': pytest.approx(0.2),
        'rmse': pytest.approx(0.2),
        'bias': pytest.approx(0.2),
        'sign_flips': 0.0,
    }


def test_the_policy_is_compared_with_baselines(clockwork, tmp_path):
    """Zero, the mean action of the bundle's episodes, and the previous command."""
    commands = [(ms, ms / 1000, 0.0) for ms in range(0, 2000, 50)]
    found = replay(write(tmp_path, range(0, 1500, 100), commands=commands), clockwork, None)
    rows = predictors(found, clockwork.spec)
    assert list(rows) == ['policy', 'zero', 'mean_action', 'repeat_last']
    np.testing.assert_allclose(rows['mean_action'][0, :2], clockwork.spec.data['mean_action'])
    result = summary(found, clockwork.spec)
    assert result['measured']['repeat_last']['linear_x']['bias'] == pytest.approx(-0.1)
    assert result['instants'] == 12
    shown = text({**result, 'episode': 'x', 'device': 'cpu', 'precision': 'fp32', 'threads': 1})
    assert 'repeat_last' in shown and 'linear_y, m/s' in shown
    unknown = replace(clockwork.spec, data={})
    assert 'mean_action' not in predictors(found, unknown)


def test_an_episode_without_plans_gives_a_table_of_dashes(clockwork, tmp_path):
    """Three frames for a window of four give no numbers."""
    found = replay(write(tmp_path, (0, 100, 200)), clockwork, None)
    result = summary(found, clockwork.spec)
    assert result['plans'] == 0 and result['measured']['policy']['linear_x']['mae'] is None
    assert 'to the end: 3 frames without a plan, the window is never full' in result['refused'][0]
    assert '–' in text(
        {**result, 'episode': 'x', 'device': 'cpu', 'precision': 'fp32', 'threads': 1}
    )


def test_json_and_plot(small_run, one, tmp_path, capsys):
    """The JSON for programs, and an image file."""
    status = main(
        [
            'replay',
            str(one),
            '--policy',
            str(small_run / 'best'),
            '--json',
            '--plot',
            str(tmp_path / 'drive.png'),
            '--instruction',
            'stop',
        ]
    )
    result = json.loads(capsys.readouterr().out)
    assert status == 0 and result['instruction'] == 'stop' and result['live'] is None
    assert set(result['measured']) == {'policy', 'zero', 'mean_action', 'repeat_last'}
    assert set(result['measured']['policy']['linear_x']) == {
        'unit',
        'mae',
        'rmse',
        'bias',
        'sign_flips',
    }
    assert result['pace']['step_ms'] > 0
    assert (tmp_path / 'drive.png').read_bytes().startswith(b'\x89PNG')


def test_store_golden_adds_missing_golden_frames(small_run, one, tmp_path, capsys):
    """Nothing else changes, and the check passes afterwards."""
    folder = shutil.copytree(small_run / 'best', tmp_path / 'policy')
    (folder / GOLDEN).unlink()
    before = {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}
    assert main(['replay', str(one), '--policy', str(folder), '--store-golden']) == 0
    assert str(folder / GOLDEN) in capsys.readouterr().out
    golden = read_golden(folder)
    with Episode.open(one) as episode:
        assert golden.instruction == episode.instruction
    assert check_golden(VlaPolicy.load(folder), golden, 'fp32')[0]
    assert {
        path: path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file() and path.name != GOLDEN
    } == before


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['nothing.h5', '--policy', 'BUNDLE'], 'no episode at nothing.h5'),
        (['TEXT', '--policy', 'BUNDLE'], 'cannot be read as an episode'),
        (['TAKE', '--policy', 'nothing'], 'no such folder'),
        (['TAKE', '--policy', 'builtin:dem'], "mean 'builtin:demo'"),
        (['TAKE', '--policy', 'BUNDLE', '--instruction', ' '], 'the instruction is empty'),
        (['TAKE', '--policy', 'BUNDLE', '--instruction', 'x' * 501], 'got 501 characters'),
        (['DEAF', '--policy', 'BUNDLE'], 'has no instruction'),
        (['TAKE', '--policy', 'BUNDLE', '--plot', 'nowhere/x.png'], 'an existing folder'),
        (['TAKE', '--policy', 'BUNDLE', '--plot', 'x.jpg'], 'FILE.png'),
        (['TAKE', '--policy', 'BUNDLE', '--threads', '0'], '1 to 256'),
        (['TAKE', '--policy', 'BUNDLE', '--threads', '1000000'], '1 to 256'),
        (['TAKE', '--policy', 'BUNDLE', '--device', 'warp9'], "'warp9' cannot be used"),
        (['TAKE', '--policy', 'BUNDLE', '--store-golden', '--ros'], 'one at a time'),
        (['SHORT', '--policy', 'BUNDLE', '--store-golden'], 'its own frame rate is 10 Hz. Use'),
    ],
)
def test_bad_input_is_refused(arguments, expected, small_run, one, tmp_path, monkeypatch, capsys):
    """Status 2 with the reason, and no traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'text.h5').write_text('nothing of the kind')
    known = {
        'TAKE': one,
        'BUNDLE': small_run / 'best',
        'TEXT': tmp_path / 'text.h5',
        'DEAF': write(tmp_path / 'deaf', (0, 100)),
        'SHORT': write(tmp_path / 'short', (0, 100)),
    }
    with h5py.File(known['DEAF'], 'r+') as file:  # the writer would refuse it
        file.attrs['instruction'] = ''
    assert main(['replay', *(str(known.get(word, word)) for word in arguments)]) == 2
    assert expected in capsys.readouterr().err


def answers(found, **changes):
    """Return the same answers as from a live node, with changes at some frames."""
    given = [
        {'frame': int(index), 'twist': found.twist[index].tolist()}
        for index in np.flatnonzero(found.new)
    ]
    for name, change in changes.items():
        given[int(name[1:])] |= change
    return given


def test_a_difference_of_the_live_node_is_reported_with_its_time(clockwork, tmp_path):
    """The limit of 1e-5 m/s, the place of the first difference, and the withheld proposals."""
    found = replay(write(tmp_path, range(0, 1500, 100)), clockwork, None)
    result = compare(answers(found), found, 1e-5)
    assert result['equal'] and result['frames'] == 12 and result['worst'] == 0
    other = found.twist[5].copy()
    other[1] += 2e-5
    result = compare(answers(found, f2={'twist': other.tolist()}), found, 1e-5)
    assert not result['equal'] and 'at 0.50 s' in result['sentence']
    held = [*answers(found)[:10], {'frame': 13, 'withheld': 'the camera is frozen'}]
    result = compare(held, found, 1e-5)
    assert result['withheld'] == {'the camera is frozen': 1, 'no answer': 1}
    assert result['equal'] and 'no proposal at 1 more: the camera is frozen' in result['sentence']
    assert not compare([], found, 1e-5)['equal']


def test_a_policy_that_is_code_is_replayed(episode_folder, capsys):
    """By its name; what it computes with is its own business."""
    episode = sorted(episode_folder.glob('*.h5'))[0]
    name = 'mobile_vla_ros.runtime.policy:NoOpPolicy'
    assert main(['replay', str(episode), '--policy', name, '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result['policy'], result['device']) == (name, 'its own device')
    assert result['measured']['policy'] == result['measured']['zero']
