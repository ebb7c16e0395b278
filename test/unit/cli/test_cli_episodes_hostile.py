"""A stranger's file in a folder: every command names it, and the rest goes on."""

import json

import pytest

from hostile_episodes import SECRET, changes, fifo, good_episode, secret_file, spoil
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.data.segments import Sampling, rate_for, read_episodes
from mobile_vla_ros.episode.catalog.file_worker import LIMIT_S, SLOWEST_BYTES_PER_S, FileWorker
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.builtin import bundle_folder
from mobile_vla_ros.replay.run import Settings
from small_episodes import write_episode

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


@pytest.fixture
def one_is_slow(tmp_path, monkeypatch):
    """Two episodes, of which reading the first takes longer than it may: (slow, fine)."""
    slow, fine = sorted(write_episode(tmp_path / 'episodes', frames=40) for _ in range(2))
    call = FileWorker.call

    def timed(worker, work, path, *more, whole=False, step=None):
        # Just enough to list it, for the commands that do first.
        tiny_s = 0.0005 - whole * path.stat().st_size / SLOWEST_BYTES_PER_S
        worker.limit_s = tiny_s if path == slow and 'read_row' not in work else LIMIT_S
        try:
            return call(worker, work, path, *more, whole=whole, step=step)
        finally:
            worker.limit_s = LIMIT_S  # one worker serves the whole process

    monkeypatch.setattr(FileWorker, 'call', timed)
    return slow, fine


def test_a_slow_file_is_named_and_the_rest_goes_on(one_is_slow, tmp_path, capsys):
    """By view, export, training, evaluation and replay."""
    slow, fine = one_is_slow
    folder, sentence = str(slow.parent), 'was given up'
    out = str(tmp_path / 'out')
    for command in (
        ['view', folder, '--out', str(tmp_path / 'page.html')],
        ['export', folder, '--out', out, '--format', 'csv'],
    ):
        assert main(['episodes', *command]) == 1
        printed = capsys.readouterr()
        assert f'{slow.name} {sentence}' in printed.err and 'Traceback' not in printed.err
    assert '1 exported, 0 skipped, 1 failed' in printed.out
    assert fine.stem in (tmp_path / 'page.html').read_text()
    for images in (True, False):  # training, and baselines
        loaded = read_episodes([slow, fine], Sampling(), images=images)
        assert [segment.path for segment in loaded.segments] == [fine]
        assert sentence in loaded.skipped[str(slow)]
    assert rate_for([slow, fine], 30.0) == rate_for([fine], 30.0)
    with pytest.raises(UserError, match=sentence):
        Settings(slow, bundle_folder('builtin:demo')).check()
