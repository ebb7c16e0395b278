"""The process that reads files: limits, sentences, and what it must not load."""

import os
import signal

import pytest

from mobile_vla_ros.episode.catalog.file_worker import FileWorker
from mobile_vla_ros.episode.catalog.index import EpisodeIndex
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError
from small_episodes import write_episode

ROW = 'episode.catalog.read:read_row'


def test_a_file_is_read_and_a_mistake_is_the_same_sentence(tmp_path):
    """As if the function were called here."""
    path = write_episode(tmp_path)
    broken = tmp_path / 'broken.h5'
    broken.write_bytes(b'no HDF5')
    with pytest.raises(UserError) as here:
        Episode.open(broken)
    with FileWorker() as worker:
        assert worker.call(ROW, path)['row']['frames'] == 20
        with pytest.raises(UserError) as there:
            worker.call(ROW, broken)
    assert str(there.value) == str(here.value)


def test_a_file_beyond_its_time_is_named_and_the_next_is_read(tmp_path):
    """The process is ended in the middle of what it does, and another starts."""
    path = write_episode(tmp_path)
    with FileWorker(limit_s=0.0005) as worker:
        with pytest.raises(UserError, match=rf'{path} was given up; got no result after'):
            worker.call(ROW, path)
        worker.limit_s = 30.0
        assert worker.call(ROW, path)['row']['frames'] == 20


def test_a_slow_file_costs_its_row_alone(tmp_path):
    """It is listed as unreadable with the reason; the table of the others stands."""
    slow, fine = sorted(write_episode(tmp_path) for _ in range(2))

    class OneIsSlow(FileWorker):
        def call(self, work, path, *more, whole=False):
            self.limit_s = 0.0005 if path == slow else 30.0
            return super().call(work, path, *more, whole=whole)

    with EpisodeIndex(tmp_path) as index, OneIsSlow() as worker:
        index.refresh(worker=worker)
        found = {row.name: row for row in index.rows()}
    assert found[slow.name].verdict == 'unreadable'
    assert f'{slow.name} was given up' in found[slow.name].reasons[0]
    assert found[fine.name].verdict == 'good'


def test_a_process_that_died_is_replaced(tmp_path):
    """By a crash of HDF5, or the kernel."""
    path = write_episode(tmp_path)
    with FileWorker() as worker:
        worker.call(ROW, path)
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
        assert worker.call(ROW, path)['row']['frames'] == 20
    with pytest.raises(UserError, match='was ended'):
        worker.call(ROW, path)


def test_modules_in_the_folder_of_the_user_are_not_loaded(tmp_path, monkeypatch):
    """A stranger's folder may hold an h5py.py."""
    path = write_episode(tmp_path)
    for name in ('h5py', 'json', 'numpy', 'mobile_vla_ros'):
        (tmp_path / f'{name}.py').write_text('raise SystemExit("ran")')
    monkeypatch.chdir(tmp_path)
    with FileWorker() as worker:
        assert worker.call(ROW, path)['row']['frames'] == 20
