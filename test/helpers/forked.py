"""
Python processes that import torch, transformers and peft, forked where these are imported.

To import them costs 5 s of CPU. Where they are imported there is no ROS, whose threads would be
lost in a fork. From there on, output, signals and exit status are as after ``python …``; only the
interpreter's own end is another.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

HEAVY = ('mobile_vla_ros.runtime.vla_policy', 'transformers.models.kosmos2.modeling_kosmos2')


def _become(
    command: list[str], output: str, errors: str, environment: dict[str, str], cwd: str
) -> None:
    os.setsid()
    for number, path in enumerate((os.devnull, output, errors)):
        opened = os.open(path, os.O_RDWR | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    if 'OMP_NUM_THREADS' in environment:  # torch knows only that of the server
        import torch

        torch.set_num_threads(int(environment['OMP_NUM_THREADS']))
    os.chdir(cwd)
    sys.path[:0] = environment.get('PYTHONPATH', '').split(os.pathsep)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if command[0] == '-m':
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name='__main__', alter_sys=True)
    else:
        sys.argv = command
        sys.path.insert(0, str(Path(command[0]).resolve().parent))
        runpy.run_path(command[0], run_name='__main__')


class ForkedProcess:
    """
    Like ``subprocess.Popen(['python', *command])``, with the methods that the tests use.

    :param command: a file, or ``-m`` and a module; and arguments.
    :param output: where its standard output goes, appended; likewise ``errors``. Keep both
        open while it runs.
    """

    def __init__(
        self,
        command: list[str],
        output: BinaryIO,
        errors: BinaryIO,
        environment: dict[str, str],
        cwd: Path | None = None,
    ):
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload([*HEAVY])
        paths = [f'/proc/{os.getpid()}/fd/{file.fileno()}' for file in (output, errors)]
        self._process = context.Process(
            target=_become, args=(command, *paths, environment, str(cwd or Path.cwd()))
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit status (negative: the signal that killed it)."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def run_forked(
    *command, cwd: Path | None = None, timeout_s: float = 240, **environment: str
) -> subprocess.CompletedProcess:
    """Run a command to its end, like ``subprocess.run`` with captured text."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        words = [*map(str, command)]
        process = ForkedProcess(words, output, errors, {**os.environ, **environment}, cwd)
        try:
            status = process.wait(timeout_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(
            words,
            status,
            *(os.pread(one.fileno(), 1 << 24, 0).decode() for one in (output, errors)),
        )
