"""`mobile_vla episodes recover` as a user types it."""

import argparse
import json

import pytest

from damaged_files import write_part
from mobile_vla_ros.cli.episodes import recover as episodes_recover
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from small_episodes import CREATED_NS, write_episode


def run(*words: str) -> int:
    """Run the action like the command line; return its exit status."""
    parser = argparse.ArgumentParser()
    episodes_recover.add(parser.add_subparsers())
    args = parser.parse_args(['recover', *words])
    return args.run(args)


def test_a_folder_is_recovered_file_by_file(tmp_path, capsys):
    """A .part and a truncated file become whole; open files are left; then nothing is to do."""
    whole, left, cut = write_episode(tmp_path), write_part(tmp_path), write_episode(tmp_path)
    cut.write_bytes(cut.read_bytes()[:-9000])
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    assert run(str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert f'{left.name}: 20 frames, 40 commands, 1 event recovered' in printed
    assert f'{cut.name}: ' in printed and 'lost: ' in printed
    assert f'{writer.part_path.name} is being written: skipped' in printed
    assert whole.name not in printed
    writer.discard()
    assert run(str(tmp_path)) == 0
    assert capsys.readouterr().out == f'nothing to recover in {tmp_path}\n'


def test_json_has_an_object_per_file_and_failures_give_1(tmp_path, capsys):
    """A failed file is named in both streams; the others are recovered."""
    left = write_part(tmp_path)
    (tmp_path / 'broken.h5').write_text('no HDF5')
    assert run(str(tmp_path), '--json') == 1
    out, err = capsys.readouterr()
    rows = {row['path'].rpartition('/')[2]: row for row in map(json.loads, out.splitlines())}
    assert rows[left.name]['frames'] == 20 and rows[left.name]['clean'] is True
    assert rows[left.name]['lost'] == {'frames': 0, 'commands': 0, 'events': 0}
    assert rows[left.name]['episode'] == str(left.with_suffix(''))
    assert 'cannot be recovered' in rows['broken.h5']['error'] and 'broken.h5' in err


def test_a_file_in_use_gives_1_and_a_missing_one_is_bad_use(tmp_path, capsys):
    """An episode that is being written is refused with 1; a missing file raises."""
    writer = EpisodeWriter(tmp_path, EpisodeInfo('go'), CREATED_NS)
    assert run(str(writer.part_path)) == 1
    assert f'{writer.part_path} is being written' in capsys.readouterr().err
    with pytest.raises(UserError, match='no file or folder'):
        run(str(tmp_path / 'missing.h5'))
