"""The package as it is installed: one version, all files, executables that run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def copy_source(to: Path) -> Path:
    """Copy what a build needs, without what else lies in a checkout; return the new folder."""
    to.mkdir(parents=True)
    for name in ('mobile_vla_ros', 'launch', 'config', 'resource'):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('package.xml', 'setup.py', 'setup.cfg', 'LICENSE', 'MANIFEST.in'):
        shutil.copy(ROOT / name, to)
    return to


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """The package built with colcon, in a workspace of its own; the install folder."""
    workspace = tmp_path_factory.mktemp('workspace')
    copy_source(workspace / 'src' / 'mobile_vla_ros')
    environment = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'}
    built = subprocess.run(
        [
            sys.executable,
            '-m',
            'colcon',
            '--log-base',
            'log',
            'build',
            '--event-handlers',
            'console_direct+',
        ],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return workspace / 'install'


def sourced(installed: Path, command: str, **env) -> subprocess.CompletedProcess:
    """Run a command in a shell that has sourced the installation, far from the source tree."""
    return subprocess.run(
        ['bash', '-c', f'source {installed}/setup.bash && {command}'],
        cwd=installed,
        env={**os.environ, 'PYTHONPATH': '', **env},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize('executable', ['guard_node', 'mobile_vla'])
def test_an_installed_executable_runs(installed, executable, ros_domain):
    """A bad parameter is refused by the node itself; the command line answers --help."""
    path = f'{installed}/mobile_vla_ros/lib/mobile_vla_ros/{executable}'
    if executable == 'mobile_vla':
        done = sourced(installed, f'{path} --help')
        assert done.returncode == 0, done.stderr
        assert 'usage: mobile_vla' in done.stdout
    else:
        done = sourced(installed, f'{path} --ros-args -p rate_hz:=1000.0')
        assert done.returncode == 2, done.stderr
        assert 'rate_hz' in done.stderr
