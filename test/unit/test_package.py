"""The package as it is installed: one version, all files, executables that run."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import mobile_vla_ros

ROOT = Path(__file__).resolve().parents[2]
DATA = ('assets', 'report/static', 'report/templates')  # of the package, beside its modules
EXECUTABLES = (
    'guard_node',
    'inference_node',
    'mobile_vla',
    'recorder_node',
    'shadow_node',
    'sim_node',
    'teleop_node',
)


def setup_arguments() -> dict:
    """Return what setup.py hands to setuptools."""
    import setuptools

    given, whole, folder = {}, setuptools.setup, os.getcwd()
    setuptools.setup = given.update
    try:
        os.chdir(ROOT)
        exec(compile((ROOT / 'setup.py').read_text(), 'setup.py', 'exec'), {})
    finally:
        setuptools.setup = whole
        os.chdir(folder)
    return given


def test_one_version_in_all_its_places():
    """package.xml, setup.py, the package and the newest entry of the changelog agree."""
    manifest = ElementTree.parse(ROOT / 'package.xml').getroot()
    changelog = re.search(r'^(\S+) \([^)]*\)\n-+$', (ROOT / 'CHANGELOG.rst').read_text(), re.M)
    assert {manifest.findtext('version'), setup_arguments()['version'], changelog.group(1)} == {
        mobile_vla_ros.__version__
    }


def test_the_manifest_is_what_ros_expects():
    """Format 3, Apache-2.0, ament_python as the build type and as nothing else."""
    manifest = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert manifest.get('format') == '3'
    assert manifest.findtext('license') == 'Apache-2.0'
    assert manifest.findtext('export/build_type') == 'ament_python'
    assert not manifest.findall('buildtool_depend')
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()


def test_what_runs_is_pinned():
    """Every requirement is exact, but those that a ROS installation brings along."""
    lines = [
        line
        for line in (ROOT / 'requirements.txt').read_text().splitlines()
        if line and not line.startswith('#')
    ]
    loose = [line for line in lines if not re.fullmatch(r'[A-Za-z0-9_.-]+==[0-9.]+', line)]
    assert [re.split('[<>=]', line)[0] for line in loose] == ['numpy', 'psutil']
    for extra in setup_arguments()['extras_require'].values():
        assert all('==' in line for line in extra)


def test_every_executable_is_declared():
    """ros2 run finds the five nodes and the command line under these names."""
    scripts = setup_arguments()['entry_points']['console_scripts']
    assert tuple(sorted(line.split(' = ')[0] for line in scripts)) == EXECUTABLES
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg')
    assert parser['install']['install_scripts'] == '$base/lib/mobile_vla_ros'


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


def test_colcon_installs_every_executable_and_file(installed):
    """lib holds the executables, share the launch files, the configuration and the manifest."""
    prefix = installed / 'mobile_vla_ros'
    library = prefix / 'lib' / 'mobile_vla_ros'
    assert {path.name for path in library.iterdir()} == set(EXECUTABLES)
    share = prefix / 'share' / 'mobile_vla_ros'
    for folder, pattern in (('launch', '*.launch.py'), ('config', '*.yaml'), ('config', '*.xml')):
        assert (
            {p.name for p in (share / folder).glob(pattern)}
            == {p.name for p in (ROOT / folder).glob(pattern)}
            != set()
        )
    assert (share / 'package.xml').is_file()
    assert (prefix / 'share/ament_index/resource_index/packages/mobile_vla_ros').is_file()


def package_of(installed: Path) -> Path:
    """Return the folder of the installed Python package."""
    return next((installed / 'mobile_vla_ros').glob('lib/python*/site-packages/mobile_vla_ros'))


def files(folder: Path) -> dict[Path, int]:
    """Return every file below a folder and its size."""
    return {p.relative_to(folder): p.stat().st_size for p in folder.rglob('*') if p.is_file()}


def test_colcon_installs_the_marker_of_types(installed):
    """py.typed lets type checkers read the annotations of the installed package (PEP 561)."""
    assert (package_of(installed) / 'py.typed').is_file()


@pytest.mark.parametrize('folder', DATA)
def test_colcon_installs_the_data(installed, folder):
    """The shipped backbone, the arena and the pages are in the installed package, whole."""
    assert files(package_of(installed) / folder) == files(ROOT / 'mobile_vla_ros' / folder) != {}


def test_a_source_distribution_holds_the_data(tmp_path):
    """Who installs from it gets the same files."""
    done = subprocess.run(
        [sys.executable, 'setup.py', '-q', 'sdist', '--dist-dir', str(tmp_path)],
        cwd=copy_source(tmp_path / 'tree'),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob('*.tar.gz'))) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert 'mobile_vla_ros/py.typed' in names
    for folder in DATA:
        wanted = {
            f'mobile_vla_ros/{folder}/{name}' for name in files(ROOT / 'mobile_vla_ros' / folder)
        }
        assert wanted <= names


def test_the_installed_package_finds_its_own_files(installed):
    """After sourcing, the package that is imported and its configuration are the installed."""
    done = sourced(
        installed,
        f'{sys.executable} -c "from mobile_vla_ros.bringup.share import '
        "config_file; print(config_file('guard.yaml'))\"",
    )
    assert done.stdout.startswith(str(installed)), done.stderr


def test_setting_up_again_takes_no_time(tmp_path):
    """With the stamp of the same inputs there, scripts/setup ends without touching anything."""
    shutil.copytree(ROOT / 'scripts', tmp_path / 'scripts')
    for name in ('requirements.txt', 'setup.py', 'setup.cfg'):
        shutil.copy(ROOT / name, tmp_path)
    venv = tmp_path / '.venv' / 'bin'
    venv.mkdir(parents=True)
    # Stands in for the environment: notes every call, and is a Python for the questions asked.
    (venv / 'python').write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncase "$*" in *install*) exit 0;; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    (venv / 'python').chmod(0o755)
    environment = {**os.environ, 'PYTHON': sys.executable}

    def run() -> subprocess.CompletedProcess:
        return subprocess.run(
            [tmp_path / 'scripts' / 'setup'],
            cwd='/',
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    first = run()
    assert first.returncode == 0, first.stderr
    assert 'pip install' in (tmp_path / 'calls').read_text()
    (tmp_path / 'calls').unlink()
    assert run().returncode == 0
    assert not (tmp_path / 'calls').exists()
    with open(tmp_path / 'requirements.txt', 'a') as requirements:
        requirements.write('# changed\n')
    assert run().returncode == 0
    assert 'pip install' in (tmp_path / 'calls').read_text()


def test_a_python_that_does_not_fit_is_refused(tmp_path):
    """One line that names what was got, what is expected and what to run."""
    shutil.copytree(ROOT / 'scripts', tmp_path / 'scripts')
    for name in ('requirements.txt', 'setup.py', 'setup.cfg'):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(
        [tmp_path / 'scripts' / 'setup'],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHON': '/bin/false'},
    )
    assert done.returncode == 2
    assert '3.11, 3.12 or 3.13' in done.stderr
    assert done.stderr.count('\n') == 1
