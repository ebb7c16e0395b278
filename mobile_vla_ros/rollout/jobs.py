"""Trials in several processes, each with an arena and a driver of its own; they talk JSON."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import psutil

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.rollout.drivers import make_driver
from mobile_vla_ros.rollout.trials import Trial, run_trial
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import Arena

# Fewer trials take less time than a further process needs to load a policy.
TRIALS_A_JOB = 10
FREE_SHARE = 0.8  # of the free memory, for processes beside the first
CUDA_CONTEXT_BYTES = 500_000_000  # of a process on a GPU, besides what torch counts


def automatic(trials: int) -> int:
    """Return how many processes these trials are worth on this machine."""
    return max(1, min(len(os.sched_getaffinity(0)), trials // TRIALS_A_JOB))


class _Worker:
    """A process that drives, and ends with this one: it reads the end of its input."""

    def __init__(self, driver: Mapping[str, Any]):
        self.process = subprocess.Popen(
            [sys.executable, '-m', __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the parent
        )
        self._driver: Mapping[str, Any] | None = driver
        self._lock = threading.Lock()

    def load(self) -> dict:
        """Wait until its driver is loaded, and return how many more would fit."""
        with self._lock:
            driver, self._driver = self._driver, None
            return {} if driver is None else self._ask(driver)

    def drive(self, suite: str, number: int) -> dict:
        """Return the trial as JSON, with the seconds of its driver."""
        with self._lock:
            return self._ask({'suite': suite, 'number': number})

    def _ask(self, request: Mapping[str, Any]) -> dict:
        """Return the answer; raise UserError for one that is an error, and for none."""
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):  # the answer below is then empty
            self.process.stdin.write(json.dumps(request) + '\n')
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line.endswith('\n'):
            status = self.process.wait()
            raise UserError(
                'a process that drove trials has ended',
                got=signal.Signals(-status).name if status < 0 else f'status {status}',
                remedy='with --out the same command goes on; fewer --jobs need less memory',
            )
        answer: dict = json.loads(line)
        if 'error' in answer:
            raise UserError(answer['error'].rstrip('.'))
        return answer


class Jobs(contextlib.AbstractContextManager):
    """
    Processes that drive trials in parallel; all have ended at its exit.

    :param driver: arguments of ``make_driver`` besides the arena, as JSON.
    :param count: how many processes; fewer if they would not fit into the memory.
    :raises UserError: if the driver cannot be made.
    """

    def __init__(self, driver: Mapping[str, Any], count: int):
        self._workers: list[_Worker] = []
        self._threads: list[threading.Thread] = []
        try:
            self._workers.append(_Worker(driver))
            fits = self._workers[0].load()['fits']
            self._workers += [_Worker(driver) for _ in range(min(count - 1, fits))]
        except BaseException:
            self.__exit__()
            raise

    def __len__(self) -> int:
        return len(self._workers)

    def drive(self, suite: str, numbers: range) -> Iterator[tuple[Trial, float]]:
        """
        Yield each trial in order, with the seconds that its driver took.

        :raises UserError: if a driver fails or a process ends.
        """
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        driven: queue.SimpleQueue[dict | UserError] = queue.SimpleQueue()
        for number in numbers:
            waiting.put(number)

        def work(worker: _Worker) -> None:
            try:
                worker.load()
                with contextlib.suppress(queue.Empty):
                    while True:
                        driven.put(worker.drive(suite, waiting.get_nowait()))
            except UserError as error:
                driven.put(error)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in self._workers]
        self._threads += threads
        for thread in threads:
            thread.start()
        early: dict[int, dict] = {}
        for number in numbers:
            while number not in early:
                found = driven.get()
                if isinstance(found, UserError):
                    raise found
                early[found['trial']] = found
            answer = early.pop(number)
            yield Trial.from_json(answer), answer['seconds']

    def __exit__(self, *_):
        for worker in self._workers:
            worker.process.kill()
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            with contextlib.suppress(BrokenPipeError), worker.process:  # a dead one's input
                pass


def _fits() -> int:
    """Return how many more processes like this one the free memory is enough for."""
    rooms = [(psutil.virtual_memory().available, psutil.Process().memory_info().rss)]
    cuda = getattr(sys.modules.get('torch'), 'cuda', None)
    if cuda is not None and cuda.is_initialized():
        rooms.append((cuda.mem_get_info()[0], cuda.memory_reserved() + CUDA_CONTEXT_BYTES))
    return int(min(FREE_SHARE * free // used for free, used in rooms))


def _answers(requests: Iterator[str]) -> Iterator[dict]:
    """Make the driver that the first line describes, then drive a trial for each other line."""
    with contextlib.closing(Arena()) as arena:
        driver = make_driver(arena=arena, **json.loads(next(requests)))
        if driver.wants_images:
            arena.reset(suites.scene('seen', 0))
            arena.render()
        yield {'fits': _fits()}
        for line in requests:
            request, before_s = json.loads(line), driver.seconds
            trial = run_trial(arena, request['suite'], request['number'], driver)
            yield {**trial.to_json(), 'seconds': driver.seconds - before_s}


def main() -> None:
    """Answer each line of the input by a line; end with the input, or after an error."""
    out = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        for answer in _answers(iter(sys.stdin.readline, '')):
            print(json.dumps(answer), file=out, flush=True)
    except UserError as error:
        print(json.dumps({'error': str(error)}), file=out, flush=True)
    except BrokenPipeError:  # the parent was killed
        os._exit(1)


if __name__ == '__main__':
    main()
