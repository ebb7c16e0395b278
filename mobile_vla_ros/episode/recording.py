"""A take in progress: a bounded queue, and a thread that encodes and writes."""

import threading
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mobile_vla_ros.episode.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import Command

POLL_S = 0.1


class Recording:
    """
    Takes frames and commands from any thread without waiting, and writes them in its own.

    A frame that finds ``queue_frames`` others before it is dropped whole, counted, and told of
    in an event of the episode; commands and events are small and always kept. The thread owns
    the writer from here on.

    :param steady_ns: a clock that never jumps, nanoseconds; it paces the flushes.
    """

    def __init__(self, writer: EpisodeWriter, *, queue_frames: int,
                 steady_ns: Callable[[], int]):
        self.part_path = writer.part_path
        self.path: Path | None = None
        self.health: dict | None = None
        self.error: str | None = None
        self.problem: str | None = None
        self._writer = writer
        self._limit = queue_frames
        self._steady_ns = steady_ns
        self._jobs: deque[tuple[bool, Callable[[], None]]] = deque()
        self._queued = self._dropped = self._dropping = 0
        self._first_drop_ns = 0
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
    def drops(self) -> int:
        """Frames lost, to a full queue or because they could not be encoded."""
        return self._dropped

    @property
    def queued(self) -> int:
        """Frames that wait for the writer."""
        return self._queued

    def frame(self, encode: Callable[[], bytes], stamp_ns: int, received_ns: int) -> bool:
        """
        Hand over one frame; return False when it was dropped.

        :param encode: gives the JPEG or PNG bytes; called in the writer's thread. Its
            ``UserError`` makes the frame a dropped one.
        """
        with self._news:
            if self._closed:
                return False
            if self._queued >= self._limit:
                if not self._dropping:
                    self._first_drop_ns = received_ns
                self._dropping += 1
                self._dropped += 1
                return False
            self._tell_drops()
            self._queued += 1
            self._jobs.append((True, partial(self._write_frame, encode, stamp_ns, received_ns)))
            self._news.notify()
        return True

    def command(self, command: Command):
        """Hand over one command."""
        self._add(partial(self._writer.add_command, command))

    def event(self, name: str, time_ns: int, text: str = ''):
        """Hand over one event."""
        self._add(partial(self._writer.add_event, name, time_ns, text))

    def late(self, **values: str):
        """Hand over what the take learnt of itself: see ``EpisodeWriter.set_late``."""
        self._add(partial(self._writer.set_late, **values))

    def finish(self, outcome: str, on_done: Callable[[], None] | None = None):
        """
        Close the take once all that was handed over is written; returns at once.

        Afterwards ``path`` and ``health`` tell of the episode, or ``error`` of what prevented it.

        :param on_done: called in the writer's thread when ``path`` or ``error`` is set.
        """
        def close():
            self.path = self._writer.close(outcome)
            self.health = self._writer.health
        with self._news:
            self._tell_drops()
        self._finish(close, on_done)

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

    def _add(self, job: Callable[[], None]):
        with self._news:
            if not self._closed:
                self._jobs.append((False, job))

    def _tell_drops(self):
        if self._dropping:
            self._jobs.append((False, partial(
                self._writer.add_event, 'drop', self._first_drop_ns,
                f'{self._dropping} frames: the writer was too slow', dropped=self._dropping)))
            self._dropping = 0

    def _finish(self, end: Callable[[], None], on_done: Callable[[], None] | None):
        with self._news:
            self._on_done = on_done
            self._end = end
            ended = self._ended
            self._news.notify()
        if ended and on_done is not None:
            on_done()

    def _write_frame(self, encode: Callable[[], bytes], stamp_ns: int, received_ns: int):
        try:
            encoded = encode()
        except UserError as error:
            self.problem = str(error)
            with self._news:
                self._dropped += 1
            self._writer.add_event('drop', received_ns, f'1 frame: {error}', dropped=1)
            return
        self._writer.add_frame(encoded, stamp_ns, received_ns)

    def _work(self):
        try:
            while self._step():
                pass
            self._end()
        except UserError as error:
            self.error = str(error)
        except Exception as error:  # whatever it is, nobody may wait for this thread in vain
            if not isinstance(error, OSError):
                traceback.print_exc()
            self._writer.abandon()
            self.error = (f'the take could not be written ({error}); what was written before is '
                          f'in {self.part_path}')
        with self._news:
            self._ended = True
            on_done = self._on_done
        if on_done is not None:
            on_done()

    def _step(self) -> bool:
        """Do one job or wait for one; return whether there is more to do."""
        with self._news:
            if not self._jobs:
                if self._end is not None:
                    return False
                self._news.wait(POLL_S)
            is_frame, job = self._jobs.popleft() if self._jobs else (False, None)
        if job is not None:
            job()
        if is_frame:
            with self._news:
                self._queued -= 1
        self._writer.flush_if_due(self._steady_ns())
        return True
