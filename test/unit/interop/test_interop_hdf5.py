"""HDF5 of the reference run and of other layouts: colours, steps and named defects."""

import json
import tracemalloc

import h5py
import numpy as np
import pytest

from bags import import_one, imported_episode, pixels_of
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.episode.timing.timeline import actions_ahead, segments
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.compressed import encode, encode_bgr
from mobile_vla_ros.interop.imports import FAILED, IMPORTED
from mobile_vla_ros.interop.legacy_layout import write_legacy_layout
from mobile_vla_ros.interop.source import ImportOptions, axes_of

NAME = 'episode_20251106_101112_1box_hori_left_core_medium.h5'
ROWS = 18
ACTIONS = np.zeros((ROWS, 3), np.float32)
ACTIONS[1:, 0] = 1.15
ACTIONS[5:9, 1] = -1.15
ACTIONS[9:12, 2] = 1.15
ACTIONS[12] = 0
PNG = ImportOptions('go left', rate_hz=5.0, image_format='png')


def reference_file(path, **more):
    """Write a file of the reference run; its images are BGR."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_legacy_layout(path, [pixels_of(i)[..., ::-1] for i in range(ROWS)], ACTIONS, **more)
    return path


def test_rows_become_steps(tmp_path):
    """Each row becomes a frame in true colours, a command and an event, one period apart."""
    source = reference_file(
        tmp_path / NAME,
        instruction='go to the box on the left',
        obstacle_layout_type='1box',
        total_duration=3.5,
    )
    with imported_episode(source, tmp_path / 'out', PNG) as episode:
        assert len(episode) == len(episode.commands) == ROWS
        assert all(np.array_equal(episode.frame(i).image, pixels_of(i)) for i in range(ROWS))
        assert np.diff(episode.frame_received_ns).tolist() == [200_000_000] * (ROWS - 1)
        assert np.array_equal(episode.frame_stamp_ns, episode.frame_received_ns)
        assert np.allclose(episode.commands.twist[:, [0, 1, 5]], ACTIONS)
        assert not episode.commands.twist[:, 2:5].any()
        actions = [event.text for event in episode.events if event.name == 'action']
        assert actions[:2] + actions[12:13] == ['episode_start', 'start_action', 'stop_action']
        assert episode.instruction == 'go to the box on the left'
        assert episode.attributes['created_utc'] == '2025-11-06T10:11:12Z'
        assert episode.episode_id.startswith('20251106T101112Z_')
        assert episode.attributes['origin'].startswith(f'{NAME}#')
        kept = json.loads(episode.attributes['origin_attributes'])
        assert (kept['obstacle_layout_type'], kept['total_duration'], kept['num_frames']) == (
            '1box',
            3.5,
            ROWS,
        )
        assert episode.health['verdict'] != 'bad'


@pytest.mark.parametrize('rate_hz', [3.0, 7.0, 10.0])
def test_resampling_at_the_same_rate_returns_the_rows(tmp_path, rate_hz):
    """Each frame has the actions of its row and of the rows after it."""
    options = ImportOptions('go left', rate_hz=rate_hz)
    with imported_episode(reference_file(tmp_path / NAME), tmp_path / 'out', options) as episode:
        (segment,) = segments(episode, rate_hz)
        assert segment.frame_index.tolist() == list(range(ROWS))
        ahead, real = actions_ahead(segment, chunk=4)
        for step in range(4):
            rows = ACTIONS[step:]
            assert np.allclose(ahead[: len(rows), step][:, [0, 1, 5]], rows), step
            assert real[: len(rows), step].all() and not real[len(rows) :, step].any()


def test_images_are_jpeg_by_default(tmp_path):
    """Images are encoded once, as JPEG of quality 90."""
    blocks = pixels_of(0, (4, 3)).repeat(16, axis=0).repeat(16, axis=1)
    rows = [np.roll(blocks, 16 * i, axis=1)[..., ::-1] for i in range(ROWS)]
    write_legacy_layout(tmp_path / NAME, rows, ACTIONS)
    options = ImportOptions('go left', rate_hz=5)
    with imported_episode(tmp_path / NAME, tmp_path / 'out', options) as episode:
        assert episode.encoded(0).startswith(b'\xff\xd8\xff')
        assert np.abs(episode.frame(0).image.astype(int) - blocks)[8::16, 8::16].max() < 8
        assert episode.instruction == 'go left'


def test_a_full_size_file_needs_little_memory(tmp_path):
    """18 rows of 1280x720 (50 MB of pixels): only a few rows are in memory at a time."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 216, (ROWS, 9, 16, 3), dtype=np.uint8)
    with h5py.File(tmp_path / NAME, 'w') as file:
        images = file.create_dataset('images', (ROWS, 720, 1280, 3), np.uint8, compression='gzip')
        images[:] = coarse.repeat(80, axis=1).repeat(80, axis=2)
        file['actions'] = ACTIONS
    tracemalloc.start()
    try:
        outcome = import_one(
            tmp_path / NAME, tmp_path / 'out', ImportOptions('go left', rate_hz=5.0)
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome.status == IMPORTED, outcome.reason
    assert peak < 25e6
    with Episode.open(outcome.path) as episode:
        middle = episode.frame(7).image[40::80, 40::80].astype(int)
        assert np.abs(middle - coarse[7][..., ::-1]).max() < 8
    assert outcome.path.stat().st_size < 50e6 / 10


def edit(change):
    """Return a function that changes a whole legacy file through h5py."""

    def spoil(path):
        with h5py.File(path, 'r+') as file:
            change(file)

    return spoil


def replace(name, data):
    """Return a function that replaces a dataset of a file."""

    def change(file):
        del file[name]
        if data is not None:
            file[name] = data

    return edit(change)


def overwrite(path, start, data):
    """Overwrite bytes in the middle of a file."""
    with path.open('r+b') as file:
        file.seek(start)
        file.write(data)


def spoil_last_chunk(path):
    """Break the gzip data of the last image."""
    with h5py.File(path) as file:
        chunk = file['images'].id.get_chunk_info(file['images'].id.get_num_chunks() - 1)
    overwrite(path, chunk.byte_offset, b'\xff' * chunk.size)


NAN = ACTIONS.copy()
NAN[4, 1] = np.nan


@pytest.mark.parametrize(
    ('spoil', 'sentence'),
    [
        (lambda path: path.write_bytes(b'no HDF5'), 'cannot be opened as HDF5'),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), 'cannot be opened as HDF5'),
        (replace('images', None), 'another layout; got of these only action_event_types, actions'),
        (replace('actions', ACTIONS[:, :2]), r'got actions \(18, 2\) float32'),
        (replace('actions', ACTIONS[:5]), '18 images and 5 actions'),
        (replace('actions', NAN), 'not a finite number; got row 4'),
        (replace('images', np.zeros((ROWS, 4, 4), np.uint8)), r'got images \(18, 4, 4\) uint8'),
        (replace('images', np.zeros((ROWS, 4, 4, 3))), r'images \(18, 4, 4, 3\) float64'),
        (spoil_last_chunk, 'it is broken at image'),
        (edit(lambda file: file.attrs.update({'format': 'mobile_vla_episode'})), 'already'),
    ],
    ids=[
        'text',
        'cut',
        'no images',
        'two axes',
        'few actions',
        'nan',
        'no colour',
        'floats',
        'broken chunk',
        'ours',
    ],
)
def test_a_broken_file_is_refused(tmp_path, spoil, sentence):
    """The defect is named, and no episode is left."""
    source = reference_file(tmp_path / NAME)
    spoil(source)
    outcome = import_one(source, tmp_path / 'out', PNG)
    assert outcome.status == FAILED and '\n' not in outcome.reason
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(outcome.reason)
    assert not list((tmp_path / 'out').iterdir())


def test_a_missing_rate_or_instruction_is_requested(tmp_path):
    """Files without times need a rate; files without a language need an instruction."""
    source = reference_file(tmp_path / NAME)
    for options, wanted in (
        (ImportOptions('go'), '--rate'),
        (ImportOptions(rate_hz=5.0), '--instruction'),
    ):
        outcome = import_one(source, tmp_path / 'out', options)
        assert outcome.status == FAILED and wanted in outcome.reason


RGB = np.stack([pixels_of(row) for row in range(ROWS)])
JPEGS = [encode(pixels, quality=95) for pixels in RGB]
SWAPPED = [encode_bgr(pixels, 'png') for pixels in RGB]  # as OpenCV stores RGB given to it


def padded(encoded):
    """Return rows of encoded images as ALOHA stores them."""
    rows = np.zeros((len(encoded), max(map(len, encoded)) + 7), np.uint8)
    for row, data in zip(rows, encoded, strict=True):
        row[: len(data)] = np.frombuffer(data, np.uint8)
    return rows


def write_hdf5(path, datasets, **attributes):
    """Write a file of datasets by path; a list becomes rows of their own lengths."""
    with h5py.File(path, 'w') as file:
        for name, data in datasets.items():
            if type(data) is list:
                rows = file.create_dataset(name, len(data), h5py.vlen_dtype(np.uint8))
                for row, one in enumerate(data):
                    rows[row] = np.frombuffer(one, np.uint8)
            else:
                file.create_dataset(name, data=data)
        file.attrs.update(attributes)
    return path


FLOATS = ACTIONS.astype(np.float64) / 3
JOINTS = np.ones((ROWS, 14))


@pytest.mark.parametrize(
    ('datasets', 'more', 'stored'),
    [
        ({'observations/images': RGB, 'actions': FLOATS}, {}, None),
        ({'observations/images/cam_high': RGB, 'action': FLOATS}, {}, None),
        (
            {
                'observations/images/cam_high': padded(SWAPPED),
                'observations/images/cam_low': padded(JPEGS),
                'action': JOINTS,
                'base_action': FLOATS[:, [0, 2]],
            },
            {'images': 'observations/images/cam_high', 'colour': 'bgr'},
            None,
        ),
        (
            {'observations/images/cam_high': padded(JPEGS), 'base_action': FLOATS[:, [0, 2]]},
            {'colour': 'rgb'},
            JPEGS,
        ),
        (
            {'rgb/front': JPEGS, 'v': FLOATS[:, 0], 'w': FLOATS[:, 1:]},
            {'images': 'rgb/front', 'colour': 'rgb', 'actions': 'linear_x=v,angular_z=w[1]'},
            JPEGS,
        ),
        (
            {'x': RGB[..., ::-1], 'a/b': FLOATS},
            {'images': 'x', 'colour': 'bgr', 'actions': 'a/b'},
            None,
        ),
    ],
    ids=['newer', 'aloha', 'mobile aloha', 'its jpeg', 'by path, jpeg', 'by path'],
)
def test_layouts_and_paths(tmp_path, datasets, more, stored):
    """Each image exact, or byte for byte where it is JPEG with true colours; each speed exact."""
    path = write_hdf5(tmp_path / 'a.hdf5', datasets, language_instruction='find the door')
    options = ImportOptions(rate_hz=10.0, image_format='png', **more)
    with imported_episode(path, tmp_path / 'out', options) as episode:
        assert episode.instruction == 'find the door' and len(episode) == ROWS
        twist = np.insert(FLOATS, [2, 2, 2], 0, axis=1)
        if 'base_action' in datasets or 'v' in datasets:  # of two axes
            twist[:, 1] = 0
        assert np.array_equal(episode.commands.twist, twist)
        assert np.diff(episode.frame_received_ns).tolist() == [100_000_000] * (ROWS - 1)
        if stored is None:
            assert all(np.array_equal(episode.frame(i).image, RGB[i]) for i in range(ROWS))
        else:
            assert [episode.encoded(i) for i in range(ROWS)] == stored


def demos(path, count, **attributes):
    """Write a file of demonstrations as robomimic and Isaac Lab do; return it."""
    with h5py.File(path, 'w') as file:
        for number in range(count):
            group = file.create_group(f'data/demo_{number}')
            group['obs/front'] = np.roll(RGB, number, axis=0)
            group['obs/joint_pos'] = JOINTS
            group['actions'] = FLOATS * (number + 1) / 20
            group.attrs['success'] = number % 2 == 0
            group.attrs['model_file'] = 'x' * 200_000
            for row in range(100):
                group[f'states/{row}'] = 0.0
    return path


def test_each_demonstration_of_a_file_is_an_episode(tmp_path, capsys):
    """In the order of their numbers, with their outcome; those imported before are skipped."""
    path, out = tmp_path / 'set.hdf5', tmp_path / 'episodes'
    command = ['episodes', 'import', str(path), '--out', str(out), '--rate', '10']
    command += ['--instruction', 'go', '--json', '--image-format', 'png']
    demos(path, 1)
    assert main(command) == 0
    demos(path, 11)
    with h5py.File(path, 'r+') as file:
        del file['data/demo_7/actions']
        file['data/demo_7/actions'] = JOINTS
        file['data/demo_8/obs/other'] = h5py.ExternalLink('/etc/passwd', '/x')
    capsys.readouterr()
    assert main(command) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row['source'] for row in rows] == [f'{path}/data/demo_{n}' for n in range(11)]
    assert [row['status'] for row in rows] == ['skipped'] + ['imported'] * 6 + ['failed'] * 2 + [
        'imported'
    ] * 2
    assert 'no velocities of a planar base; got actions (18, 14) float64' in rows[7]['reason']
    assert 'obs/other is a link to another place or file' in rows[8]['reason']
    assert rows[1]['notes'] == [
        'not imported: obs/joint_pos, states/0, states/1, states/10, states/11 and 96 more'
    ]
    found = {}
    for one in find_episodes(out):
        with Episode.open(one) as episode:
            found[episode.origin.split('#')[0]] = (
                episode.outcome,
                np.array_equal(episode.commands.twist[:, 0], FLOATS[:, 0] * 4 / 20),
                np.array_equal(episode.frame(3).image, RGB[0]),
            )
    assert len(found) == 9 and found['set.hdf5/data/demo_3'] == ('failure', True, True)
    assert found['set.hdf5/data/demo_4'][:2] == ('success', False)


@pytest.mark.parametrize(
    ('datasets', 'more', 'sentence'),
    [
        ({'observations/images/a': padded(JPEGS), 'base_action': FLOATS[:, :2]}, {}, '--colour'),
        (
            {'obs/a': RGB, 'obs/b': RGB, 'actions': FLOATS},
            {},
            'more than one camera; got obs/a, obs/b. Name one of them with --images',
        ),
        ({'x': RGB, 'actions': FLOATS}, {'images': 'x'}, 'the colours of x are unknown'),
        ({'x': RGB, 'a': FLOATS}, {'images': 'x', 'colour': 'rgb'}, 'got of these only x'),
        ({'images': RGB, 'a': JOINTS}, {'actions': 'linear_x=a[14]'}, r'a \(18, 14\) float64'),
        ({'images': RGB, 'a': JOINTS}, {'actions': 'a'}, r'got a \(18, 14\) float64'),
        (
            {'images': RGB, 'a': JOINTS, 'b': JOINTS[1:]},
            {'actions': 'linear_x=a[0],angular_z=b[0]'},
            r'differ in length; got \[17, 18\]',
        ),
        ({'observations/images': RGB / 255, 'actions': FLOATS}, {}, 'float64'),
        (
            {'observations/images': [JPEGS[0], b'x', *JPEGS[2:]], 'actions': FLOATS},
            {},
            'an image is broken',
        ),
    ],
)
def test_what_cannot_be_mapped_is_refused(tmp_path, datasets, more, sentence):
    """In a sentence, and nothing is written."""
    path = write_hdf5(tmp_path / 'a.h5', datasets)
    options = ImportOptions('go', rate_hz=10.0, **more)
    outcome = import_one(path, tmp_path / 'out', options)
    assert outcome.status == FAILED and '\n' not in outcome.reason
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(outcome.reason)
    assert not list((tmp_path / 'out').iterdir())


@pytest.mark.parametrize('text', ['x=a', 'linear_x=', 'linear_x=a,linear_x=b', 'angular_z'])
def test_actions_are_axes_and_columns(text):
    """Of a planar base, each once; anything else is refused before a file is opened."""
    if '=' in text:
        with pytest.raises(UserError, match='cannot be mapped so'):
            ImportOptions('go', actions=text)
    else:
        assert axes_of(text) == {}


def test_demonstrations_in_another_file_are_not_followed(tmp_path, capsys):
    """A link to a group of demonstrations would read a file that nobody named."""
    demos(tmp_path / 'other.hdf5', 1)
    path = tmp_path / 'set.hdf5'
    with h5py.File(path, 'w') as file:
        file['data'] = h5py.ExternalLink('other.hdf5', '/data')
    command = ['episodes', 'import', str(path), '--out', str(tmp_path / 'out'), '--rate', '10']
    assert main([*command, '--instruction', 'go']) == 1
    assert 'data is a link to another place or file' in capsys.readouterr().err
