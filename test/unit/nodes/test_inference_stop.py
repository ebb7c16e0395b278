"""Ctrl-C and SIGTERM during startup and while a policy loads: no traceback, no waiting."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mobile_vla_ros import nodes
from mobile_vla_ros.nodes.inference.lifecycle import exit_on_signal
from ros_helpers import TIMEOUT_S

SIGNALS = signal.SIGINT, signal.SIGTERM
# The signal arrives during the import of this module.
STOPPED = 'import os, signal, time\nos.kill(os.getpid(), signal.{})\ntime.sleep(60)\n'


def stopped_in(folder: Path, module: str, number: signal.Signals, start: list[str]):
    """Run Python; a signal arrives while it imports a module."""
    (folder / f'{module}.py').write_text(STOPPED.format(number.name))
    return subprocess.run(
        [sys.executable, *start],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, 'PYTHONPATH': f'{folder}:{Path.cwd()}'},
        cwd=folder,
        check=False,
    )


@pytest.mark.parametrize('number', SIGNALS)
@pytest.mark.parametrize('executable', [False, True])
def test_a_node_that_is_stopped_while_it_imports_prints_nothing(tmp_path, number, executable):
    """Both with `python -m` and with the installed script."""
    script = tmp_path / 'shadow_node'
    script.write_text('from mobile_vla_ros.nodes.shadow_node import main\nmain()\n')
    start = [str(script)] if executable else ['-m', 'mobile_vla_ros.nodes.shadow_node']
    done = stopped_in(tmp_path, 'rclpy', number, start)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_the_command_reports_a_stop_while_it_imports(tmp_path):
    """Importing our nodes does not disable Ctrl-C of another program."""
    start = ['-m', 'mobile_vla_ros.cli.main', '--help']
    done = stopped_in(tmp_path, 'numpy', signal.SIGINT, start)
    assert (done.returncode, done.stderr) == (130, 'mobile_vla: stopped\n')
    program = 'import mobile_vla_ros.nodes.shared.run'
    script = tmp_path / 'fusion_node'
    script.write_text(program)
    for start in (['-c', program], [str(script)]):
        done = stopped_in(tmp_path, 'rclpy', signal.SIGINT, start)
        assert 'KeyboardInterrupt' in done.stderr


def test_importing_an_executable_changes_no_signal_and_imports_no_ros():
    """An installed script imports its module first; other programs may import it, too."""
    modules = [
        f'mobile_vla_ros.nodes.{path.stem}'
        for path in Path(nodes.__file__).parent.glob('*.py')
        if path.stem != '__init__'
    ]
    assert len(modules) >= 12
    program = (
        'import importlib, signal, sys\n'
        'before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]\n'
        f'for module in {modules}: assert importlib.import_module(module).main\n'
        'assert before == [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]\n'
        'assert not {"rclpy", "numpy"} & set(sys.modules)\n'
    )
    subprocess.run([sys.executable, '-c', program], check=True, timeout=120)


@pytest.mark.parametrize('number', [*SIGNALS, signal.SIGHUP])
def test_loading_is_aborted_at_once_and_the_previous_handler_is_called(number):
    """Loading a large policy takes longer than a supervisor waits."""
    received = []
    mine = signal.signal(number, lambda got, _frame: received.append(got))
    try:
        began = time.monotonic()
        with pytest.raises(SystemExit) as left, exit_on_signal():
            os.kill(os.getpid(), number)
            time.sleep(2 * TIMEOUT_S)
        assert time.monotonic() - began < TIMEOUT_S
        assert left.value.code == 0
        os.kill(os.getpid(), number)
        assert received == [number] * 2
    finally:
        signal.signal(number, mine)


def test_loading_in_another_thread_is_not_changed():
    """Only the main thread receives signals; other programs handle them themselves."""
    loaded = []

    def load():
        with exit_on_signal():
            loaded.append(True)

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert loaded
