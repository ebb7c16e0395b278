"""A take in progress: a bounded queue, and a thread that encodes and writes."""

import threading
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mobile_vla_ros.episode.storage import disk
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS, Command

POLL_S = 0.1
TELL_DROPS_NS = NANOSECONDS  # a run of lost frames is told of this often while it goes on


class Recording:
    """
    Takes frames and commands from any thread without waiting, and writes them in its own.

    A frame that finds ``queue_frames`` others before it is dropped whole, counted, and told of
    in an event of the episode; commands and events are small and always kept. The thread owns
    the writer from here on.

    When the disk is full, or has less than the floor left, the thread closes the take of itself:
    ``ended`` turns True, ``problem`` says why, and ``path`` and ``health`` tell of the episode.

    :param steady_ns: a clock that never jumps, nanoseconds; it paces the flushes.
    :param floor_bytes: free space of the disk below which the take is closed.
    """

    def __init__(
        self,
        writer: EpisodeWriter,
        *,
        queue_frames: int,
        steady_ns: Callable[[], int],
        floor_bytes: int = 0,
    ):
        self.part_path = writer.part_path
        self.path: Path | None = None
        self.health: dict | None = None
        self.error: str | None = None
        self.problem: str | None = None
        self._writer = writer
        self._limit = queue_frames
        self._steady_ns = steady_ns
        self._floor_bytes = floor_bytes
        self._jobs: deque[tuple[bool, Callable[[], None]]] = deque()
        self._queued = self._dropped = 0
        self._run = self._run_ns = 0
        self._run_why = ''
        self._last_ns = 0
        self._ended = False
        self._end: Callable[[], None] | None = None
        self._on_done: Callable[[], None] | None = None
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._work, name='episode_writer', daemon=True)
        self._thread.start()

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return self._writer.frames

    @property
    def commands(self) -> int:
        """Commands written so far."""
        return self._writer.commands

    @property
    def bytes_written(self) -> int:
        """Bytes of the images written so far."""
        return self._writer.bytes_written

    @property
    def drops(self) -> int:
        """Frames lost: before they came, to a full queue or disk, or because they are unfit."""
        return self._dropped

    @property
    def queued(self) -> int:
        """Frames that wait for the writer."""
        return self._queued

    @property
    def ended(self) -> bool:
        """Whether the take is over: ``path`` or ``error`` is set, or it was discarded."""
        return self._ended

    def frame(self, encode: Callable[[], bytes], stamp_ns: int, received_ns: int) -> bool:
        """
        Hand over one frame; return False when it was dropped.

        :param encode: gives the JPEG or PNG bytes; called in the writer's thread. Its
            ``UserError`` makes the frame a dropped one.
        """
        with self._news:
            if self._closed:
                return False
            self._last_ns = received_ns
            if self._queued >= self._limit:
                self._drop(1, received_ns, 'the writer was too slow')
                return False
            self._tell_drops()
            self._queued += 1
            self._jobs.append((True, partial(self._write_frame, encode, stamp_ns, received_ns)))
            self._news.notify()
        return True

    def lost(self, count: int, time_ns: int, why: str):
        """Count whole frames that were lost before they came here."""
        with self._news:
            if not self._closed and count > 0:
                self._drop(count, time_ns, why)

    def command(self, command: Command):
        """Hand over one command."""
        self._add(partial(self._writer.add_command, command), command.received_ns)

    def proposal(self, twist: np.ndarray, stamp_ns: int, received_ns: int):
        """Hand over what a policy proposed (``EpisodeWriter.add_proposal``)."""
        self._add(partial(self._writer.add_proposal, twist, stamp_ns, received_ns), received_ns)

    def event(self, name: str, time_ns: int, text: str = ''):
        """Hand over one event."""
        self._add(partial(self._writer.add_event, name, time_ns, text), time_ns)

    def late(self, **values: str):
        """Hand over what the take learnt of itself: see ``EpisodeWriter.set_late``."""
        self._add(partial(self._writer.set_late, **values), self._last_ns)

    def finish(self, outcome: str, on_done: Callable[[], None] | None = None):
        """
        Close the take once all that was handed over is written; returns at once.

        Afterwards ``path`` and ``health`` tell of the episode, or ``error`` of what prevented it.

        :param on_done: called in the writer's thread when ``path`` or ``error`` is set.
        """
        self._finish(partial(self._close, outcome), on_done)

    def discard(self, on_done: Callable[[], None] | None = None):
        """Throw the take away; returns at once."""
        with self._news:
            self._jobs.clear()
        self._finish(self._writer.discard, on_done)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the thread; return whether it ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def _closed(self) -> bool:
        return self._end is not None or self.error is not None

    def _add(self, job: Callable[[], None], time_ns: int):
        with self._news:
            if not self._closed:
                self._last_ns = time_ns
                self._jobs.append((False, job))

    def _drop(self, count: int, time_ns: int, why: str):
        """Count lost frames; those that follow each other for one reason share an event."""
        if why != self._run_why or time_ns - self._run_ns >= TELL_DROPS_NS:
            self._tell_drops()
            self._run_ns, self._run_why = time_ns, why
        self._run += count
        self._dropped += count

    def _tell_drops(self):
        if self._run:
            self._jobs.append(
                (
                    False,
                    partial(
                        self._writer.add_event,
                        'drop',
                        self._run_ns,
                        f'{self._run} frames: {self._run_why}',
                        dropped=self._run,
                    ),
                )
            )
        self._run, self._run_why = 0, ''

    def _finish(self, end: Callable[[], None], on_done: Callable[[], None] | None):
        with self._news:
            self._on_done = on_done
            if self._end is None:  # a take that ends of itself is not ended twice
                self._tell_drops()
                self._end = end
            ended = self._ended
            self._news.notify()
        if ended and on_done is not None:
            on_done()

    def _close(self, outcome: str):
        self.path = self._writer.close(outcome)
        self.health = self._writer.health
        if self._writer.full is not None:
            self.problem = str(self._writer.full)
            self._dropped += self._writer.full.frames

    def _write_frame(self, encode: Callable[[], bytes], stamp_ns: int, received_ns: int):
        try:
            encoded = encode()
        except UserError as error:
            self.problem = str(error)
            with self._news:
                self._drop(1, received_ns, str(error))
            return
        self._writer.add_frame(encoded, stamp_ns, received_ns)

    def _work(self):
        try:
            while self._step():
                pass
            self._end()
        except UserError as error:
            self._writer.abandon()
            self.error = str(error)
        except Exception as error:  # whatever it is, nobody may wait for this thread in vain
            if not isinstance(error, OSError):
                traceback.print_exc()
            self._writer.abandon()
            kept = (
                f'what was written before is in {self.part_path}'
                if self.part_path.exists()
                else f'{self.part_path} is gone'
            )
            self.error = f'the take could not be written ({error}); {kept}'
        with self._news:
            self._ended = True
            on_done = self._on_done
        if on_done is not None:
            on_done()

    def _step(self) -> bool:
        """Do one job or wait for one; return whether there is more to do."""
        with self._news:
            if not self._jobs:
                if self._end is None:
                    self._news.wait(POLL_S)
                elif self._run:
                    self._tell_drops()
                else:
                    return False
            is_frame, job = self._jobs.popleft() if self._jobs else (False, None)
        try:
            if job is not None:
                job()
            if self._writer.flush_if_due(self._steady_ns()):
                self._look_at_floor()
        except disk.DiskFull as full:
            self._stop_full(full)
        with self._news:
            self._queued -= is_frame
        return True

    def _look_at_floor(self):
        if self._end is not None or not self._floor_bytes:
            return
        try:
            free = disk.free_bytes(self.part_path.parent)
        except UserError:
            return
        if free < self._floor_bytes:
            with self._news:
                self._stop(
                    f'the disk of {self.part_path.parent} has {free // 2**20} MB left, '
                    f'under the floor of {self._floor_bytes // 2**20} MB'
                )

    def _stop_full(self, full: disk.DiskFull):
        """Leave out the frames that still wait: there is room for the close, not for them."""
        with self._news:
            waiting = sum(is_frame for is_frame, _ in self._jobs)
            self._jobs = deque(job for job in self._jobs if not job[0])
            self._queued -= waiting
            self._dropped += full.frames
            if waiting:
                self._drop(waiting, self._last_ns, 'the disk is full')
            self._stop(str(full))

    def _stop(self, why: str):
        """End the take of itself, with the reason in it; the lock is held."""
        self.problem = why
        self._tell_drops()
        for name in ('problem', 'stop'):
            self._jobs.append((False, partial(self._writer.add_event, name, self._last_ns, why)))
        if self._end is None:
            self._end = partial(self._close, 'unknown')
