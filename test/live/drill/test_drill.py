"""`mobile_vla drill` as a command: real nodes, real signals, real exit statuses."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mobile_vla_ros.cli.main import main
from ros_helpers import attached, wait_until

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 120.0
COMMAND = (sys.executable, '-m', 'mobile_vla_ros.cli.main', 'drill')


def drill(*arguments, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.quiet_machine
def test_a_killed_policy_an_estop_and_an_ended_guard_stop_the_base(tmp_path):
    """The promise, measured on live nodes that are killed and started again: zero in 250 ms."""
    log = tmp_path / 'log'
    done = drill('guard_terminated', 'estop', 'inference_killed', '--json', '--out', log)
    assert done.returncode == 0, done.stdout + done.stderr
    ended, estop, killed = json.loads(done.stdout)
    for row in (ended, estop, killed):
        assert row['kept'] is True
        assert -50 < row['zero_ms'] <= 250
        assert 0.2 < row['rolled_m'] < 1.0
        assert row['largest_mps'] <= 1.0
    assert killed['guard'].startswith('fault')
    assert killed['zero_ms'] > estop['zero_ms']
    assert estop['guard'] == 'estop: the e-stop is pressed'
    assert 'status 0' in ended['note']
    assert json.loads((log / 'drill.json').read_text())[1] == estop
    # A restarted node appends to its log.
    assert (log / 'guard.log').read_text().count('Armed.') >= 3
    assert attached(log) == set()


@pytest.mark.quiet_machine
def test_a_guard_that_is_too_patient_or_drives_on_by_itself_is_found(tmp_path):
    """A drill that cannot fail shows nothing: limits of seconds, a fault that disarms nobody."""
    params = tmp_path / 'patient.yaml'
    params.write_text(
        '/**:\n  ros__parameters:\n    observation_max_age_s: 5.0\n'
        '    proposal_timeout_s: 5.0\n    arm_at_start: true\n'
    )
    done = drill(
        'proposal_nan', 'inference_killed', '--params-file', params, '--out', tmp_path / 'log'
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if 'SIGKILLed' in line)
    assert 'BROKEN' in line
    (again,) = (line for line in done.stdout.splitlines() if 'NaN' in line)
    assert 'BROKEN' in again
    assert 'drove again by itself' in again
    assert str(tmp_path / 'log') in done.stderr
    assert 'not zero' in (tmp_path / 'log' / 'drill.json').read_text()


def test_ctrl_c_leaves_nothing_running(tmp_path):
    """While the network is still loading, which is the worst moment."""
    log = tmp_path / 'log'
    process = subprocess.Popen(
        [*COMMAND, '--out', str(log)],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: len(attached(log)) == 5, 60.0, 'the drill and its four nodes')
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert attached(log) == set()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['e-stop'], "Did you mean 'estop'"),
        (['--policy', 'nowhere'], 'nowhere'),
        (['--params-file', 'nowhere.yaml'], 'nowhere.yaml'),
        (['--out', 'FULL'], 'not empty'),
        (['--json', '--markdown'], 'not allowed with'),
    ],
)
def test_bad_use_is_a_sentence_and_starts_nothing(tmp_path, capsys, arguments, words):
    """Exit status 2, and not one log."""
    (tmp_path / 'kept').touch()
    try:
        status = main(['drill', *(str(tmp_path) if one == 'FULL' else one for one in arguments)])
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['kept']


def test_list_names_every_fault(capsys):
    """For people and for programs."""
    assert main(['drill', '--list']) == 0
    assert 'guard_killed' in capsys.readouterr().out
    assert main(['drill', '--list', '--json']) == 0
    assert {'fault', 'title', 'promise', 'observable'} == set(
        json.loads(capsys.readouterr().out)[0]
    )
