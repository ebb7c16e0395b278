"""The hosted CI's workflow and the pre-commit hooks agree with the scripts."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]


def workflow() -> dict:
    return yaml.safe_load((ROOT / '.github' / 'workflows' / 'ci.yml').read_text())


def steps() -> list[dict]:
    return [step for job in workflow()['jobs'].values() for step in job['steps']]


def is_accepted(minor: int, folder: Path) -> bool:
    """Whether scripts/setup, copied into a folder, accepts Python 3.`minor`."""
    python = folder / f'python3.{minor}'
    # Reports that version, has the system libraries, and cannot create an environment.
    python.write_text(
        f'#!{sys.executable}\nimport sys\nsys.version_info = (3, {minor}, 0)\n'
        "if sys.argv[1] == '-c':\n    exec(sys.argv[2])\n"
        "sys.exit(sys.argv[1] not in ('-', '-c'))\n"
    )
    python.chmod(0o755)
    done = subprocess.run(
        [folder / 'scripts' / 'setup'],
        env={'PATH': os.environ['PATH'], 'PYTHON': str(python)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    return 'no suitable Python' not in done.stderr


def test_every_python_that_setup_accepts_is_tested(tmp_path):
    """The matrix has the versions that scripts/setup accepts; each is passed as PYTHON."""
    shutil.copytree(ROOT / 'scripts', tmp_path / 'scripts')
    for path in [*ROOT.glob('setup.*'), *ROOT.glob('requirements*.txt')]:
        shutil.copy(path, tmp_path)
    accepted = [f'3.{minor}' for minor in range(10, 17) if is_accepted(minor, tmp_path)]
    job = workflow()['jobs']['test']
    assert job['strategy']['matrix']['python'] == accepted
    required = re.search(r"python_requires='(.*)'", (ROOT / 'setup.py').read_text())[1]
    assert all(f'{python}.0' in SpecifierSet(required) for python in accepted)
    (step,) = [step for step in job['steps'] if step.get('run') == 'scripts/test']
    assert step['env'] == {'PYTHON': 'python${{ matrix.python }}'}


def test_the_audit_installs_and_runs_what_there_is():
    """The weekly workflow calls scripts of this repository, after the same system packages."""
    audit = yaml.safe_load((ROOT / '.github' / 'workflows' / 'audit.yml').read_text())
    (job,) = audit['jobs'].values()
    commands = [step['run'] for step in job['steps'] if 'run' in step]
    assert commands[0] == next(step['run'] for step in steps() if 'apt-get' in step.get('run', ''))
    assert 'scripts/test -m exhaustive' in commands
    for command in commands[1:]:
        assert os.access(ROOT / command.split()[0], os.X_OK), command


def test_ci_installs_the_software_rendering_that_setup_names():
    """The same packages as in the message of scripts/setup without a GL library."""
    setup = (ROOT / 'scripts' / 'setup').read_text()
    packages = re.search(r'packages=\((.*)\)', setup)[1].split()
    commands = [line for step in steps() for line in step.get('run', '').splitlines()]
    assert f'sudo apt-get install -y {" ".join(packages)}' in commands


def test_the_lock_is_resolved_by_schedule_only_once_a_day():
    """The cron names one minute and one hour; that run skips the tests."""
    found = workflow()
    triggers = found[True]  # YAML 1.1 reads the key `on` as a boolean
    (entry,) = triggers['schedule']
    assert re.fullmatch(r'\d+ \d+ \* \* \*', entry['cron'])
    lock = found['jobs']['lock']
    assert any(step.get('run') == 'python scripts/check_lock.py' for step in lock['steps'])
    assert "github.event_name == 'schedule'" in lock['if']
    assert found['jobs']['test']['if'] == "github.event_name != 'schedule'"


def test_the_workflow_may_read_the_repository_and_no_more():
    """Minimal permissions; only actions by GitHub, pinned to a major version."""
    assert workflow()['permissions'] == {'contents': 'read'}
    assert all('permissions' not in job for job in workflow()['jobs'].values())
    used = [step['uses'] for step in steps() if 'uses' in step]
    assert used and all(re.fullmatch(r'actions/[a-z-]+@v\d+', action) for action in used)


def test_hooks_run_the_tools_of_the_environment():
    """Local hooks with the Python of .venv: no network, and the same versions as CI."""
    (repository,) = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos']
    assert repository['repo'] == 'local'
    entries = {hook['id']: hook['entry'] for hook in repository['hooks']}
    assert entries == {
        'ruff-check': '.venv/bin/python -m ruff check',
        'ruff-format': '.venv/bin/python -m ruff format',
        'mypy': '.venv/bin/python -m mypy',
    }
    assert {hook['language'] for hook in repository['hooks']} == {'system'}
