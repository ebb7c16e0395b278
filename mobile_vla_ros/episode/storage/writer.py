"""Writes one take so that it is whole, or readable, whatever ends the process."""

import contextlib
import errno
import json
import os
from pathlib import Path

import h5py
import numpy as np

from mobile_vla_ros import file_lock
from mobile_vla_ros.episode.quality import verdict as health
from mobile_vla_ros.episode.quality.image_tally import Tally
from mobile_vla_ros.episode.storage import disk, schema
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import sync
from mobile_vla_ros.types import NANOSECONDS, SOURCES, Command

# What a row costs beside its own bytes: a heap of HDF5 for an image, a share of the chunks.
IMAGE_BYTES = 4096
ROW_BYTES = 512
# Held beside the pending rows, so that a take on a full disk can still be closed.
MARGIN_BYTES = 512 * 1024
CLOSE_BYTES = 128 * 1024
MOST_ROWS = 1024  # of commands and of events between two flushes: they fit into the margin


class EpisodeWriter:
    """
    One take on its way to disk.

    Rows are kept in memory until ``flush``, which writes them in one go; what was flushed
    survives the death of the process and is read back by ``Episode.open``. The file is called
    ``<episode_id>.h5.part`` from the moment it can be read until ``close`` renames it to ``.h5``.
    A kill at any write leaves one of: nothing but a hidden ``.new`` file (before the first
    row), a readable ``.part``, or the whole ``.h5``. While the writer lives it holds the lock of
    its file (``recovery.is_written``).

    The blocks for what a flush writes, and for the close, are held before HDF5 sees any of it:
    on a full disk the pending frames are left out and counted, and the take can be closed.

    Not thread-safe: all methods must be called from one thread at a time. Times are the
    caller's; no clock is read here.
    """

    def __init__(
        self,
        folder: Path | str,
        info: schema.EpisodeInfo,
        created_ns: int,
        *,
        flush_period_s: float = 0.5,
        expected_rate_hz: float | None = None,
        timed: bool = True,
        episode_id: str | None = None,
        hidden: bool = False,
        proposals: bool = False,
    ):
        """
        Create the folder when it is missing, and the file in it.

        :param created_ns: Unix time of the start, nanoseconds.
        :param flush_period_s: longest time rows stay in memory alone, as ``flush_if_due`` sees it.
        :param expected_rate_hz: the camera's rate, for the verdict; may be set later.
        :param timed: False where the caller made the times up, likewise for the verdict.
        :param episode_id: the name of a take that has one already; None: a new one.
        :param hidden: keep the hidden name until ``close``: for a take that is made from another
            file, and is worth nothing unless it is whole.
        :param proposals: whether there is a place for what a policy proposed (``add_proposal``).
        :raises UserError: when the folder cannot be made or written.
        """
        folder = Path(folder).expanduser()
        self.episode_id = episode_id or schema.new_episode_id(created_ns)
        nascent = folder / schema.hidden_name(self.episode_id)
        self.part_path = nascent if hidden else (folder / f'{self.episode_id}{schema.PART_SUFFIX}')
        self.final_path = folder / f'{self.episode_id}{schema.SUFFIX}'
        self.expected_rate_hz, self.timed = expected_rate_hz, timed
        self.proposals = proposals
        self._flush_period_ns = int(flush_period_s * NANOSECONDS)
        self._flushed_ns = None
        self._frames, self._commands, self._events, self._proposals = [], [], [], []
        self._tally = Tally()
        self.last_ns = 0  # of the row that came last
        self.frames = self.commands = self.drops = 0
        self.bytes_written = 0
        self.health: dict | None = None
        self.full: disk.DiskFull | None = None  # what the close had no room for
        self._file = self._handle = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(
                nascent, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
            )
            file_lock.hold(self._handle)
            self._room = disk.Room(self._handle, folder)
            self._hold_first()
            self._file = h5py.File(nascent, 'w', libver='latest')
            self._room.forget()
            self._hold_first()
            self._data = schema.lay_out(
                self._file, info, self.episode_id, created_ns, proposals=proposals
            )
            # The name is given only now: a .part that exists can be read through SWMR.
            os.rename(nascent, self.part_path)
        except OSError as error:
            if self._handle is not None:
                self.abandon()
                nascent.unlink(missing_ok=True)
            raise UserError(
                f'cannot write episodes to {folder}',
                got=_reason(error),
                expected='a folder that this user may write',
                remedy='choose another: parameter data_dir of the recorder',
            ) from None

    def _hold_first(self):
        if not self._room.hold(0, MARGIN_BYTES):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def add_frame(self, encoded: bytes, stamp_ns: int, received_ns: int):
        """
        Keep one encoded image (JPEG or PNG, not empty) with its header stamp and receipt.

        About one image a second is looked at, for the verdict.

        :raises DiskFull: when it made a flush due and the disk has no room; see ``flush``.
        """
        if not encoded:
            raise ValueError('an encoded image has at least one byte')
        self._tally.add(encoded, received_ns)
        self.last_ns = received_ns
        self._frames.append((np.frombuffer(encoded, np.uint8), stamp_ns, received_ns))
        self.frames += 1
        self.bytes_written += len(encoded)
        if len(self._frames) >= schema.FRAME_ROWS:
            self.flush()

    def add_command(self, command: Command):
        """Keep one command."""
        self.last_ns = command.received_ns
        self._commands.append(
            (
                np.asarray(command.twist, dtype=np.float64),
                command.stamp_ns,
                command.received_ns,
                SOURCES[command.source],
            )
        )
        self.commands += 1
        if len(self._commands) >= MOST_ROWS:
            self.flush()

    def add_proposal(self, twist: np.ndarray, stamp_ns: int, received_ns: int):
        """
        Keep what a policy proposed, driven or not; for a writer made with ``proposals``.

        :param twist: (6,) m/s and rad/s.
        :param stamp_ns: of the image that it comes from.
        """
        self.last_ns = received_ns
        self._proposals.append((np.asarray(twist, dtype=np.float64), stamp_ns, received_ns))
        if len(self._proposals) >= MOST_ROWS:
            self.flush()

    def add_event(self, name: str, time_ns: int, text: str = '', *, dropped: int = 0):
        """
        Keep one event.

        :param name: one of ``schema.EVENTS``.
        :param dropped: frames that this event says were lost; counted in the verdict.
        """
        if name not in schema.EVENTS:
            raise ValueError(f'unknown event {name!r}; known are {", ".join(schema.EVENTS)}')
        self.last_ns = time_ns
        self._events.append(
            (
                time_ns,
                schema.fixed_text(name, schema.EVENT_NAME_BYTES),
                schema.fixed_text(text, schema.EVENT_TEXT_BYTES),
            )
        )
        self.drops += dropped
        if len(self._events) >= MOST_ROWS:
            self.flush()

    def flush_if_due(self, now_ns: int) -> bool:
        """
        Flush when the flush period has passed since the last time; say whether it did.

        :param now_ns: any clock that does not jump (a monotonic one), nanoseconds.
        """
        if self._flushed_ns is not None and now_ns - self._flushed_ns < self._flush_period_ns:
            return False
        self._flushed_ns = now_ns
        self.flush()
        return True

    def flush(self):
        """
        Hand every row over to the operating system: what is flushed survives our death.

        :raises DiskFull: when there is no room for the pending frames. They are left out, as
            whole frames counted in a 'drop' event; all else is written, and ``close`` works.
        """
        small = (self._commands, self._events, self._proposals)
        if not (self._frames or any(small)):
            return
        images = sum(len(image) + IMAGE_BYTES for image, *_ in self._frames)
        rows = ROW_BYTES * (len(self._frames) + sum(map(len, small)))
        size = self._file.id.get_filesize()
        if self._room.hold(size, images + rows + MARGIN_BYTES):
            self._write_pending()
            return
        frames, commands = len(self._frames), len(self._commands)
        if frames:
            self._leave_out_frames()
        if not self._room.hold(size, rows + CLOSE_BYTES):
            # Not even that: only where the disk holds nothing in advance and others filled it.
            self._commands.clear()
            self._proposals.clear()
            self.commands -= commands
            self.add_event('problem', self.last_ns, f'{commands} commands: the disk is full')
        self._write_pending()
        if frames:
            raise disk.DiskFull(self.part_path.parent, frames)

    def _leave_out_frames(self):
        count, first_ns = len(self._frames), self._frames[0][2]
        self.bytes_written -= sum(len(image) for image, *_ in self._frames)
        self._frames.clear()
        self.frames -= count
        self._tally.cut(self.frames)
        self._events.append(
            (
                first_ns,
                np.bytes_('drop'),
                schema.fixed_text(f'{count} frames: the disk is full', schema.EVENT_TEXT_BYTES),
            )
        )
        self.drops += count

    def _write_pending(self):
        pending = (
            (('frames/data', 'frames/stamp_ns', 'frames/received_ns'), self._frames),
            (
                ('commands/twist', 'commands/stamp_ns', 'commands/received_ns', 'commands/source'),
                self._commands,
            ),
            (('events/time_ns', 'events/name', 'events/text'), self._events),
            (tuple(schema.PROPOSALS), self._proposals),
        )
        for paths, rows in pending:
            if rows:
                for path, column in zip(paths, zip(*rows, strict=True), strict=True):
                    _append(self._data[path], column)
                rows.clear()
        self._file.flush()

    def set_late(self, **values: str):
        """Rewrite attributes that a take learns while it runs: ``command_type``, ``frame_id``."""
        for name, text in values.items():
            size = schema.LATE_TEXT_BYTES[name]
            self._file.attrs.modify(name, schema.fixed_text(text, size))

    def mark_recovered(self):
        """Say in the file that it was completed after the death of its writer."""
        self._file.attrs.modify('recovered', True)

    def close(self, outcome: str = 'unknown') -> Path:
        """
        Write what is pending, the outcome and the verdict; make the take durable and whole.

        Frames for which the disk has no room are left out and counted, as ``flush`` says.

        :param outcome: one of ``schema.OUTCOMES``.
        :returns: the path of the finished episode.
        :raises UserError: when a file of the final name exists; the take stays in its ``.part``.
        """
        schema.check_outcome(outcome)
        try:
            self.flush()
        except disk.DiskFull as full:
            self.full = full
            self.add_event('problem', self.last_ns, str(full))
            self._write_pending()
        self.health = health.judge(
            frame_stamp_ns=self._data['frames/stamp_ns'][:],
            frame_received_ns=self._data['frames/received_ns'][:],
            frozen=self._tally.frozen,
            command_received_ns=self._data['commands/received_ns'][:],
            twist=self._data['commands/twist'][:],
            drops=self.drops,
            looks=self._tally.looks,
            expected_rate_hz=self.expected_rate_hz,
            timed=self.timed,
        )
        self.set_late(outcome=outcome, health=json.dumps(self.health))
        self._file.attrs.modify('complete', True)
        self._file.flush()
        self._file.close()
        disk.release(self._handle)
        os.fsync(self._handle)
        try:
            if self.final_path.exists():
                raise UserError(
                    f'{self.final_path} already exists and is not overwritten',
                    remedy=f'the take is whole in {self.part_path}: rename it',
                )
            os.rename(self.part_path, self.final_path)
            sync(self.final_path.parent)
        finally:
            self._let_go()
        return self.final_path

    def discard(self):
        """Throw the take away; nothing of it stays."""
        self.abandon()
        self.part_path.unlink(missing_ok=True)

    def abandon(self):
        """Let go of the file as it is, after an error: the ``.part`` stays to be recovered."""
        with contextlib.suppress(OSError, RuntimeError):
            # HDF5 may be unable to write its last blocks; what was flushed is on the disk.
            if self._file is not None:
                self._file.close()
        self._file = None
        self._let_go()

    def _let_go(self):
        """Give back the blocks that were held ahead, and then the lock."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                disk.release(self._handle)
            os.close(self._handle)
            self._handle = None


def _append(dataset: h5py.Dataset, rows: tuple):
    old = len(dataset)
    dataset.resize(old + len(rows), axis=0)
    if dataset.dtype != object:
        dataset[old:] = np.asarray(rows, dtype=dataset.dtype)
        return
    # Handed to HDF5 in one go, past h5py, which takes images of equal length for a matrix.
    images = np.empty(len(rows), dtype=dataset.dtype)
    for row, image in enumerate(rows):
        images[row] = image
    space = dataset.id.get_space()
    space.select_hyperslab((old,), (len(rows),))
    dataset.id.write(h5py.h5s.create_simple((len(rows),)), space, images)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
