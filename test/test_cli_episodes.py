"""`mobile_vla episodes` as a user types it."""

import json

import pytest
from episode_takes import CREATED_NS, take, write_take

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.schema import EpisodeInfo
from mobile_vla_ros.episode.writer import EpisodeWriter


@pytest.fixture
def folder(tmp_path):
    """Two finished takes."""
    take(tmp_path, frames=20, instruction='go to the red box')
    take(tmp_path, frames=10, instruction='go to the blue ball')
    return tmp_path


def lines(capsys) -> list[dict]:
    """The lines of standard output as JSON."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_list_gives_a_line_an_episode(folder, capsys):
    """Instruction, counts, duration, outcome and verdict of every take, and the sum."""
    assert main(['episodes', 'list', str(folder)]) == 0
    printed = capsys.readouterr().out
    assert 'go to the red box' in printed and 'go to the blue ball' in printed
    assert '2 episodes' in printed
    assert main(['episodes', 'list', str(folder), '--json']) == 0
    rows = sorted(lines(capsys), key=lambda row: row['frames'])
    assert [(row['frames'], row['commands'], row['duration_s']) for row in rows] == [
        (10, 20, 0.9), (20, 40, 1.9)]
    assert {row['outcome'] for row in rows} == {'success'}


def test_list_goes_on_after_a_broken_file(folder, capsys):
    """A file that cannot be read is named; the others are listed; the status is 1."""
    (folder / 'broken.h5').write_text('no HDF5')
    assert main(['episodes', 'list', str(folder)]) == 1
    printed = capsys.readouterr()
    assert 'broken.h5 cannot be read' in printed.err and '2 episodes' in printed.out


def test_show_tells_everything_of_one_file(folder, capsys):
    """Attributes, size of the images, verdict and events, as text and as JSON."""
    path = sorted(folder.iterdir())[0]
    assert main(['episodes', 'show', str(path)]) == 0
    assert '16x12' in capsys.readouterr().out
    assert main(['episodes', 'show', str(path), '--json']) == 0
    (shown,) = lines(capsys)
    assert shown['format'] == 'mobile_vla_episode' and shown['health']['verdict'] == 'good'


def test_check_reads_every_image(folder, capsys):
    """Good takes give 0; one image that is none, or a take cut short, is named and gives 1."""
    assert main(['episodes', 'check', str(folder)]) == 0
    capsys.readouterr()
    writer = EpisodeWriter(folder, EpisodeInfo('go'), CREATED_NS)
    write_take(writer, 5)
    writer.add_frame(b'no image', 1, 1)
    broken = writer.close()
    assert main(['episodes', 'check', str(folder), '--json']) == 1
    bad = [row for row in lines(capsys) if row['verdict'] == 'bad']
    assert [row['path'] for row in bad] == [str(broken)]
    assert 'broken at frame 5' in bad[0]['reasons'][0]

    writer = EpisodeWriter(folder, EpisodeInfo('go'), CREATED_NS)
    write_take(writer, 5)
    writer.flush()
    assert main(['episodes', 'check', str(writer.part_path)]) == 1
    assert 'cut short' in capsys.readouterr().out
    writer.discard()


def test_nothing_there_is_a_sentence_and_status_2(tmp_path, capsys):
    """A missing and an empty folder: one sentence, status 2, no traceback."""
    for path in (tmp_path / 'missing', tmp_path):
        assert main(['episodes', 'list', str(path)]) == 2
        printed = capsys.readouterr()
        assert printed.err.count('\n') == 1 and str(path) in printed.err and not printed.out
