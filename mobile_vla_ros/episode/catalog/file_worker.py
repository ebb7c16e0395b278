"""
Work on files in another process, one file at a time, each within a time limit.

A file may come from a stranger and keep HDF5 busy forever, exhaust the memory or crash it. h5py
also has one lock for a whole process: whoever reads a folder beside a recording would hold it up.
"""

import atexit
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from mobile_vla_ros.errors import UserError, first_line

LIMIT_S = 10.0
SLOWEST_BYTES_PER_S = 5e6  # of a disk, for work that reads a whole file
MEMORY_BYTES = 4 << 30
NICE = 5
STEPS = 10  # each so many are reported
# The package is found wherever this one was, and not in the folder where the user is: that may be
# a stranger's, with modules of any name.
CODE = """
import sys
sys.path[0] = {folder!r}
from mobile_vla_ros.episode.catalog.file_worker import main
main()
"""
FOLDER = str(Path(__file__).resolve().parents[3])
ONE_THREAD = {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}


class FileWorker:
    """
    A process that works on files; use it as a context manager.

    The process starts at the first call, and again after it had to be ended. One thread calls;
    any may close.

    :param limit_s: seconds that one file may take.
    """

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self._process: subprocess.Popen[str] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def __enter__(self) -> 'FileWorker':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, also in the middle of a file; whoever waits for it gets UserError."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def call(
        self,
        work: str,
        path: Path,
        *more: Any,
        whole: bool = False,
        step: Callable[[int], None] | None = None,
    ) -> Any:
        """
        Call a function with a file, in the other process.

        :param work: ``module:function`` within this package; called with the path and ``more``, it
            returns plain values (JSON); so are ``more``.
        :param whole: it reads all of the file, which takes longer the larger it is.
        :param step: the function has steps, and gets a callback for the number of each; the time
            limit then is that of one step. Called here with some of the numbers.
        :raises UserError: as the function did, or any other exception of it as a sentence; when
            the file took too long, or ended the process.
        """
        limit_s = self.limit_s + (_size(path) / SLOWEST_BYTES_PER_S if whole else 0.0)
        process = self._running()
        assert process.stdin is not None and process.stdout is not None, 'both are pipes'
        request = {
            'work': work,
            'path': os.fspath(path),
            'more': more,
            'limit_s': limit_s,
            'steps': step is not None,
        }
        try:
            process.stdin.write(json.dumps(request) + '\n')
            process.stdin.flush()
        except BrokenPipeError:
            raise _ended(path, process.wait(), limit_s) from None
        answer: dict[str, Any] = {}
        while not answer.keys() & {'value', 'error'}:
            line = process.stdout.readline()
            if not line:
                raise _ended(path, process.wait(), limit_s)
            answer = json.loads(line)
            if step is not None and 'step' in answer:
                step(answer['step'])
        if 'error' in answer:
            raise UserError(answer['error'].removesuffix('.'))
        return answer['value']

    def _running(self) -> 'subprocess.Popen[str]':
        with self._lock:
            if self._closed:
                raise UserError('the reading of files was ended')
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [sys.executable, '-c', CODE.format(folder=FOLDER)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=os.environ | ONE_THREAD,
                    text=True,
                )
            return self._process


_shared: dict[int, FileWorker] = {}  # by process: a fork must not use its parent's
_sharing = threading.Lock()


def shared_call(work: str, path: Path, *more: Any, whole: bool = False) -> Any:
    """
    Call a function with a file in the one worker of this process, which ends with it.

    Its start costs more than most files. Thread-safe; see ``FileWorker.call``.
    """
    with _sharing:
        worker = _shared.get(os.getpid())
        if worker is None:
            _shared.clear()
            worker = _shared[os.getpid()] = FileWorker()
            atexit.register(_end_shared)
        return worker.call(work, path, *more, whole=whole)


def _end_shared() -> None:
    worker = _shared.pop(os.getpid(), None)  # not that of a parent, in a fork
    if worker is not None:
        worker.close()


def _size(path: Path) -> int:
    try:
        return sum(one.stat().st_size for one in (path, *path.glob('*')))
    except OSError:
        return 0


def _ended(path: Path, status: int, limit_s: float) -> UserError:
    if status == -signal.SIGALRM:
        return UserError(
            f'{path} was given up',
            got=f'no result after {limit_s:.0f} s',
            expected='a file that is read at once',
            remedy='move it away; if it is yours, try mobile_vla episodes recover',
        )
    return UserError(
        f'{path} ended the process that read it',
        got=signal.Signals(-status).name if status < 0 else f'status {status}',
        remedy='move it away',
    )


def main() -> None:
    """Answer requests until standard input ends: the other side of ``FileWorker``."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the process that asks decides
    # Without a handler it ends the process, whatever library it is in.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM, signal.SIGTERM})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY or most > MEMORY_BYTES:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.nice(NICE)
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        _send(answers, _answer(json.loads(line), answers))


def _send(answers: IO[str], answer: dict[str, Any]) -> None:
    try:
        answers.write(json.dumps(answer) + '\n')
        answers.flush()
    except BrokenPipeError:  # the process that asked is gone
        os._exit(1)


def _answer(request: dict[str, Any], answers: IO[str]) -> dict[str, Any]:
    module, _, name = request['work'].partition(':')
    function = getattr(importlib.import_module(f'mobile_vla_ros.{module}'), name)
    path = Path(request['path'])

    def step(number: int) -> None:
        signal.setitimer(signal.ITIMER_REAL, request['limit_s'])
        if number % STEPS == 0:
            _send(answers, {'step': number})

    steps = [step] if request['steps'] else []
    signal.setitimer(signal.ITIMER_REAL, request['limit_s'])
    try:
        return {'value': function(path, *request['more'], *steps)}
    except UserError as error:
        return {'error': str(error)}
    except Exception as error:  # of any kind: one file must not end a folder
        return {
            'error': f'{path} cannot be read; got {type(error).__name__}: {first_line(error)}.'
        }
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
