"""The folder of the takes, looked after in threads of its own, so that it keeps nobody waiting."""

import json
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path

from mobile_vla_ros.episode.catalog.index import EpisodeIndex
from mobile_vla_ros.episode.storage import disk, recovery
from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.errors import UserError

DISK_PERIOD_S = 1.0
RATE_SPAN = 10  # measurements of the bytes written that the present rate is taken from
SHORT_MINUTES = 10.0
TOLD = 3  # recovered takes that the status names; the log names all
JOIN_S = 1.0


class TakeFolder:
    """
    Recovers abandoned takes once, counts the takes, and watches the disk.

    :param folder: ``~`` at its start is the user's home.
    :param floor_bytes: free space that a take must leave.
    :param say: is given a sentence on what was done; ``warn`` one on what could not be. Both
        are called in the threads of this object.
    :raises UserError: for the home of a user that there is none of.
    """

    def __init__(
        self,
        folder: str,
        floor_bytes: int,
        *,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ):
        try:
            self.folder = Path(folder).expanduser()
        except RuntimeError as error:
            raise UserError(
                'data_dir is no folder', got=f'{folder!r}: {error}', remedy='write it without ~'
            ) from None
        self.floor_bytes = floor_bytes
        self.recovered = ''
        self.counts: dict[str, int] = {}
        self.minutes: float | None = None
        self._missing = ''
        self._say, self._warn = say, warn
        self._written: deque[tuple[float, int]] = deque(maxlen=RATE_SPAN)
        self._measured: Recording | None = None
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, take: Callable[[], Recording | None], expected_rate: Callable[[], float]):
        """
        Begin to look after the folder.

        :param take: gives the take in progress, None while there is none.
        :param expected_rate: bytes a second that a take would write now; may take its time.
        """

        def watch():
            while not self._closing.wait(DISK_PERIOD_S):
                self._look(take(), expected_rate)

        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (('takes', self._keep), ('disk', watch))
        ]
        for thread in self._threads:
            thread.start()

    def close(self):
        """Let both threads end; a recovery in progress is left to the next start."""
        self._closing.set()
        self._changed.set()
        for thread in self._threads:
            thread.join(JOIN_S)

    def changed(self):
        """Say that a take was added: the takes are counted again, in the background."""
        self._changed.set()

    def check_space(self):
        """
        Refuse a take that could not even begin.

        :raises UserError: when less than the floor is free, or that cannot be found out.
        """
        try:
            free = disk.free_bytes(self.folder)
        except OSError as error:  # one of its parents may not be looked into, or cannot be
            raise UserError(
                f'cannot write episodes to {self.folder}',
                got=error.strerror,
                expected='a folder that this user may write',
                remedy='choose another data_dir',
            ) from None
        if free < self.floor_bytes:
            raise UserError(
                f'the disk of {self.folder} is full',
                got=f'{free / 1e6:.0f} MB free',
                expected=f'at least {self.floor_bytes / 1e6:.0f} MB (disk_floor_mb)',
                remedy='make room, or choose another data_dir',
            )

    @property
    def problem(self) -> str:
        """A sentence when the take in progress is gone or the disk nearly full, else ''."""
        if self._missing or self.minutes is None or self.minutes >= SHORT_MINUTES:
            return self._missing
        return f'the disk has room for {self.minutes:.1f} minutes'

    def values(self) -> dict[str, str]:
        """Return what the status tells of the folder."""
        return {
            'disk_minutes': '' if self.minutes is None else f'{self.minutes:.1f}',
            'recovered': self.recovered,
            'takes': json.dumps(self.counts, ensure_ascii=False),
        }

    def _keep(self):
        self._guarded(self._recover)
        while not self._closing.is_set():
            self._changed.clear()
            self._guarded(self._count)
            self._changed.wait()

    def _guarded(self, work: Callable[[], None]):
        """Do what a broken file or a defect of ours may prevent, without ending the thread."""
        try:
            work()
        except (UserError, OSError) as error:
            self._warn(str(error))
        except Exception:
            self._warn(traceback.format_exc())

    def _recover(self):
        if not self.folder.is_dir():
            return
        told = []

        def tell(sentence: str):
            told.append(sentence)
            more = f'; and {len(told) - TOLD} more' if len(told) > TOLD else ''
            self.recovered = '; '.join(told[:TOLD]) + more

        def one(path: Path):
            try:
                sentence = recovery.recover(path, now_ns=time.time_ns()).sentence
                self._say(sentence)
                tell(sentence)
            except Exception as error:
                tell(f'{path.name} could not be recovered: {error}')
                raise

        for path in recovery.abandoned(self.folder):
            if self._closing.is_set():
                return
            self._guarded(lambda path=path: one(path))

    def _count(self):
        if self.folder.is_dir():
            with EpisodeIndex(self.folder) as index:
                index.refresh()
                self.counts = index.count_by_instruction()

    def _look(self, take: Recording | None, expected_rate: Callable[[], float]):
        if take is not self._measured:
            self._measured = take
            self._written.clear()
        try:
            # Its last name is looked for too: it may have been closed just now.
            there = (
                take is None
                or take.part_path.exists()
                or (take.part_path.with_suffix('').exists())
            )
            self._missing = (
                ''
                if there
                else (
                    f'{take.part_path} was removed or renamed in mid-take: stop, and start again'
                )
            )
            self.minutes = self._minutes(take, expected_rate)
        except Exception:  # a folder that may not be asked, an image that cannot be encoded
            self.minutes = None  # a start will say so

    def _minutes(self, take: Recording | None, expected_rate: Callable[[], float]) -> float | None:
        rate = 0.0
        if take is not None:
            self._written.append((time.monotonic(), take.bytes_written))
            (began_s, before), (now_s, written) = self._written[0], self._written[-1]
            rate = (written - before) / (now_s - began_s) if now_s > began_s else 0.0
        free = disk.free_bytes(self.folder)
        return disk.minutes_left(free, self.floor_bytes, max(rate, 0.0) or expected_rate())
