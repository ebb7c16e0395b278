"""A stranger's file in a folder: every command names it, and the rest goes on."""

import json

import pytest

from hostile_episodes import SECRET, changes, fifo, good_episode, secret_file, spoil
from mobile_vla_ros.cli.main import main

KINDS = {kind: (change, path) for kind, change, path in changes()}
CHOSEN = (
    'events/text: external storage',
    'frames/bytes: external link to a FIFO',
    'frames/offset: virtual',
    'commands/twist: claims 1e9 rows',
    'frames/stamp_ns: float64',
    'created_utc: numbers',
    'health: an unknown verdict',
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A good episode, and one of each chosen kind."""
    top = tmp_path_factory.mktemp('hostile')
    folder = top / 'episodes'
    good = good_episode(folder)
    (folder / 'other.h5.txt').write_bytes(good.read_bytes())
    secret_file(folder)
    fifo(folder)
    for index, kind in enumerate(CHOSEN):
        spoil(good, folder / f'20270115T08000{index}Z_0000000{index}.h5', *KINDS[kind])
    return folder


@pytest.mark.parametrize(
    ('command', 'more'),
    [
        ('list', ['--json']),
        ('show', ['--json']),
        ('check', ['--json']),
        ('view', ['--out', '{out}/page.html']),
        ('export', ['--out', '{out}', '--format', 'csv', '--json']),
        ('export', ['--out', '{out}', '--format', 'rosbag2', '--json']),
    ],
)
def test_a_bad_file_is_named_and_the_rest_goes_on(
    folder, tmp_path, monkeypatch, capsys, command, more
):
    """Status 1, a sentence for each bad file, and everything of the good one."""
    monkeypatch.chdir(folder)
    arguments = [one.format(out=tmp_path) for one in more]
    assert main(['episodes', command, str(folder), *arguments]) == 1
    out, err = capsys.readouterr()
    for index in range(len(CHOSEN)):
        assert f'20270115T08000{index}Z_0000000{index}' in (out if command == 'check' else err)
    assert 'Traceback' not in err and SECRET[:30] not in out + err
    if '--json' in arguments:
        objects = [json.loads(line) for line in out.splitlines()]
        status = {'list': 'good', 'check': 'good', 'export': 'exported'}.get(command)
        fine = [one for one in objects if status in (one.get('verdict'), one.get('status'))]
        assert len(fine if status else objects) == 1
    written = b''.join(one.read_bytes() for one in tmp_path.rglob('*') if one.is_file())
    assert SECRET[:30].encode() not in written
