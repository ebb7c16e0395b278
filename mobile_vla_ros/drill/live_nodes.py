"""The live nodes of a drive as processes: start, signal, starve and revive them. No ROS."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from mobile_vla_ros.bringup.processes import Processes
from mobile_vla_ros.bringup.spec import NodeSpec
from mobile_vla_ros.drill import catalog
from mobile_vla_ros.errors import UserError

# Short, for they hold nothing to save, and the drill itself must end in time.
PATIENCE = ((signal.SIGINT, 2.0), (signal.SIGTERM, 1.0), (signal.SIGKILL, 2.0))
MAX_NICE = 19
BUSY = (
    'import os, time\nend = time.monotonic() + 20\n'
    'while time.monotonic() < end and os.getppid() == {parent}: pass'
)


class LiveNodes:
    """
    The nodes of a drive.

    :param log: folder of the nodes' logs.
    :param policy: folder of the bundle.
    :param params_file: for guard, inference and arena; empty for none.
    """

    def __init__(self, log: Path, policy: str, params_file: str) -> None:
        self._processes = Processes(log, patience=PATIENCE, again=True)
        self._policy, self._params_file = policy, params_file
        self._specs: dict[str, NodeSpec] = {}
        self._expected: set[str] = set()  # names of those that should run
        self._busy: list[subprocess.Popen] = []

    def start(self, *, clock: bool) -> None:
        """Start the nodes, again if they run already; ``clock``: they follow /clock."""
        self.stop()
        specs = catalog.nodes(self._policy, self._params_file, clock=clock)
        self._specs = {spec.name: spec for spec in specs}
        self._processes.start(specs)
        self._expected = set(self._specs)

    def stop(self) -> None:
        """End everything that was started."""
        self.idle()
        for name in self._expected:
            self.signal(name, signal.SIGCONT)
        self._expected = set()
        self._processes.stop()

    def revive(self) -> None:
        """Restart the nodes that ended."""
        for name, spec in self._specs.items():
            if name not in self._expected:
                self._processes.stop(name)
                self._processes.start(spec)
                self._expected.add(name)

    def signal(self, name: str, number: int) -> int:
        """Signal a node; return the time."""
        process = self._processes[name].process
        now_ns = time.monotonic_ns()
        if process.poll() is None:
            process.send_signal(number)
        return now_ns

    def expect_exit(self, name: str) -> None:
        """Let this node end: ``check`` ignores it, ``revive`` restarts it."""
        self._expected.discard(name)

    def alive(self, *names: str) -> bool:
        """Return whether all of these nodes should run."""
        return self._expected.issuperset(names)

    def exit_status(self, name: str) -> int | None:
        """Return the exit status of a node; None while it runs."""
        return self._processes[name].process.poll()

    def pids(self, *names: str) -> dict[str, int]:
        """Return the process ids of running nodes."""
        return {name: self._processes[name].process.pid for name in names}

    def check(self) -> None:
        """
        Check that every node runs that should.

        :raises UserError: with the end of its log, for one that ended.
        """
        for name in self._expected:
            status = self.exit_status(name)
            if status is not None:
                running = self._processes[name]
                raise UserError(
                    f'{name} ended unexpectedly with status {status}; the last lines of '
                    f'{running.log}:\n{running.tail()}'
                )

    def starve(self, name: str) -> None:
        """Leave a node only the CPU time that busy loops on every core do not use: none."""
        self.schedule(name, os.SCHED_IDLE, MAX_NICE)
        code = BUSY.format(parent=os.getpid())
        # Sessions of their own: where Linux shares the CPU between sessions, ours keeps its part.
        self._busy = [
            subprocess.Popen(
                [sys.executable, '-c', code], stdin=subprocess.DEVNULL, start_new_session=True
            )
            for _ in range(os.cpu_count() or 1)
        ]

    def idle(self) -> None:
        """End the busy loops."""
        for process in self._busy:
            process.kill()
            process.wait()
        self._busy = []

    def schedule(self, name: str, policy: int, nice: int = 0) -> None:
        """
        Set the scheduling policy of every thread of a node, and the niceness of its session.

        Where Linux groups processes by session (autogroup), the policy of a thread counts only
        among those of its own session.

        :raises PermissionError: if the process may not return to the ordinary policy.
        """
        pid = self._processes[name].process.pid
        # psutil does not set it; a kernel without autogroup has no such file.
        with contextlib.suppress(OSError):
            Path(f'/proc/{pid}/autogroup').write_text(str(nice))
        for thread in psutil.Process(pid).threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(thread.id, policy, os.sched_param(0))
