"""The folder of the episodes: recovery, counts and disk space, in threads of their own."""

import json
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mobile_vla_ros.episode.catalog.file_worker import FileWorker
from mobile_vla_ros.episode.catalog.index import EpisodeIndex
from mobile_vla_ros.episode.catalog.index_table import UNREADABLE
from mobile_vla_ros.episode.storage import disk, recovery
from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.errors import UserError

DISK_PERIOD_S = 1.0
RATE_SPAN = 10  # measurements of the bytes written, for the present rate
SHORT_MINUTES = 10.0
MAX_NAMED = 3  # recovered episodes that the status names; the log names all
JOIN_S = 1.0


class DiskSpace:
    """
    Measures how long the disk lasts, and notices when the file in progress is gone.

    :ivar minutes: left at the present rate; None while unknown.
    :param floor_bytes: free space that an episode must leave.
    """

    def __init__(self, folder: Path, floor_bytes: int) -> None:
        self.floor_bytes = floor_bytes
        self.minutes: float | None = None
        self._folder = folder
        self._missing = ''
        self._written: deque[tuple[float, int]] = deque(maxlen=RATE_SPAN)
        self._measured: Recording | None = None

    def check_space(self) -> None:
        """
        Refuse an episode that could not even begin.

        :raises UserError: when less than the floor is free, or the folder is unusable.
        """
        try:
            free = disk.free_bytes(self._folder)
        except OSError as error:  # a parent that cannot be read or made
            raise UserError(
                f'cannot write episodes to {self._folder}',
                got=error.strerror,
                expected='a folder that this user may write',
                remedy='choose another data_dir',
            ) from None
        if free < self.floor_bytes:
            raise UserError(
                f'the disk of {self._folder} is full',
                got=f'{free / 1e6:.0f} MB free',
                expected=f'at least {self.floor_bytes / 1e6:.0f} MB (disk_floor_mb)',
                remedy='make room, or choose another data_dir',
            )

    @property
    def problem(self) -> str:
        """A sentence when the file in progress is gone or the disk nearly full, else ''."""
        if self._missing or self.minutes is None or self.minutes >= SHORT_MINUTES:
            return self._missing
        return f'the disk has room for {self.minutes:.1f} minutes'

    def measure(self, recording: Recording | None, expected_rate: Callable[[], float]) -> None:
        """
        Measure once; never raises.

        :param recording: the one in progress, None without one.
        :param expected_rate: bytes per second that an episode would write now; may be slow.
        """
        if recording is not self._measured:
            self._measured = recording
            self._written.clear()
        try:
            self._missing = ''
            if recording is not None and not _exists(recording):
                self._missing = (
                    f'{recording.part_path} was removed or renamed while recording: stop, and '
                    'start again'
                )
            self.minutes = self._minutes_left(recording, expected_rate)
        except Exception:  # an unreadable folder, an image that cannot be encoded
            self.minutes = None  # a start will report it

    def _minutes_left(
        self, recording: Recording | None, expected_rate: Callable[[], float]
    ) -> float | None:
        rate = 0.0
        if recording is not None:
            self._written.append((time.monotonic(), recording.bytes_written))
            (began_s, before), (now_s, written) = self._written[0], self._written[-1]
            rate = (written - before) / (now_s - began_s) if now_s > began_s else 0.0
        free = disk.free_bytes(self._folder)
        return disk.minutes_left(free, self.floor_bytes, max(rate, 0.0) or expected_rate())


class EpisodeFolder:
    """
    Recovers abandoned episodes once, counts the episodes, and watches the disk.

    :ivar path: of the folder.
    :ivar black_box: the folder of the black box's episodes, in it.
    :ivar disk: its disk's space, measured every second.
    :param data_dir: ``~`` at its start is the user's home.
    :param floor_bytes: free space that an episode must leave.
    :param info: called with a sentence on each success; ``warn`` on each failure. Both are
        called in the threads of this object.
    :raises UserError: for the home of an unknown user.
    """

    def __init__(
        self,
        data_dir: str,
        floor_bytes: int,
        *,
        info: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        try:
            self.path = Path(data_dir).expanduser()
        except RuntimeError as error:
            raise UserError(
                'data_dir is not a folder',
                got=f'{data_dir!r}: {error}',
                remedy='write it without ~',
            ) from None
        self.black_box = self.path / 'black_box'
        self.disk = DiskSpace(self.path, floor_bytes)
        self._recovered = ''
        self._counts: dict[str, int] = {}
        self._info = info
        self._warn = warn
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        # Not in this process: h5py's lock and a stranger's file would hold up the recording.
        self._worker = FileWorker()
        self._named: set[str] = set()  # files that cannot be read, each named once

    def start(
        self, recording: Callable[[], Recording | None], expected_rate: Callable[[], float]
    ) -> None:
        """
        Start the threads.

        :param recording: returns the one in progress, None without one.
        :param expected_rate: as of ``DiskSpace.measure``.
        """

        def watch() -> None:
            while not self._closing.wait(DISK_PERIOD_S):
                self.disk.measure(recording(), expected_rate)

        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (('episodes', self._maintain), ('disk', watch))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop both threads; a recovery in progress is left to the next start."""
        self._closing.set()
        self._changed.set()
        self._worker.close()
        for thread in self._threads:
            thread.join(JOIN_S)

    def changed(self) -> None:
        """Count the episodes again, in the background."""
        self._changed.set()

    def values(self) -> dict[str, str]:
        """Return the status values of the folder."""
        minutes = self.disk.minutes
        return {
            'disk_minutes': '' if minutes is None else f'{minutes:.1f}',
            'recovered': self._recovered,
            'takes': json.dumps(self._counts, ensure_ascii=False),  # key in messages
        }

    def _maintain(self) -> None:
        self._guarded(self._recover)
        while not self._closing.is_set():
            self._changed.clear()
            self._guarded(self._count)
            self._changed.wait()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run work; log its failure instead of ending the thread."""
        try:
            work()
        except (UserError, OSError) as error:
            if not self._closing.is_set():
                self._warn(str(error))
        except Exception:
            self._warn(traceback.format_exc())

    def _recover(self) -> None:
        sentences: list[str] = []

        def report(sentence: str) -> None:
            sentences.append(sentence)
            more = len(sentences) - MAX_NAMED
            self._recovered = '; '.join(sentences[:MAX_NAMED]) + (
                f'; and {more} more' if more > 0 else ''
            )

        def recover(path: Path) -> None:
            try:
                if self._worker.call('episode.storage.recovery:is_abandoned', path):
                    work = 'episode.storage.recovery:recover_plain'
                    done = self._worker.call(work, path, time.time_ns(), whole=True)
                    self._info(done['sentence'])
                    report(done['sentence'])
            except UserError as error:
                report(f'{path.name} could not be recovered: {error}')
                raise

        folders = [folder for folder in (self.path, self.black_box) if folder.is_dir()]
        for path in [path for folder in folders for path in recovery.without_writer(folder)]:
            if self._closing.is_set():
                return
            self._guarded(partial(recover, path))

    def _count(self) -> None:
        if self.path.is_dir():
            with EpisodeIndex(self.path) as index:
                index.refresh(worker=self._worker)
                self._counts = index.count_by_instruction()
                for row in index.rows(verdict=UNREADABLE):
                    if row.name not in self._named:
                        self._named.add(row.name)
                        self._warn(row.reasons[0])


def _exists(recording: Recording) -> bool:
    """Return whether the file exists, also under its final name: it may just have been closed."""
    return recording.part_path.exists() or recording.part_path.with_suffix('').exists()
