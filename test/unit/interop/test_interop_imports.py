"""`mobile_vla episodes import` of folders: each file whole or not at all, once, and reported."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from bags import START_NS, drive, make, pixels_of, write_bag
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.importers import find_sources
from mobile_vla_ros.interop.legacy_layout import write_legacy_layout
from mobile_vla_ros.interop.source import ImportOptions
from ros_helpers import wait_until

ROOT = Path(__file__).resolve().parents[3]
ACTIONS = np.zeros((12, 3), np.float32)
ACTIONS[1:, 0] = 1.15


def legacy_file(path, first: int = 0, rows: int = 12):
    """Write a file of the reference run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_legacy_layout(path, [pixels_of(first + i) for i in range(rows)], ACTIONS[:rows])
    return path


def run(source, out, *more, rate: str = '5') -> int:
    """Run the import command in this process; return its exit status."""
    return main(
        [
            'episodes',
            'import',
            str(source),
            '--out',
            str(out),
            '--rate',
            rate,
            '--instruction',
            'go to the red box',
            *more,
        ]
    )


@pytest.fixture
def mixture(tmp_path):
    """A folder of files that can be imported, that cannot, and that are no episodes."""
    folder = tmp_path / 'old'
    legacy_file(folder / 'monday' / 'episode_1.h5')
    legacy_file(folder / 'tuesday' / 'episode_1.h5', first=50)
    write_bag(folder / 'bags' / 'drive', drive())
    bare = write_bag(folder / 'bare', drive(image_of=None, frames=14), 'sqlite3')
    next(bare.glob('*.db3')).rename(folder / 'bare.db3')
    (bare / 'metadata.yaml').unlink()
    (folder / 'monday' / 'broken.h5').write_bytes(b'nothing')
    (folder / 'broken.mcap').write_bytes(b'nothing')
    (folder / 'notes.txt').write_text('drove well')
    return folder


def test_a_folder_is_imported_and_failures_are_named(mixture, tmp_path, capsys):
    """Two broken files among four whole ones: four episodes that pass the check, and status 1."""
    out = tmp_path / 'episodes'
    assert run(mixture, out) == 1
    output = capsys.readouterr()
    assert f'{mixture / "monday" / "broken.h5"}: failed: ' in output.err
    assert f'{mixture / "broken.mcap"}: failed: ' in output.err
    assert f'{mixture}/*.txt: ignored: 1 file of another kind' in output.err
    assert output.out.splitlines()[-1] == f'{out}: 4 imported, 0 skipped, 2 failed, 1 ignored'
    assert len(find_episodes(out)) == len(list(out.iterdir())) == 4
    origins = set()
    for path in find_episodes(out):
        with Episode.open(path) as episode:
            origins.add(episode.attributes['origin'].split('#')[0])
    assert origins == {'episode_1.h5', 'drive', 'bare.db3'}
    assert main(['episodes', 'check', str(out)]) == 0


def test_a_second_run_imports_nothing_twice(mixture, tmp_path, capsys):
    """Imported files are reported and skipped; a different file of the same name is imported."""
    out = tmp_path / 'episodes'
    run(mixture / 'monday' / 'episode_1.h5', out)
    before = find_episodes(out)
    capsys.readouterr()
    assert run(mixture / 'monday' / 'episode_1.h5', out) == 0
    assert f'skipped: it was imported as {before[0].name}' in capsys.readouterr().out
    assert find_episodes(out) == before
    assert run(mixture, out, '--json') == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert Counter(row['status'] for row in rows) == {
        'failed': 2,
        'imported': 3,
        'skipped': 1,
        'ignored': 1,
    }
    assert all(row['reason'] for row in rows if row['status'] != 'imported')
    assert all(
        row['health']['verdict'] in ('good', 'poor') for row in rows if row['status'] == 'imported'
    )


def test_copies_are_made_beside_the_episodes_and_long_attributes_cut(
    tmp_path, capsys, monkeypatch
):
    """Not in /tmp, which may be memory; an episode with more could not be opened."""
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'nowhere'))
    path = legacy_file(tmp_path / 'old.h5')
    with h5py.File(path, 'a') as file:
        for number in range(40):
            file.attrs[f'note{number}'] = 'x' * 30_000
    out = tmp_path / 'out'
    assert run(path, out) == 0
    assert 'origin_attributes is cut to 1048576 characters' in capsys.readouterr().out
    (episode,) = out.iterdir()
    with Episode.open(episode) as found:
        assert len(found.attributes['origin_attributes']) == 1 << 20


def test_importing_again_with_a_better_sentence_updates_it(tmp_path, capsys):
    """The one that was given at import; a bag's own stays, and so does everything else."""
    text = make('std_msgs/msg/String', 'follow the wall')
    write_bag(tmp_path / 'old' / 'told', [('/instruction', text, START_NS), *drive()])
    write_bag(tmp_path / 'old' / 'silent', drive())
    out = tmp_path / 'episodes'
    assert run(tmp_path / 'old', out) == 0

    def found():
        episodes = {}
        for path in find_episodes(out):
            with Episode.open(path) as episode:
                images = [episode.encoded(index) for index in range(len(episode))]
                episodes[episode.origin] = (episode.instruction, images, str(episode.health))
        return dict(sorted(episodes.items()))

    silent, told = found().values()
    assert (silent[0], told[0]) == ('go to the red box', 'follow the wall')
    capsys.readouterr()
    assert run(tmp_path / 'old', out, '--instruction', 'go to the red box there') == 0
    printed = capsys.readouterr().out
    assert 'silent: updated: its instruction was "go to the red box"' in printed
    assert printed.splitlines()[-1] == f'{out}: 0 imported, 1 skipped, 0 failed, 1 updated'
    assert list(found().values()) == [('go to the red box there', *silent[1:]), told]
    assert main(['episodes', 'check', str(out)]) == 0


def test_what_is_not_taken_is_named_with_the_remedy(tmp_path, capsys):
    """Other recordings, compressed bags, pointers; what belongs to a bag is not named."""
    old = tmp_path / 'old'
    write_bag(old / 'good', drive())
    for name, content in (
        ('old.bag.zstd', b''),
        ('notes/a.txt', b''),
        ('notes/b.txt', b''),
        ('lfs.mcap', b'version https://git-lfs.github.com/spec/v1\n'),
        ('lfs.h5', b'version https://git-lfs.github.com/spec/v1\n'),
        ('.DS_Store', b''),
    ):
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_bytes(content)
    assert run(old, tmp_path / 'episodes') == 1
    printed = capsys.readouterr()
    lines = dict(line.split(': ', 1) for line in printed.err.splitlines())
    assert {
        str(Path(path).relative_to(old)): line.split(':')[-1] for path, line in lines.items()
    } == {
        '*.zstd': ' 1 file of another kind',
        'notes/*.txt': ' 2 files of another kind',
        'lfs.mcap': ' run git lfs pull.',
        'lfs.h5': ' run git lfs pull.',
    }
    assert printed.out.splitlines()[-1].endswith(': 1 imported, 0 skipped, 2 failed, 2 ignored')


def test_an_episode_of_one_row_is_refused(tmp_path, capsys):
    """It would not pass the health check."""
    source = legacy_file(tmp_path / 'old' / 'short.h5', rows=1)
    out = tmp_path / 'episodes'
    assert run(source, out) == 1
    assert 'it cannot be trained on; got 1 frames' in capsys.readouterr().err
    assert not list(out.iterdir())


@pytest.mark.parametrize('colour', [(0, 0, 0), (255, 0, 0)])
def test_rows_without_times_may_show_the_same_image(tmp_path, capsys, colour):
    """The robot may not have moved between two key presses: poor, but imported."""
    for number in range(2):
        write_legacy_layout(
            tmp_path / f'{number}.h5', np.full((12, 48, 64, 3), colour, np.uint8), ACTIONS
        )
    out = tmp_path / 'episodes'
    assert run(tmp_path, out) == 0
    assert main(['episodes', 'check', str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count('poor') == 4 and printed.count('stood still in 100%') == 4


@pytest.mark.parametrize('rate', ['2', '5', '9', '10'])
def test_baselines_use_the_rate_of_the_imported_episodes(tmp_path, capsys, rate):
    """`evaluate` uses the rate of the episodes if it is lower."""
    for number in range(4):
        legacy_file(tmp_path / 'old' / f'{number}.h5', first=20 * number)
    assert run(tmp_path / 'old', tmp_path / 'episodes', rate=rate) == 0
    capsys.readouterr()
    assert main(['evaluate', '--data', str(tmp_path / 'episodes'), '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['rate_hz'] == pytest.approx(float(rate)) and not found['skipped']
    assert found['windows'] == 9 and set(found['baselines']) == {
        'zero',
        'mean_action',
        'mean_per_step',
        'mean_per_position_and_step',
        'repeat_last',
    }
    # The four episodes have equal commands, so the mean at each position is exact.
    assert found['baselines']['mean_per_step']['linear_x']['mae'] < 0.1
    assert set(found['baselines']['zero']) >= {'loss_arm_act', 'linear_x', 'linear_y'}


def test_a_source_always_gets_the_same_name(tmp_path):
    """This keeps the split into training and validation the same after every import."""
    source = legacy_file(tmp_path / 'old' / 'episode_20251106_101112_1box.h5')
    names = []
    for out in (tmp_path / 'one', tmp_path / 'other'):
        assert run(source, out) == 0
        names += [path.name for path in find_episodes(out)]
    assert names[0] == names[1] and names[0].startswith('20251106T101112Z_')


def test_two_concurrent_imports_import_each_episode_once(tmp_path):
    """Neither repeats the other's work, and a third run finds all episodes."""
    for number in range(6):
        legacy_file(tmp_path / 'old' / f'{number}.h5', first=20 * number)
    out = tmp_path / 'episodes'
    command = [
        sys.executable,
        '-m',
        'mobile_vla_ros.cli.main',
        'episodes',
        'import',
        str(tmp_path / 'old'),
        '--out',
        str(out),
        '--rate',
        '5',
        '--instruction',
        'go',
    ]
    both = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in both]
    assert not any('Traceback' in text for text in errors)
    assert len(find_episodes(out)) == 6
    assert run(tmp_path / 'old', out) == 0
    assert len(find_episodes(out)) == 6


def test_a_damaged_import_is_reported(tmp_path, capsys):
    """Its source does not count as imported while the imported file cannot be read."""
    source, out = legacy_file(tmp_path / 'old.h5'), tmp_path / 'episodes'
    assert run(source, out) == 0
    [path] = find_episodes(out)
    path.write_bytes(path.read_bytes()[:1000])
    assert run(source, out) == 1
    assert f'in use by {path}' in capsys.readouterr().err
    path.unlink()
    assert run(source, out) == 0


def endless(path):
    """Write a legacy file that takes long to import: one image, stored again and again."""
    rows, shape = 2000, (720, 1280, 3)
    with h5py.File(path, 'w') as file:
        images = file.create_dataset(
            'images', (rows, *shape), np.uint8, chunks=(1, *shape), compression='gzip'
        )
        image = zlib.compress(bytes(720 * 1280 * 3))
        for row in range(rows):
            images.id.write_direct_chunk((row, 0, 0, 0), image)
        file['actions'] = np.ones((rows, 3))
    return path


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_import_leaves_no_partial_episode(tmp_path, number, status):
    """Ctrl-C leaves nothing; after a kill the next import deletes the hidden file."""
    out = tmp_path / 'episodes'
    process = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'mobile_vla_ros.cli.main',
            'episodes',
            'import',
            str(endless(tmp_path / 'endless.h5')),
            '--out',
            str(out),
            '--rate',
            '10',
            '--instruction',
            'go',
        ],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        # It has rows, so the import is in the middle of the episode.
        wait_until(lambda: any(one.stat().st_size > 100_000 for one in out.glob('.*.new')), 60)
        process.send_signal(number)
        error = process.communicate(timeout=120)[1].decode()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status and 'Traceback' not in error
    assert not [one for one in out.glob('*') if not one.name.startswith('.')]
    assert len(list(out.iterdir())) == (0 if number == signal.SIGINT else 2)
    assert run(legacy_file(tmp_path / 'whole.h5'), out) == 0
    assert list(out.iterdir()) == find_episodes(out)
    assert len(find_episodes(out)) == 1


def test_sources_below_a_folder_are_found(mixture, tmp_path):
    """A bag is a folder with its files; the folder of the episodes is skipped."""
    found, _ = find_sources(mixture, tmp_path / 'episodes')
    names = [str(one.relative_to(mixture)) for one in found]
    assert names == [
        'bags/drive',
        'bare.db3',
        'broken.mcap',
        'monday/broken.h5',
        'monday/episode_1.h5',
        'tuesday/episode_1.h5',
    ]
    assert not [
        one
        for one in find_sources(mixture, mixture / 'monday')[0]
        if one.parent == mixture / 'monday'
    ]
    bag = mixture / 'bags' / 'drive'
    assert find_sources(bag, tmp_path) == ([bag], [])
    assert find_sources(bag / 'metadata.yaml', tmp_path) == ([bag], [])


def test_bad_use_is_refused(tmp_path, capsys):
    """No path, no source, import into itself, an invalid rate: status 2."""
    empty = tmp_path / 'empty'
    empty.mkdir()
    (tmp_path / 'file').write_text('')
    out = tmp_path / 'episodes'
    source = legacy_file(tmp_path / 'old' / 'episode_1.h5')
    for arguments, words in (
        ((tmp_path / 'none', out), 'no file or folder at'),
        ((empty, out), 'contains nothing that can be imported'),
        ((source.parent, source.parent), 'into itself'),
        ((source, out, '--rate', '0'), 'greater than zero'),
        ((source, tmp_path / 'file' / 'episodes'), 'cannot create the folder'),
    ):
        assert run(*arguments) == 2
        assert words in capsys.readouterr().err
    assert run(tmp_path / 'file', out) == 1
    assert 'its layout is unknown' in capsys.readouterr().err


@pytest.mark.parametrize(
    'value',
    [{'rate_hz': 0.0}, {'rate_hz': float('nan')}, {'image_format': 'webp'}, {'jpeg_quality': 0}],
)
def test_an_option_out_of_range_is_refused(value):
    """An option that would fail for every file is refused first."""
    with pytest.raises(UserError):
        ImportOptions('go', **value)
