"""Read an episode, whole or cut short, and find the episodes of a folder."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mobile_vla_ros import file_lock
from mobile_vla_ros.episode.quality.verdict import Health
from mobile_vla_ros.episode.records import Commands, Event
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.hdf5_view import (
    SIGNATURE,
    SUPERBLOCK_BYTES,
    SWMR_WRITING,
    View,
)
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images.stored import BrokenImage, decode
from mobile_vla_ros.types import SOURCES, Frame

RECOVER = 'salvage it with mobile_vla episodes recover, or move it away'


class Episode:
    """
    One episode, open for reading; use it as a context manager.

    Times and commands are in memory; images are read and decoded on demand. ``proposals`` are a
    policy's proposals beside the commands, None for an episode without a policy. A ``.part``, of a
    writer that was killed or is still running, shows the flushed rows.
    """

    def __init__(self, path: Path, file: h5py.File, view: View | None = None) -> None:
        self.path = path
        self._file, self._view = file, view
        self.attributes = {name: _plain(value) for name, value in file.attrs.items()}
        self._check_format()
        self._images = file['frames/data']
        stamp_ns, received_ns = _written(file['frames'], 'stamp_ns', 'received_ns')
        self._count = _readable_images(self._images, min(len(stamp_ns), len(self._images)))
        self.frame_stamp_ns = stamp_ns[: self._count]
        self.frame_received_ns = received_ns[: self._count]
        self.commands = Commands(
            *_written(file['commands'], 'twist', 'stamp_ns', 'received_ns', 'source')
        )
        self.proposals = _proposals(file) if 'proposals' in file else None
        self.events = [
            Event(name.decode(), int(time), text.decode(errors='replace'))
            for name, time, text in zip(
                *_written(file['events'], 'name', 'time_ns', 'text'), strict=True
            )
        ]

    @classmethod
    def open(cls, path: Path | str) -> 'Episode':
        """
        Open an episode.

        :raises UserError: when the file is missing, broken, not an episode or of a later version;
            the sentence names the file.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise UserError(f'no episode at {path}', expected='a file written by the recorder')
        file = view = None
        try:
            file, view = _open_file(path)
            return cls(path, file, view)
        except UserError:
            _close(file, view)
            raise
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            _close(file, view)
            raise UserError(
                f'{path} cannot be read as an episode',
                got=first_line(error),
                expected=f'an HDF5 file of format {schema.FORMAT}',
                remedy=RECOVER,
            ) from None

    def _check_format(self) -> None:
        found, version = self.attributes.get('format'), self.attributes.get('version')
        if found != schema.FORMAT:
            raise UserError(
                f'{self.path} is not an episode of this package',
                got=f'format {found!r}',
                expected=schema.FORMAT,
                remedy='import other layouts with mobile_vla episodes import',
            )
        if version != schema.VERSION:
            raise UserError(
                f'{self.path} has an unsupported version',
                got=version,
                expected=schema.VERSION,
                remedy='update mobile_vla_ros',
            )

    def __enter__(self) -> 'Episode':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._count

    def close(self) -> None:
        """Close the file; times and commands stay usable."""
        _close(self._file, self._view)

    @property
    def episode_id(self) -> str:
        """``<UTC time>_<8 hex>``, the file's name without its suffix."""
        return str(self.attributes['episode_id'])

    @property
    def instruction(self) -> str:
        """The instruction that the robot followed."""
        return str(self.attributes['instruction'])

    @property
    def outcome(self) -> str:
        """One of ``schema.OUTCOMES``."""
        return str(self.attributes['outcome'])

    @property
    def origin(self) -> str:
        """The source of an imported episode; '' for a recorded one."""
        return str(self.attributes.get('origin', ''))

    @property
    def recovered(self) -> bool:
        """Whether the episode was completed after its writer had died, or from a cut file."""
        return bool(self.attributes.get('recovered', False))

    @property
    def complete(self) -> bool:
        """Whether the writer closed the episode."""
        return bool(self.attributes['complete'])

    @property
    def health(self) -> Health | None:
        """
        The writer's verdict (see ``quality.verdict.judge``); None if the episode was cut short.

        :raises UserError: when the file is broken at the verdict.
        """
        text = self.attributes['health']
        try:
            found: Health | None = json.loads(text) if text else None
            return found
        except ValueError as error:
            raise UserError(
                f'{self.path} is broken at its verdict',
                got=first_line(error),
                expected='JSON',
                remedy=RECOVER,
            ) from None

    def encoded(self, index: int) -> bytes:
        """
        Return the stored bytes of frame ``index``: JPEG or PNG.

        :raises UserError: when the file is broken at this frame.
        """
        if not -self._count <= index < self._count:
            raise IndexError(f'frame {index} of {self._count}')
        try:
            return bytes(self._images[index % self._count].tobytes())
        except (OSError, RuntimeError) as error:
            raise self._broken(index, first_line(error)) from None

    def frame(self, index: int, min_side: int | None = None) -> Frame:
        """
        Return frame ``index`` decoded to RGB, with its times.

        :param min_side: as for ``images.stored.decode``.
        :raises UserError: when the file is broken at this frame.
        """
        try:
            image = decode(self.encoded(index), min_side)
        except BrokenImage as error:
            raise self._broken(index, error.reason) from None
        return Frame(image, int(self.frame_stamp_ns[index]), int(self.frame_received_ns[index]))

    def _broken(self, index: int, reason: str) -> UserError:
        return UserError(
            f'{self.path} is broken at frame {index}',
            got=reason,
            expected='a JPEG or PNG image',
        )


def find_episodes(folder: Path | str) -> list[Path]:
    """
    Return the finished episodes of a folder, sorted by name and so by time.

    :raises UserError: when there is no such folder, or no episode in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(
            f'no folder of episodes at {folder}', expected='a folder written by the recorder'
        )
    found = sorted(path for path in folder.glob(f'*{schema.SUFFIX}') if path.is_file())
    if not found:
        parts = len(list(folder.glob(f'*{schema.PART_SUFFIX}')))
        raise UserError(
            f'{folder} holds no episode',
            got=f'{parts} unfinished episodes (.part)' if parts else 'no .h5 file',
            expected=f'files <UTC time>_<8 hex>{schema.SUFFIX}',
            remedy='record some with ros2 launch mobile_vla_ros record.launch.py',
        )
    return found


def episodes_at(path: Path | str) -> list[Path]:
    """Return the episodes of a folder (``find_episodes``), or the one file at ``path``."""
    path = Path(path).expanduser()
    return [path] if path.is_file() else find_episodes(path)


def _open_file(path: Path) -> tuple[h5py.File, View | None]:
    """
    Open a file through a ``View``, or as a SWMR reader while it is still being written.

    A plain open would not do: HDF5 loops for ever on blocks of zeros, which a power cut or a bad
    disk leaves, and a SWMR reader waits for missing blocks in the hope of a writer.
    """
    with path.open('rb') as file:
        head = file.read(SUPERBLOCK_BYTES)
    known = len(head) == SUPERBLOCK_BYTES and head[:9] == SIGNATURE + b'\x03'
    writing = known and head[11] & SWMR_WRITING
    if not known or (head[11] and not writing):  # HDF5 reports the defect
        return h5py.File(path, 'r'), None
    size, end = path.stat().st_size, int.from_bytes(head[28:36], 'little')
    if size < end:
        raise OSError(f'cut short: {size} bytes of {end}')
    if writing and file_lock.is_held(path):
        return h5py.File(path, 'r', libver='latest', swmr=True), None
    view = View(path)
    try:
        return h5py.File(view, 'r'), view
    except BaseException:
        view.close()
        raise


def _close(*opened: h5py.File | View | None) -> None:
    for one in opened:
        if one is not None:
            one.close()


def _written(stream: h5py.Group, *names: str) -> list[np.ndarray]:
    """Return columns up to the first row that is incomplete or was never written."""
    datasets = [stream[name] for name in names]
    count = min(len(dataset) for dataset in datasets)
    columns = [dataset[:count] for dataset in datasets]  # once: every HDF5 read costs
    for column in columns:
        if column.dtype == np.int64:
            unwritten = np.flatnonzero(column == schema.NO_TIME)
            count = min(count, unwritten[0]) if len(unwritten) else count
    return [column[:count] for column in columns]


def _proposals(file: h5py.File) -> Commands:
    twist, stamp_ns, received_ns = _written(file['proposals'], 'twist', 'stamp_ns', 'received_ns')
    return Commands(
        twist, stamp_ns, received_ns, np.full(len(received_ns), SOURCES['policy'], np.uint8)
    )


def _readable_images(images: h5py.Dataset, count: int) -> int:
    """
    Count the images up to the last readable one.

    A kill in the middle of a flush can leave rows whose bytes never reached the disk; they are
    always the last ones (seen with a kill after every single write of an episode).
    """
    while count:
        try:
            if len(images[count - 1]):
                break
        except (OSError, RuntimeError):
            pass
        count -= 1
    return count


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
