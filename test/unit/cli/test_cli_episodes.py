"""`mobile_vla episodes` as a user types it."""

import json

import pytest

from many_episodes import drive, multiply, run_measured
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.catalog.inspect import describe
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from small_episodes import CREATED_NS, write_episode, write_rows


@pytest.fixture
def folder(tmp_path):
    """A folder with two finished episodes."""
    write_episode(tmp_path, frames=20, instruction='go to the red box')
    write_episode(tmp_path, frames=10, instruction='go to the blue ball')
    return tmp_path


def lines(capsys) -> list[dict]:
    """Return the parsed JSON lines of standard output."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_list_prints_a_line_per_episode(folder, capsys):
    """Instruction, counts, duration, outcome and verdict of every episode, and the total."""
    assert main(['episodes', 'list', str(folder)]) == 0
    printed = capsys.readouterr().out
    assert 'go to the red box' in printed and 'go to the blue ball' in printed
    assert '2 episodes' in printed
    assert main(['episodes', 'list', str(folder), '--json']) == 0
    rows = sorted(lines(capsys), key=lambda row: row['frames'])
    assert [(row['frames'], row['commands'], row['duration_s']) for row in rows] == [
        (10, 20, 0.9),
        (20, 40, 1.9),
    ]
    assert {row['outcome'] for row in rows} == {'success'}


def test_list_continues_after_a_broken_file(folder, capsys):
    """A file that cannot be read is named; the others are listed; the status is 1."""
    (folder / 'broken.h5').write_text('no HDF5')
    assert main(['episodes', 'list', str(folder)]) == 1
    printed = capsys.readouterr()
    assert 'broken.h5 cannot be read' in printed.err and '2 episodes' in printed.out
    assert '2 good, 1 unreadable' in printed.out
    assert main(['episodes', 'list', str(folder), '--json', '--verdict', 'unreadable']) == 1
    (row,) = lines(capsys)
    assert row['path'] == str(folder / 'broken.h5') and 'cannot be read' in row['reasons'][0]


def test_list_filters_and_sorts(folder, capsys):
    """By instruction and verdict; for example, the shortest first."""

    def listed(*how: str) -> list[str]:
        assert main(['episodes', 'list', str(folder), '--json', *how]) == 0
        return [row['instruction'] for row in lines(capsys)]

    assert listed('--instruction', 'BALL') == ['go to the blue ball']
    assert listed('--sort', 'duration') == ['go to the blue ball', 'go to the red box']
    assert listed('--sort', 'duration', '--reverse')[0] == 'go to the red box'
    assert listed('--outcome', 'failure') == listed('--verdict', 'bad') == []
    assert main(['episodes', 'list', str(folder), '--outcome', 'won']) == 2
    assert 'success, failure, unknown' in capsys.readouterr().err


def test_edits_are_typed_listed_and_exported(folder, capsys):
    """One call mends, the log says who; an excluded episode is named and left out of a folder."""
    found = {describe(path)['instruction']: path for path in folder.glob('*.h5')}
    red, blue = found['go to the red box'], found['go to the blue ball']
    edit = ['episodes', 'edit']
    assert main([*edit, str(red), '--trim', '0.5', '1.5', '--outcome', 'failure']) == 0
    assert f'{red.name}: ' in (said := capsys.readouterr().out) and 'success -> failure' in said
    assert main([*edit, str(blue), '--exclude', 'no one drove', '--why', 'by mistake']) == 0
    assert main([*edit, str(red), str(blue), '--log']) == 0
    log = capsys.readouterr().out.splitlines()
    assert 'trimmed to 0.5 to 1.5 s' in log[-2] and log[-1].endswith('(by mistake)')
    assert main(['episodes', 'list', str(folder), '--json']) == 0
    rows = {row['name']: row for row in lines(capsys)}
    assert (rows[red.name]['frames'], rows[red.name]['outcome']) == (11, 'failure')
    assert rows[blue.name]['verdict'] == 'excluded'
    assert rows[blue.name]['reasons'] == ['excluded: no one drove']
    for path, count in ((folder, 1), (blue, 1)):
        out = folder / f'out_{path.stem}'
        how = ['--out', str(out), '--format', 'csv']
        assert main(['episodes', 'export', str(path), *how]) == 0
        assert len(list(out.iterdir())) == count
    assert f'{blue.name} is excluded: no one drove: skipped' in capsys.readouterr().out
    assert main([*edit, str(blue), '--undo']) == 0
    for wrong in ([], [str(red)], ['--undo'], [str(red), '--undo', '--log'], ['--from', 'no.csv']):
        assert main([*edit, *wrong]) == 2
    assert capsys.readouterr().err.count('mobile_vla: error: ') == 5


def test_list_shows_unfinished_episodes(folder, capsys):
    """A .part has its own line and is not counted; a single file can be listed too."""
    writer = EpisodeWriter(folder, EpisodeInfo('go'), CREATED_NS)
    write_rows(writer, 5)
    writer.flush()
    writer.abandon()
    assert main(['episodes', 'list', str(folder)]) == 0
    printed = capsys.readouterr().out
    assert '2 good, 1 unfinished' in printed and '2 episodes' in printed
    assert main(['episodes', 'list', str(writer.part_path), '--json']) == 0
    (row,) = lines(capsys)
    assert (row['verdict'], row['frames']) == ('unfinished', 5)


def test_list_is_quick_and_needs_little_memory(tmp_path):
    """Once indexed, hundreds of episodes are listed in the time of a few, without torch."""
    few, many = tmp_path / 'few', tmp_path / 'many'
    for folder, count in ((few, 10), (many, 400)):
        folder.mkdir()
        multiply(drive(tmp_path, 'wwqqawwd'), folder, count)
        assert main(['episodes', 'list', str(folder)]) == 0
    _, small = run_measured('episodes', 'list', few)
    out, large = run_measured('episodes', 'list', many)
    assert out.count('\n') == 402 and out.splitlines()[-1].startswith('400 episodes')
    assert large['heavy'] == []
    # 10 000 may need 5 s, so 400 a 25th of it, beyond the interpreter's start.
    assert large['cpu_s'] < small['cpu_s'] + 0.2
    assert large['peak_mb'] < small['peak_mb'] + 8


def test_the_coach_finds_the_repeats_of_the_reference_run(tmp_path, capsys):
    """Episodes of 18 key presses, few of them distinct: it lists groups and advice."""
    ways = {'left': ' wwwaaawwwqqwwwwww', 'right': ' wwdddwwwweewwwwww'}
    for number in range(12):
        side = 'left' if number % 3 else 'right'
        drive(tmp_path, ways[side], f'pass the box on the {side}', outcome='unknown')
    assert main(['episodes', 'coach', str(tmp_path), '--json']) == 0
    (found,) = lines(capsys)
    assert (found['distinct'], found['driven']) == (2, 12)
    assert sorted(map(len, found['near_identical'])) == [4, 8]
    assert found['words'] == {'left': 8, 'right': 4}
    assert len(found['record_next']) <= 5
    assert any(
        '4 episodes more with "right" in the instruction' in one['sentence']
        for one in found['record_next']
    )
    assert main(['episodes', 'coach', str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert 'record next: ' in printed and '2 distinct of 12 episodes' in printed


def test_show_continues_after_a_broken_file(folder, capsys):
    """A file that cannot be read is named; the others are shown; the status is 1."""
    (folder / 'broken.h5').write_text('no HDF5')
    assert main(['episodes', 'show', str(folder), '--json']) == 1
    printed = capsys.readouterr()
    assert 'broken.h5' in printed.err and printed.out.count('\n') == 2


def test_show_prints_all_of_one_file(folder, capsys):
    """Attributes, image size, verdict and events, as text and as JSON."""
    path = sorted(folder.iterdir())[0]
    assert main(['episodes', 'show', str(path)]) == 0
    assert '16x12' in capsys.readouterr().out
    assert main(['episodes', 'show', str(path), '--json']) == 0
    (shown,) = lines(capsys)
    assert shown['format'] == 'mobile_vla_episode' and shown['health']['verdict'] == 'good'


def test_check_reads_every_image(folder, capsys):
    """Status 0 for good episodes; 1 for a broken image or a truncated episode, which is named."""
    assert main(['episodes', 'check', str(folder)]) == 0
    capsys.readouterr()
    writer = EpisodeWriter(folder, EpisodeInfo('go'), CREATED_NS)
    write_rows(writer, 5)
    writer.add_frame(b'no image', 1, 1)
    broken = writer.close()
    assert main(['episodes', 'check', str(folder), '--json']) == 1
    bad = [row for row in lines(capsys) if row['verdict'] == 'bad']
    assert [row['path'] for row in bad] == [str(broken)]
    assert 'broken at frame 5' in bad[0]['reasons'][0]

    writer = EpisodeWriter(folder, EpisodeInfo('go'), CREATED_NS)
    write_rows(writer, 5)
    writer.flush()
    assert main(['episodes', 'check', str(writer.part_path)]) == 1
    assert 'cut short' in capsys.readouterr().out
    writer.discard()


def test_a_missing_or_empty_folder_is_refused(tmp_path, capsys):
    """With one sentence, status 2 and no traceback."""
    for path in (tmp_path / 'missing', tmp_path):
        assert main(['episodes', 'list', str(path)]) == 2
        printed = capsys.readouterr()
        assert printed.err.count('\n') == 1 and str(path) in printed.err and not printed.out
