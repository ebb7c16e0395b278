"""Version 1 of the format: its episodes, whole and torn, stay readable."""

import subprocess
import sys

import numpy as np
import pytest

from damaged_files import cut_in_half
from hostile_episodes import DATASET_KINDS, VERSION1_KINDS, good_episode, open_all, spoil
from mobile_vla_ros.data.segments import Sampling, read_episodes
from mobile_vla_ros.episode.storage.hdf5_view import HEAP, heap_objects
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.recovery import recover
from mobile_vla_ros.errors import UserError
from small_episodes import write_episode
from version1_episodes import as_version1

# Reads a whole episode with ranges of zeros, `AT:LENGTH` each; prints the result.
READ_WITH_ZEROS = """
import sys
from pathlib import Path
from mobile_vla_ros.episode.catalog.inspect import judge_episode
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError
whole, bad = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for case in sys.argv[3:]:
    at, length = map(int, case.split(':'))
    bad.write_bytes(whole[:at] + bytes(length) + whole[at + length:])
    print(case, end=' ', flush=True)
    try:
        with Episode.open(bad) as episode:
            good = 0
            for index in range(len(episode)):
                try:
                    good += len(episode.frame(index).image) > 0
                except UserError as error:
                    assert str(bad) in str(error), error
            print(good, flush=True)
            judge_episode(episode)
    except UserError as error:
        assert str(bad) in str(error), error
        print('refused', flush=True)
"""


def with_zeros(path, cases: list[tuple[int, int]]) -> list[str]:
    """Return how many frames are readable in an episode with zeros at each (place, length)."""
    words = [f'{at}:{length}' for at, length in cases]
    done = subprocess.run(
        [sys.executable, '-c', READ_WITH_ZEROS, path, path.with_name('zeros.h5'), *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split()[1] for line in done.stdout.splitlines() if line.startswith(tuple(words))]


def heaps(content: bytes) -> list[tuple[int, list[int]]]:
    """Return the offsets of each heap of a file and of its objects."""
    found, at = [], content.find(HEAP)
    while at >= 0:
        end = at + int.from_bytes(content[at + 8 : at + 16], 'little')
        objects = heap_objects(lambda at, count: content[at : at + count], at, end)
        found.append((at, [start - 16 for _, (start, _) in objects]))
        at = content.find(HEAP, end)
    return found


def same_rows(one: Episode, other: Episode) -> bool:
    """Whether two episodes hold the same frames, commands, proposals and events."""
    return (
        [one.encoded(row) for row in range(len(one))]
        == [other.encoded(row) for row in range(len(other))]
        and all(
            np.array_equal(getattr(one, name), getattr(other, name))
            for name in ('frame_stamp_ns', 'frame_received_ns', 'frame_steady_ns')
        )
        and all(
            np.array_equal(getattr(mine, name), getattr(theirs, name))
            for mine, theirs in ((one.commands, other.commands), (one.proposals, other.proposals))
            for name in vars(mine)
        )
        and one.events == [event for event in other.events if event.name != 'recovered']
    )


def test_an_episode_of_version_1_is_read_like_one_of_version_2(tmp_path):
    """The same rows and verdict; its receipts are the steady ones; every command takes it."""
    path = good_episode(tmp_path / 'now')
    old = tmp_path / path.name
    old.write_bytes(path.read_bytes())
    as_version1(old)
    with Episode.open(path) as new, Episode.open(old) as episode:
        assert (new.attributes['version'], episode.attributes['version']) == (2, 1)
        assert same_rows(episode, new) and episode.health == new.health
        assert np.array_equal(episode.frame_steady_ns, episode.frame_received_ns)
    open_all(old, tmp_path)
    assert not read_episodes([old], Sampling(), ['good', 'poor']).skipped


@pytest.mark.parametrize('damage', ['killed', 'cut', 'torn'])
def test_a_torn_episode_of_version_1_is_recovered_as_version_2(tmp_path, damage):
    """Of a killed writer everything that it flushed, of a cut file what is left."""
    path = good_episode(tmp_path / 'now', 60)
    whole = Episode.open(path)
    old = tmp_path / path.name
    old.write_bytes(path.read_bytes())
    old = as_version1(old, killed=damage == 'killed')
    if damage == 'cut':
        cut_in_half(old)
    if damage == 'torn':
        content = bytearray(old.read_bytes())
        at = content.find(whole.encoded(40))
        content[at : at + 20] = bytes(20)
        old.write_bytes(content)
    result = recover(old, now_ns=0)
    with Episode.open(result.path) as episode:
        assert episode.attributes['version'] == 2 and episode.recovered
        found = [episode.encoded(row) for row in range(len(episode))]
        if damage == 'killed':
            assert same_rows(whole, episode) and result.clean
        elif damage == 'torn':
            assert found == [whole.encoded(row) for row in range(60) if row != 40]
            assert result.lost['frames'] == 1
        else:
            assert 5 < len(found) < 60
            assert found == [whole.encoded(row) for row in range(len(found))]


@pytest.mark.parametrize('kind', VERSION1_KINDS)
def test_a_stranger_s_episode_of_version_1_is_a_sentence_or_an_episode(tmp_path, kind):
    """Lengths and counts that the file cannot hold cost neither memory nor time."""
    path = spoil(
        as_version1(good_episode(tmp_path / 'now')), tmp_path / 'x.h5', *VERSION1_KINDS[kind]
    )
    try:
        open_all(path, tmp_path)
    except UserError as error:
        assert path.name in str(error)
    if kind == 'an image of 4 GB':  # HDF5 would fetch the memory before it looks at what is stored
        with Episode.open(path) as episode:
            assert len(episode) == 11


def test_only_rows_of_bytes_are_images_of_version_1(tmp_path):
    """Every other type, shape and place is refused."""
    good, accepted = as_version1(good_episode(tmp_path / 'now')), set()
    for kind, change in DATASET_KINDS.items():
        one = spoil(good, tmp_path / 'x.h5', change, 'frames/data')
        try:
            Episode.open(one).close()
            accepted.add(kind)
        except UserError as error:
            assert one.name in str(error)
    # Rows of which none is stored: as a killed writer left them.
    assert accepted == {'vlen uint8', 'no row'}


def test_zeros_in_a_heap_never_hang(tmp_path):
    """
    With the zeros of a power cut, HDF5 would step from object to object by zero, forever.

    At every heap of a finished episode: at its third object and at its last. Frames before are
    read, the rest is named.
    """
    path = as_version1(write_episode(tmp_path, 30))
    places = [
        objects[index] + offset
        for _, objects in heaps(path.read_bytes())
        for index in (2, -1)
        if len(objects) > 2
        for offset in (0, -40)
    ]
    assert len(places) >= 8
    cases = [(place, length) for place in places for length in (2, 16, 512)]
    found = with_zeros(path, cases)
    assert len(found) == len(cases), found
    assert any(words != 'refused' and 5 < int(words) < 30 for words in found)


def test_a_heap_with_a_zero_header_costs_only_its_frames(tmp_path):
    """A heap without signature or length is named at each of its frames."""
    path = as_version1(write_episode(tmp_path, 30))
    at, objects = heaps(path.read_bytes())[-1]
    assert with_zeros(path, [(at, 16), (at + 8, 8), (at, 4), (at + 9, 4)]) == 4 * [
        str(30 - len(objects))
    ]


def test_a_heap_with_a_zero_tail_does_not_hang(tmp_path):
    """HDF5 would read such a heap forever; our reader opens the episode quickly."""
    left = as_version1(write_episode(tmp_path), killed=True)
    content = bytearray(left.read_bytes())
    at = content.find(HEAP)  # the heap of the attributes
    *_, (_, (start, length)) = heap_objects(
        lambda at, count: content[at : at + count], at, at + 4096
    )
    free = start + (length + 7) // 8 * 8
    assert any(content[free : at + 4096])
    assert with_zeros(left, [(free, at + 4096 - free)]) == ['20']
    content[free : at + 4096] = bytes(at + 4096 - free)
    left.write_bytes(content)
    assert recover(left, now_ns=0).frames == 20
