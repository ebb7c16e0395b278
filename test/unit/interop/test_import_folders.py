"""Tubs of donkeycar and trajectories of GNM: images byte for byte, speeds and times."""

import json
import pickle
import shutil

import numpy as np
import pytest

from bags import import_one, imported_episode, pixels_of
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.interop.importers import find_sources
from mobile_vla_ros.interop.imports import FAILED
from mobile_vla_ros.interop.source import ImportOptions
from mobile_vla_ros.interop.tub import episodes_of

START_MS = 1_700_000_000_000
JPEGS = [encode(pixels_of(row), quality=95) for row in range(24)]
SCALE = 'linear_x=2.0,angular_z=0.5'


def write_tub(folder, sessions=('23-11-14_0', '23-11-14_1'), **changes):
    """Write a tub of 12 records a session, 100 ms apart; ``changes``: of the third record."""
    (folder / 'images').mkdir(parents=True)
    lines = []
    for row in range(12 * len(sessions)):
        record = {
            'cam/image_array': f'{row}_cam_image_array_.jpg',
            'user/angle': row / 24,
            'user/throttle': 0.5 + row / 100,
            'user/mode': 'user',
            '_timestamp_ms': START_MS + 100 * row + 60_000 * (row // 12),
            '_index': row,
            '_session_id': sessions[row // 12],
        }
        lines.append(json.dumps(record | (changes if row == 2 else {})) + '\n')
        (folder / 'images' / f'{row}_cam_image_array_.jpg').write_bytes(JPEGS[row])
    half = len(lines) // 2 - 3
    for number, part in enumerate((lines[:half], lines[half:])):
        (folder / f'catalog_{number}.catalog').write_text(''.join(part))
        (folder / f'catalog_{number}.catalog_manifest').write_text('{}\n')
    paths = ['catalog_0.catalog', 'catalog_1.catalog']
    catalogs = {'paths': paths, 'current_index': 24, 'max_len': 9, 'deleted_indexes': [15]}
    about = [['cam/image_array'], ['image_array'], {}, {'created_at': 1.0}, catalogs]
    (folder / 'manifest.json').write_text('\n'.join(map(json.dumps, about)) + '\n')
    return folder


def test_each_session_of_a_tub_is_an_episode(tmp_path):
    """Of its own times; a record that the user deleted in the tub is left out and said."""
    tub = write_tub(tmp_path / 'tub')
    options = ImportOptions('drive on', scale=SCALE)
    assert find_sources(tmp_path, tmp_path / 'out') == ([tub], [])
    assert [*episodes_of(tub, options)] == ['23-11-14_0', '23-11-14_1']
    with imported_episode(tub, tmp_path / 'out', options, '23-11-14_0') as episode:
        assert [episode.encoded(row) for row in range(12)] == JPEGS[:12]
        due = (START_MS + 100 * np.arange(12)) * 10**6
        for times in (episode.frame_stamp_ns, episode.frame_received_ns):
            assert times.tolist() == due.tolist()
        assert episode.commands.received_ns.tolist() == due.tolist()
        assert np.allclose(episode.commands.twist[:, 0], 2 * (0.5 + np.arange(12) / 100))
        assert np.allclose(episode.commands.twist[:, 5], -0.5 * np.arange(12) / 24)
        assert not episode.commands.twist[:, 1:5].any()
    with imported_episode(tub, tmp_path / 'out', options, '23-11-14_1') as episode:
        rows = [row for row in range(12, 24) if row != 15]
        assert [episode.encoded(row) for row in range(11)] == [JPEGS[row] for row in rows]
        assert '1 records of the tub: they were deleted in the tub' in [
            event.text for event in episode.events
        ]


def test_a_tub_with_a_wheelbase_turns_by_its_speed(tmp_path):
    """The scale of the steering is then its angle; a car that stands does not turn."""
    options = ImportOptions('drive on', scale='linear_x=2.0,angular_z=0.4', wheelbase_m=0.25)
    with imported_episode(
        write_tub(tmp_path / 'tub'), tmp_path / 'out', options, '23-11-14_0'
    ) as one:
        speed = one.commands.twist[:, 0]
        expected = speed * np.tan(-0.4 * np.arange(12) / 24) / 0.25
        assert np.allclose(one.commands.twist[:, 5], expected)


@pytest.mark.parametrize(
    ('changes', 'frames', 'reason'),
    [
        ({'user/mode': 'local'}, 11, 'the pilot drove'),
        ({'cam/image_array': '../../secret.jpg'}, 11, 'No such file'),
        ({'user/angle': None}, 11, 'line is cut short or damaged'),
        ({'user/throttle': float('nan')}, 11, 'line is cut short or damaged'),
    ],
)
def test_a_record_that_cannot_be_used_is_counted(tmp_path, changes, frames, reason):
    """And the others are imported; no file outside the tub is read."""
    (tmp_path / 'secret.jpg').write_bytes(JPEGS[0])
    tub = write_tub(tmp_path / 'tub', **changes)
    options = ImportOptions('drive on', scale=SCALE)
    with imported_episode(tub, tmp_path / 'out', options, '23-11-14_0') as episode:
        assert len(episode) == len(episode.commands) == frames
        assert any(reason in event.text for event in episode.events)


def test_what_is_wrong_with_a_tub_is_said(tmp_path, capsys):
    """No scale, no manifest, none of its lines, no record."""
    tub = write_tub(tmp_path / 'tub')
    out = tmp_path / 'out'
    assert '--scale' in import_one(tub, out, ImportOptions('go'), '23-11-14_0').reason
    manifest = (tub / 'manifest.json').read_text().splitlines()
    for text in ('', '[]', '\n'.join([*manifest[:4], '{"paths": 3}'])):
        (tub / 'manifest.json').write_text(text)
        assert main(['episodes', 'import', str(tub), '--out', str(out), '--scale', SCALE]) == 1
        assert 'manifest.json cannot be read' in capsys.readouterr().err
    (tub / 'manifest.json').unlink()
    assert main(['episodes', 'import', str(tub), '--out', str(out), '--scale', SCALE]) == 1
    assert 'manifest.json cannot be read' in capsys.readouterr().err
    assert not list(out.iterdir())


def drive_poses(count, rate_hz, linear_x, linear_y, angular_z):
    """Return positions and yaws of a base that drives with constant speeds, in small steps."""
    fine = 2000
    yaw = 3.0 + angular_z / rate_hz * np.arange(count * fine) / fine
    middle = yaw + angular_z / rate_hz / fine / 2
    x = linear_x * np.cos(middle) - linear_y * np.sin(middle)
    y = linear_x * np.sin(middle) + linear_y * np.cos(middle)
    steps = np.cumsum(np.stack([x, y], 1), axis=0) / rate_hz / fine
    position = np.vstack([[0, 0], steps])[: count * fine : fine]
    return position, (yaw[::fine] + np.pi) % (2 * np.pi) - np.pi


def write_trajectory(folder, **changes):
    """Write a trajectory of 12 poses at 4 Hz."""
    folder.mkdir(parents=True)
    position, yaw = drive_poses(12, 4.0, 0.6, -0.2, 0.9)
    poses = {'position': position, 'yaw': yaw} | changes
    (folder / 'traj_data.pkl').write_bytes(pickle.dumps(poses))
    for row in range(12):
        (folder / f'{row}.jpg').write_bytes(JPEGS[row])
    return folder


def test_a_trajectory_gives_the_speeds_that_drove_it(tmp_path):
    """The poses of a base that strafes and turns, across the seam of its yaw."""
    folder = write_trajectory(tmp_path / 'set' / 'drive_0')
    options = ImportOptions('drive on', rate_hz=4.0)
    assert find_sources(tmp_path, tmp_path / 'out') == ([folder], [])
    with imported_episode(folder, tmp_path / 'out', options) as episode:
        assert [episode.encoded(row) for row in range(12)] == JPEGS[:12]
        assert np.diff(episode.frame_received_ns).tolist() == [250_000_000] * 11
        assert len(episode.commands) == 11
        wanted = [0.6, -0.2, 0, 0, 0, 0.9]
        assert np.allclose(episode.commands.twist, wanted, atol=1e-6)
        assert np.array_equal(episode.commands.received_ns, episode.frame_received_ns[:11])


def test_images_beyond_the_last_pose_are_named(tmp_path):
    """Nothing is left out in silence."""
    folder = write_trajectory(tmp_path / 'drive_0')
    (folder / '12.jpg').write_bytes(JPEGS[0])
    outcome = import_one(folder, tmp_path / 'out', ImportOptions('go', rate_hz=4.0))
    assert outcome.notes == ('not imported: 1 images beyond the last pose',)


@pytest.mark.parametrize(
    ('spoil', 'reason'),
    [
        (lambda folder: (folder / '5.jpg').unlink(), 'no 5.jpg'),
        (lambda folder: (folder / '5.jpg').write_bytes(JPEGS[0][:200]), '5.jpg cannot be read'),
        (lambda folder: (folder / 'traj_data.pkl').write_bytes(b'x'), 'its pickle cannot be read'),
        ({'yaw': np.zeros(5)}, r'got position (12, 2), yaw (5,)'),
        ({'yaw': np.full(12, np.nan)}, 'a pose is not finite'),
    ],
)
def test_a_broken_trajectory_is_refused(tmp_path, spoil, reason):
    """In a sentence, and nothing is written."""
    changes = spoil if isinstance(spoil, dict) else {}
    folder = write_trajectory(tmp_path / 'drive_0', **changes)
    if not changes:
        spoil(folder)
    outcome = import_one(folder, tmp_path / 'out', ImportOptions('go', rate_hz=4.0))
    assert outcome.status == FAILED and reason in outcome.reason and '\n' not in outcome.reason
    assert not list((tmp_path / 'out').iterdir())
    shutil.rmtree(folder)
