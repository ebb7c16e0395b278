"""The package as it is installed: one version, all files, executables that run."""

import configparser
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mobile_vla_ros
from colcon_workspace import copy_source, sourced

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


def ranges() -> list[Requirement]:
    """Return what requirements.txt, setup.py and its extras ask for."""
    package = setup_arguments()
    lines = [*package['install_requires'], *itertools.chain(*package['extras_require'].values())]
    for line in (ROOT / 'requirements.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            lines.append(line)
    return [Requirement(line) for line in lines]


def lock() -> list[tuple[Requirement, set[str]]]:
    """Return every pin of requirements.lock with its hashes."""
    entries = re.findall(
        r'^[^ #].*(?:\n .*)*', (ROOT / 'requirements.lock').read_text(), re.MULTILINE
    )
    return [
        (Requirement(entry.split(' \\\n')[0]), set(re.findall(r'--hash=(\S+)', entry)))
        for entry in entries
    ]


def pythons() -> list[str]:
    """Return the versions of Python that setup.py names."""
    return [line.rsplit(' ', 1)[1] for line in setup_arguments()['classifiers']]


def test_what_runs_is_asked_for_by_range():
    """A lower bound each, and no exact version: that is the lock's."""
    for requirement in ranges():
        operators = [specifier.operator for specifier in requirement.specifier]
        assert operators == ['>='], requirement


def test_every_pin_has_hashes():
    """Each pin is exact and has hashes; the lock names no index."""
    for requirement, hashes in lock():
        assert [specifier.operator for specifier in requirement.specifier] == ['==']
        assert hashes, requirement
        assert all(re.fullmatch('sha256:[0-9a-f]{64}', value) for value in hashes)
    text = (ROOT / 'requirements.lock').read_text()
    assert '--index' not in text and '--extra-index' not in text and '://' not in text


@pytest.mark.parametrize('machine', ['x86_64', 'aarch64'])
@pytest.mark.parametrize('python', pythons())
def test_the_lock_satisfies_every_range(python, machine):
    """On each supported Python and machine, what is asked for has one pin, and it is in range."""
    environment = {
        'python_version': python,
        'python_full_version': f'{python}.1',
        'platform_machine': machine,
        'platform_system': 'Linux',
        'sys_platform': 'linux',
    }

    def applies(requirement: Requirement) -> bool:
        return requirement.marker is None or requirement.marker.evaluate(environment)

    pins = {}
    for pin, _ in lock():
        if applies(pin):
            name = canonicalize_name(pin.name)
            assert name not in pins, f'{name} is pinned twice'
            pins[name] = next(iter(pin.specifier)).version
    for requirement in ranges():
        if applies(requirement):
            pinned = pins.get(canonicalize_name(requirement.name))
            assert pinned is not None, f'{requirement} is not locked: run check_lock.py --update'
            assert requirement.specifier.contains(pinned), (requirement, pinned)


def test_the_supported_pythons_are_the_same_everywhere():
    """setup.py, scripts/setup and the pages name one oldest and one newest version."""
    oldest, newest = pythons()[0], pythons()[-1]
    assert setup_arguments()['python_requires'] == f'>={oldest}'
    setup = (ROOT / 'scripts' / 'setup').read_text()
    bounds = re.search(r'\(([\d, ]+)\) <= sys.version_info\[:2\] <= \(([\d, ]+)\)', setup).groups()
    assert tuple(bound.replace(', ', '.') for bound in bounds) == (oldest, newest)
    assert f'expected {", ".join(pythons()[:-1])} or {newest}' in setup
    for python in pythons():
        assert f' python{python}' in setup
    for page in ('README.md', 'docs/setup.md'):
        assert f'Python {oldest} to {newest}' in (ROOT / page).read_text()


def test_every_executable_is_declared():
    """ros2 run finds the five nodes and the command line under these names."""
    scripts = setup_arguments()['entry_points']['console_scripts']
    assert tuple(sorted(line.split(' = ')[0] for line in scripts)) == EXECUTABLES
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg')
    assert parser['install']['install_scripts'] == '$base/lib/mobile_vla_ros'


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


SETUP_FILES = ('requirements.txt', 'requirements.lock', 'setup.py', 'setup.cfg')
# Stands in for the environment's Python: notes the calls of pip and the constraints of the last,
# and answers `pip install --report` with ./report; asked for anything else it is a real Python.
STAND_IN = """#!/bin/sh
case "$*" in
  *install*) echo "$@" >> {folder}/calls ;;
  *) exec {python} "$@" ;;
esac
case "$*" in
  *--report*) cat {folder}/report ;;
esac
while [ $# -gt 0 ]; do
  if [ "$1" = -c ]; then cat "$2" > {folder}/constraints; fi
  shift
done
"""


class Checkout:
    """A copy of what scripts/setup reads, in a folder, with a stand-in for its environment."""

    def __init__(self, folder: Path):
        self.folder = folder
        shutil.copytree(ROOT / 'scripts', folder / 'scripts')
        for name in SETUP_FILES:
            shutil.copy(ROOT / name, folder)
        (folder / 'report').touch()
        python = folder / '.venv' / 'bin' / 'python'
        python.parent.mkdir(parents=True)
        python.write_text(STAND_IN.format(folder=folder, python=sys.executable))
        python.chmod(0o755)
        self.on('x86_64')

    def on(self, machine: str):
        """Make it look like this machine to scripts/setup."""
        uname = self.folder / 'bin' / 'uname'
        uname.parent.mkdir(exist_ok=True)
        uname.write_text(f'#!/bin/sh\necho {machine}\n')
        uname.chmod(0o755)

    def source_ros(self) -> dict[str, str]:
        """Return the environment of a shell with a ROS 2 sourced."""
        (self.folder / 'ros').mkdir()
        (self.folder / 'ros' / 'rclpy.py').touch()
        return {'ROS_DISTRO': 'jazzy', 'PYTHONPATH': str(self.folder / 'ros')}

    def run(self, **environment: str) -> subprocess.CompletedProcess:
        """Run scripts/setup, as if from a shell that has no ROS 2 sourced."""
        path = f'{self.folder / "bin"}:{os.environ["PATH"]}'
        return subprocess.run(
            [self.folder / 'scripts' / 'setup'],
            cwd='/',
            env={
                **os.environ,
                'PATH': path,
                'PYTHON': sys.executable,
                'ROS_DISTRO': '',
                **environment,
            },
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def set_up(self, **environment: str) -> str:
        """Run scripts/setup; return the calls of pip that it made."""
        calls = self.folder / 'calls'
        calls.unlink(missing_ok=True)
        done = self.run(**environment)
        assert done.returncode == 0, done.stderr
        return calls.read_text() if calls.exists() else ''

    def constraints(self) -> list[str]:
        """Return the names of the packages that the last call of pip had to take as locked."""
        return re.findall(r'^([^ #=]+)==', (self.folder / 'constraints').read_text(), re.MULTILINE)


@pytest.mark.parametrize('name', [*SETUP_FILES, 'scripts/setup'])
def test_setting_up_again_takes_no_time(tmp_path, name):
    """With the stamp of the same inputs there, scripts/setup ends without touching anything."""
    checkout = Checkout(tmp_path)
    assert 'pip install' in checkout.set_up()
    assert checkout.set_up() == ''
    with open(tmp_path / name, 'a') as file:
        file.write('# changed\n')
    assert 'pip install' in checkout.set_up()


def test_what_is_set_up_is_the_lock(tmp_path):
    """pip checks hashes of all but the package itself, with ROS 2 and the tools of tests."""
    checkout = Checkout(tmp_path)
    bootstrap, _, package, everything = checkout.set_up().splitlines()
    assert '--require-hashes' in bootstrap
    assert '--no-deps -e .' in package
    assert '--require-hashes' in everything and 'mobile_vla_ros[ros,dev]' in everything
    assert checkout.constraints() == [pin.name for pin, _ in lock()]


def test_a_sourced_ros_keeps_its_numpy(tmp_path):
    """The extra [ros], and OpenCV with it, stays out; numpy is the one OpenCV is built for."""
    checkout = Checkout(tmp_path)
    calls = checkout.set_up(**checkout.source_ros())
    assert 'mobile_vla_ros[dev]' in calls and 'ros,' not in calls
    assert checkout.constraints() == [pin.name for pin, _ in lock() if pin.name != 'numpy']


def test_a_pytorch_of_another_index_is_taken(tmp_path):
    """A CPU build that pip is configured to find takes the place of the CUDA one of PyPI."""
    checkout = Checkout(tmp_path)
    report = {'version': '1', 'install': [{'metadata': {'version': '2.13.0+cpu'}}]}
    (tmp_path / 'report').write_text(json.dumps(report, indent=2))
    torch = checkout.set_up().splitlines()[2]
    assert torch.split()[-1].startswith('--') and ' torch==2.13.0+cpu ' in torch
    names = checkout.constraints()
    assert 'torch' not in names and not any(name.startswith('nvidia-') for name in names)
    assert {'numpy', 'transformers'} <= set(names)


@pytest.mark.parametrize(
    ('change', 'status', 'cell'),
    [
        ('', 0, 'packages'),
        ('s/sha256:./sha256:x/', 1, 'FAILED'),
        ('s/^torch==[^ ]*/torch==99/', 1, 'FAILED'),
    ],
)
def test_the_lock_is_compared_with_the_registry(tmp_path, change, status, cell):
    """A table of Pythons and machines; other hashes or versions than the lock's are failures."""
    stand_in = tmp_path / 'uv'
    stand_in.write_text(f"#!/bin/sh\nsed '{change}' {ROOT}/requirements.lock\n")
    stand_in.chmod(0o755)
    done = subprocess.run(
        [sys.executable, ROOT / 'scripts' / 'check_lock.py'],
        env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    rows = done.stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows[: len(pythons())]] == pythons()
    assert all(row.count(cell) == 2 for row in rows)
    assert done.stderr.count('not as in the lock') == (2 * len(rows) if status else 0)


def test_a_python_that_does_not_fit_is_refused(tmp_path):
    """One line that names what was got, what is expected and what to run."""
    done = Checkout(tmp_path).run(PYTHON='/bin/false')
    assert done.returncode == 2
    assert '3.11, 3.12, 3.13 or 3.14' in done.stderr
    assert done.stderr.count('\n') == 1


def test_a_machine_that_pypi_has_no_ros_for_is_refused(tmp_path):
    """Without a sourced ROS 2, in one line that says to source one; with one it is set up."""
    checkout = Checkout(tmp_path)
    checkout.on('aarch64')
    done = checkout.run()
    assert done.returncode == 2
    assert 'source a ROS 2' in done.stderr
    assert done.stderr.count('\n') == 1
    assert 'mobile_vla_ros[dev]' in checkout.set_up(**checkout.source_ros())
