"""The examples run as documented, and their output is correct."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from arena_episodes import write_episodes
from command_line import run_main
from forked import run_forked

ROOT = Path(__file__).resolve().parents[3]
CUSTOM = ROOT / 'examples' / 'custom_policy.py'


def example(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run an example in the root of the repository."""
    return run_forked(f'examples/{name}', *arguments, cwd=ROOT)


def test_both_ways_to_read_an_episode_agree(tmp_path):
    """Plain h5py finds the instruction, counts, verdict and commands of every frame."""
    (path,) = write_episodes(tmp_path, 1, size=64)
    done = example('read_episode.py', path)
    assert done.returncode == 0, done.stderr
    _, ours, plain = re.split('with mobile_vla_ros\n|with h5py\n', done.stdout)
    ours, plain = ours.splitlines(), plain.splitlines()
    assert (ours[0], ours[2:]) == (plain[0], plain[2:])
    frames = int(re.match(r'frames +(\d+), the first is \(64, 64, 3\) uint8', ours[1])[1])
    assert int(re.match(r'frames +(\d+),', plain[1])[1]) == frames == len(ours) - 4 > 20
    assert ours[3].startswith('verdict      good')
    assert re.search(r'vx \+0\.\d+ m/s', ours[4])


@pytest.mark.parametrize('name', ['read_episode.py', 'drive_headless.py'])
def test_bad_use_ends_with_a_sentence(name):
    """Exit status 1, no traceback."""
    done = example(name, *(['missing.h5'] if name == 'read_episode.py' else ['--suite', 'unsen']))
    assert done.returncode == 1
    assert 'missing.h5' in done.stderr or 'unknown suite' in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_custom_policy_drives(capsys, monkeypatch):
    """By its name, as its text says: it reaches a red ball, in scenes of a base that turns."""
    assert 'mobile_vla simulate --policy custom_policy:RedPolicy' in CUSTOM.read_text()
    monkeypatch.syspath_prepend(CUSTOM.parent)
    arguments = ('--policy', 'custom_policy:RedPolicy', '--trials', 1, '--json')
    status, out, err = run_main(capsys, 'simulate', *arguments)
    assert status == 0, err
    (one,) = json.loads(out)['outcomes']
    assert (one['instruction'], one['outcome']) == ('move over to the red ball', 'success')


def test_the_shipped_policy_drives_headless():
    """builtin:demo is the default; a trial of `swap` is two scenes."""
    done = example('drive_headless.py', '--suite', 'swap', '--trials', 1)
    assert done.returncode == 0, done.stderr
    first, *scenes, total = done.stdout.splitlines()
    assert first == 'builtin:demo: linear_x, linear_y at 10 Hz'
    ends = [
        re.match(r' *\d+ (\w+) +[\d.]+ s \(expert +[\d.]+ s\)  \w', scene)[1] for scene in scenes
    ]
    assert len(ends) == 2
    assert total == f'swap: {int(ends == ["success", "success"])} of 1 trials'


def test_every_example_is_run_here_and_linked():
    """docs/reference.md names each example, and this file runs it."""
    here, reference = Path(__file__).read_text(), (ROOT / 'docs' / 'reference.md').read_text()
    for path in (ROOT / 'examples').glob('*.py'):
        assert f"example('{path.name}'" in here or f'{path.stem}:' in here
        assert f'(../examples/{path.name})' in reference
