"""`episodes import` of LeRobot sets: what was exported comes back, others' by their names."""

import itertools
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.timeline import times_of
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.interop.lerobot.video import VideoWriter, at
from mobile_vla_ros.types import Command
from small_episodes import CREATED_NS

FRONT = 'observation.images.front'
FRAMES, FPS = 24, 10


def noise(frame):
    """Return pixels that differ from any other frame's: blocks, as a video keeps them."""
    blocks = np.random.default_rng(frame).integers(0, 256, (6, 8, 3), np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def set_of(root, names, *, video='', robot='lekiwi', dtype='float64', **changes):
    """Write a set of version 2.1 by hand: two episodes; return its folder."""
    (root / 'meta').mkdir(parents=True)
    image = {'dtype': 'video' if video else 'image', 'shape': [48, 64, 3], 'names': None}
    features = {
        FRONT: image,
        'action': {'dtype': dtype, 'shape': [len(names)], 'names': {'motors': [*names]}},
        'timestamp': {'dtype': 'float32', 'shape': [1], 'names': None},
    }
    info = {'codebase_version': 'v2.1', 'fps': FPS, 'robot_type': robot, 'chunks_size': 1000}
    (root / 'meta/info.json').write_text(json.dumps(info | {'features': features} | changes))
    lines = []
    for number in range(2):
        tasks = [['go to the red box', 'turn left'][number]]
        lines.append({'episode_index': number, 'tasks': tasks, 'length': FRAMES})
        images = [noise(frame + 100 * number) for frame in range(FRAMES)]
        columns = {
            'action': list(actions(len(names)).astype(dtype)),
            'timestamp': (np.arange(FRAMES) / FPS).astype(np.float32),
            'episode_index': np.full(FRAMES, number),
        }
        if video:
            path = root / f'videos/chunk-000/{FRONT}/episode_{number:06}.mp4'
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open('wb') as file:
                writer = VideoWriter(file, video, (64, 48), FPS)
                for pixels in images:
                    writer.add(pixels)
                writer.close()
        else:
            columns[FRONT] = [{'bytes': encode(one, 'png'), 'path': None} for one in images]
        path = root / f'data/chunk-000/episode_{number:06}.parquet'
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
    (root / 'meta/episodes.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    return root


def actions(columns):
    """Return (FRAMES, columns) values, all different."""
    return (np.arange(FRAMES * columns).reshape(FRAMES, columns) + 1) / 100


def import_set(root, out, *more) -> int:
    """Run the command in this process; return its exit status."""
    return main(['episodes', 'import', str(root), '--out', str(out), *map(str, more)])


def twists(episode):
    """Return the command in force at each frame."""
    return episode.command_log().at(times_of(episode)[0])[0]


def written(folder):
    """Write an episode whose camera loses, and overtakes, a frame; return it."""
    info = EpisodeInfo('go to the red box', operator='ana', robot='rover', image_topic='/eye')
    writer = EpisodeWriter(folder, info, CREATED_NS)
    rng = np.random.default_rng(0)
    stamps = [*range(12), 13, 12, *range(14, 30), *range(34, 60)]
    for place, number in enumerate(stamps):
        stamp_ns = CREATED_NS + number * 33_333_333
        at_ns = CREATED_NS + max(stamps[: place + 1]) * 33_333_333 + 4_000_000
        at_ns += int(rng.integers(0, 300_000)) + (number < max(stamps[: place + 1])) * 900_000
        writer.add_frame(encode(noise(number)), stamp_ns, at_ns, at_ns - CREATED_NS)
    for number in range(80):
        at_ns = CREATED_NS + number * 25_000_000
        twist = np.array([0.1 + 0.2, -1 / 3, 0, 0, 1e-7, np.sin(number)])
        source = 'takeover' if 50 < number < 60 else 'policy'
        writer.add_command(Command(twist, at_ns, at_ns, source, at_ns - CREATED_NS))
    return writer.close('failure')


def test_out_and_in_again_is_equal_to_the_last_bit(tmp_path):
    """Images, commands and times to the nanosecond, words and outcome; and so once more."""
    path = written(tmp_path / 'first')
    folders = [tmp_path / name for name in ('first', 'second', 'third')]
    for number, (before, after) in enumerate(itertools.pairwise(folders)):
        root = tmp_path / f'set{number}'
        command = ['episodes', 'export', str(before), '--out', str(root)]
        assert main([*command, '--format', 'lerobot']) == 0
        assert import_set(root, after) == 0
    with Episode.open(path) as first:
        known = {
            int(stamp): (int(received), int(steady), first.encoded(row), twist.tolist())
            for row, (stamp, received, steady, twist) in enumerate(
                zip(
                    first.frame_stamp_ns,
                    first.frame_received_ns,
                    first.frame_steady_ns,
                    twists(first),
                    strict=True,
                )
            )
        }
    for folder in folders[1:]:
        stamps = []
        for one in find_episodes(folder):
            with Episode.open(one) as episode:
                assert (episode.instruction, episode.outcome) == ('go to the red box', 'failure')
                assert episode.attributes['operator'] == 'ana'
                for row, stamp in enumerate(episode.frame_stamp_ns.tolist()):
                    received, steady, image, twist = known[stamp]
                    assert episode.frame_received_ns[row] == received
                    assert episode.frame_steady_ns[row] == steady
                    assert episode.encoded(row) == image
                    assert twists(episode)[row].tolist() == twist
                stamps += episode.frame_stamp_ns.tolist()
        assert sorted(stamps) == sorted(known)
    assert import_set(tmp_path / 'set0', folders[1]) == 0, 'and nothing is imported twice'
    assert len(find_episodes(folders[1])) == 2


@pytest.mark.parametrize(
    ('names', 'robot', 'more', 'columns'),
    [
        (('x.vel', 'y.vel', 'theta.vel'), 'lekiwi', (), {0: 1, 1: 1, 5: np.pi / 180}),
        (('x.vel', 'y.vel', 'theta.vel'), 'xlerobot_pro', (), {0: 1, 1: 1, 5: np.pi / 180}),
        (
            ('x.vel', 'theta.vel'),
            'lekiwi_client',
            ('--actions', 'linear_x=x.vel,angular_z=theta.vel'),
            {0: 1, 5: np.pi / 180},
        ),
        (('x.vel', 'theta.vel'), '', ('--actions', 'angular_z=theta.vel*2'), {5: 2}),
        (('arm.pos', 'linear_velocity', 'angular_velocity'), 'other', (), {0: 1, 5: 1}),
        (('a', 'b'), '', ('--actions', 'angular_z=a,linear_x=b*0.5'), {5: 1, 0: 0.5}),
    ],
)
def test_actions_are_mapped_by_their_names_or_as_given(tmp_path, names, robot, more, columns):
    """LeKiwi turns in degrees a second; a factor makes others' units ours."""
    root = set_of(tmp_path / 'set', names, robot=robot)
    assert import_set(root, tmp_path / 'out', *more) == 0
    paths = find_episodes(tmp_path / 'out')
    assert len(paths) == 2
    with Episode.open(paths[0]) as episode:
        found = twists(episode)
        assert episode.instruction == 'go to the red box' and len(episode) == FRAMES
        assert np.allclose(np.diff(episode.frame_stamp_ns), 1e8, rtol=1e-9)
        assert episode.encoded(3) == encode(noise(3), 'png')
    used = {name: actions(len(names))[:, place] for place, name in enumerate(names)}
    given = {'a': 5, 'b': 0}
    for place, name in enumerate(names):
        column = given.get(name, {'x': 0, 'y': 1, 't': 5, 'l': 0}.get(name[0]))
        column = 5 if name == 'angular_velocity' else column
        if column in columns:
            assert np.array_equal(found[:, column], used[name] * columns[column]), (place, name)
    assert not found[:, [one for one in range(6) if one not in columns]].any()


def test_the_note_of_an_import_says_what_is_left_behind(tmp_path, capsys):
    """Actions of an arm."""
    root = set_of(tmp_path / 'set', ('arm.pos', 'linear_velocity'))
    assert import_set(root, tmp_path / 'out') == 0
    assert 'actions not imported: arm.pos' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('robot', 'name', 'unit', 'sentence'),
    [
        ('earthrover_mini_plus', 'angular_velocity', '', 'got -1 to 1'),
        ('other', 'theta.vel', '', "got robot 'other'"),
        ('lekiwi', 'theta.vel', 'rev/min', 'got rev/min'),
    ],
)
def test_a_unit_that_nobody_knows_needs_a_factor(tmp_path, capsys, robot, name, unit, sentence):
    """A guess would be wrong by a factor of 57."""
    root = set_of(tmp_path / 'set', (name,), robot=robot)
    file = root / 'meta/info.json'
    info = json.loads(file.read_text())
    info['features']['action']['info'] = {'units': [unit]}
    file.write_text(json.dumps(info))
    assert import_set(root, tmp_path / 'out') == 1
    assert import_set(root, tmp_path / 'out', '--actions', f'angular_z={name}') == 1
    said = capsys.readouterr().err
    assert said.count(f'the unit of its action {name} is unknown; {sentence}') == 4, said
    assert import_set(root, tmp_path / 'out', '--actions', f'angular_z={name}*1') == 0


def test_the_nearest_frame_of_a_video_is_taken_and_damage_is_said(tmp_path):
    """A video of three times the rate has the frames at each time; no picture is guessed."""
    path = tmp_path / 'a.mp4'
    with path.open('wb') as file:
        writer = VideoWriter(file, 'h264', (64, 48), 30)
        for number in range(60):
            writer.add(noise(number))
        writer.close()
    for row, one in enumerate(at(path, np.arange(20) / 10, 0.05)):
        differences = [np.abs(one[..., ::-1] - noise(number).astype(int)) for number in range(60)]
        assert np.argmin(np.mean(differences, axis=(1, 2, 3))) == 3 * row
    with pytest.raises(UserError, match='lacks frames'):
        list(at(path, np.arange(21) / 10, 0.03))
    data = bytearray(path.read_bytes())
    data[7200:7230] = bytes(30)  # a picture that a decoder would guess
    path.write_bytes(data)
    with pytest.raises(UserError, match='cannot be read'):
        list(at(path, np.arange(20) / 10, 0.05))


@pytest.mark.parametrize('codec', ['h264', 'av1'])
def test_frames_of_a_video_are_found_by_their_times(tmp_path, codec):
    """Of both versions: in a video for each episode, and in one for several."""
    from mobile_vla_ros.images.stored import decode

    root = set_of(tmp_path / 'set', ('x.vel', 'theta.vel'), video=codec)
    assert import_set(root, tmp_path / 'out', '--image-format', 'png') == 0
    out = tmp_path / 'again'
    written(tmp_path / 'gaps')
    arguments = ['episodes', 'export', str(tmp_path / 'gaps'), '--out', str(tmp_path / 'set3')]
    assert main([*arguments, '--format', 'lerobot', '--video', codec]) == 0
    assert import_set(tmp_path / 'set3', out) == 0
    first = {0: find_episodes(tmp_path / 'out')[0]}
    wanted = {0: noise}
    for path, pixels in [(first[0], wanted[0]), *((one, None) for one in find_episodes(out))]:
        with Episode.open(path) as episode:
            for row, stamp in enumerate(episode.frame_stamp_ns.tolist()):
                number = row if pixels else round((stamp - CREATED_NS) / 33_333_333)
                difference = decode(episode.encoded(row)).astype(int) - noise(number)
                assert np.abs(difference).mean() < 25, (path, row)


def edited(root, **changes):
    """Change the description of a set."""
    path = root / 'meta/info.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(root):
    """Cut a data file short."""
    path = root / 'data/chunk-000/episode_000000.parquet'
    os.truncate(path, path.stat().st_size // 2)


def second_camera(root):
    """Add another camera to the description."""
    features = json.loads((root / 'meta/info.json').read_text())['features']
    edited(root, features=features | {'observation.images.wrist': features[FRONT]})


@pytest.mark.parametrize(
    ('damage', 'sentence'),
    [
        (lambda root: edited(root, codebase_version='v1.6'), "unsupported version; got 'v1.6'"),
        (lambda root: edited(root, fps=0), 'info.json is broken'),
        (lambda root: shutil.rmtree(root / 'videos'), 'episode_000000.mp4 is missing'),
        (lambda root: shutil.rmtree(root / 'data'), 'episode_000000.parquet is missing'),
        (cut, 'episode_000000.parquet is broken'),
        (lambda root: (root / 'meta/episodes.jsonl').unlink(), 'episodes.jsonl cannot be read'),
        (second_camera, 'it has 2 cameras'),
        (lambda root: edited(root, features={'action': {}}), 'info.json is broken'),
    ],
)
def test_a_set_that_cannot_be_read_is_one_sentence(tmp_path, capsys, damage, sentence):
    """And nothing half-written."""
    root = set_of(tmp_path / 'set', ('x.vel', 'theta.vel'), video='h264')
    damage(root)
    assert import_set(root, tmp_path / 'out') == 1
    captured = capsys.readouterr()
    assert sentence in captured.err and 'Traceback' not in captured.err
    assert not [one for one in (tmp_path / 'out').iterdir() if 'episode_000000' in one.name]
    assert not [*(tmp_path / 'out').glob('.*')]


@pytest.mark.parametrize(
    ('more', 'sentence'),
    [
        ((), 'its actions are no velocities; got a, b'),
        (('--actions', 'linear_x=c'), "its actions have no 'c'; got a, b"),
        (('--actions', 'linear_x=a*fast'), "a factor is not a number; got 'fast'"),
    ],
)
def test_actions_that_cannot_be_mapped_are_said(tmp_path, capsys, more, sentence):
    """With the option that maps them."""
    root = set_of(tmp_path / 'set', ('a', 'b'))
    assert import_set(root, tmp_path / 'out', *more) == 1
    assert sentence in capsys.readouterr().err
    assert not [*(tmp_path / 'out').iterdir()]
