"""The index of a folder: its rows, its updates, and its recovery."""

import multiprocessing
import os
import sqlite3

import numpy as np
import pytest

from many_episodes import drive, multiply
from mobile_vla_ros.episode.catalog import index_table
from mobile_vla_ros.episode.catalog.file_worker import FileWorker
from mobile_vla_ros.episode.catalog.index import PAGE, SORTS, EpisodeIndex
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from small_episodes import CREATED_NS, write_episode, write_rows

WORKER = FileWorker()  # one for all tests: its start takes longer than most of them


@pytest.fixture(scope='module', autouse=True)
def no_worker_left():
    yield
    WORKER.close()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A private user cache, for folders that cannot store an index."""
    folder = tmp_path_factory.mktemp('cache')
    monkeypatch.setenv('XDG_CACHE_HOME', str(folder))
    return folder


@pytest.fixture
def folder(tmp_path):
    """Two whole episodes of one instruction and one of another, a broken file, one unfinished."""
    write_episode(tmp_path, frames=20)
    write_episode(tmp_path, frames=10)
    write_episode(tmp_path, frames=5, instruction='go to the Blue ball', origin='legacy.h5')
    (tmp_path / 'broken.h5').write_text('no HDF5')
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go to the cone'), CREATED_NS)
    write_rows(writer, 8)
    writer.flush()
    writer.abandon()
    return tmp_path


def refreshed(path) -> tuple[list[index_table.EpisodeRow], list[tuple[int, int]]]:
    """Return the rows after a refresh, and the progress that it reported."""
    progress = []
    with EpisodeIndex(path) as index:
        index.refresh(lambda done, total: progress.append((done, total)), WORKER)
        return list(index.rows()), progress


def names(folder, **wanted) -> list[str]:
    """Return the names that ``rows`` gives for these filters."""
    with EpisodeIndex(folder) as index:
        index.refresh(worker=WORKER)
        return [row.name for row in index.rows(**wanted)]


def test_a_row_describes_its_episode(folder):
    """Whole, broken and unfinished episodes have rows; that of a broken one has a sentence."""
    rows = {row.frames: row for row in refreshed(folder)[0]}
    whole, other = rows[20], rows[5]
    assert (whole.commands, whole.duration_s, whole.verdict) == (40, 1.9, 'good')
    assert (whole.instruction, whole.outcome) == ('go to the red box', 'success')
    assert whole.name == f'{whole.episode_id}.h5' and whole.created_utc.startswith('2027-')
    assert other.origin == 'legacy.h5' and not other.recovered
    assert rows[0].verdict == 'unreadable' and rows[0].name == 'broken.h5'
    assert rows[0].reasons[0].startswith('broken.h5 cannot be read as an episode')
    assert rows[8].verdict == 'unfinished' and rows[8].name.endswith('.part')
    assert len(rows) == 5


def test_a_name_that_is_no_text_is_unreadable(tmp_path):
    """One such file does not hide the rest of its folder."""
    write_episode(tmp_path).rename(tmp_path / os.fsdecode(b'a\xff.h5'))
    write_episode(tmp_path)
    for _ in range(2):
        good, odd = refreshed(tmp_path)[0]
        assert good.verdict == 'good' and odd.verdict == 'unreadable'
        assert odd.name == 'a\ufffd.h5' and 'not UTF-8. Rename it' in odd.reasons[0]


def test_counts_are_of_whole_episodes(folder):
    """The console shows the number of episodes of each instruction."""
    with EpisodeIndex(folder) as index:
        index.refresh(worker=WORKER)
        assert index.count_by_instruction() == {'go to the red box': 2, 'go to the Blue ball': 1}


def test_only_changed_files_are_read_again(folder):
    """By name, size or modification time; rows of deleted files disappear."""
    assert refreshed(folder)[1][-1] == (5, 5)
    assert refreshed(folder)[1][-1] == (1, 1), 'only the unfinished one'
    (part,) = folder.glob('*.part')
    part.unlink()
    (folder / 'broken.h5').unlink()
    new = write_episode(folder, frames=3)
    rows, progress = refreshed(folder)
    assert progress[-1] == (1, 1) and len(rows) == 4 and new.name in {row.name for row in rows}
    stale = folder / rows[0].name
    os.utime(stale, ns=(1, 1))
    assert refreshed(folder)[1][-1] == (1, 1)
    stale.write_bytes(b'cut')
    rows, progress = refreshed(folder)
    assert progress[-1] == (1, 1) and rows[0].verdict == 'unreadable'
    assert refreshed(folder)[1][-1] == (0, 0)


def test_rows_are_filtered_and_sorted(folder):
    """By instruction in any case, outcome and verdict; equal rows by name."""
    by = {row.frames: row.name for row in refreshed(folder)[0]}
    assert names(folder, instruction='BLUE') == [by[5]]
    assert set(names(folder, outcome='success')) == {by[20], by[10], by[5]}
    assert names(folder, verdict='unfinished', instruction='cone') == [by[8]]
    assert names(folder, sort='frames') == [by[count] for count in (0, 5, 8, 10, 20)]
    assert names(folder, sort='frames', reverse=True)[0] == by[20]
    assert names(folder, sort='verdict')[:2] == [by[0], by[8]]
    assert names(folder) == sorted(by.values())
    assert all(len(names(folder, sort=sort)) == 5 for sort in SORTS)


def test_pages_join_without_a_gap(tmp_path):
    """More rows than fit into a page, with equal sort keys: each occurs once."""
    source = drive(tmp_path, 'ww')
    with EpisodeIndex(tmp_path) as index:
        index.refresh(worker=WORKER)
        row, state = next(index.rows()), [1, 1, 0, 0]
        with index_table.transaction(index._db):
            for number in range(2 * PAGE):
                copy = index_table.EpisodeRow(**vars(row) | {'name': f'{number:05}.h5'})
                index._store('main', state, copy, b'', b'')
        for reverse in (False, True):
            found = [row.name for row in index.rows(sort='frames', reverse=reverse)]
            assert found == sorted(found, reverse=reverse)
            assert len(set(found)) == len(found) == 2 * PAGE + 1
    assert source.exists()


def test_traces_are_stored_unchanged(tmp_path):
    """The coach compares them: commands to a thousandth, and the first image."""
    path = drive(tmp_path, ' wqaawwd')
    with EpisodeIndex(tmp_path) as index:
        index.refresh(worker=WORKER)
        ((name, signature, view),) = index.traces()
        (row,) = index.rows()
    assert name == path.name and signature.shape == (7, 3) and view.shape == (144,)
    np.testing.assert_allclose(signature[:3, 1], [0, 1.15, 1.15], atol=2e-3)
    # The last command was received with the last frame, which takes no time.
    assert (row.forward_s, row.left_s, row.right_s, row.moving_s) == (0.8, 0.6, 0.0, 1.2)


@pytest.mark.parametrize('spoil', ['text', 'empty', 'holes', 'other layout'])
def test_a_broken_index_is_rebuilt(folder, spoil):
    """Not a database, an empty file, lost pages, another version: it is built from the files."""
    before = refreshed(folder)[0]
    file = folder / index_table.FILE_NAME
    if spoil == 'other layout':
        with sqlite3.connect(file) as db:
            db.execute('DROP TABLE takes')
            db.execute('CREATE TABLE takes (name TEXT)')
            db.execute('PRAGMA user_version = 1')
        db.close()
    elif spoil == 'holes':
        whole = bytearray(file.read_bytes())
        whole[4096:] = b'\x5a' * (len(whole) - 4096)
        file.write_bytes(whole)
    else:
        file.write_bytes(b'' if spoil == 'empty' else b'no database ' * 1000)
    rows, progress = refreshed(folder)
    assert rows == before and progress[-1] == (5, 5)
    assert refreshed(folder)[1][-1] == (1, 1), 'the rebuilt index is stored'


def test_an_index_that_another_process_rebuilds_does_no_harm(folder):
    """Another process found it broken and rebuilt it: both continue."""
    with EpisodeIndex(folder) as index:
        index.refresh(worker=WORKER)
        (folder / index_table.FILE_NAME).unlink()
        write_episode(folder, frames=3)
        index.refresh(worker=WORKER)
        assert len(list(index.rows())) == 6
    assert len(refreshed(folder)[0]) == 6


def test_a_folder_that_cannot_store_the_index_uses_the_cache(folder, cache):
    """Reported once, when it is created there; without a cache it stays in memory."""
    (folder / index_table.FILE_NAME).mkdir()  # also stops root
    with EpisodeIndex(folder) as index:
        index.refresh(worker=WORKER)
        assert str(folder) in index.note and str(cache) in index.note
        assert len(list(index.rows())) == 5
    with EpisodeIndex(folder) as index:
        assert index.note == ''
    assert refreshed(folder)[1][-1] == (1, 1)

    for kept in (cache / 'mobile_vla').iterdir():
        kept.unlink()
        kept.mkdir()
    with EpisodeIndex(folder) as index:
        index.refresh(worker=WORKER)
        assert 'memory' in index.note and len(list(index.rows())) == 5


def test_a_single_file_can_be_indexed(folder):
    """A file, whole or unfinished, has a row, and nothing is written beside it."""
    before = sorted(folder.iterdir())
    for path in before:
        (row,), _ = refreshed(path)
        assert row.name == path.name
    assert sorted(folder.iterdir()) == before
    with pytest.raises(UserError, match='nowhere'):
        EpisodeIndex(folder / 'nowhere')


def _refresh_and_count(folder, barrier, results):
    barrier.wait()
    with EpisodeIndex(folder) as index:
        index.refresh()
        results.put(len(list(index.rows())))


def test_two_processes_index_one_folder_at_once(tmp_path):
    """Both get every row without an error, and the table is complete afterwards."""
    multiply(drive(tmp_path, 'wwad'), tmp_path, 60)
    context = multiprocessing.get_context('spawn')
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_refresh_and_count, args=(tmp_path, barrier, results))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    assert [results.get(timeout=120) for _ in processes] == [61, 61]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    rows, progress = refreshed(tmp_path)
    assert len(rows) == 61 and progress[-1] == (0, 0)
    assert [path.name for path in tmp_path.glob('.*')] == [index_table.FILE_NAME]


def test_a_slow_reader_does_not_block_others(tmp_path):
    """A listing in a pager holds no lock, so the recorder can still count its episodes."""
    multiply(drive(tmp_path, 'w'), tmp_path, 3)
    with EpisodeIndex(tmp_path) as reading, EpisodeIndex(tmp_path) as writing:
        reading.refresh(worker=WORKER)
        rows = reading.rows()
        next(rows)
        write_episode(tmp_path, frames=2)
        writing.refresh(worker=WORKER)
        assert sum(writing.count_by_instruction().values()) == 5
        assert len(list(rows)) == 3
