"""What the gate makes of a stranger's files: a sentence, at once, and nothing of other files."""

import os
import re
import threading
import time

import h5py
import numpy as np
import pytest

from hostile_episodes import (
    ATTRIBUTE_KINDS,
    CONTENT_KINDS,
    DATASET_KINDS,
    FILE_KINDS,
    HEALTH_KINDS,
    LAYOUT,
    LINKS,
    SECRET,
    changes,
    fifo,
    good_episode,
    open_all,
    secret_file,
    spoil,
)
from mobile_vla_ros.data.segments import Sampling, read_episodes
from mobile_vla_ros.episode.storage import hdf5_gate, schema
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.recovery import recover
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.export import export
from mobile_vla_ros.interop.imports import FAILED, IMPORTED, import_episodes
from mobile_vla_ros.interop.legacy_layout import write_legacy_layout
from mobile_vla_ros.interop.source import ImportOptions
from ros_helpers import TIMEOUT_S

# Kinds of a dataset that another good episode may have.
ROWS = {'no row'}
ACCEPTED = {
    'frames/bytes': ROWS,
    'frames/size': {'int32'} | ROWS,
    'commands/twist': {'float64'} | ROWS,
    'proposals/twist': {'float64'} | ROWS,
    'commands/source': ROWS,
    'events/name': ROWS,
    'events/text': ROWS,
    **dict.fromkeys(('messages/bytes', 'messages/channel', 'channels/latched'), ROWS),
    **dict.fromkeys(('messages/size', 'channels/size'), {'int32'} | ROWS),
    **dict.fromkeys(('channels/topic', 'channels/type', 'channels/type_hash'), ROWS),
}
TIMES = {'int64'} | ROWS
KINDS = {kind: (change, path) for kind, change, path in changes()}
# Every kind once; the datasets and attributes take turns.
EACH_ONCE = [
    *(
        f'{path}: {kind}'
        for kind, path in zip(DATASET_KINDS, [*LAYOUT] * 9, strict=False)
        if f'{path}: {kind}' in KINDS
    ),
    *(
        f'{name}: {kind}'
        for kind, name in zip(
            ATTRIBUTE_KINDS,
            [*schema.ATTRIBUTES, 'format', 'version', 'stranger'] * 9,
            strict=False,
        )
        if f'{name}: {kind}' in KINDS
    ),
    *(f'health: {kind}' for kind in HEALTH_KINDS),
    *(f'{path}: {kind}' for kind, (path, _) in CONTENT_KINDS.items()),
    *(f'file: {kind}' for kind in FILE_KINDS),
]
# Of a stranger's topics, a bag repeats names and definitions.
TOPIC_KINDS = {
    f'{path}: {kind}'
    for kind, (path, _) in CONTENT_KINDS.items()
    if path.startswith(('messages', 'channels'))
}


def each(names, *usually):
    """Return the names as parameters, of which all but some are exhaustive."""
    return [
        name if name in usually else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in names
    ]


DATASETS = each(
    LAYOUT,
    # One of each type and shape: one table says what all of them are.
    *('frames/bytes', 'frames/offset', 'frames/size', 'commands/twist', 'commands/source'),
    *('events/name', 'events/text', 'messages/channel', 'channels/type'),
)
ATTRIBUTES = each(
    [*schema.ATTRIBUTES, *schema.OPTIONAL_ATTRIBUTES],
    *('instruction', 'outcome', 'complete', 'health', 'operator', 'recovered'),
)


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """A good episode beside a file of the reader's, a FIFO, and another episode."""
    folder = tmp_path_factory.mktemp('hostile')
    path = good_episode(folder / 'good')
    (folder / 'other.h5').write_bytes(path.read_bytes())
    secret_file(folder)
    fifo(folder)
    return path


@pytest.fixture
def hostile(good, monkeypatch):
    """Return what writes one kind of file."""
    folder = good.parents[1]
    monkeypatch.chdir(folder)
    return lambda kind: spoil(good, folder / good.name, *KINDS[kind])


@pytest.mark.parametrize('kind', EACH_ONCE)
def test_every_kind_is_a_sentence_or_an_episode(hostile, tmp_path, kind):
    """No traceback, no wait, and no byte of another file."""
    path = hostile(kind)
    began, bags = time.monotonic(), tmp_path / 'bags'
    bags.mkdir()
    try:
        open_all(path, tmp_path)
        if kind in TOPIC_KINDS:
            export(path, bags, 'rosbag2')
    except UserError as error:
        assert path.name in str(error) and '\n' not in str(error)
    loaded = read_episodes([path], Sampling(), ['good', 'poor', 'bad'])
    assert all('Error:' not in reason for reason in loaded.skipped.values())
    try:
        done = recover(path, now_ns=0)
        if done.path != path:
            done.path.unlink()
    except UserError as error:
        assert path.name in str(error)
    assert time.monotonic() - began < TIMEOUT_S
    written = b''.join(one.read_bytes() for one in tmp_path.rglob('*') if one.is_file())
    assert SECRET[:30].encode() not in written


@pytest.mark.parametrize('path', DATASETS)
def test_only_the_exact_type_and_shape_of_a_dataset_pass(hostile, path):
    """Every other kind is refused by a sentence that names file and dataset, or its link."""
    accepted = set()
    for kind in DATASET_KINDS:
        if f'{path}: {kind}' not in KINDS:
            continue
        one = hostile(f'{path}: {kind}')
        try:
            Episode.open(one).close()
            accepted.add(kind)
        except UserError as error:
            assert re.search(rf'{one.name}.*({path}|out is a link)', str(error)), error
    assert accepted == ACCEPTED.get(path, TIMES)


@pytest.mark.parametrize('name', ATTRIBUTES)
def test_only_the_exact_type_of_an_attribute_passes(hostile, name):
    """A text is one text of UTF-8, a flag one flag; a file of an older version may lack some."""
    accepted = set()
    for kind in ATTRIBUTE_KINDS:
        one = hostile(f'{name}: {kind}')
        try:
            Episode.open(one).close()
            accepted.add(kind)
        except UserError as error:
            assert one.name in str(error)
    flag = (schema.ATTRIBUTES | schema.OPTIONAL_ATTRIBUTES)[name] is bool
    missing = {'missing'} if name in schema.OPTIONAL_ATTRIBUTES else set()
    assert accepted == ({'flag'} if flag else {'text'} - {name == 'outcome' and 'text'}) | missing


def legacy_file(path):
    """Write a file of the reference run."""
    images = [np.zeros((8, 8, 3), np.uint8)] * 4
    write_legacy_layout(path, images, np.ones((4, 3), np.float32), instruction='go left')
    return path


LEGACY = ['images', 'actions', 'language_instruction']
LEGACY_KINDS = [*LINKS, 'unknown filter', 'claims 1e9 rows', 'gzip bomb']


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        pytest.param(kind, name, marks=[pytest.mark.exhaustive] * ((row + turn) % 3 > 0))
        for row, kind in enumerate(LEGACY_KINDS)  # every kind once; the datasets take turns
        for turn, name in enumerate(LEGACY)
    ],
)
def test_an_import_reads_no_other_file(tmp_path, monkeypatch, good, name, kind):
    """A file of another layout goes through the same gate."""
    monkeypatch.chdir(good.parents[1])
    path = legacy_file(tmp_path / 'legacy.h5')
    with h5py.File(path, 'r+') as file:
        DATASET_KINDS[kind](file, name)
    began = time.monotonic()
    (result,) = import_episodes([path], tmp_path / 'out', ImportOptions(rate_hz=5.0))
    assert result.status == FAILED
    assert name in result.reason or 'out is a link' in result.reason
    assert time.monotonic() - began < TIMEOUT_S
    assert not list((tmp_path / 'out').iterdir())


def test_an_import_does_not_wait_for_what_lies_in_its_folder(tmp_path):
    """A FIFO with the name of an episode."""
    out = tmp_path / 'out'
    out.mkdir()
    os.mkfifo(out / '20270115T080000Z_00000000.h5')
    source = legacy_file(tmp_path / 'legacy.h5')
    results = []
    run = threading.Thread(
        target=lambda: results.extend(import_episodes([source], out, ImportOptions(rate_hz=5.0))),
        daemon=True,
    )
    run.start()
    run.join(TIMEOUT_S)
    assert [result.status for result in results] == [IMPORTED]


def test_a_fifo_or_a_folder_is_no_file(tmp_path):
    """Opening one returns at once."""
    for path in (fifo(tmp_path), tmp_path):
        with pytest.raises(OSError, match=r'regular file|directory'):
            hdf5_gate.open_regular(path)


def test_what_no_episode_has_is_not_read(good, tmp_path):
    """Other datasets and groups of a later version are left alone, whatever their types."""
    path = tmp_path / good.name
    path.write_bytes(good.read_bytes())
    with h5py.File(path, 'r+') as file:
        file.create_dataset('later/depth', (3, 4), np.float32, compression='lzf')
        file['frames/notes'] = np.zeros(3, [('a', 'i8'), ('b', 'f4')])
    with Episode.open(path) as episode:
        assert len(episode) == 12 and episode.health['verdict']


def test_rows_packed_by_gzip_are_read(good, tmp_path):
    """A file that somebody has packed holds the same times."""
    path = tmp_path / good.name
    path.write_bytes(good.read_bytes())
    with h5py.File(path, 'r+') as file:
        for name in ('frames/stamp_ns', 'commands/twist'):
            rows = file[name][:]
            del file[name]
            file.create_dataset(name, data=rows, compression='gzip', shuffle=True, fletcher32=True)
    with Episode.open(path) as episode, Episode.open(good) as before:
        assert np.array_equal(episode.frame_stamp_ns, before.frame_stamp_ns)
        assert np.array_equal(episode.commands.twist, before.commands.twist)


def test_an_image_that_claims_2_gb_costs_no_memory(hostile):
    """Its row cannot be, and is the last: the episode ends before it."""
    with Episode.open(hostile('frames/size: an image of 2 GB')) as episode:
        assert len(episode) == 11


def test_packed_images_are_refused(good, tmp_path):
    """A chunk of gzip may unpack to a thousand times the bytes that are stored."""
    path = tmp_path / good.name
    path.write_bytes(good.read_bytes())
    with h5py.File(path, 'r+') as file:
        data = file['frames/bytes'][:]
        del file['frames/bytes']
        file.create_dataset('frames/bytes', data=data, compression='gzip')
    with pytest.raises(UserError, match='frames/bytes passes a filter'):
        Episode.open(path)
