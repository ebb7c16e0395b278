"""The package built and installed with colcon, and commands in its environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copy_source(to: Path) -> Path:
    """Copy only the files that a build needs; return the new folder."""
    to.mkdir(parents=True)
    for name in ('mobile_vla_ros', 'launch', 'config', 'resource'):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('package.xml', 'setup.py', 'setup.cfg', 'LICENSE', 'MANIFEST.in'):
        shutil.copy(ROOT / name, to)
    return to


def install(workspace: Path) -> Path:
    """Build the package with colcon in an empty workspace; return the install folder."""
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
    """Run a command in a shell that has sourced the installation, outside the source tree."""
    return subprocess.run(
        ['bash', '-c', f'source {installed}/setup.bash && {command}'],
        cwd=installed,
        env={**os.environ, 'PYTHONPATH': '', **env},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
