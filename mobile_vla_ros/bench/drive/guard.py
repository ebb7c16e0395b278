"""Start-up time and memory of the guard, and its jitter on a busy machine."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mobile_vla_ros.bench.process import Cost
from mobile_vla_ros.bench.table import Figure, at_most, plain
from mobile_vla_ros.bringup.domain import isolated
from mobile_vla_ros.errors import UserError

STARTS, SECONDS = 8, 30.0
START_S, MEGABYTES, JITTER_MS = 1.0, 45.0, 5.0
TIMEOUT_S = 30.0
LISTENER, GUARD = 'bench_ear', 'guard'
# Commands to skip: until discovery has finished, their timing is not what is measured.
SETTLE = 20
IDLE = 'while True: pass'
SCHEDULING = {os.SCHED_OTHER: 'SCHED_OTHER', os.SCHED_RR: 'SCHED_RR (real time)'}


def measure(
    folder: Path, *, quiet: bool = False, starts: int = STARTS, seconds: float = SECONDS
) -> list[Figure]:
    """
    Start the guard repeatedly, then measure its period while every core is loaded.

    :param folder: empty; keeps the logs.
    :param seconds: how long the period is measured.
    :raises UserError: if a node exits early or no command arrives.
    """
    from tqdm import tqdm

    from mobile_vla_ros.bringup.processes import ProcessEnded, Processes
    from mobile_vla_ros.bringup.spec import NodeSpec

    with Processes(folder / 'log', isolated()) as processes:
        # With the DDS settings of the arena node, a guard's usual first subscriber.
        processes.start(NodeSpec(LISTENER, LISTENER, sends_images=True))
        listener = _Listener(processes)
        try:
            listener.wait(lambda lines: any(line['event'] == 'listening' for line in lines))
            delays = [
                _start(processes, listener)
                for _ in tqdm(range(starts), 'starts', disable=quiet, leave=False)
            ]
            with _every_core_busy() as cores:
                deviations, scheduling, cost = _watch(processes, listener, seconds, quiet)
        except ProcessEnded as error:
            raise UserError(f'the benchmark stopped: {error}') from error
    sent, received = zip(*delays, strict=True)
    part, busy = 'guard', f'{cores} cores loaded'
    return [
        at_most(part, f'first command sent, worst of {starts} starts', max(sent), START_S, 's'),
        plain(part, 'first command received, worst', max(received), 's'),
        plain(part, 'first command received, median', sorted(received)[len(received) // 2], 's'),
        at_most(part, 'memory of its own', cost['own_mb'], MEGABYTES, 'MB', 0),
        plain(part, 'mean load', cost['cores'], 'cores', 3),
        plain(part, 'scheduling', scheduling),
        plain(part, 'periods measured', len(deviations['sent'])),
        at_most(part, f'period jitter, p99, {busy}', _p99(deviations['sent']), JITTER_MS, 'ms'),
        plain(part, 'period jitter, worst', max(deviations['sent']), 'ms'),
        plain(part, f'jitter at the subscriber, p99, {busy}', _p99(deviations['received']), 'ms'),
        plain(part, 'jitter at the subscriber, worst', max(deviations['received']), 'ms'),
    ]


def _guard():
    """Return the guard alone, as the launch files start it, but with a stream of commands."""
    from mobile_vla_ros.bringup.stacks import RECORD

    (spec,) = (one for one in RECORD.nodes(console=False) if one.name == GUARD)
    return replace(spec, parameters={**spec.parameters, 'zero_while_disarmed': True})


def _start(processes, listener: '_Listener') -> tuple[float, float]:
    """Start and stop the guard; return the seconds to its first command, sent and received."""
    seen = len(listener.commands())
    began_ns = time.time_ns()
    processes.start(_guard())
    listener.wait(lambda _: len(listener.commands()) > seen + 1)
    first, second = listener.commands()[seen : seen + 2]
    period_ns = second['sent_ns'] - first['sent_ns']
    processes.stop(GUARD)
    # Commands before the first received one had no subscriber.
    sent_ns = first['sent_ns'] - (first['number'] - 1) * period_ns
    return (sent_ns - began_ns) / 1e9, (first['received_ns'] - began_ns) / 1e9


def _watch(
    processes, listener: '_Listener', seconds: float, quiet: bool
) -> tuple[dict, str, dict]:
    """Return the deviations of the period in ms (sent, received), the scheduling, the cost."""
    from tqdm import tqdm

    seen = len(listener.commands())
    processes.start(_guard())
    listener.wait(lambda _: len(listener.commands()) > seen + SETTLE)
    cost, until = Cost(processes[GUARD].process.pid), time.monotonic() + seconds
    with tqdm(
        total=seconds,
        desc='period',
        disable=quiet,
        leave=False,
        bar_format='{desc} {bar} {n:.0f}/{total:.0f} s',
    ) as bar:
        while (left_s := until - time.monotonic()) > 0:
            processes.check()
            time.sleep(min(0.2, left_s))
            bar.update(min(seconds - left_s, seconds) - bar.n)
    commands = listener.commands()[seen + SETTLE :]
    policy = os.sched_getscheduler(processes[GUARD].process.pid)
    return (
        {
            'sent': _deviations(commands, 'sent_ns'),
            'received': _deviations(commands, 'received_ns'),
        },
        SCHEDULING.get(policy, str(policy)),
        {'own_mb': cost.own_mb(), 'cores': cost.cores()},
    )


def _deviations(commands: list[dict], key: str) -> list[float]:
    """Return by how many ms each period differs from the configured one."""
    from mobile_vla_ros.safety.config import GuardConfig

    period_ms = GuardConfig().period_s * 1e3
    return [
        abs((b[key] - a[key]) / 1e6 - period_ms * (b['number'] - a['number']))
        for a, b in itertools.pairwise(commands)
    ]


def _p99(values: list[float]) -> float:
    import numpy as np

    return float(np.percentile(values, 99))


@contextmanager
def _every_core_busy() -> Iterator[int]:
    """Keep every core busy at ordinary priority; yield the number of cores."""
    cores = len(os.sched_getaffinity(0))
    loops = [
        subprocess.Popen([sys.executable, '-c', IDLE], start_new_session=True)
        for _ in range(cores)
    ]
    try:
        yield cores
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


class _Listener:
    """Reads the JSON lines of the listener node."""

    def __init__(self, processes):
        self._processes = processes
        self._node = processes[LISTENER]

    def commands(self) -> list[dict]:
        """Return the commands received so far."""
        return [line for line in self._node.json_lines() if line['event'] == 'command']

    def wait(self, done: Callable[[list[dict]], bool]):
        """
        Wait until ``done`` accepts the lines printed so far.

        :raises UserError: after the timeout.
        :raises ProcessEnded: if a node exits early.
        """
        until = time.monotonic() + TIMEOUT_S
        while not done(self._node.json_lines()):
            self._processes.check()
            if time.monotonic() > until:
                raise UserError(
                    'no command received from the guard',
                    got=f'nothing for {TIMEOUT_S:.0f} s',
                    expected=f'20 a second; see {self._node.log.parent}',
                )
            time.sleep(0.02)
