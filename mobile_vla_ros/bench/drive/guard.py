"""How soon the guard is there, what it weighs, and how even its beat is on a busy machine."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mobile_vla_ros.bench.process import Cost
from mobile_vla_ros.bench.table import Figure, at_most, plain
from mobile_vla_ros.bringup.domain import isolated
from mobile_vla_ros.errors import UserError

STARTS, SECONDS = 8, 30.0
START_S, MEGABYTES, JITTER_MS = 1.0, 80.0, 5.0
PATIENCE_S = 30.0
EAR, GUARD = 'bench_ear', 'guard'
# While the middleware still introduces the nodes to each other, the beat is not what is measured.
SETTLE = 20
IDLE = 'while True: pass'
SCHEDULING = {os.SCHED_OTHER: 'SCHED_OTHER', os.SCHED_RR: 'SCHED_RR (real time)'}


def measure(
    folder: Path, *, quiet: bool = False, starts: int = STARTS, seconds: float = SECONDS
) -> list[Figure]:
    """
    Start the guard again and again, then watch its beat while every core is loaded.

    :param folder: empty; the logs stay in it.
    :param seconds: how long the beat is watched.
    :raises UserError: when a node ends before its time, or no command comes.
    """
    from tqdm import tqdm

    from mobile_vla_ros.bringup.processes import ProcessEnded, Processes
    from mobile_vla_ros.bringup.spec import NodeSpec

    with Processes(folder / 'log', isolated()) as processes:
        # As the arena, which is what hears a guard first: with its room and its announcements.
        processes.start(NodeSpec(EAR, EAR, sends_images=True))
        ear = _Ear(processes)
        try:
            ear.wait(lambda lines: any(line['event'] == 'listening' for line in lines))
            begun = [
                _start(processes, ear)
                for _ in tqdm(range(starts), 'starts', disable=quiet, leave=False)
            ]
            with _every_core_busy() as cores:
                beat, scheduling, cost = _watch(processes, ear, seconds, quiet)
        except ProcessEnded as error:
            raise UserError(f'the benchmark stopped: {error}') from error
    sent, heard = zip(*begun, strict=True)
    part, busy = 'guard', f'{cores} cores loaded'
    return [
        at_most(part, f'first command sent, worst of {starts} starts', max(sent), START_S, 's'),
        plain(part, 'first command heard, worst', max(heard), 's'),
        plain(part, 'first command heard, middle', sorted(heard)[len(heard) // 2], 's'),
        at_most(part, 'peak memory', cost['peak_mb'], MEGABYTES, 'MB', 0),
        plain(part, 'mean load', cost['cores'], 'cores', 3),
        plain(part, 'scheduling', scheduling),
        plain(part, 'periods watched', len(beat['sent'])),
        at_most(part, f'jitter of its period, p99, {busy}', _p99(beat['sent']), JITTER_MS, 'ms'),
        plain(part, 'jitter of its period, worst', max(beat['sent']), 'ms'),
        plain(part, f'jitter at who receives, p99, {busy}', _p99(beat['received']), 'ms'),
        plain(part, 'jitter at who receives, worst', max(beat['received']), 'ms'),
    ]


def _guard():
    """Return the guard as the launch files start it, alone."""
    from mobile_vla_ros.bringup.stacks import RECORD

    (spec,) = (one for one in RECORD.nodes(console=False) if one.name == GUARD)
    return spec


def _start(processes, ear: '_Ear') -> tuple[float, float]:
    """Start the guard and end it; return after how many seconds it first spoke and was heard."""
    seen = len(ear.commands())
    began_ns = time.time_ns()
    processes.start(_guard())
    ear.wait(lambda _: len(ear.commands()) > seen + 1)
    first, second = ear.commands()[seen : seen + 2]
    period_ns = second['sent_ns'] - first['sent_ns']
    processes.stop(GUARD)
    # Those before the first that was heard were sent to nobody.
    sent_ns = first['sent_ns'] - (first['number'] - 1) * period_ns
    return (sent_ns - began_ns) / 1e9, (first['received_ns'] - began_ns) / 1e9


def _watch(processes, ear: '_Ear', seconds: float, quiet: bool) -> tuple[dict, str, dict]:
    """Return the deviations of the period in ms (sent, received), the scheduling, the cost."""
    from tqdm import tqdm

    seen = len(ear.commands())
    processes.start(_guard())
    ear.wait(lambda _: len(ear.commands()) > seen + SETTLE)
    cost, until = Cost(processes[GUARD].process.pid), time.monotonic() + seconds
    with tqdm(
        total=seconds,
        desc='beat',
        disable=quiet,
        leave=False,
        bar_format='{desc} {bar} {n:.0f}/{total:.0f} s',
    ) as bar:
        while (left_s := until - time.monotonic()) > 0:
            processes.check()
            time.sleep(min(0.2, left_s))
            bar.update(min(seconds - left_s, seconds) - bar.n)
    commands = ear.commands()[seen + SETTLE :]
    policy = os.sched_getscheduler(processes[GUARD].process.pid)
    return (
        {
            'sent': _deviations(commands, 'sent_ns'),
            'received': _deviations(commands, 'received_ns'),
        },
        SCHEDULING.get(policy, str(policy)),
        {'peak_mb': cost.peak_mb(), 'cores': cost.cores()},
    )


def _deviations(commands: list[dict], key: str) -> list[float]:
    """Return by how many ms each period differs from the guard's own."""
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
    """Keep every core busy with loops of ordinary priority; yield how many cores there are."""
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


class _Ear:
    """Reads the lines of JSON that the listener prints."""

    def __init__(self, processes):
        self._processes = processes
        self._ear = processes[EAR]

    def commands(self) -> list[dict]:
        """Return the commands so far."""
        return [line for line in self._ear.json_lines() if line['event'] == 'command']

    def wait(self, done: Callable[[list[dict]], bool]):
        """
        Wait until what was heard is enough.

        :raises UserError: when it does not come to that.
        :raises ProcessEnded: when a node ended that should not have.
        """
        until = time.monotonic() + PATIENCE_S
        while not done(self._ear.json_lines()):
            self._processes.check()
            if time.monotonic() > until:
                raise UserError(
                    'no command of the guard was heard',
                    got=f'nothing for {PATIENCE_S:.0f} s',
                    expected=f'20 a second; see {self._ear.log.parent}',
                )
            time.sleep(0.02)
