"""Loading a folder of episodes for training and evaluation, and refusing unusable ones."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from made_segments import write_worth
from many_episodes import drive
from mobile_vla_ros.data.episodes import (
    leak_lines,
    load_episodes,
    repeat_record,
    split_record,
)
from mobile_vla_ros.data.scale import default_scale, measure, scale_lines
from mobile_vla_ros.data.segments import Sampling, fingerprint, load_segments
from mobile_vla_ros.episode.storage.reader import find_episodes
from mobile_vla_ros.errors import UserError
from small_episodes import CREATED_NS


def test_a_broken_episode_is_named_and_the_rest_is_used(episode_folder, tmp_path):
    """A bad file neither stops the training nor is skipped silently."""
    broken = tmp_path / '20260101T000000Z_00000000.h5'
    broken.write_bytes(b'no HDF5')
    segments, skipped = load_segments([*find_episodes(episode_folder)[:1], broken], Sampling())
    assert len(segments) == 1
    assert list(skipped) == [str(broken)]
    assert skipped[str(broken)].startswith('it cannot be read as an episode')


def test_bad_episodes_are_left_out_unless_accepted(tmp_path):
    """The verdict decides and the reason is reported, but the user can override it."""
    paths = {
        verdict: write_worth(tmp_path, verdict, number)
        for number, verdict in enumerate(('good', 'poor', 'bad'))
    }
    segments, skipped = load_segments(paths.values(), Sampling())
    assert {segment.path for segment in segments} == {paths['good'], paths['poor']}
    assert list(skipped) == [str(paths['bad'])]
    assert skipped[str(paths['bad'])].startswith('verdict bad: the image stood still')
    segments, skipped = load_segments(paths.values(), Sampling(), ['good', 'poor', 'bad'])
    assert {segment.path for segment in segments} == set(paths.values()) and not skipped
    _, skipped = load_segments(paths.values(), Sampling(), ['good'])
    assert set(skipped) == {str(paths['poor']), str(paths['bad'])}
    with pytest.raises(UserError, match=r'goood.*Did you mean'):
        load_segments(paths.values(), Sampling(), ['goood'])


def test_an_unfinished_episode_is_never_used(tmp_path):
    """A file whose writer died must be recovered first."""
    path = write_worth(tmp_path, 'good', finished=False)
    _, skipped = load_segments([path], Sampling(), ['good', 'poor', 'bad'])
    assert 'recover' in skipped[str(path)]


def test_the_fingerprint_depends_on_the_commands(episode_folder):
    """Two sets of episodes differ in their fingerprint when one command differs."""
    segments, _ = load_segments(find_episodes(episode_folder)[:2], Sampling())
    first = fingerprint(segments)
    assert first == fingerprint(segments[::-1])
    segments[0].ahead[0, 0, 0] += 1e-3
    assert fingerprint(segments) != first


def test_a_bundle_s_split_is_kept(episode_folder):
    """Evaluating on the training data must not count trained episodes as validation."""
    ids = [path.stem for path in find_episodes(episode_folder)]
    found = load_episodes(
        episode_folder,
        Sampling(),
        ['good', 'poor'],
        0.5,
        0,
        known={'train_episodes': [*ids[:4], 'elsewhere']},
    )
    assert {segment.episode_id for segment in found.train} == set(ids[:4])
    assert {segment.episode_id for segment in found.val} == set(ids[4:])
    assert not found.trained_on


def test_a_bundle_with_its_own_baselines_validates_on_all_new_episodes(episode_folder):
    """No episode is held back for fitting baselines, down to a single episode."""
    everything = {path.stem for path in find_episodes(episode_folder)}
    for trained in ([], sorted(everything)[:1]):
        found = load_episodes(
            episode_folder,
            Sampling(),
            ['good', 'poor'],
            0.2,
            0,
            known={
                'train_episodes': ['elsewhere', *trained],
                'blind_means': {'mean_action': [0.0]},
            },
        )
        assert ids(found.train) == set(trained) and ids(found.val) == everything - set(trained)
        assert not found.trained_on and not found.leaks and repeat_record(found)


@pytest.mark.parametrize(
    ('here', 'elsewhere', 'few'),
    [(0, 4, True), (1, 2, True), (2, 2, False), (4, 0, False), (0, 0, True)],
)
def test_less_than_half_of_the_training_episodes_give_a_warning(
    episode_folder, here, elsewhere, few
):
    """Baselines fitted to one or two episodes are weaker than a policy trained on all."""
    everything = [path.stem for path in find_episodes(episode_folder)]
    known = {'train_episodes': [*everything[:here], *(f'other {i}' for i in range(elsewhere))]}
    assert (
        load_episodes(episode_folder, Sampling(), ['good', 'poor'], 0.2, 0, known=known).few_known
        == few
    )


def made(folder, keys, number=0, instruction='go to the red box', **options):
    """Write an episode of key presses at 5 Hz that starts at its own minute."""
    return drive(
        folder,
        keys,
        instruction,
        first_image=number,
        created_ns=CREATED_NS + number * 60_000_000_000,
        **options,
    )


def spoil(path, name, change):
    """Change a dataset of an episode in place."""
    with h5py.File(path, 'r+') as file:
        file[name][...] = change(file[name][...])


def load(folder, rate_hz=5.0, window=4, **options):
    """Load a folder as training does."""
    return load_episodes(folder, Sampling(rate_hz, window), ['good', 'poor'], 0.3, 0, **options)


def ids(segments):
    """Return the ids of the episodes of segments."""
    return {segment.episode_id for segment in segments}


def test_episodes_like_those_of_the_reference_run_are_sixteen_sequences(tmp_path):
    """Repeats are found, named if on both sides of the split, and grouped on request."""
    rng = np.random.default_rng(0)
    ways = [''.join(rng.choice(list('wsadqezc'), 18)) for _ in range(16)]
    of = [*range(16), *range(16), *rng.integers(0, 16, 80 - 32)]
    for number, way in enumerate(of):
        made(tmp_path, ways[way], number, f'go to box {way % 4}')
    plain = load(tmp_path)
    assert (plain.repeats.driven, plain.repeats.distinct) == (80, 16)
    assert sorted(map(len, plain.near_identical)) == sorted(np.bincount(of).tolist())
    assert len(plain.leaks) > 5, 'the ids differ in every run'
    [line] = leak_lines(plain)
    assert line.startswith('16 distinct sequences of commands in 80 episodes')
    for text in (f'{len(plain.leaks)} groups', '--group-duplicates', plain.leaks[0][0]):
        assert text in line
    grouped = load(tmp_path, group_duplicates=True)
    assert not grouped.leaks and len(grouped.near_identical) == 16
    assert 0.2 < len(ids(grouped.val)) / 80 < 0.4
    assert 'one side' in leak_lines(grouped)[0]
    record = split_record(plain, val_share=0.3, seed=0, group_duplicates=False)
    assert record == {
        'seed': 0,
        'val_share': 0.3,
        'group_duplicates': False,
        'takes': 80,
        'distinct': 16,
        'across': plain.leaks,
    }


def test_distinct_episodes_give_no_log_line(tmp_path):
    """Nothing is logged about episodes without repeats."""
    for number, keys in enumerate(('wwwwwwww', 'aaaaaaaa', 'dddddddd', 'qqqqqqqq')):
        made(tmp_path, keys, number)
    assert not leak_lines(load(tmp_path))


def test_evaluating_on_the_training_episodes_is_reported(episode_folder):
    """Regression: a folder of training episodes was split as if some had been held out."""
    everything = [path.stem for path in find_episodes(episode_folder)]
    found = load_episodes(
        episode_folder, Sampling(), ['good', 'poor'], 0.3, 0, known={'train_episodes': everything}
    )
    assert found.trained_on
    assert ids(found.train) == ids(found.val) == set(everything)


def test_grouping_keeps_repeats_of_training_episodes_out_of_validation(tmp_path):
    """A new episode with trained commands is no evidence for other commands."""
    trained = made(tmp_path, 'wwwwwwww', 0)
    alike, other = made(tmp_path, 'wwwwwwww', 1), made(tmp_path, 'aaaaaaaa', 2)
    known = {'train_episodes': [trained.stem]}
    assert ids(load(tmp_path, known=known).val) == {alike.stem, other.stem}
    assert load(tmp_path, known=known).leaks == [[trained.stem, alike.stem]]
    grouped = load(tmp_path, known=known, group_duplicates=True)
    assert ids(grouped.val) == {other.stem} and not grouped.leaks
    other.unlink()
    with pytest.raises(UserError, match='nearly identical to a training episode'):
        load(tmp_path, known=known, group_duplicates=True)


def test_the_scale_comes_from_the_training_side(tmp_path):
    """A fast validation episode does not change the scale."""
    for number in range(4):
        made(tmp_path, 'wwwwqqqq', number, speed=0.5)
    before = load(tmp_path)
    fast = sorted(ids(before.val))[0]
    spoil(tmp_path / f'{fast}.h5', 'commands/twist', lambda twist: twist * 7)
    after = load(tmp_path)
    assert ids(after.val) == ids(before.val)
    assert max(np.abs(segment.ahead).max() for segment in after.val) == pytest.approx(3.5)
    assert default_scale(after.train, ['linear_x']).scale == (0.5,)


def test_with_too_few_episodes_the_skipped_ones_are_named(tmp_path):
    """One episode cannot train and validate; the error has the reason for the skipped one."""
    good, short = made(tmp_path, 'wwwwwwww', 0), made(tmp_path, 'www', 1)
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    for text in (
        'too few episodes',
        good.stem,
        short.name,
        'no 4 consecutive frames at 5 Hz',
        'its longest run has 3 of its 3',
        'at least 2',
    ):
        assert text in str(caught.value)


def test_a_nan_inf_or_huge_command_is_named_by_its_row(tmp_path):
    """The error names the file, the row and the axis."""
    for number, wrong in enumerate((np.nan, -np.inf, 1e30)):
        path = made(tmp_path, 'wwwwwwww', number)

        def change(twist, wrong=wrong):
            twist[5, 1] = wrong
            return twist

        spoil(path, 'commands/twist', change)
    made(tmp_path, 'wwwwwwww', 8), made(tmp_path, 'wwwaaaaa', 9)
    found = load(tmp_path)
    assert len(found.left_out) == 3 and len(ids(found.train) | ids(found.val)) == 2
    for reason, text in zip(found.left_out.values(), ('nan', '-inf', '1e+30'), strict=True):
        assert f'row 5: linear_y {text}' in reason


def test_episodes_of_a_lower_rate_are_refused_with_their_rate(tmp_path):
    """For 10 Hz, 5 Hz is refused, 10 Hz is used, and every third frame of 30 Hz."""
    paths = {
        rate_hz: made(tmp_path, 'w' * 60, rate_hz, step_ns=round(1e9 / rate_hz))
        for rate_hz in (5, 10, 30)
    }
    found = load(tmp_path, rate_hz=10.0)
    assert list(found.left_out) == [str(paths[5])]
    assert 'its own frame rate is 5 Hz' in found.left_out[str(paths[5])]
    rows = {segment.episode_id: segment.frames for segment in [*found.train, *found.val]}
    assert rows[paths[10].stem].tolist() == list(range(60))
    assert rows[paths[30].stem].tolist() == [0, *range(2, 60, 3)]


def test_an_episode_without_an_instruction_is_left_out(tmp_path):
    """It is named, and the others are used."""
    paths = [made(tmp_path, keys, number) for number, keys in enumerate(('wwwwww', 'aaaaaa', 'd'))]
    silent = made(tmp_path, 'dddddd', 5)
    with h5py.File(silent, 'r+') as file:
        file.attrs['instruction'] = '  '
    found = load(tmp_path)
    assert found.left_out[str(silent)].startswith('it has no instruction')
    assert set(found.left_out) == {str(silent), str(paths[2])}


def test_idle_episodes_are_refused(tmp_path):
    """Zeros on every chosen axis are refused; the error lists the axes that move."""
    for number in range(4):
        made(tmp_path / 'idle', ' ' * 8, number)
        path = made(tmp_path / 'turning', 'wwwwwwww', number)
        spoil(path, 'commands/twist', lambda twist: np.roll(twist, 5, axis=1))
    with pytest.raises(
        UserError,
        match=r'never moves along linear_x or linear_y; got 3 '
        r'training episodes of zeros.*Record some',
    ):
        default_scale(load(tmp_path / 'idle').train, ['linear_x', 'linear_y'])
    with pytest.raises(UserError, match='--axes angular_z'):
        default_scale(load(tmp_path / 'turning').train, ['linear_x', 'linear_y'])


def test_an_axis_that_never_moves_is_named(tmp_path):
    """For a differential robot with a sideways axis the line suggests the axes that move."""
    for number in range(3):
        path = made(tmp_path, 'wwwwqqqq', number)

        def turn(twist):
            twist[:, 5], twist[:, 1] = twist[:, 1], 0
            return twist

        spoil(path, 'commands/twist', turn)
    training = load(tmp_path).train
    _, line = scale_lines(training, ['linear_x', 'linear_y'])
    assert line.startswith('linear_y is zero in every training episode')
    assert line.endswith('--axes linear_x angular_z')
    assert default_scale(training, ['linear_x', 'linear_y']).scale == (1.15, 1.0)
    assert all(line.startswith('scale: ') for line in scale_lines(training, ['angular_z']))


def test_a_few_commands_do_not_make_the_scale(tmp_path):
    """Two commands of 30 m/s from a slow base are named by episode and frame, and left out."""
    for number in range(4):
        path = made(tmp_path, 'wwwwqqqq' * 6, number)
    spoil(
        path,
        'commands/twist',
        lambda twist: np.where(np.arange(len(twist))[:, None] == 9, 30, twist),
    )
    segments, _ = load_segments(find_episodes(tmp_path), Sampling(5.0))
    axes = ['linear_x', 'linear_y']
    assert max(default_scale(segments, axes).scale) == pytest.approx(1.15)
    lines = ' '.join(scale_lines(segments, axes))
    top = default_scale(segments, axes).scale[0]
    print(f'\nshown 4: two commands of 30 m/s from a base of 1.15 m/s: scale {top:.3g}')
    assert 'far beyond it' in lines and f'{path.stem} frame 9: 30' in lines


def test_a_real_motion_in_few_frames_makes_the_scale(tmp_path):
    """Joystick noise along an axis, and a turn in a twentieth of the frames: no outliers."""
    for number in range(4):
        path = made(tmp_path, 'wwwwqqqq' * 12, number)

        def turn(twist):
            turning = np.arange(len(twist)) % 24 == 5
            twist[:, 5] = np.where(turning, 0.6, 0.01)
            return twist

        spoil(path, 'commands/twist', turn)
    segments, _ = load_segments(find_episodes(tmp_path), Sampling(5.0))
    (found,) = measure(segments, ['angular_z'])
    assert found.scale == pytest.approx(0.6) and not found.outliers


def test_drift_is_no_axis_of_its_own(tmp_path):
    """1.5 mm/s sideways beside 1.15 m/s is named, and scaled so that it is not learned."""
    for number in range(3):
        path = made(tmp_path, 'wwwwwwww', number)

        def drift(twist):
            twist[:, 1] = 0.0015
            return twist

        spoil(path, 'commands/twist', drift)
    training = load(tmp_path).train
    assert default_scale(training, ['linear_x', 'linear_y']).scale == (1.15, 1.0)
    assert [one.drift for one in measure(training, ['linear_x', 'linear_y'])] == [False, True]
    print('\nshown 4: 1.5 mm/s beside 1.15 m/s: drift, not learned')
    assert 'linear_y drifts: at most 0.0015 m/s' in ' '.join(
        scale_lines(training, ['linear_x', 'linear_y'])
    )


@pytest.mark.parametrize('damage', ['cut in its middle', 'cut at its end', 'a block of commands'])
def test_an_episode_broken_in_its_middle_is_named(tmp_path, damage):
    """The error names the file, and the others are used."""
    paths = [made(tmp_path, 'wwwwwwwwwwww', number) for number in range(3)]
    content = bytearray(paths[1].read_bytes())
    if damage == 'a block of commands':
        with h5py.File(paths[1], 'r') as file:
            at = file['commands/twist'].id.get_chunk_info(0)
        for index in range(at.byte_offset, at.byte_offset + 512):
            content[index] ^= 255
    else:
        content = content[: len(content) // 2 if 'middle' in damage else -1]
    paths[1].write_bytes(content)
    found = load(tmp_path)
    assert list(found.left_out) == [str(paths[1])]
    assert len(ids(found.train) | ids(found.val)) == 2


FUZZ = """
import random, sys
from pathlib import Path
from mobile_vla_ros.data.segments import Sampling
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.data.episodes import load_episodes
whole, folder = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
used = 0
for seed in range(int(sys.argv[3]), int(sys.argv[4])):
    rng, content = random.Random(seed), bytearray(whole)
    kind = rng.choice(['cut', 'bytes', 'flipped', 'zeros'])
    length = rng.choice([8, 64, 512])
    for _ in range(rng.randrange(1, 20) if kind == 'bytes' else 1):
        at = rng.randrange(len(whole))
        for index in range(at, min(at + (1 if kind == 'bytes' else length), len(whole))):
            content[index] = {'bytes': rng.randrange(256), 'flipped': content[index] ^ 255,
                              'zeros': 0}.get(kind, content[index])
    if kind == 'cut':
        content = content[:at]
    (folder / 'x.h5').write_bytes(content)
    print(seed, kind, flush=True)
    found = load_episodes(folder, Sampling(5.0), ['good', 'poor', 'bad'], 0.5, 0)
    left = {segment.episode_id for segment in [*found.train, *found.val]}
    assert len(left) >= 2, 'the others are used'
    for path, reason in found.left_out.items():
        assert path == str(folder / 'x.h5')
        assert reason.startswith(('it ', 'no ', 'the episode ')), reason
    used += not found.left_out
print('used', used)
"""


@pytest.mark.parametrize(
    'seeds', [(0, 50), pytest.param((50, 250), marks=pytest.mark.exhaustive)], ids=str
)
def test_random_damages_are_reported(tmp_path, seeds):
    """No damage to an episode stops the others from being used; a subprocess shows a crash."""
    folder = tmp_path / 'episodes'
    for number, keys in enumerate(('wwwwwwwwwwww', 'aaaaaaaaaaaa')):
        made(folder, keys, number)
    whole = made(tmp_path, 'qqqqqqqqqqqq', 3)
    done = subprocess.run(
        [sys.executable, '-c', FUZZ, whole, folder, *map(str, seeds)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr
    share = int(done.stdout.split()[-1]) / (seeds[1] - seeds[0])
    assert 0.05 < share < 0.95, 'some damages must matter and some must not'
