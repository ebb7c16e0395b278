"""A disk that fills up: a real tmpfs in a private namespace."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from episode_processes import __file__ as PROCESSES
from mobile_vla_ros import file_lock
from mobile_vla_ros.episode.storage import disk
from mobile_vla_ros.episode.storage.part_file import MARGIN_BYTES, PartFile
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.types import Command
from private_mounts import on_small_disk
from small_episodes import CREATED_NS

MEGABYTES = 6


@pytest.fixture
def fill(tmp_path):
    """Run ``fill_disk`` on a file system of 6 MB; return what it printed."""

    def run(floor_bytes: int = 0, others: str = 'alone') -> dict:
        command = [sys.executable, PROCESSES, 'fill', tmp_path, floor_bytes, others]
        on_disk = on_small_disk(tmp_path, MEGABYTES, *command)
        if on_disk is None:
            pytest.skip('private mounts (unshare -m) are not permitted to this user')
        done = subprocess.run(
            on_disk,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, 'PYTHONPATH': str(Path(PROCESSES).parents[2])},
        )
        assert done.returncode == 0 and done.stdout, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.parametrize('others', ['alone', 'others'])
def test_on_a_full_disk_the_episode_closes_whole_and_counts_drops(fill, others):
    """Whatever fills the disk: no frame is torn, and missing frames are counted."""
    result = fill(others=others)
    assert result['error'] is None and result['complete'] and result['outcome'] == 'unknown'
    assert 'is full' in result['problem']
    assert all(result['right']) and len(result['right']) == result['frames']
    assert result['frames'] + result['drops'] == result['handed']
    assert result['commands'] == result['handed']
    (lost,) = result['lost_messages'].values()
    assert result['messages'] + lost == result['handed'] > result['messages']
    assert result['health']['drops'] == result['drops'] > 0 and result['same_verdict']
    names = [name for name, _ in result['events']]
    assert names[-2:] == ['problem', 'stop'] and set(names) == {'drop', 'problem', 'stop'}
    assert result['events'][0][1].endswith('the disk is full')
    assert result['frames'] > (80 if others == 'alone' else 30)
    # The space reserved for closing is released, and no other file is left.
    assert result['free'] > MARGIN_BYTES // 2
    assert [name for name in result['files'] if name != 'other_files'] == [
        Path(result['path']).name
    ]


def test_a_start_on_a_full_disk_is_refused_and_leaves_nothing(fill):
    """When not even the header of an episode fits."""
    result = fill()
    assert 'cannot write episodes' in result['refused'] and 'No space left' in result['refused']
    assert result['files_after'] == [*sorted([Path(result['path']).name, 'rest'])]


def test_an_episode_is_closed_at_the_floor_with_every_frame(fill):
    """Below the floor the episode is closed while all frames handed over still fit."""
    result = fill(floor_bytes=3 * 2**20)
    assert result['error'] is None and result['complete']
    assert 'under the floor of 3 MB' in result['problem']
    assert (result['drops'], result['frames']) == (0, result['handed'])
    assert [name for name, _ in result['events']] == ['problem', 'stop']
    # The reserved space is free again.
    assert 2**20 < result['free'] < 5 * 2**20


@pytest.mark.parametrize('most', [50, 3000, 70_000, 300_000])
def test_the_reserved_space_is_enough_for_hdf5(tmp_path, most):
    """A flush never writes beyond its reserved space, for any sizes of rows."""
    with (tmp_path / 'file').open('wb') as file:
        if disk.reserve(file.fileno(), 0, 1) is None:
            pytest.skip('this file system holds no blocks in advance')
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    random = np.random.default_rng(most)
    for _ in range(40):
        for _ in range(int(random.integers(0, 20))):
            writer.add_frame(bytes(int(random.integers(1, most))), 1, 1)
        for number in range(int(random.integers(0, 200))):
            writer.add_command(Command(np.zeros(6), number, number))
        for _ in range(int(random.integers(0, 40))):
            writer.add_event('problem', 1, 'x' * 240)
        writer.flush()
        reserved = writer._part._reservation._end
        assert writer.part_path.stat().st_size <= reserved - MARGIN_BYTES // 2
    before = writer.part_path.stat().st_size
    held = writer.part_path.stat().st_blocks * 512
    path = writer.close()
    assert path.stat().st_size - before < MARGIN_BYTES // 4
    assert path.stat().st_blocks * 512 < held


def test_without_reservations_the_free_space_decides(tmp_path, monkeypatch):
    """If no blocks can be reserved, the free space decides, and frames are counted too."""
    monkeypatch.setattr(disk, 'reserve', lambda *_: None)
    free = [10**9]
    monkeypatch.setattr(disk, 'free_bytes', lambda _: free[0])
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    writer.add_frame(bytes(5000), 1, 1)
    writer.flush()
    free[0] = MARGIN_BYTES // 2
    writer.add_frame(bytes(5000), 2, 2)
    with pytest.raises(disk.DiskFull, match='is full; got 1 frames'):
        writer.flush()
    assert (writer.frames, writer.drops, writer.bytes_written) == (1, 1, 5000)
    assert writer.close().exists()


def test_whatever_a_full_disk_has_no_room_for_is_named(tmp_path, monkeypatch):
    """Commands and proposals, too, where not even these fit."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS, proposals=True)
    for number in (1, 2):
        writer.add_command(Command(np.zeros(6), number, number))
        writer.add_proposal(np.zeros(6), number, number)
    writer.add_frame(bytes(5000), 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(PartFile, 'reserve', lambda *_: False)
        with pytest.raises(disk.DiskFull) as full:
            writer.flush()
    assert full.value.lost == {'frames': 1, 'commands': 2, 'proposals': 2}
    assert (writer.frames, writer.commands, writer.drops) == (0, 0, 1)
    with Episode.open(writer.close()) as episode:
        assert [(event.name, event.text) for event in episode.events] == [
            ('drop', '1 frames: the disk is full'),
            ('problem', '2 commands: the disk is full'),
            ('problem', '2 proposals: the disk is full'),
        ]


def test_minutes_left():
    """The space above the floor divided by the rate; unknown while nothing is written."""
    assert disk.minutes_left(7_000_000_000, 1_000_000_000, 5e6) == pytest.approx(20)
    assert disk.minutes_left(5, 10, 1.0) == 0
    assert disk.minutes_left(5, 1, 0.0) is None


def test_free_space_of_a_folder_that_does_not_exist_yet(tmp_path):
    """It is that of the nearest existing parent."""
    assert 0 < disk.free_bytes(tmp_path / 'a' / 'b') <= shutil.disk_usage(tmp_path).free + 2**24


def test_a_lock_is_visible_across_handles_and_ends_with_its_holder(tmp_path):
    """The lock follows the file through a rename and ends with the handle."""
    path = tmp_path / 'file'
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    assert not file_lock.is_held(path)
    assert file_lock.hold(handle) and file_lock.is_held(path)
    path = path.rename(tmp_path / 'renamed')
    second = os.open(path, os.O_RDWR)
    assert file_lock.is_held(path) and not file_lock.hold(second)
    os.close(second)  # closing another handle changes nothing
    assert file_lock.is_held(path)
    os.close(handle)
    assert not file_lock.is_held(path)
