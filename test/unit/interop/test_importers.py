"""Importers of other packages: found by their entry point, with several episodes in a path."""

import json
import os

import pytest

from command_line import mobile_vla
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes

MODULE = """
import contextlib
import json

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.interop.importers import Importer
from mobile_vla_ros.interop.source import Source
from mobile_vla_ros.types import Command


def episodes(path, options):
    return {key: json.dumps(speeds) for key, speeds in json.loads(path.read_text()).items()}


@contextlib.contextmanager
def open_odd(path, key, options, scratch):
    speeds = json.loads(path.read_text())[key]
    if not speeds:
        raise UserError('it has no rows')

    def copy(writer, seen):
        for row, speed in enumerate(speeds):
            time_ns = 10**18 + row * 10**8
            pixels = np.random.default_rng(row).integers(0, 256, (24, 32, 3), np.uint8)
            writer.add_frame(encode(pixels, 'png'), time_ns, time_ns)
            writer.add_command(Command(np.array([speed, 0, 0, 0, 0, 0.0]), time_ns, time_ns))
            seen()

    yield Source(10**18, copy, {'instruction': options.or_given('')}, 10.0)


IMPORTER = Importer('odd', open_odd, ('.odd',), episodes=episodes)
"""
GROUP = '[mobile_vla_ros.importers]\nodd = odd_robot:{}\n'
SPEEDS = [0.1 + row / 100 for row in range(12)]


def install(folder, name='IMPORTER'):
    """Install a distribution with an importer into a folder; return an environment with it."""
    info = folder / 'odd_robot-1.0.dist-info'
    info.mkdir(parents=True)
    (folder / 'odd_robot.py').write_text(MODULE)
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: odd-robot\nVersion: 1.0\n')
    (info / 'entry_points.txt').write_text(GROUP.format(name))
    return {'PYTHONPATH': os.pathsep.join([str(folder), os.environ.get('PYTHONPATH', '')])}


def test_another_package_adds_a_layout_with_several_episodes_a_file(tmp_path):
    """Each is imported whole or not at all and once, also when the file grows."""
    environment = install(tmp_path / 'site')
    path, out = tmp_path / 'old' / 'set.odd', tmp_path / 'episodes'
    path.parent.mkdir()
    path.write_text(json.dumps({'a': SPEEDS, 'none': [], 'c/d': SPEEDS[::-1]}))
    command = ('episodes', 'import', path.parent, '--out', out, '--instruction', 'go', '--json')
    done = mobile_vla(*command, **environment)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row['source']: row['status'] for row in rows} == {
        f'{path}/a': 'imported',
        f'{path}/none': 'failed',
        f'{path}/c/d': 'imported',
    }
    assert done.returncode == 1 and rows[1]['reason'] == 'it has no rows.'
    found = {}
    for one in find_episodes(out):
        with Episode.open(one) as episode:
            found[episode.origin.split('#')[0]] = episode.commands.twist[:, 0].tolist()
    assert found == {'set.odd/a': SPEEDS, 'set.odd/c/d': SPEEDS[::-1]}
    path.write_text(json.dumps({'a': SPEEDS, 'new': SPEEDS[:6], 'c/d': SPEEDS[::-1]}))
    done = mobile_vla(*command, **environment)
    states = [json.loads(line)['status'] for line in done.stdout.splitlines()]
    assert (done.returncode, states) == (0, ['skipped', 'imported', 'skipped'])


@pytest.mark.parametrize('name', ['open_odd', 'NOTHING'])
def test_an_importer_that_cannot_be_loaded_is_named(tmp_path, name):
    """With the entry point, before anything is written."""
    environment = install(tmp_path / 'site', name)
    (tmp_path / 'set.odd').write_text('{}')
    out = tmp_path / 'episodes'
    done = mobile_vla('episodes', 'import', tmp_path / 'set.odd', '--out', out, **environment)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert f'importer odd cannot be loaded from odd_robot:{name}; got ' in done.stderr
    assert not out.exists()


def test_an_option_that_concerns_no_source_is_refused(tmp_path):
    """It would be ignored in silence."""
    (tmp_path / 'a.h5').write_bytes(b'')
    out = tmp_path / 'episodes'
    done = mobile_vla('episodes', 'import', tmp_path, '--out', out, '--image-topic', '/a')
    assert done.returncode == 2 and not out.exists()
    assert 'heeds the option image_topic; got HDF5; expected bag' in done.stderr
