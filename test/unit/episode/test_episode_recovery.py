"""Recovery of episodes whose writer died, and of truncated or torn files."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from damaged_files import break_frame, orphan, write_part
from episode_processes import __file__ as PROCESSES
from episode_processes import noise
from mobile_vla_ros.episode.catalog.edit import edit
from mobile_vla_ros.episode.catalog.inspect import judge_episode
from mobile_vla_ros.episode.storage.hdf5_view import lookup3
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.episode.storage.recovery import (
    is_abandoned,
    is_damaged,
    is_written,
    recover,
    without_writer,
)
from mobile_vla_ros.episode.storage.salvage import is_whole_image
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import Command
from small_episodes import (
    CREATED_NS,
    IMU,
    encoded,
    message,
    write_episode,
    write_rows,
)

NOW_NS = 1_900_000_000_000_000_000
KILLS = 10


def abandoned(folder) -> list:
    """The `.part` files that the recorder and `episodes recover` would recover."""
    return [part for part in without_writer(folder) if is_abandoned(part)]


def write_big_images(writer: EpisodeWriter, frames: int) -> list[bytes]:
    """Write images larger than pages, each with a command, flushed every 5; return the images."""
    images = [noise(number, (80, 60)) for number in range(frames)]
    for number, image in enumerate(images, 1):
        writer.add_frame(image, number, number)
        writer.add_command(Command(np.ones(6), number, number))
        if number % 5 == 0:
            writer.flush()
    return images


def numbers(path: Path) -> list[int]:
    """Return the number in the pixels of every frame of an episode."""
    with Episode.open(path) as episode:
        return [int(episode.frame(index).image[0, 0, 0]) for index in range(len(episode))]


def digest(path: Path) -> str:
    """Return a hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_kill_at_a_random_moment_loses_less_than_a_second(tmp_path):
    """SIGKILL during recording, ten times: frames handed over a second before are in the file."""
    moments = random.Random(4)
    folders = [tmp_path / str(number) for number in range(KILLS)]
    processes = [
        subprocess.Popen(
            [sys.executable, PROCESSES, 'record', str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': str(Path(PROCESSES).parents[2])},
        )
        for folder in folders
    ]
    killed_ns = []
    for process in processes:
        assert process.stdout.readline().startswith('recording'), process.wait()
    for process in processes:
        time.sleep(moments.uniform(0.05, 0.5))
        killed_ns.append(time.monotonic_ns())
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
    for folder, death_ns in zip(folders, killed_ns, strict=True):
        handed = [
            [int(word) for word in line.split()]
            for line in (folder / 'handed_over.log').read_text().splitlines()
        ]
        due = sum(time_ns < death_ns - 10**9 for _, time_ns in handed)
        (earlier,) = find_episodes(folder)
        before = digest(earlier)
        (left,) = abandoned(folder)
        with Episode.open(left) as episode:
            assert due <= len(episode) <= len(handed)
            assert due <= sum(one.count for one in episode.topics.values()) <= len(handed)
        result = recover(left, now_ns=NOW_NS)
        assert result.path == left.with_suffix('') and result.frames >= due
        assert numbers(result.path) == [n % 256 for n in range(result.frames)]
        with Episode.open(result.path) as episode:
            assert (
                episode.complete and episode.recovered and episode.health == judge_episode(episode)
            )
            assert [event.name for event in episode.events] == ['recovered']
            assert len(episode.commands) == result.commands >= due
            assert result.messages >= due
            assert episode.topics == ({'/imu': IMU} if result.messages else {})
            for topic in episode.topics:
                kept = [*episode.messages(topic)]
                assert kept == [message(number) for number in range(result.messages)]
        assert left.exists() != result.clean
        assert digest(earlier) == before and abandoned(folder) == []


def test_a_part_becomes_a_whole_episode(tmp_path):
    """Rows, times, attributes and events are kept; the .part is removed; an event reports it."""
    left = write_part(tmp_path)
    with Episode.open(left) as episode:
        stamps, twists = episode.frame_stamp_ns, episode.commands.twist
    result = recover(left, now_ns=NOW_NS)
    assert (result.frames, result.commands, result.events) == (20, 40, 1)
    assert result.clean and not any(result.lost.values())
    assert result.sentence == f'{left.name}: 20 frames, 40 commands, 1 event recovered'
    assert list(tmp_path.iterdir()) == [result.path]
    with Episode.open(result.path) as episode:
        assert (episode.frame_stamp_ns == stamps).all()
        assert (episode.commands.twist == twists).all() and set(episode.commands.source) == {1}
        assert episode.attributes['operator'] == 'ada'
        assert episode.attributes['created_utc'] == '2027-01-15T08:00:00Z'
        assert f'{episode.episode_id}.h5' == result.path.name
        assert [event.name for event in episode.events] == ['start', 'recovered']
        assert result.sentence in episode.events[1].text
        assert '2030-03-17T17:46:40Z' in episode.events[1].text
        assert episode.health['verdict'] == 'good'


def test_an_episode_that_is_being_written_is_not_recovered(tmp_path):
    """The .part of a live writer is not abandoned; recovering it is refused and harmless."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    write_rows(writer, 3)
    writer.flush()
    assert is_written(writer.part_path) and abandoned(tmp_path) == []
    with pytest.raises(UserError, match='is being written'):
        recover(writer.part_path, now_ns=NOW_NS)
    path = writer.close()
    assert numbers(path) == [0, 1, 2] and not is_written(path)
    with pytest.raises(UserError, match='cannot be opened'):
        is_written(writer.part_path)


def test_truncation_at_any_byte_keeps_earlier_frames_and_never_hangs(tmp_path):
    """The frames before the cut are recovered; the truncated file is not changed."""
    writer = EpisodeWriter(tmp_path / 'whole', EpisodeInfo('go'), CREATED_NS)
    images = write_big_images(writer, 70)
    whole = writer.close()
    content = whole.read_bytes()
    size = len(content)
    offsets = {
        *range(0, 1024, 128),
        *range(1024, size, size // 40),
        *range(size - 1000, size, 100),
        size - 1,
    }
    cut, kept = tmp_path / whole.name, []
    for offset in sorted(offsets):
        cut.write_bytes(content[:offset])
        try:
            result = recover(cut, now_ns=NOW_NS)
        except UserError as error:
            assert whole.name in str(error)
            assert not kept, f'nothing at {offset}, and something before'
            assert not is_damaged(whole) and is_damaged(cut)
        else:
            assert result.path.name == f'{whole.stem}_recovered.h5' and is_damaged(cut) is False
            with Episode.open(result.path) as episode:
                assert episode.health == judge_episode(episode) and episode.instruction == 'go'
                assert [episode.encoded(row) for row in range(len(episode))] == images[
                    : result.frames
                ]
            if offset > size * 3 // 4:
                assert result.frames + result.lost['frames'] == 70
                assert result.commands + result.lost['commands'] == 70
            kept.append(result.frames)
            result.path.unlink()
        assert cut.read_bytes() == content[:offset]
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [cut.name]
    assert kept == sorted(kept) and kept[-1] == 70 and len(set(kept)) > 20


def test_unwritten_blocks_cost_only_their_rows(tmp_path):
    """A page of zeros, as after a power cut: its frames are lost, the others are recovered."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    images = write_big_images(writer, 40)
    left = orphan(writer)
    content = bytearray(left.read_bytes())
    at = len(content) // 2 // 4096 * 4096
    content[at : at + 8192] = bytes(8192)
    left.write_bytes(content)
    result = recover(left, now_ns=NOW_NS)
    assert result.lost == {'frames': 40 - result.frames, 'commands': 0, 'events': 0}
    assert 37 <= result.frames <= 39  # of 10 kB each
    assert not result.clean and left.exists() and abandoned(tmp_path) == []
    with Episode.open(result.path) as episode:
        found = [episode.encoded(row) for row in range(len(episode))]
    assert found == [image for image in images if image in found]
    assert f'lost: {result.lost["frames"]} frame' in result.sentence


def test_recovering_twice_changes_nothing(tmp_path):
    """The second run reports that, whether the original was kept or removed."""
    cut = write_episode(tmp_path)
    cut.write_bytes(cut.read_bytes()[:-9000])
    first = recover(cut, now_ns=NOW_NS)
    hashes = {path: digest(path) for path in tmp_path.iterdir()}
    second = recover(cut, now_ns=NOW_NS + 10**12)
    assert (second.path, second.frames, second.lost) == (first.path, first.frames, first.lost)
    assert 'was recovered before' in second.sentence
    whole = recover(first.path, now_ns=NOW_NS)
    assert whole.path == first.path and 'is whole' in whole.sentence
    assert {path: digest(path) for path in tmp_path.iterdir()} == hashes


def test_a_killed_recovery_is_repeated(tmp_path):
    """The next one removes its hidden file, or the .part beside the whole file."""
    left = write_part(tmp_path)
    content = left.read_bytes()
    hidden = tmp_path / f'.{left.name.split(".")[0]}.new'
    hidden.write_bytes(b'half')
    result = recover(left, now_ns=NOW_NS)
    assert list(tmp_path.iterdir()) == [result.path]
    left.write_bytes(content)
    assert abandoned(tmp_path) == []
    again = recover(left, now_ns=NOW_NS)
    assert again.path == result.path and again.clean
    assert list(tmp_path.iterdir()) == [result.path]


def test_an_existing_file_of_the_name_is_not_overwritten(tmp_path):
    """If <id>.h5 is another file, the episode is named <id>_recovered.h5."""
    left = write_part(tmp_path)
    other = left.with_suffix('')
    other.write_text('precious')
    result = recover(left, now_ns=NOW_NS)
    assert result.path.name.endswith('_recovered.h5') and result.frames == 20
    assert other.read_text() == 'precious' and not left.exists()


def test_an_episode_without_rows_becomes_an_empty_one(tmp_path):
    """After a death before the first flush: a whole episode with the verdict bad."""
    result = recover(write_part(tmp_path, 0), now_ns=NOW_NS)
    assert result.clean and result.frames == 0
    with Episode.open(result.path) as episode:
        assert episode.complete and episode.health['verdict'] == 'bad'


def test_other_files_are_refused(tmp_path):
    """Text, an empty, a foreign, a missing file: named, and nothing is written."""
    for name, content in (('text.h5', b'no HDF5' * 100), ('empty.h5.part', b'')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f'{name} cannot be recovered'):
            recover(tmp_path / name, now_ns=NOW_NS)
    with pytest.raises(UserError, match='cannot be opened'):
        recover(tmp_path / 'missing.h5', now_ns=NOW_NS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['empty.h5.part', 'text.h5']


def test_incomplete_images_are_distinguished():
    """A JPEG padded by its camera is whole; one with an unwritten end is not."""
    jpeg, png = encoded(5, 'JPEG'), encoded(5)
    assert is_whole_image(jpeg) and is_whole_image(png) and is_whole_image(jpeg + bytes(300))
    assert not is_whole_image(jpeg[:-200] + bytes(200))
    assert not is_whole_image(png[:-20] + bytes(20))
    holed = noise(0)[:5000] + bytes(4096) + noise(0)[9096:]
    assert is_whole_image(noise(0)) and not is_whole_image(holed)
    black = encoded(0, size=(2000, 1400))
    assert is_whole_image(black) and not is_whole_image(black[:100] + bytes(5000) + black[100:])
    assert (
        not is_whole_image(b'')
        and not is_whole_image(bytes(500))
        and not is_whole_image(b'no image')
    )


def test_the_checksum_matches_published_values():
    """The values of Bob Jenkins's lookup3.c."""
    assert lookup3(b'') == 0xDEADBEEF
    assert lookup3(b'Four score and seven years ago') == 0x17770551


@pytest.mark.parametrize(
    ('lost', 'values', 'reason'),
    [
        (range(25, 30), {'instruction': 'stop', 'trim': [0.5, 2.0], 'split': 1.25}, ''),
        (range(25, 30), {'trim': [0.5, 2.8]}, 'a trim to 2.8 s of an episode that ends at 2.4'),
        (range(3), {'split': 1.25}, 'from its first frame, which is lost'),
        (range(3), {'exclude': 'a person walks through'}, ''),
    ],
)
def test_edits_come_along_if_they_fit(tmp_path, lost, values, reason):
    """Beside the recovered episode; else the list stays, and the sentence says why."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    for row in range(30):
        now_ns = CREATED_NS + row * 100_000_000
        writer.add_frame(noise(row, (80, 60)), now_ns, now_ns)
        writer.add_command(Command(np.ones(6), now_ns, now_ns))
    path = writer.close('success')
    edit({path: values}, by='me', time_ns=NOW_NS)
    with Episode.open(path) as episode:
        before = episode.edits
    for row in lost:
        break_frame(path, row, 'image')
    content = path.with_suffix('.edits.json').read_bytes()
    result = recover(path, now_ns=NOW_NS)
    assert (
        result.frames == 30 - len(lost) and path.with_suffix('.edits.json').read_bytes() == content
    )
    with Episode.open(result.path) as episode:
        assert (episode.edits.log == before.log) == (not reason)
        assert episode.edits.words() in result.sentence
    assert reason in result.sentence and 'its edits were' in result.sentence
    assert 'its edits' not in recover(path, now_ns=NOW_NS).sentence or reason
