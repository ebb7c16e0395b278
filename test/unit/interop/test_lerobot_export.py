"""`episodes export --format lerobot`: what LeRobot reads, checked with pyarrow alone."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from driven_bases import message as odometry_message
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.catalog.edit import edit
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.timeline import times_of
from mobile_vla_ros.episode.timing.windows import one_a_period
from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.images.stored import decode, mode_of
from mobile_vla_ros.interop.lerobot import statistics
from mobile_vla_ros.interop.lerobot.export import Wanted
from mobile_vla_ros.interop.lerobot.export import exported as exported_set
from mobile_vla_ros.types import Command
from small_episodes import CREATED_NS, encoded

FRONT = 'observation.images.front'
ODOM = Channel('/odom', 'nav_msgs/msg/Odometry', 'std_msgs/Header header')
SECOND_NS = 1_000_000_000


def export(*arguments) -> int:
    """Run the command in this process; return its exit status."""
    return main(['episodes', 'export', *map(str, arguments), '--format', 'lerobot'])


def write(folder, number=0, frames=24, *, rate_hz=10.0, gaps=(), image=None, sources=(), **info):
    """Write an episode that passes the verdict, without the frames in ``gaps``; return it."""
    image = image or (lambda frame: noise(frame + 100 * number))
    created_ns = CREATED_NS + number * 100 * SECOND_NS
    optional = {'proposals': info.pop('proposals', False), 'messages': info.pop('odometry', False)}
    words = info.pop('instruction', 'go to the red box')
    info = {'base_command_timeout_s': 0.5, **info}
    writer = EpisodeWriter(folder, EpisodeInfo(words, **info), created_ns, **optional)
    for frame in range(frames):
        at_ns = created_ns + round(frame / rate_hz * SECOND_NS)
        if frame not in gaps:
            writer.add_frame(image(frame), at_ns, at_ns + 3_000_000, at_ns + 5)
        source = sources[frame] if sources else 'teleop'
        twist = np.array([0.1 + frame / 300, 0, 0, 0, 0, np.sin(frame / 3)])
        writer.add_command(Command(twist, at_ns, at_ns, source, at_ns))
        if optional['proposals'] and frame > 12:
            writer.add_proposal(2 * twist, at_ns, at_ns, at_ns)
        if optional['messages'] and frame < 12:
            writer.add_message(
                ODOM, odometry_message(twist=(frame / 10, 0, 0, 0, 0, 0.5)), at_ns, at_ns
            )
    return writer.close('success')


def noise(frame):
    """Return an image that differs from any other frame's."""
    pixels = np.random.default_rng(frame).integers(0, 256, (24, 32, 3), np.uint8)
    return encode(pixels)


def rows_of(root):
    """Return all rows of a set as columns of numpy or lists."""
    found = {}
    for file in sorted(root.glob('data/*/*.parquet')):
        for name, values in pq.read_table(file).to_pydict().items():
            found.setdefault(name, []).extend(values)
    return found


def described(root):
    """Return the description, the statistics and the rows of the episodes of a set."""
    meta = root / 'meta'
    info, stats = (json.loads((meta / f'{name}.json').read_text()) for name in ('info', 'stats'))
    return info, stats, pq.read_table(meta / 'episodes/chunk-000/file-000.parquet').to_pylist()


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Provide two episodes, and the set of them."""
    folder = tmp_path_factory.mktemp('lerobot')
    paths = [
        write(folder / 'episodes', robot='rover'),
        write(folder / 'episodes', 1, 30, robot='rover', instruction='turn left'),
    ]
    assert export(folder / 'episodes', '--out', folder / 'set') == 0
    return paths, folder / 'set'


def test_rows_are_the_frames_on_a_grid_with_stored_bytes_and_commands_in_force(exported):
    """Images byte for byte, commands by the one rule, times by the grid and beside it true."""
    paths, root = exported
    rows, at = rows_of(root), 0
    for number, path in enumerate(paths):
        with Episode.open(path) as episode:
            own = slice(at, at + len(episode))
            assert [one['bytes'] for one in rows[FRONT][own]] == [
                episode.encoded(index) for index in range(len(episode))
            ]
            twist, _ = episode.command_log().at(times_of(episode)[0])
            assert np.array_equal(np.array(rows['command'][own]), twist)
            used = twist[:, [0, 5]].astype(np.float32)
            assert np.array_equal(np.array(rows['action'][own], np.float32), used)
            for name in ('stamp_ns', 'received_ns', 'steady_ns'):
                assert rows[name][own] == getattr(episode, f'frame_{name}').tolist()
            grid = (np.arange(len(episode)) / 10).astype(np.float32)
            assert np.array_equal(np.array(rows['timestamp'][own], np.float32), grid)
            assert rows['frame_index'][own] == [*range(len(episode))]
            assert {*rows['episode_index'][own]} == {*rows['task_index'][own]} == {number}
            at += len(episode)
    assert rows['index'] == [*range(at)]
    assert {*rows['outcome']} == {'success'} and {*rows['verdict']} == {'good'}
    assert not any(rows['takeover'])


def test_the_files_are_those_of_the_format(exported):
    """Description, types, metadata of `datasets` and pandas, and the table of episodes."""
    _, root = exported
    info, _, episodes = described(root)
    assert info['codebase_version'] == 'v3.0' and info['fps'] == 10
    assert (info['total_episodes'], info['total_frames'], info['total_tasks']) == (2, 54, 2)
    assert info['robot_type'] == 'rover' and info['video_path'] is None
    features = info['features']
    assert features[FRONT] == {
        'dtype': 'image', 'shape': [24, 32, 3], 'names': ['height', 'width', 'channels'],
    }  # fmt: skip
    assert features['action']['names'] == ['x.vel', 'theta.vel']
    assert features['action']['info'] == {'units': ['m/s', 'rad/s']}
    for number, row in enumerate(episodes):
        file = root / info['data_path'].format(
            chunk_index=row['data/chunk_index'], file_index=row['data/file_index']
        )
        stored = pq.ParquetFile(file)
        assert stored.num_row_groups == 1
        schema = stored.schema_arrow
        assert {*schema.names} == {*features}
        assert str(schema.field('action').type).startswith('fixed_size_list<')
        assert schema.field('timestamp').type == 'float'
        known = json.loads(schema.metadata[b'huggingface'])['info']['features']
        assert known[FRONT] == {'_type': 'Image'} and known.keys() == features.keys()
        assert known['action']['length'] == 2
        assert row['episode_index'] == number and row['length'] == stored.metadata.num_rows
        assert row['dataset_to_index'] - row['dataset_from_index'] == row['length']
    assert [row['tasks'] for row in episodes] == [['go to the red box'], ['turn left']]
    tasks = pq.read_table(root / 'meta/tasks.parquet')
    assert tasks.to_pydict() == {'task_index': [0, 1], 'task': ['go to the red box', 'turn left']}
    assert json.loads(tasks.schema.metadata[b'pandas'])['index_columns'] == ['task']
    assert not [*root.rglob('.*')]


def test_statistics_are_those_of_every_value_and_pixel(exported):
    """The ten keys of each feature, of the set and of each episode, against numpy."""
    _, root = exported
    _, stats, episodes = described(root)
    rows = rows_of(root)
    pixels = np.array([decode(one['bytes']) for one in rows[FRONT]])
    for found, own in (
        (stats, slice(None)),
        (
            {
                name: {key: episodes[1][f'stats/{name}/{key}'] for key in stats[name]}
                for name in stats
            },
            slice(24, None),
        ),
    ):
        for name in stats:
            values = np.array(rows[name][own], np.float64) if name != FRONT else None
            if values is None:
                values = pixels[own].reshape(-1, 3) / 255
            values = values.reshape(len(values), -1)
            for key, function in (
                ('min', np.min), ('max', np.max), ('mean', np.mean), ('std', np.std),
            ):  # fmt: skip
                got = np.array(found[name][key], np.float64).reshape(-1)
                assert np.allclose(got, function(values, axis=0), rtol=1e-6), (name, key)
            for key, share in statistics.QUANTILES.items():
                got = np.array(found[name][key]).reshape(-1)
                assert np.allclose(got, np.quantile(values, share, axis=0)), (name, key)
            assert found[name]['count'] == [len(rows['index'][own])]
        assert np.shape(found[FRONT]['mean']) == (3, 1, 1)


def test_a_gap_begins_an_episode_and_single_frames_are_counted(tmp_path, capsys):
    """LeRobot's episodes have no gaps; what is in none of them is said."""
    write(tmp_path / 'in', frames=60, gaps=[20, 21, 23, 24], image=noise)
    assert export(tmp_path / 'in', '--out', tmp_path / 'set') == 0
    _, _, episodes = described(tmp_path / 'set')
    assert [row['length'] for row in episodes] == [20, 35]
    rows = rows_of(tmp_path / 'set')
    assert rows['frame_index'] == [*range(20), *range(35)] and rows['index'] == [*range(55)]
    assert '1 single frames between gaps' in capsys.readouterr().out


def test_a_lower_rate_has_the_frames_that_training_would_have(tmp_path, capsys):
    """One frame a period by the rule of the windows; a camera that is too slow is left out."""
    path = write(tmp_path / 'in', frames=60, rate_hz=30.3)
    write(tmp_path / 'in', 1, frames=24, rate_hz=5.0)
    assert export(tmp_path / 'in', '--out', tmp_path / 'set', '--fps', 10) == 0
    with Episode.open(path) as episode:
        wanted = episode.frame_stamp_ns[one_a_period(times_of(episode)[0], 10)]
    assert rows_of(tmp_path / 'set')['stamp_ns'] == wanted.tolist()
    assert 'its camera has 5 frames a second, fewer than 10: skipped' in capsys.readouterr().out


def test_edits_hold_and_episodes_that_nobody_may_learn_from_are_named(tmp_path, capsys):
    """A trim and other words; excluded, unfinished and bad ones are left out by name."""
    folder = tmp_path / 'in'
    mended, excluded = write(folder, frames=40), write(folder, 1)
    still = write(folder, 2, image=lambda frame: noise(0))
    changes = {'trim': [1.0, 3.0], 'instruction': 'go to the blue box'}
    edit({mended: changes, excluded: {'exclude': 'the lens was dirty'}}, by='anna', time_ns=0)
    assert export(folder, '--out', tmp_path / 'set', '--json') == 0
    done = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_name = {one['episode']: one for one in done}
    assert by_name[str(mended)]['frames'] == 21
    assert 'is excluded: the lens was dirty' in by_name[str(excluded)]['reason']
    assert f'{still.name}: verdict bad' in by_name[str(still)]['reason']
    _, _, episodes = described(tmp_path / 'set')
    assert [(row['length'], row['tasks']) for row in episodes] == [(21, ['go to the blue box'])]


def test_takeovers_proposals_and_odometry_are_columns(tmp_path):
    """Where there is no odometry there is a gap, where no proposal NaN."""
    sources = ['policy'] * 15 + ['takeover'] * 9
    write(tmp_path / 'in', sources=sources, proposals=True, odometry=True)
    write(tmp_path / 'in', 1)
    out = tmp_path / 'set'
    assert export(tmp_path / 'in', '--out', out, '--state', 'odom') == 0
    rows = rows_of(out)
    # The last message is that of frame 11, half a second before frame 16.
    assert len(rows['index']) == 16
    assert np.allclose(np.array(rows['observation.state'])[:12, 0], np.arange(12) / 10)
    assert rows['takeover'] == [False] * 15 + [True]
    proposed = np.array(rows['proposal'])
    assert np.isnan(proposed[:13]).all()
    assert np.allclose(proposed[13:], 2 * np.array(rows['action'])[13:])
    _, stats, _ = described(out)
    assert stats['proposal']['count'] == [3] and np.isfinite(stats['proposal']['std']).all()


@pytest.mark.parametrize('codec', ['h264', 'av1'])
def test_a_video_has_the_frames_of_each_episode_at_its_times(tmp_path, codec):
    """Frame i of an episode stands at its first time + i / fps."""
    smooth = lambda frame: encoded(frame * 5, 'JPEG', size=(64, 64))  # noqa: E731
    write(tmp_path / 'in', frames=40, gaps=[20, 21, 22], image=smooth)
    out = tmp_path / 'set'
    assert export(tmp_path / 'in', '--out', out, '--video', codec) == 0
    info, _, episodes = described(out)
    assert info['features'][FRONT]['dtype'] == 'video'
    assert info['features'][FRONT]['info']['video.codec'] == codec
    path = out / info['video_path'].format(video_key=FRONT, chunk_index=0, file_index=0)
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert stream.pix_fmt == 'yuv420p'
        times, red = [], []
        for frame in video.decode(stream):
            times.append(frame.time)
            red.append(int(frame.to_ndarray(format='rgb24')[..., 0].mean()))
    assert np.allclose(times, np.arange(37) / 10)
    shown = [*range(20), *range(23, 40)]
    assert np.abs(np.array(red) - 5 * np.array(shown)).max() < 6
    spans = [
        (row[f'videos/{FRONT}/from_timestamp'], row[f'videos/{FRONT}/to_timestamp'])
        for row in episodes
    ]
    assert np.allclose(spans, [(0, 2.0), (2.0, 3.7)])


def test_a_grey_image_becomes_one_of_three_channels(tmp_path):
    """LeRobot takes the channels that an image has; the pixels stay."""

    def grey(frame):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(frame).integers(0, 256, (24, 32), np.uint8)
        Image.fromarray(pixels).save(buffer, 'JPEG')
        return buffer.getvalue()

    write(tmp_path / 'in', image=grey)
    assert export(tmp_path / 'in', '--out', tmp_path / 'set') == 0
    for frame, one in enumerate(rows_of(tmp_path / 'set')[FRONT]):
        assert mode_of(one['bytes']) == 'RGB'
        assert np.array_equal(decode(one['bytes']), decode(grey(frame)))


def test_a_killed_export_goes_on(tmp_path):
    """A complete episode is not written again, and the set is the same as without the kill."""
    episodes, out = tmp_path / 'in', tmp_path / 'killed'
    for number in range(6):
        write(episodes, number)
    assert export(episodes, '--out', tmp_path / 'whole') == 0
    command = [sys.executable, '-m', 'mobile_vla_ros.cli.main', 'episodes', 'export', episodes]
    process = subprocess.Popen([*command, '--out', out, '--format', 'lerobot'])
    hidden = tmp_path / '.killed.exporting'
    while not len([*hidden.glob('.done/*.json')]) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists(), 'killed before it was whole'
    first = hidden / 'data/chunk-000/file-000.parquet'
    before = first.stat()
    assert export(episodes, '--out', out) == 0
    after = (out / 'data/chunk-000/file-000.parquet').stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    for path in (tmp_path / 'whole').rglob('*'):
        if path.is_file():
            assert (out / path.relative_to(tmp_path / 'whole')).read_bytes() == path.read_bytes()
    assert not hidden.exists()
    assert export(episodes, '--out', out) == 0, 'and a set that is there stays'


@pytest.mark.parametrize(
    'change',
    [
        lambda path: edit({path: {'exclude': 'blurred'}}, by='ana', time_ns=0),
        lambda path: edit({path: {'instruction': 'turn left'}}, by='ana', time_ns=0),
        lambda path: path.unlink(),
        lambda path: os.utime(path, ns=(1, 1)),
    ],
)
def test_an_interrupted_export_of_other_episodes_starts_again(tmp_path, change):
    """What was excluded, edited, removed or changed since then is not in the set as it was."""
    folder, out, notes = tmp_path / 'in', tmp_path / 'set', []
    paths = [write(folder, number) for number in range(2)]
    results = exported_set(paths, out, Wanted())
    next(results)
    results.close()
    assert len([*(tmp_path / '.set.exporting').glob('.done/*.json')]) == 1
    change(paths[0])
    list(exported_set([one for one in paths if one.exists()], out, Wanted(), note=notes.append))
    assert notes[0].endswith('was interrupted: it starts again')
    about = [row['tasks'] for row in described(out)[2]]
    assert about[0] == ['turn left'] or len(about) == 1 or paths[0].stat().st_mtime_ns == 1


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--fps', 0], 'a set needs frames a second; got 0'),
        (['--actions', 'sideways=y'], 'actions cannot be mapped so'),
        (['--actions', 'linear_x=a,angular_z=a'], 'actions cannot be mapped so'),
        (['--actions', 'linear_x=a*2'], 'the actions of an export have no factors'),
        (['--video', 'h264'], 'a video needs an even width and height; got 31x24'),
        (['--state', 'odom'], 'it has no odometry: skipped'),
    ],
)
def test_what_cannot_be_exported_is_one_sentence_and_leaves_nothing(
    tmp_path, capsys, arguments, sentence
):
    """No set, no hidden folder."""
    write(tmp_path / 'in', image=lambda frame: encoded(frame, 'PNG', size=(31, 24)))
    export(tmp_path / 'in', '--out', tmp_path / 'set', *arguments)
    captured = capsys.readouterr()
    assert sentence in captured.out + captured.err
    assert [one.name for one in tmp_path.iterdir()] == ['in']


def test_the_folder_of_a_set_may_be_this_one_and_its_options_are_its_own(
    tmp_path, capsys, monkeypatch
):
    """`--out .` has no name; csv heeds no --fps; a set has no events."""
    write(tmp_path / 'in')
    (tmp_path / 'set').mkdir()
    monkeypatch.chdir(tmp_path / 'set')
    assert export(tmp_path / 'in', '--out', '.') == 0
    about = json.loads(described(tmp_path / 'set')[2][0]['mobile_vla/about'])
    assert about['health'] and 'events' not in about
    command = ['episodes', 'export', str(tmp_path / 'in'), '--out', str(tmp_path / 'csv')]
    assert main([*command, '--format', 'csv', '--fps', '5']) == 2
    assert '--fps, --state and --actions go with' in capsys.readouterr().err


def test_a_folder_of_something_else_and_a_missing_library_are_said(tmp_path, capsys, monkeypatch):
    """Neither is overwritten, nor a traceback."""
    write(tmp_path / 'in')
    assert export(tmp_path / 'in', '--out', tmp_path / 'in') == 2
    assert 'is not empty and not a LeRobot set' in capsys.readouterr().err
    (tmp_path / 'file').touch()
    for place in ('file', 'file/set'):
        assert export(tmp_path / 'in', '--out', tmp_path / place) == 2
        assert capsys.readouterr().err.count('\n') == 1
    for name in [one for one in sys.modules if 'interop.lerobot.' in one]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    assert export(tmp_path / 'in', '--out', tmp_path / 'set') == 2
    assert 'LeRobot sets need the library pyarrow' in capsys.readouterr().err


MEASURED = """
import re, resource, sys, time
from pathlib import Path
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.interop.lerobot import export
def peak_mb():  # ru_maxrss would be that of the parent
    return int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024
before_mb = peak_mb()
started_s = time.monotonic()
assert main(sys.argv[1:]) == 0
own = resource.getrusage(resource.RUSAGE_SELF)
child = resource.getrusage(resource.RUSAGE_CHILDREN)
cpu_s = sum(one.ru_utime + one.ru_stime for one in (own, child))
print(cpu_s, time.monotonic() - started_s, peak_mb() - before_mb)
"""


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
@pytest.mark.parametrize('more', [(), ('--video', 'h264'), ('--video', 'av1')])
def test_a_gigabyte_takes_at_most_five_minutes_of_two_cores(tmp_path, more, capsys):
    """One long episode of 1280x720: CPU time a gigabyte, and memory beside the imports."""
    from mobile_vla_ros.bench.synthetic_camera import images

    frames = 300 if more else 1200
    kinds = [encode(np.ascontiguousarray(one)) for one in images(1280, 720, 20)]
    path = write(tmp_path / 'in', 0, frames, rate_hz=30.0, image=lambda frame: kinds[frame % 20])
    command = ['episodes', 'export', path, '--out', tmp_path / 'set', '--format', 'lerobot', *more]
    done = subprocess.run(
        [sys.executable, '-c', MEASURED, *command], capture_output=True, text=True, check=True
    )
    cpu_s, wall_s, memory_mb = map(float, done.stdout.split()[-3:])
    size_gb = path.stat().st_size / 1e9
    with capsys.disabled():
        print(
            f'\n{" ".join(more) or "images"}: {cpu_s / size_gb / 60:.1f} min of CPU and '
            f'{wall_s / size_gb / 60:.1f} min a GB, {cpu_s / frames * 1e3:.1f} ms a frame, '
            f'{memory_mb:.0f} MB beside the imports'
        )
    assert cpu_s / size_gb < 600 and memory_mb < 300
