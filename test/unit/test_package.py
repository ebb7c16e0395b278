"""The installed package: one version, all files, working executables."""

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
DATA = ('assets', 'report/static', 'report/templates')  # files of the package other than modules
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
    """Return the arguments that setup.py passes to setuptools."""
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
    """Format 3, Apache-2.0, and ament_python only as the build type."""
    manifest = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert manifest.get('format') == '3'
    assert manifest.findtext('license') == 'Apache-2.0'
    assert manifest.findtext('export/build_type') == 'ament_python'
    assert not manifest.findall('buildtool_depend')
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()


def ranges() -> list[Requirement]:
    """Return the requirements of requirements.txt, setup.py and its extras."""
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
    """Return the Python versions that setup.py lists."""
    return [line.rsplit(' ', 1)[1] for line in setup_arguments()['classifiers']]


def test_requirements_are_ranges():
    """Each has a lower bound and no exact version, which belongs to the lock."""
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
    """On each supported Python and machine, each requirement has one pin in its range."""
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
    """setup.py, scripts/setup and the docs name the same oldest and newest version."""
    oldest, newest = pythons()[0], pythons()[-1]
    assert setup_arguments()['python_requires'] == '>=3.10'  # JetPack 6, without scripts/setup
    setup = (ROOT / 'scripts' / 'setup').read_text()
    bounds = re.search(r'\(([\d, ]+)\) <= sys.version_info\[:2\] <= \(([\d, ]+)\)', setup).groups()
    assert tuple(bound.replace(', ', '.') for bound in bounds) == (oldest, newest)
    assert f'expected {", ".join(pythons()[:-1])} or {newest}' in setup
    for python in pythons():
        assert f' python{python}' in setup
    for page in ('README.md', 'docs/setup.md'):
        assert f'Python {oldest} to {newest}' in (ROOT / page).read_text()


def test_every_executable_is_declared():
    """ros2 run finds the nodes and the command line under these names."""
    scripts = setup_arguments()['entry_points']['console_scripts']
    assert tuple(sorted(line.split(' = ')[0] for line in scripts)) == EXECUTABLES
    parser = configparser.ConfigParser()
    parser.read(ROOT / 'setup.cfg')
    assert parser['install']['install_scripts'] == '$base/lib/mobile_vla_ros'


def test_colcon_installs_every_executable_and_file(installed):
    """Executables are in lib; launch files, configuration and manifest are in share."""
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


def test_colcon_installs_py_typed(installed):
    """py.typed lets type checkers read the annotations of the installed package (PEP 561)."""
    assert (package_of(installed) / 'py.typed').is_file()


@pytest.mark.parametrize('folder', DATA)
def test_colcon_installs_the_data(installed, folder):
    """The installed package has the complete backbone, arena and page templates."""
    assert files(package_of(installed) / folder) == files(ROOT / 'mobile_vla_ros' / folder) != {}


def test_a_source_distribution_holds_the_data(tmp_path):
    """An installation from it has the same files."""
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
    """After sourcing, the installed package is imported, and finds its own configuration."""
    done = sourced(
        installed,
        f'{sys.executable} -c "from mobile_vla_ros.bringup.share import '
        "config_file; print(config_file('guard.yaml'))\"",
    )
    assert done.stdout.startswith(str(installed)), done.stderr


SETUP_FILES = ('requirements.txt', 'requirements.lock', 'setup.py', 'setup.cfg')
# Stands in for the environment's Python: logs the calls of pip and the last constraints,
# answers `pip install --report` with ./report, and runs anything else with the real Python.
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
    """A copy of the files that scripts/setup reads, with a stand-in for its environment."""

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
        """Make scripts/setup see this machine."""
        uname = self.folder / 'bin' / 'uname'
        uname.parent.mkdir(exist_ok=True)
        uname.write_text(f'#!/bin/sh\necho {machine}\n')
        uname.chmod(0o755)

    def source_ros(self) -> dict[str, str]:
        """Return the environment of a shell that has sourced ROS 2."""
        (self.folder / 'ros').mkdir()
        (self.folder / 'ros' / 'rclpy.py').touch()
        return {'ROS_DISTRO': 'jazzy', 'PYTHONPATH': str(self.folder / 'ros')}

    def run(self, **environment: str) -> subprocess.CompletedProcess:
        """Run scripts/setup, by default from a shell without ROS 2."""
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
        """Run scripts/setup; return its calls of pip."""
        calls = self.folder / 'calls'
        calls.unlink(missing_ok=True)
        done = self.run(**environment)
        assert done.returncode == 0, done.stderr
        return calls.read_text() if calls.exists() else ''

    def constraints(self) -> list[str]:
        """Return the names of the packages that the last call of pip constrained."""
        return re.findall(r'^([^ #=]+)==', (self.folder / 'constraints').read_text(), re.MULTILINE)


@pytest.mark.parametrize('name', [*SETUP_FILES, 'scripts/setup'])
def test_setting_up_again_does_nothing(tmp_path, name):
    """If the stamp has the same inputs, scripts/setup ends and changes nothing."""
    checkout = Checkout(tmp_path)
    assert 'pip install' in checkout.set_up()
    assert checkout.set_up() == ''
    with open(tmp_path / name, 'a') as file:
        file.write('# changed\n')
    assert 'pip install' in checkout.set_up()


def test_setup_installs_the_lock(tmp_path):
    """pip checks the hashes of all packages but this one, with ROS 2 and the test tools."""
    checkout = Checkout(tmp_path)
    bootstrap, _, package, everything = checkout.set_up().splitlines()
    assert '--require-hashes' in bootstrap
    assert '--no-deps -e .' in package
    assert '--require-hashes' in everything and 'mobile_vla_ros[ros,formats,dev]' in everything
    assert checkout.constraints() == [pin.name for pin, _ in lock()]


def test_a_sourced_ros_keeps_its_numpy(tmp_path):
    """No extra [ros], so no OpenCV; numpy is the version that ROS's OpenCV needs."""
    checkout = Checkout(tmp_path)
    calls = checkout.set_up(**checkout.source_ros())
    assert 'mobile_vla_ros[formats,dev]' in calls and 'ros,' not in calls
    assert checkout.constraints() == [pin.name for pin, _ in lock() if pin.name != 'numpy']


def test_pytorch_of_another_index_is_used(tmp_path):
    """A CPU build from pip's configured index replaces PyPI's CUDA build."""
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
    """For each Python and machine; a hash or version that differs from the lock fails."""
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


def test_an_unsupported_python_is_refused(tmp_path):
    """One line names the version found, the expected ones and the command to run."""
    done = Checkout(tmp_path).run(PYTHON='/bin/false')
    assert done.returncode == 2
    assert '3.11, 3.12, 3.13 or 3.14' in done.stderr
    assert done.stderr.count('\n') == 1


def test_a_machine_without_ros_on_pypi_is_refused(tmp_path):
    """One line asks to source a ROS 2; after that, setup succeeds."""
    checkout = Checkout(tmp_path)
    checkout.on('aarch64')
    done = checkout.run()
    assert done.returncode == 2
    assert 'source a ROS 2' in done.stderr
    assert done.stderr.count('\n') == 1
    assert 'mobile_vla_ros[formats,dev]' in checkout.set_up(**checkout.source_ros())
