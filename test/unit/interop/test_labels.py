"""Instruction and outcome of each imported file: from a table, or from its name."""

import pytest

from bags import START_NS, drive, make, write_bag
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.labels import Labels


def imported(folder):
    """Return the instruction and outcome of each episode by its origin."""
    found = {}
    for path in find_episodes(folder):
        with Episode.open(path) as episode:
            found[episode.origin.split('#')[0]] = episode.instruction, episode.outcome
    return found


def test_a_table_labels_each_file(tmp_path, capsys):
    """Before what the file says; one that is mended updates, one with a typo does nothing."""
    old, out = tmp_path / 'old', tmp_path / 'episodes'
    text = make('std_msgs/msg/String', 'follow the wall')
    write_bag(old / 'one', [('/instruction', text, START_NS), *drive()])
    write_bag(old / 'monday' / 'two', drive(), 'none')
    write_bag(old / 'three', drive())
    table = old / 'labels.csv'
    command = ['episodes', 'import', str(old), '--out', str(out), '--labels', str(table)]
    table.write_text('file,instruction,outcome\none,go left,failure\nmonday/to,go,success\n')
    assert main(command) == 2
    assert 'not imported; nothing was imported; got ' in capsys.readouterr().err
    assert not out.exists()
    table.write_text('file,instruction,outcome\none,go left,failure\nmonday/two,go,success\n')
    assert main(command) == 1  # the third has no instruction
    assert '--labels' in capsys.readouterr().err
    assert imported(out) == {'one': ('go left', 'failure'), 'two.bag': ('go', 'success')}
    table.write_text(
        'file,instruction,outcome\none,go left,success\nmonday/two.bag,,\nthree,go,\n'
    )
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert 'one: updated: its outcome was "failure"' in printed
    assert imported(out) == {
        'one': ('go left', 'success'),
        'two.bag': ('go', 'success'),
        'three': ('go', 'unknown'),
    }


def test_a_row_of_no_episode_is_a_failure_and_a_path_may_go_up(tmp_path, capsys, monkeypatch):
    """Its source is imported; `..` in the path of the sources changes nothing."""
    old, out = tmp_path / 'old', tmp_path / 'episodes'
    write_bag(old / 'one', drive())
    (old / 'labels.csv').write_text('file,instruction\none,go left\none/data/demo_3,go\n')
    monkeypatch.chdir(old / 'one')
    command = ['episodes', 'import', '../../old', '--out', str(out), '--labels', '../labels.csv']
    assert main(command) == 1
    captured = capsys.readouterr()
    assert '1 imported, 0 skipped, 1 failed' in captured.out
    assert f'{old}/one/data/demo_3: failed: the labels name it' in captured.err
    assert imported(out) == {'one': ('go left', 'unknown')}


def test_a_pattern_labels_by_the_name(tmp_path, capsys):
    """A name that does not fit is named and not imported."""
    old, out = tmp_path / 'old', tmp_path / 'episodes'
    write_bag(old / 'go_to_the_box-2.5_success_07', drive(), 'none')
    write_bag(old / 'calibration', drive(), 'none')
    command = ['episodes', 'import', str(old), '--out', str(out)]
    assert main([*command, '--labels', '{instruction}_{outcome}_{}']) == 1
    name = 'go_to_the_box-2.5_success_07.bag'
    assert imported(out) == {name: ('go to the box 2.5', 'success')}
    assert 'calibration.bag: failed: its name does not fit' in capsys.readouterr().err


@pytest.mark.parametrize('text', ['{outcom}', '{outcome}{outcome}', 'none.csv', '{}'])
def test_labels_that_cannot_be_read_are_refused(text):
    """Before anything is imported."""
    with pytest.raises(UserError, match='cannot be read'):
        Labels(text)


def test_an_unknown_outcome_is_refused(tmp_path):
    """As when an episode is edited."""
    (tmp_path / 'a.csv').write_text('file,outcome\na,good\n')
    with pytest.raises(UserError, match="got 'good'; expected success, failure, unknown"):
        Labels(str(tmp_path / 'a.csv'))
