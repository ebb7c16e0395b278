"""An episode in progress: a bounded queue, and a thread that encodes and writes."""

import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mobile_vla_ros.episode.quality.verdict import Health
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage import disk
from mobile_vla_ros.episode.storage.byte_rows import misfit
from mobile_vla_ros.episode.storage.hdf5_gate import MAX_ROWS
from mobile_vla_ros.episode.storage.ring import RingWriter
from mobile_vla_ros.episode.storage.schema import FRAMES, loss, messages_of
from mobile_vla_ros.episode.storage.writer import ROW_BYTES, EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS, Command

POLL_S = 0.1
DROP_EVENT_NS = NANOSECONDS  # drops with one reason share an event for this long
TOO_SLOW = 'the writer was too slow'

Job = Callable[[], None]
Receipt = tuple[int, int | None]  # received_ns, steady_ns: see types.Command


class _Job(NamedTuple):
    """
    A job for the writer's thread.

    :param of: kind of droppable data it writes: ``FRAMES``, ``messages_of`` a topic, or ''.
    :param size: bytes that a message takes.
    """

    work: Job
    of: str = ''
    size: int = 0


@dataclass
class _Queue:
    """
    What waits for the writer's thread.

    :ivar frames: how many of them are frames; message_bytes: how much memory messages take.
    """

    max_frames: int
    max_message_bytes: int
    frames: int = 0
    message_bytes: int = 0
    last: Receipt = (0, 0)  # of the newest row
    jobs: deque[_Job] = field(default_factory=deque)

    def add(self, work: Job, of: str = '', size: int = 0) -> None:
        self.frames += of == FRAMES
        self.message_bytes += size
        self.jobs.append(_Job(work, of, size))

    def done(self, job: _Job) -> None:
        """Count a job that no longer takes memory."""
        self.frames -= job.of == FRAMES
        self.message_bytes -= job.size

    def remove_bulk(self) -> Counter[str]:
        """Remove the frames and messages that still wait; return how many of each kind."""
        removed = [job for job in self.jobs if job.of]
        self.jobs = deque(job for job in self.jobs if not job.of)
        for job in removed:
            self.done(job)
        return Counter(job.of for job in removed)


@dataclass
class _Drops:
    """
    Lost frames and messages: their totals, and those that have no event yet.

    :ivar totals: by kind (``schema.loss``).
    :ivar pending: (kind, reason) → how many, and the receipt of the first.
    :ivar written_ns: when events were last written, None before.
    """

    totals: Counter[str] = field(default_factory=Counter)
    pending: dict[tuple[str, str], tuple[int, Receipt]] = field(default_factory=dict)
    written_ns: int | None = None


@dataclass
class _Result:
    """The end of a recording."""

    path: Path | None = None
    health: Health | None = None
    error: str | None = None
    problem: str | None = None
    ended: bool = False


class Recording:
    """
    Accepts frames and commands from any thread without blocking, and writes them in its own.

    A frame that finds ``queue_frames`` others before it is dropped whole, counted, and reported in
    an event of the episode, and so is a message of another topic that finds ``queue_bytes`` of
    them; commands and events are small and always kept. The thread owns the writer from here on.

    When the disk is full, or has less than the floor left, the thread closes the episode by
    itself: ``ended`` turns True, ``problem`` holds the reason, ``path`` and ``health`` the result.

    :param steady_ns: a clock that never jumps, nanoseconds; it paces the flushes.
    :param floor_bytes: free disk space below which the episode is closed.
    """

    def __init__(
        self,
        writer: EpisodeWriter | RingWriter,
        *,
        queue_frames: int,
        steady_ns: Callable[[], int],
        queue_bytes: int = 0,
        floor_bytes: int = 0,
    ) -> None:
        self._writer = writer
        self._steady_ns = steady_ns
        self._floor_bytes = floor_bytes
        self._queue = _Queue(queue_frames, queue_bytes)
        self._channels: dict[str, Channel] = {}  # that were handed over, by topic
        self._drops = _Drops()
        self._result = _Result()
        self._end: Job | None = None
        self._on_done: Job | None = None
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._work, name='episode_writer', daemon=True)
        self._thread.start()

    @property
    def part_path(self) -> Path:
        """The file until it is finished."""
        return self._writer.part_path

    @property
    def path(self) -> Path | None:
        """The finished episode."""
        return self._result.path

    @property
    def health(self) -> Health | None:
        """The verdict on the finished episode."""
        return self._result.health

    @property
    def error(self) -> str | None:
        """The failure that prevented an episode."""
        return self._result.error

    @property
    def problem(self) -> str | None:
        """The newest problem that the recording survived, or that closed it."""
        return self._result.problem

    @property
    def ended(self) -> bool:
        """Whether the recording is over: ``path`` or ``error`` is set, or it was discarded."""
        return self._result.ended

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return self._writer.frames

    @property
    def commands(self) -> int:
        """Commands written so far."""
        return self._writer.commands

    @property
    def messages(self) -> int:
        """Messages of other topics written so far."""
        return self._writer.messages

    @property
    def lost_messages(self) -> dict[str, int]:
        """How many rows other than frames are missing, by kind (``messages of /odom``)."""
        return {kind: count for kind, count in self._drops.totals.items() if kind != FRAMES}

    @property
    def bytes_written(self) -> int:
        """Bytes of the images written so far."""
        return self._writer.bytes_written

    @property
    def drops(self) -> int:
        """Frames lost: before they arrived, to a full queue or disk, or because they are unfit."""
        return self._drops.totals[FRAMES]

    @property
    def queued(self) -> int:
        """Frames waiting for the writer."""
        return self._queue.frames

    def frame(
        self,
        encode: Callable[[], bytes],
        stamp_ns: int,
        received_ns: int,
        steady_ns: int | None = None,
    ) -> bool:
        """
        Hand over one frame; return False if it was dropped.

        :param encode: returns the JPEG or PNG bytes; called in the writer's thread. If it raises,
            the frame is dropped.
        """
        receipt = received_ns, steady_ns
        with self._news:
            if self._closed:
                return False
            self._queue.last = receipt
            if self._queue.frames >= self._queue.max_frames:
                self._drop(1, receipt, TOO_SLOW)
                return False
            if _is_later(received_ns, self._drops.written_ns):
                self._write_drops(receipt)
            self._queue.add(partial(self._write_frame, encode, stamp_ns, receipt), FRAMES)
            self._news.notify()
        return True

    def message(
        self,
        channel: Channel,
        data: bytes,
        stamp_ns: int,
        received_ns: int,
        steady_ns: int | None = None,
        encode: Callable[[bytes], bytes] = bytes,
    ) -> bool:
        """
        Hand over a message (``EpisodeWriter.add_message``); return False if it was dropped.

        :param encode: returns the bytes to store of ``data``; called as that of ``frame``.
        """
        receipt, queue = (received_ns, steady_ns), self._queue
        of, size = messages_of(channel.topic), len(data) + ROW_BYTES
        with self._news:
            if self._closed:
                return False
            queue.last = receipt
            why = misfit(self._channels, channel, data)
            if queue.message_bytes + size > queue.max_message_bytes:
                why = why or TOO_SLOW
            if self._writer.messages + len(queue.jobs) >= MAX_ROWS:
                why = why or f'the episode holds {MAX_ROWS} already'
            if why:
                self._drop(1, receipt, why, of)
                return False
            self._channels[channel.topic] = channel
            work = partial(self._write_message, channel, partial(encode, data), stamp_ns, receipt)
            queue.add(work, of, size)
        return True

    def lost(
        self, count: int, time_ns: int, why: str, steady_ns: int | None = None, of: str = FRAMES
    ) -> None:
        """
        Count frames that were lost before they arrived here.

        :param of: ``messages_of`` a topic, if they are not frames.
        """
        with self._news:
            if not self._closed and count > 0:
                self._drop(count, (time_ns, steady_ns), why, of)

    def command(self, command: Command) -> None:
        """Hand over one command."""
        receipt = command.received_ns, command.steady_ns
        self._add(partial(self._writer.add_command, command), receipt)

    def proposal(
        self, twist: np.ndarray, stamp_ns: int, received_ns: int, steady_ns: int | None = None
    ) -> None:
        """Hand over a policy's proposal (``EpisodeWriter.add_proposal``)."""
        receipt = received_ns, steady_ns
        self._add(partial(self._writer.add_proposal, twist, stamp_ns, *receipt), receipt)

    def event(
        self, name: str, time_ns: int, text: str = '', *, steady_ns: int | None = None
    ) -> None:
        """Hand over one event."""
        self._add(self._event((time_ns, steady_ns), name, text), (time_ns, steady_ns))

    def late(self, **values: str) -> None:
        """Hand over attributes that became known: see ``EpisodeWriter.set_late``."""
        self._add(partial(self._writer.set_late, **values), self._queue.last)

    def finish(self, outcome: str, on_done: Job | None = None) -> None:
        """
        Close the episode once everything handed over is written; returns at once.

        Afterwards ``path`` and ``health`` hold the result, or ``error`` the failure.

        :param on_done: called in the writer's thread when ``path`` or ``error`` is set.
        """
        self._finish(partial(self._close, outcome), on_done)

    def discard(self, on_done: Job | None = None) -> None:
        """Delete the episode; returns at once."""
        with self._news:
            self._queue.jobs.clear()
        self._finish(self._writer.discard, on_done)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the thread; return whether it ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def _closed(self) -> bool:
        return self._end is not None or self._result.error is not None

    def _add(self, job: Job, receipt: Receipt) -> None:
        with self._news:
            if not self._closed:
                self._queue.last = receipt
                self._queue.add(job)

    def _event(self, receipt: Receipt, name: str, text: str) -> Job:
        time_ns, steady_ns = receipt
        return partial(self._writer.add_event, name, time_ns, text, steady_ns=steady_ns)

    def _drop(self, count: int, receipt: Receipt, why: str, of: str = FRAMES) -> None:
        """Count what is lost; losses for one reason share an event, at most one a second."""
        drops = self._drops
        firsts_ns = [time_ns for _, (time_ns, _) in drops.pending.values()]
        if firsts_ns and _is_later(receipt[0], min(firsts_ns)):
            self._write_drops(receipt)
        before, first = drops.pending.get((of, why), (0, receipt))
        drops.pending[of, why] = before + count, first
        drops.totals[of] += count

    def _write_drops(self, receipt: Receipt) -> None:
        """Write the events of the pending drops; the lock is held."""
        drops = self._drops
        for (of, why), (count, first) in drops.pending.items():
            self._queue.add(self._event(first, *loss(count, of, why)))
        if drops.pending:
            drops.written_ns = receipt[0]
            drops.pending.clear()

    def _finish(self, end: Job, on_done: Job | None) -> None:
        with self._news:
            self._on_done = on_done
            if self._end is None:  # it may have ended by itself
                self._write_drops(self._queue.last)
                self._end = end
            ended = self._result.ended
            self._news.notify()
        if ended and on_done is not None:
            on_done()

    def _close(self, outcome: str) -> None:
        self._result.path = self._writer.close(outcome)
        self._result.health = self._writer.health
        if self._writer.full is not None:
            self._result.problem = str(self._writer.full)
            self._drops.totals += self._writer.full.lost

    def _write_frame(self, encode: Callable[[], bytes], stamp_ns: int, receipt: Receipt) -> None:
        encoded = self._encoded(encode, FRAMES, receipt)
        if encoded:
            self._writer.add_frame(encoded, stamp_ns, *receipt)

    def _write_message(
        self, channel: Channel, encode: Callable[[], bytes], stamp_ns: int, receipt: Receipt
    ) -> None:
        data = self._encoded(encode, messages_of(channel.topic), receipt)
        if data:
            self._writer.add_message(channel, data, stamp_ns, *receipt)

    def _encoded(self, encode: Callable[[], bytes], of: str, receipt: Receipt) -> bytes:
        """Return what is to be stored; b'' if that failed, which is counted."""
        try:
            return encode()
        except Exception as error:  # of any kind: one image must not end an episode
            self._result.problem = str(error) or type(error).__name__
            what = error.what if isinstance(error, UserError) else type(error).__name__
            if not isinstance(error, UserError) and (of, what) not in self._drops.pending:
                traceback.print_exc()
            with self._news:
                self._drop(1, receipt, what, of)
            return b''

    def _work(self) -> None:
        try:
            while self._step():
                pass
            assert self._end is not None, 'the last step waits for an end'
            self._end()
        except UserError as error:
            self._writer.abandon()
            self._result.error = str(error)
        except Exception as error:  # of any kind: nobody may wait for this thread in vain
            if not isinstance(error, OSError):
                traceback.print_exc()
            self._writer.abandon()
            kept = (
                f'what was written before is in {self.part_path}'
                if self.part_path.exists()
                else f'{self.part_path} is gone'
            )
            self._result.error = f'the episode could not be written ({error}); {kept}'
        with self._news:
            self._result.ended = True
            on_done = self._on_done
        if on_done is not None:
            on_done()

    def _step(self) -> bool:
        """Do one job or wait for one; return whether there is more to do."""
        with self._news:
            if not self._queue.jobs:
                if self._end is None:
                    self._news.wait(POLL_S)
                elif self._drops.pending:
                    self._write_drops(self._queue.last)
                else:
                    return False
            job = self._queue.jobs.popleft() if self._queue.jobs else None
        try:
            if job is not None:
                job.work()
            if self._writer.flush_if_due(self._steady_ns()):
                self._check_floor()
        except disk.DiskFull as full:
            self._stop_full(full)
        with self._news:
            if job is not None:
                self._queue.done(job)
        return True

    def _check_floor(self) -> None:
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

    def _stop_full(self, full: disk.DiskFull) -> None:
        """Drop frames and messages that still wait: there is room for the close, not for them."""
        with self._news:
            self._drops.totals += full.lost  # the writer wrote the events itself
            for of, waiting in self._queue.remove_bulk().items():
                self._drop(waiting, self._queue.last, disk.DISK_FULL, of)
            self._stop(str(full))

    def _stop(self, why: str) -> None:
        """End the recording from within and store the reason in it; the lock is held."""
        self._result.problem = why
        self._write_drops(self._queue.last)
        for name in ('problem', 'stop'):
            self._queue.add(self._event(self._queue.last, name, why))
        if self._end is None:
            self._end = partial(self._close, 'unknown')


def _is_later(time_ns: int, before_ns: int | None) -> bool:
    """Whether it is time for another event of drops; the clock may have been set back."""
    return before_ns is None or abs(time_ns - before_ns) >= DROP_EVENT_NS
