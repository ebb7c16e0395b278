"""Writes one take so that it is whole, or readable, whatever ends the process."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import h5py
import numpy as np

from mobile_vla_ros import __version__
from mobile_vla_ros.episode import health, schema
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import SOURCES, Command


class EpisodeWriter:
    """
    One take on its way to disk.

    Rows are kept in memory until ``flush``, which writes them in one go; what was flushed
    survives the death of the process and is read back by ``Episode.open``. The file is called
    ``<episode_id>.h5.part`` from the moment it can be read until ``close`` renames it to ``.h5``.
    A kill at any write leaves one of: nothing but a hidden ``.new`` file (before the first
    row), a readable ``.part``, or the whole ``.h5``.

    Not thread-safe: all methods must be called from one thread at a time. Times are the
    caller's; no clock is read here.
    """

    def __init__(self, folder: Path | str, info: schema.EpisodeInfo, created_ns: int, *,
                 flush_period_s: float = 0.5):
        """
        Create the folder when it is missing, and the file in it.

        :param created_ns: Unix time of the start, nanoseconds.
        :param flush_period_s: longest time rows stay in memory alone, as ``flush_if_due`` sees it.
        :raises UserError: when the folder cannot be made or written.
        """
        folder = Path(folder).expanduser()
        self.episode_id = schema.new_episode_id(created_ns)
        self.part_path = folder / f'{self.episode_id}{schema.PART_SUFFIX}'
        self.final_path = folder / f'{self.episode_id}{schema.SUFFIX}'
        self._flush_period_ns = int(flush_period_s * 1e9)
        self._flushed_ns = None
        self._frames, self._commands, self._events = [], [], []
        self._last_image, self._frozen = b'', []
        self.frames = self.commands = self.drops = 0
        self.bytes_written = 0
        nascent = folder / f'.{self.episode_id}.new'
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = h5py.File(nascent, 'x', libver='latest')
            self._lay_out(info, created_ns)
            # The name is given only now: a .part that exists can be read through SWMR.
            os.rename(nascent, self.part_path)
        except OSError as error:
            with contextlib.suppress(OSError):
                nascent.unlink()
            raise UserError(f'cannot write episodes to {folder}', got=_reason(error),
                            expected='a folder that this user may write',
                            remedy='choose another: parameter data_dir of the recorder',
                            ) from None

    def _lay_out(self, info: schema.EpisodeInfo, created_ns: int):
        root = self._file
        root.attrs['format'] = schema.FORMAT
        root.attrs['version'] = schema.VERSION
        root.attrs['episode_id'] = self.episode_id
        root.attrs['created_utc'] = schema.utc_text(created_ns)
        root.attrs['package_version'] = __version__
        values = dataclasses.asdict(info)
        for name, text in values.items():
            if name not in schema.LATE_TEXT_BYTES:
                root.attrs[name] = text
        late = {**values, 'outcome': 'unknown', 'health': ''}
        for name, size in schema.LATE_TEXT_BYTES.items():
            root.attrs.create(name, schema.fixed_text(late[name], size),
                              dtype=h5py.string_dtype('utf-8', size))
        for name in schema.LATE_FLAGS:
            root.attrs.create(name, False)
        self._data = {}
        for path, (columns, dtype, rows, unwritten) in schema.DATASETS.items():
            tail = () if columns is None else (columns,)
            self._data[path] = root.create_dataset(
                path, (0, *tail), maxshape=(None, *tail), chunks=(rows, *tail), dtype=dtype,
                fillvalue=unwritten)
        root.swmr_mode = True
        root.flush()

    def add_frame(self, encoded: bytes, stamp_ns: int, received_ns: int):
        """Keep one encoded image (JPEG or PNG, not empty) with its header stamp and receipt."""
        if not encoded:
            raise ValueError('an encoded image has at least one byte')
        self._frozen.append(encoded == self._last_image)
        self._last_image = encoded
        self._frames.append((np.frombuffer(encoded, np.uint8), stamp_ns, received_ns))
        self.frames += 1
        self.bytes_written += len(encoded)
        if len(self._frames) >= schema.FRAME_ROWS:
            self.flush()

    def add_command(self, command: Command):
        """Keep one command."""
        self._commands.append((np.asarray(command.twist, dtype=np.float64), command.stamp_ns,
                               command.received_ns, SOURCES[command.source]))
        self.commands += 1

    def add_event(self, name: str, time_ns: int, text: str = '', *, dropped: int = 0):
        """
        Keep one event.

        :param name: one of ``schema.EVENTS``.
        :param dropped: frames that this event says were lost; counted in the verdict.
        """
        if name not in schema.EVENTS:
            raise ValueError(f'unknown event {name!r}; known are {", ".join(schema.EVENTS)}')
        self._events.append((time_ns, schema.fixed_text(name, schema.EVENT_NAME_BYTES),
                             schema.fixed_text(text, schema.EVENT_TEXT_BYTES)))
        self.drops += dropped

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
        """Hand every row over to the operating system: what is flushed survives our death."""
        pending = (
            (('frames/data', 'frames/stamp_ns', 'frames/received_ns'), self._frames),
            (('commands/twist', 'commands/stamp_ns', 'commands/received_ns', 'commands/source'),
             self._commands),
            (('events/time_ns', 'events/name', 'events/text'), self._events))
        if not any(rows for _, rows in pending):
            return
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

    def close(self, outcome: str = 'unknown') -> Path:
        """
        Write what is pending, the outcome and the verdict; make the take durable and whole.

        :param outcome: one of ``schema.OUTCOMES``.
        :returns: the path of the finished episode.
        :raises UserError: when a file of the final name exists; the take stays in its ``.part``.
        """
        schema.check_outcome(outcome)
        self.flush()
        self.health = health.judge(
            frame_stamp_ns=self._data['frames/stamp_ns'][:],
            frame_received_ns=self._data['frames/received_ns'][:],
            frozen=np.array(self._frozen, dtype=bool),
            command_received_ns=self._data['commands/received_ns'][:],
            twist=self._data['commands/twist'][:], drops=self.drops)
        self.set_late(outcome=outcome, health=json.dumps(self.health))
        self._file.attrs.modify('complete', True)
        self._file.flush()
        self._file.close()
        _sync(self.part_path)
        if self.final_path.exists():
            raise UserError(f'{self.final_path} already exists and is not overwritten',
                            remedy=f'the take is whole in {self.part_path}: rename it')
        os.rename(self.part_path, self.final_path)
        _sync(self.final_path.parent)
        return self.final_path

    def discard(self):
        """Throw the take away; nothing of it stays."""
        self._file.close()
        self.part_path.unlink(missing_ok=True)

    def abandon(self):
        """Let go of the file as it is, after an error: the ``.part`` stays to be recovered."""
        try:
            self._file.close()
        except (OSError, RuntimeError):
            # HDF5 could not write its last blocks either; what was flushed is on the disk.
            self._file = None


def _append(dataset: h5py.Dataset, rows: tuple):
    old = len(dataset)
    dataset.resize(old + len(rows), axis=0)
    if dataset.dtype == object:
        for row, image in enumerate(rows):  # h5py takes images of equal length for a matrix
            dataset[old + row] = image
    else:
        dataset[old:] = np.asarray(rows, dtype=dataset.dtype)


def _sync(path: Path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
