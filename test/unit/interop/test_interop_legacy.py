"""Files of the reference run become episodes: colours, steps and named defects."""

import json
import tracemalloc

import h5py
import numpy as np
import pytest

from bags import import_one, imported_episode, pixels_of
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.timing.timeline import actions_ahead, segments
from mobile_vla_ros.interop.imports import FAILED, IMPORTED
from mobile_vla_ros.interop.legacy_layout import write_legacy_layout
from mobile_vla_ros.interop.source import ImportOptions

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


def test_the_later_layout_has_rgb_and_its_own_words(tmp_path):
    """`observations/images`, and `language_instruction` in each file."""
    source = tmp_path / 'episode_260306_101112_target_left.h5'
    with h5py.File(source, 'w') as file:
        file['observations/images'] = np.stack([pixels_of(row) for row in range(ROWS)])
        file['actions'] = ACTIONS.astype(float)
        file['language_instruction'] = [b'Move until the basket is on the left.']
    with imported_episode(source, tmp_path / 'out', PNG) as episode:
        assert all(np.array_equal(episode.frame(i).image, pixels_of(i)) for i in range(ROWS))
        assert episode.instruction == 'Move until the basket is on the left.'


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
        (replace('images', None), 'another layout; got no dataset images'),
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
