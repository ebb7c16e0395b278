"""Starts nodes as processes, supervises them and stops them in order."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import yaml

from mobile_vla_ros.bringup.dds import image_sender_env
from mobile_vla_ros.bringup.share import PACKAGE, executable_of
from mobile_vla_ros.bringup.spec import NodeSpec
from mobile_vla_ros.errors import UserError

POLL_S = 0.05
# Signals that stop a process, each with its timeout before the next one is sent.
PATIENCE = ((signal.SIGINT, 8.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0))
# Signals that end a block of ``Processes``, as Ctrl-C does: a supervisor's, Ctrl-\\, and that of a
# terminal, or the ssh to it, that is gone. That one comes twice, from the shell and the kernel.
ENDING = (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
TAIL_LINES = 15


class ProcessEnded(Exception):
    """
    A process ended while it was still needed.

    :ivar name: the node's name.
    :ivar status: its exit status; the negative number of the signal that killed it.
    :ivar tail: the last lines of its log.
    """

    def __init__(self, name: str, status: int, tail: str, log: Path):
        self.name, self.status, self.tail, self.log = name, status, tail, log
        super().__init__(f'{name} ended with status {status}; the last lines of {log}:\n{tail}')


@dataclass
class Running:
    """A started process and the log file of its output."""

    spec: NodeSpec
    process: subprocess.Popen
    log: Path
    finite: bool = False

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the last lines of its output."""
        return '\n'.join(self.log.read_text(errors='replace').splitlines()[-lines:])

    def json_lines(self) -> list[dict]:
        """Return the JSON objects that it has printed so far, one per complete line."""
        lines = self.log.read_text(errors='replace').split('\n')[:-1]
        return [json.loads(line) for line in lines if line.startswith('{')]


def yaml_value(value: object) -> str:
    """
    Return a parameter's value as YAML on one line, for ``-p name:=value``.

    Text is always quoted: ROS reads words as numbers that YAML does not, ``inf`` and ``1e5``.
    """
    plain = os.fspath(value) if isinstance(value, Path) else value
    first = plain[0] if isinstance(plain, (list, tuple)) and plain else plain
    text = yaml.safe_dump(
        plain,
        default_style='"' if isinstance(first, str) else None,
        default_flow_style=True,
        width=math.inf,
        allow_unicode=True,
    )
    return text.removesuffix('...\n').rstrip('\n')


def command_line(spec: NodeSpec) -> list[str]:
    """
    Return the command that starts a node; this interpreter runs this package's nodes.

    :raises UserError: when another package's executable is not installed.
    """
    ros = ['-r', f'__node:={spec.name}']
    if spec.namespace:
        ros += ['-r', f'__ns:=/{spec.namespace}']
    for source, target in spec.remappings.items():
        ros += ['-r', f'{source}:={target}']
    for path in spec.params_files:
        ros += ['--params-file', str(path)]
    for name, value in spec.parameters.items():
        ros += ['-p', f'{name}:={yaml_value(value)}']
    start = (
        [sys.executable, '-m', spec.module]
        if spec.package == PACKAGE
        else [str(executable_of(spec.package, spec.executable))]
    )
    return [*start, *spec.arguments, '--ros-args', *ros]


class Processes:
    """
    Nodes as processes, each with a log file; a context manager that leaves none running.

    Every process leads a session of its own, so that Ctrl-C on the terminal reaches only this
    process, which stops the nodes in order. While the block runs, ``ENDING`` ends it too; a second
    Ctrl-C kills the nodes.

    :param log_dir: folder of the log files, ``NAME.log``; created if missing.
    :param env: added to this process's environment.
    :param patience: the signals that stop a process, each with its timeout in seconds.
    :param again: append to the log of a node that is started again.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        env: Mapping[str, str] | None = None,
        *,
        patience: Sequence[tuple[int, float]] = PATIENCE,
        again: bool = False,
    ):
        self.log_dir = Path(log_dir)
        self._patience = patience
        self._mode = 'ab' if again else 'wb'
        self._env = {**os.environ, 'PYTHONUNBUFFERED': '1', **(env or {})}
        # Run the package that this module belongs to, also from a source tree.
        source = str(Path(__file__).resolve().parents[2])
        self._env['PYTHONPATH'] = os.pathsep.join(
            p for p in (source, self._env.get('PYTHONPATH')) if p
        )
        self._running: dict[str, Running] = {}
        self._handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._starting = False
        self._meanwhile: list[int] = []  # signals that came while a process was started

    def __enter__(self) -> 'Processes':
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *ENDING):
                if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves SIGHUP
                    self._handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_error: object) -> None:
        late: list[int] = []  # they must not interrupt stop(): a guard would not send its zero
        for number, handler in self._handlers.items():
            signal.signal(
                number,
                handler if number == signal.SIGINT else lambda number, _: late.append(number),
            )
        try:
            self.stop()
        finally:
            for running in self._running.values():  # a second Ctrl-C interrupted stop()
                _send(running.process, signal.SIGKILL)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            self._handlers = {}
        if late:
            raise SystemExit(128 + late[0])

    def start(self, specs: NodeSpec | Iterable[NodeSpec], *, finite: bool = False) -> None:
        """
        Start nodes.

        :param finite: they are expected to end by themselves, with status 0.
        :raises UserError: when a node of that name is running.
        """
        self.log_dir.mkdir(parents=True, exist_ok=True)
        for spec in [specs] if isinstance(specs, NodeSpec) else specs:
            known = self._running.get(spec.name)
            if known is not None and known.process.poll() is None:
                raise UserError('a node of that name is already running', got=spec.name)
            log = self.log_dir / f'{spec.name}.log'
            env = {**self._env, **(image_sender_env(self._env) if spec.sends_images else {})}
            command = command_line(spec)
            with open(log, self._mode) as output, self._uninterrupted():
                process = subprocess.Popen(
                    command,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._running[spec.name] = Running(spec, process, log, finite)

    @contextlib.contextmanager
    def _uninterrupted(self) -> Iterator[None]:
        """Let signals act after the block: no process may be forked and not known."""
        self._starting = True
        try:
            yield
        finally:
            self._starting = False
            if self._meanwhile:
                signal.raise_signal(self._meanwhile.pop(0))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._starting:
            self._meanwhile.append(number)
            return
        before = self._handlers.get(number)
        if number == signal.SIGINT and callable(before):
            before(number, frame)
            return
        for one in ENDING:  # another one must not interrupt what leads to stop()
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    def __getitem__(self, name: str) -> Running:
        return self._running[name]

    def check(self) -> None:
        """
        Check that every process still runs.

        :raises ProcessEnded: for the first that has ended; for a finite one, with another status
            than 0.
        """
        for name, running in self._running.items():
            status = running.process.poll()
            if status is not None and not (running.finite and status == 0):
                raise ProcessEnded(name, status, running.tail(), running.log)

    def wait(self, name: str, timeout_s: float, each: Callable[[], None] | None = None) -> None:
        """
        Wait until a finite process has ended with status 0, and check all others meanwhile.

        :param each: called about 20 times a second, to draw progress.
        :raises ProcessEnded: see ``check``.
        :raises TimeoutError: when it is still running after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while self._running[name].process.poll() is None:
            self.check()
            if each is not None:
                each()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f'{name} is still running after {timeout_s:.0f} s; the last lines of '
                    f'its log:\n{self._running[name].tail()}'
                )
            time.sleep(POLL_S)
        self.check()
        if each is not None:
            each()

    def stop(self, *names: str) -> dict[str, int | None]:
        """
        Stop processes (all of them unless named), with SIGINT, then SIGTERM, then SIGKILL.

        :returns: the exit status of each; None for one that even SIGKILL has not ended yet.
        """
        chosen = [self._running[name] for name in names or self._running]
        for number, patience_s in self._patience:
            left = [running for running in chosen if running.process.poll() is None]
            for running in left:
                _send(running.process, number)
            deadline = time.monotonic() + patience_s
            for running in left:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.process.wait(max(deadline - time.monotonic(), 0.0))
        for running in chosen:
            del self._running[running.spec.name]
        return {running.spec.name: running.process.poll() for running in chosen}


def _send(process: subprocess.Popen, number: int) -> None:
    """Signal a child; SIGKILL goes to the whole group, which the child leads."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
