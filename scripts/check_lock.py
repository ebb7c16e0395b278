#!/usr/bin/env python3
"""
Resolve requirements.lock for every supported Python and architecture, and print a table.

Requests only metadata from the registry. Exit status 1 if a cell cannot be resolved or a hash
differs from the registry's. Needs uv: pip resolves for other Pythons too, but evaluates the
markers of dependencies for its own.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / 'requirements.lock'
MACHINES = ('x86_64', 'aarch64')
# The C library that the wheels of PyTorch and ROS 2 need; Ubuntu 24.04 and JetPack 7 have 2.39.
PLATFORM = 'manylinux_2_28'
# Pure Python without a wheel on PyPI.
NO_WHEEL = 'empy'
# Of Ubuntu 24.04; scripts/setup keeps the system's numpy if ROS 2 is sourced.
JAZZY = {'python': '3.12', 'numpy': 'numpy==1.26.4'}


def parse(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.strip().splitlines()[0],
        epilog='example: .venv/bin/python scripts/check_lock.py',
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        '--update',
        action='store_true',
        help='write the lock instead; keep versions that are still in range',
    )
    other.add_argument(
        '--upgrade', action='store_true', help='write the lock instead, with the newest versions'
    )
    other.add_argument(
        '--lowest',
        type=Path,
        metavar='FOLDER',
        help='instead, test the lower bounds: install them in a new virtual environment in '
        'FOLDER and run the tests that need no node',
    )
    return parser.parse_args(argv)


def package():
    """Return the declarations of setup.py, as a setuptools Distribution."""
    import setuptools  # noqa: F401, I001 - provides distutils, which Python 3.12 removed
    from distutils.core import run_setup

    folder = os.getcwd()
    try:
        os.chdir(ROOT)
        return run_setup('setup.py', stop_after='init')
    finally:
        os.chdir(folder)


def pythons() -> list[str]:
    """Return the supported versions of Python, oldest first."""
    return [line.rsplit(' ', 1)[1] for line in package().get_classifiers()]


def ranges(*extras: str) -> str:
    """Return requirements.txt plus the requirements of setup.py and these extras, one a line."""
    declared = package()
    lines = [*declared.install_requires]
    for extra in extras:
        lines += declared.extras_require[extra]
    return (ROOT / 'requirements.txt').read_text() + '\n'.join(lines) + '\n'


def read(lock: str) -> dict[str, set[str]]:
    """Return the hashes of every `name==version` of a lock."""
    found = {}
    for entry in re.findall(r'^[^\s#].*(?:\n .*)*', lock, re.M):
        pin = entry.split(maxsplit=1)[0]
        found.setdefault(pin, set()).update(re.findall(r'--hash=(\S+)', entry))
    return found


def without(name: str, lock: str) -> str:
    """Return a lock without one package."""
    return re.sub(rf'^{name}==.*(?:\n .*)*\n', '', lock, flags=re.M)


def uv(*arguments) -> subprocess.CompletedProcess:
    """Run the uv on the PATH or beside this Python."""
    program = shutil.which('uv', path=f'{os.environ["PATH"]}:{Path(sys.executable).parent}')
    if program is None:
        sys.exit(f'check_lock: uv is missing; run: {sys.executable} -m pip install uv')
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


def compiled(*arguments) -> str:
    """Return the output of `uv pip compile`; raise RuntimeError with its error if it fails."""
    done = uv('pip', 'compile', '--quiet', '--no-header', '--no-annotate', *arguments)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def check(folder: Path) -> int:
    """Print the table; return how many cells failed."""
    lock = LOCK.read_text()
    (folder / 'numpy.txt').write_text(without('numpy', lock))
    (folder / 'sourced.txt').write_text(ranges('formats', 'dev') + JAZZY['numpy'])
    rows = [(python, python, [LOCK]) for python in pythons()]
    sourced = [folder / 'sourced.txt', '--constraint', folder / 'numpy.txt']
    rows.append((f'{JAZZY["python"]}, ROS 2 sourced', JAZZY['python'], sourced))
    print(f'{"Python":22}' + ''.join(f'{machine:>16}' for machine in MACHINES))
    reasons = []
    for label, python, given in rows:
        cells = []
        for machine in MACHINES:
            try:
                got = read(resolved(python, machine, *given))
                strays = stray(got, read(lock))
                if strays:
                    raise RuntimeError('not as in the lock: ' + ', '.join(strays))
                cells.append(f'{len(got)} packages')
            except RuntimeError as error:
                cells.append('FAILED')
                reasons.append(f'{label}, {machine}: {error}')
        print(f'{label:22}' + ''.join(f'{cell:>16}' for cell in cells), flush=True)
    print(*reasons, sep='\n', end='\n' * bool(reasons), file=sys.stderr)
    return len(reasons)


def resolved(python: str, machine: str, *given) -> str:
    """Return the lock of one Python on one machine, with the registry's hashes."""
    platform = ('--python-version', python, '--python-platform', f'{machine}-{PLATFORM}')
    wheels = ('--only-binary', ':all:', '--no-binary', NO_WHEEL)
    return compiled(*given, '--generate-hashes', *platform, *wheels)


def stray(got: dict[str, set[str]], lock: dict[str, set[str]]) -> list[str]:
    """Return the pins that are not in the lock, or whose hashes differ from the registry's."""
    return [
        pin
        for pin, hashes in got.items()
        if pin != JAZZY['numpy'] and (pin not in lock or lock[pin] - hashes)
    ]


def update(folder: Path, upgrade: bool):
    """Write the lock for all Pythons and machines at once."""
    major, minor = pythons()[-1].split('.')  # newer Pythons are unsupported
    machines = [
        f"sys_platform == 'linux' and platform_machine == '{machine}' "
        f"and python_full_version < '{major}.{int(minor) + 1}'"
        for machine in MACHINES
    ]
    (folder / 'pyproject.toml').write_text(f'[tool.uv]\nenvironments = {json.dumps(machines)}\n')
    (folder / 'ranges.txt').write_text(ranges('ros', 'formats', 'dev'))
    lock = folder / LOCK.name
    if LOCK.exists():
        shutil.copy(LOCK, lock)
    compiled(
        '--project', folder, folder / 'ranges.txt', '--output-file', lock, '--universal',
        '--generate-hashes', '--python-version', pythons()[0], *['--upgrade'] * upgrade,
    )  # fmt: skip
    head = '# Written by scripts/check_lock.py --update from requirements.txt and setup.py.\n'
    LOCK.write_text(head + lock.read_text())


def lowest(folder: Path, work: Path) -> int:
    """Install the lower bounds in a new environment and test there; return pytest's status."""
    oldest = pythons()[0]
    (work / 'ranges.txt').write_text(ranges('ros', 'formats', 'dev'))
    pins = compiled(
        work / 'ranges.txt', '--resolution', 'lowest-direct', '--python-version', oldest
    )
    (work / 'lowest.txt').write_text(pins)
    found = dict(pin.split('==') for pin in read(pins))
    for name, bound in re.findall(r'^([\w.-]+)>=([\w.]+)', ranges('ros', 'formats', 'dev'), re.M):
        print(f'{name}=={found[name]}', flush=True)
        if Version(found[name]) != Version(bound):
            raise RuntimeError(f'{name}>={bound} is not available; the lowest is {found[name]}')
    python = folder / 'bin' / 'python'
    for step in (
        ('venv', '--python', oldest, folder),
        ('pip', 'install', '--python', python, '--requirements', work / 'lowest.txt'),
    ):
        done = uv(*step)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    command = [python, '-m', 'pytest', 'test/unit', '-p', 'no:cacheprovider']
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory() as work:
        try:
            if options.lowest:
                return lowest(options.lowest.resolve(), Path(work))
            if options.update or options.upgrade:
                update(Path(work), options.upgrade)
                return 0
            return min(1, check(Path(work)))
        except RuntimeError as error:
            sys.exit(f'check_lock: {error}')


if __name__ == '__main__':
    sys.exit(main())
