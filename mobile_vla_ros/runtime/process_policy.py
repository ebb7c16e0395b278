"""
A policy in a process of its own, with an environment of its own: `policy:=process:COMMAND`.

The command finds a connected Unix socket at the file descriptor `MOBILE_VLA_SOCKET`. A message is
a line of JSON, then as many raw bytes as its ``bytes`` says. The process first sends its spec
(``axes``, ``rate_hz``, ``window``, ``chunk``). To each ``{"id", "instruction", "reset",
"stamps_ns", "shapes", "bytes"}``, with the RGB bytes of the window's images, oldest first, it
answers ``{"id", "twists": [[…], …]}`` with the same id: a row for each step of the chunk, a number
(m/s or rad/s) for each axis. Instead of the spec, or the twists, it may send
``{"error": sentence}``. It ends when the socket does.
"""

import contextlib
import json
import os
import queue
import shlex
import signal
import socket
import subprocess
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.runtime.frame_buffer import PolicyFrame
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.runtime.policy import spec_without_network
from mobile_vla_ros.types import ActionSpec

SOCKET, OURS = 'MOBILE_VLA_SOCKET', ('PYTHONPATH', 'PYTHONHOME')
START_S, ANSWER_S, END_S = 120.0, 10.0, 1.0
LIMIT_BYTES = 1 << 20  # of an answer
_PEERS: 'weakref.WeakSet[ProcessPolicy]' = weakref.WeakSet()


class ProcessPolicy:
    """
    Asks a process for each plan, in turn.

    Each exchange is made by a thread, so that a process which reads or answers slowly, or never,
    is given up in time; its late answer is dropped. One whose answers do not belong to the
    requests is killed: its plans would be of another time than they seem.

    :param command: the program and its arguments, as in a shell.
    :param answer_s: how long to wait for a plan.
    :raises UserError: if it cannot be started, ends, is silent, or sends no valid spec.
    """

    def __init__(self, command: str, answer_s: float = ANSWER_S):
        self._command, self._answer_s = command, answer_s
        # Our Python's paths would mislead another one.
        outside = {name: text for name, text in os.environ.items() if name not in OURS}
        ours, its = socket.socketpair()
        try:
            with its:
                self._process = subprocess.Popen(
                    shlex.split(command),
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # ours may be read by a program
                    # As many of them drive at once as there are cores.
                    env={'OMP_NUM_THREADS': '1', **outside, SOCKET: str(its.fileno())},
                    pass_fds=[its.fileno()],
                    start_new_session=True,  # Ctrl-C is for us; then the socket ends
                )
        except (OSError, ValueError) as error:
            ours.close()
            raise self._error('cannot be started', getattr(error, 'strerror', error)) from error
        self.close = weakref.finalize(self, _end, self._process, ours)
        _PEERS.add(self)
        self._ours = ours
        self._requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._id: int | None = None  # of the newest request
        self._late = False  # its answer is still to come, though nobody waits
        self._anew = True
        threading.Thread(
            target=_exchange, args=(ours, self._requests, self._answers), daemon=True
        ).start()
        try:
            answer = self._answer(START_S)
            actions = ActionSpec(tuple(answer['axes']), (1.0,) * len(answer['axes']))
            rate, window, chunk = (answer[name] for name in ('rate_hz', 'window', 'chunk'))
            self.spec = spec_without_network(
                command, actions, rate_hz=rate, window=window, chunk=chunk
            )
        except (KeyError, TypeError, ValueError) as error:
            self.close()
            raise self._error('sends no valid spec', repr(error)) from error
        except BaseException:
            self.close()
            raise

    def infer(self, window: Sequence[PolicyFrame], instruction: str) -> Plan:
        """
        Return the plan of the process.

        :raises UserError: if it has ended, is silent, refuses, or answers something else.
        """
        if self._late:
            self._read(self._answer_s)
        with contextlib.suppress(OSError):  # nothing is there, or the socket has ended
            if self._ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise self._killed('answers unasked', f'more than one answer to {self._id}')
        images = [np.ascontiguousarray(frame.image) for frame in window]
        self._id = (self._id or 0) + 1
        header = {
            'id': self._id,
            'instruction': instruction,
            'reset': self._anew,
            'stamps_ns': [int(frame.stamp_ns) for frame in window],
            'shapes': [image.shape for image in images],
            'bytes': sum(image.nbytes for image in images),
        }
        self._anew, self._late = False, True
        line = json.dumps(header).encode() + b'\n'
        self._requests.put(b''.join([line, *(image.tobytes() for image in images)]))
        answer = self._answer(self._answer_s)
        axes = self.spec.actions.columns
        try:
            rows = np.array(answer['twists'], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise self._error('sends no plan', repr(error)) from error
        if rows.shape != (self.spec.chunk, len(axes)):
            raise self._error('sends another plan than its spec says', f'shape {rows.shape}')
        return Plan(window[-1].stamp_ns, self.spec.actions.denormalise(rows), self.spec.rate_hz)

    def reset(self) -> None:
        """Tell it with the next window."""
        self._anew = True

    def _answer(self, limit_s: float) -> dict[str, Any]:
        """Return the next answer; raise UserError for one that is an error, and for none."""
        answer = self._read(limit_s)
        if 'error' in answer:
            raise self._error('refuses', str(answer['error'])[:200])
        return answer

    def _read(self, limit_s: float) -> dict[str, Any]:
        """Return the answer to the newest request; kill the process for anything else."""
        try:
            answer = json.loads(self._receive(limit_s))
        except ValueError as error:
            raise self._killed('sends no line of JSON', error) from error
        if not isinstance(answer, dict):
            raise self._killed('sends no object', str(answer)[:200])
        if answer.get('id') != self._id:
            found = str(answer.get('id'))[:40]
            raise self._killed('answers another request', f'id {found}, not {self._id}')
        return answer

    def _receive(self, limit_s: float) -> bytes:
        try:
            line = self._answers.get(timeout=limit_s)
        except queue.Empty:
            raise self._error('is silent', f'no answer for {limit_s:g} s') from None
        if line.endswith(b'\n'):
            self._late = False
            return line
        self._answers.put(line)  # it has ended, and stays so
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        self.close()  # it may only have closed its socket, or send without end
        status = self._process.returncode
        end = signal.Signals(-status).name if status and status < 0 else f'status {status}'
        raise self._error('has ended', end)

    def _killed(self, what: str, got: object) -> UserError:
        self.close()
        return self._error(what, got)

    def _error(self, what: str, got: object) -> UserError:
        return UserError(f'the process of the policy {what}', got=f'{got} ({self._command})')


def _exchange(
    ours: socket.socket,
    requests: 'queue.SimpleQueue[bytes]',
    answers: 'queue.SimpleQueue[bytes]',
) -> None:
    """Pass on the first answer, then one for each request; an unfinished line at the end."""
    try:
        line = _line(ours)
        answers.put(line)
        while line.endswith(b'\n'):
            ours.sendall(requests.get())
            line = _line(ours)
            answers.put(line)
    except OSError:
        answers.put(b'')


def _line(ours: socket.socket) -> bytes:
    """Return all that comes until a line ends; two at once, which are no JSON."""
    line = b''
    while not line.endswith(b'\n') and len(line) < LIMIT_BYTES and (more := ours.recv(1 << 16)):
        line += more
    return line


def _end(process: 'subprocess.Popen[bytes]', ours: socket.socket) -> None:
    """End the process of a policy that is dropped, and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a session
    with contextlib.suppress(OSError):
        ours.shutdown(socket.SHUT_RDWR)
    ours.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_S)


def end_all() -> None:
    """End the process of every policy, before an exit that runs no finalizers."""
    for policy in list(_PEERS):
        policy.close()
