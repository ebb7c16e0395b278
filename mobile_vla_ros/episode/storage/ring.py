"""The newest seconds of what would be an episode, in memory until something makes them one."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobile_vla_ros.episode.quality.verdict import Health
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.disk import DISK_FULL, DiskFull
from mobile_vla_ros.episode.storage.schema import FRAMES, loss, messages_of
from mobile_vla_ros.episode.storage.writer import ROW_BYTES, EpisodeWriter
from mobile_vla_ros.types import NANOSECONDS, Command

ROWS_A_STEP = 32  # passed on to the file between two jobs: several times as many as arrive
LATCHED_SHARE = 0.25  # of the memory, at most
# Makes the file of the episode; its argument: whether it is to have room for proposals.
Create = Callable[[bool], EpisodeWriter]


@dataclass(frozen=True)
class _Row:
    """
    What to do with a file, and the receipt of it.

    :param of: ``FRAMES``, or ``messages_of`` a topic: what a full disk has no room for, or ''.
    :param latched: topic and bytes of a message that stays when its row gives way.
    """

    add: Callable[[EpisodeWriter], None]
    received_ns: int
    steady_ns: int
    size: int
    of: str = ''
    latched: tuple[str, bytes] | None = None


@dataclass
class _Latched:
    """Messages that stay when their rows give way, the oldest first, by topic and bytes."""

    rows: dict[tuple[str, bytes], _Row] = field(default_factory=dict)
    size: int = 0
    lost: Counter[str] = field(default_factory=Counter)  # for want of memory

    def hold(self, key: tuple[str, bytes], row: _Row, most: float) -> None:
        """Add one; the oldest give way, since a map that is published anew is latched, too."""
        self.forget(key)
        self.rows[key] = row
        self.size += row.size
        while self.size > most:
            oldest = next(iter(self.rows))
            self.lost[self.rows[oldest].of] += 1
            self.forget(oldest)

    def forget(self, key: tuple[str, bytes]) -> None:
        row = self.rows.pop(key, None)
        self.size -= 0 if row is None else row.size


class RingWriter:
    """
    Takes the place of a ``Recording``'s writer: the oldest rows give way until ``keep``.

    From then on the rows go to a file, in their order and a few at a time, so that what arrives
    meanwhile does not wait. Like the writer it belongs to one thread, except for ``keep``,
    ``span_s`` and the counts.

    :param folder: of the file, for messages about it.
    :param span_s: how many seconds to hold.
    :param max_bytes: of memory: with large images it holds fewer seconds.
    """

    proposals = True  # stored in a file that has room for them

    def __init__(self, folder: Path, span_s: float, max_bytes: int) -> None:
        self.expected_rate_hz: float | None = None
        self.full: DiskFull | None = None  # as of the writer
        self._folder = folder
        self._span_ns = round(span_s * NANOSECONDS)
        self._max_bytes = max_bytes
        self._bytes = 0  # of ``_rows``
        self._frames = 0  # in memory
        self._newest_ns = 0
        self._proposed = False
        self._rows: deque[_Row] = deque()
        self._latched = _Latched()
        self._late: dict[str, str] = {}
        self._create: Create | None = None
        self._file: EpisodeWriter | None = None

    @property
    def part_path(self) -> Path:
        """The file until ``close``; before there is one, only its folder is right."""
        return self._folder / 'black box' if self._file is None else self._file.part_path

    @property
    def frames(self) -> int:
        """Frames in memory and in the file."""
        return self._frames + (0 if self._file is None else self._file.frames)

    @property
    def commands(self) -> int:
        """Commands in the file."""
        return 0 if self._file is None else self._file.commands

    @property
    def messages(self) -> int:
        """Messages of other topics in the file."""
        return 0 if self._file is None else self._file.messages

    @property
    def bytes_written(self) -> int:
        """Bytes of the images in the file."""
        return 0 if self._file is None else self._file.bytes_written

    @property
    def health(self) -> Health | None:
        """The verdict, after ``close``."""
        return None if self._file is None else self._file.health

    @property
    def span_s(self) -> float:
        """How many seconds are held."""
        try:
            held_ns = self._newest_ns - self._rows[0].steady_ns  # more: it is latched
            return min(held_ns, self._span_ns) / NANOSECONDS
        except IndexError:
            return 0.0

    def keep(self, create: Create) -> None:
        """
        Make the rows an episode from now on.

        :param create: called in the thread that this object belongs to.
        """
        self._create = create

    def add_frame(
        self, encoded: bytes, stamp_ns: int, received_ns: int, steady_ns: int | None = None
    ) -> None:
        """Add one encoded image (``EpisodeWriter.add_frame``)."""
        self._frames += 1
        times = received_ns, steady_ns
        self._add(
            lambda file: file.add_frame(encoded, stamp_ns, *times), *times, len(encoded), FRAMES
        )

    def add_command(self, command: Command) -> None:
        """Add one command."""
        self._add(lambda file: file.add_command(command), command.received_ns, command.steady_ns)

    def add_proposal(
        self, twist: np.ndarray, stamp_ns: int, received_ns: int, steady_ns: int | None = None
    ) -> None:
        """Add a policy's proposal (``EpisodeWriter.add_proposal``)."""
        times = received_ns, steady_ns
        self._proposed = True

        def add(file: EpisodeWriter) -> None:
            if file.proposals:  # the first one may come after the file was made
                file.add_proposal(twist, stamp_ns, *times)

        self._add(add, *times)

    def add_message(
        self,
        channel: Channel,
        data: bytes,
        stamp_ns: int,
        received_ns: int,
        steady_ns: int | None = None,
    ) -> None:
        """Add a message of another topic (``EpisodeWriter.add_message``); a latched one stays."""
        times = received_ns, steady_ns

        def add(file: EpisodeWriter) -> None:
            file.add_message(channel, data, stamp_ns, *times)

        latched = (channel.topic, data) if channel.latched else None
        self._add(add, *times, len(data), messages_of(channel.topic), latched)

    def add_event(
        self, name: str, time_ns: int, text: str = '', *, steady_ns: int | None = None
    ) -> None:
        """Add one event (``EpisodeWriter.add_event``)."""

        def add(file: EpisodeWriter) -> None:
            file.add_event(name, time_ns, text, steady_ns=steady_ns)

        self._add(add, time_ns, steady_ns)

    def set_late(self, **values: str) -> None:
        """Set attributes that change (``EpisodeWriter.set_late``)."""
        self._late |= values
        if self._file is not None:
            self._file.set_late(**values)

    def flush_if_due(self, now_ns: int) -> bool:
        """
        Pass rows on to the file, if there is to be one, and flush it.

        :raises DiskFull: as the writer; no frame is left here then.
        :raises UserError: when the file cannot be made.
        """
        if self._create is None:
            return False
        file = self._opened()
        try:
            self._pass_on(ROWS_A_STEP)
            return file.flush_if_due(now_ns)
        except DiskFull as full:
            raise self._without_bulk(file, full) from None

    def close(self, outcome: str = 'unknown') -> Path:
        """Write everything that is left, and close the file (``EpisodeWriter.close``)."""
        file = self._opened()
        try:
            self._pass_on(len(self._rows))
        except DiskFull as full:
            self.full = self._without_bulk(file, full)
            self._pass_on(len(self._rows))  # what is no frame has its room
        file.expected_rate_hz = self.expected_rate_hz
        path = file.close(outcome)
        self.full = self.full or file.full
        return path

    def discard(self) -> None:
        """Forget the rows, and delete the file."""
        self._rows.clear()
        if self._file is not None:
            self._file.discard()

    def abandon(self) -> None:
        """Close the file as it is, after an error."""
        if self._file is not None:
            self._file.abandon()

    def _add(
        self,
        add: Callable[[EpisodeWriter], None],
        received_ns: int,
        steady_ns: int | None,
        size: int = 0,
        of: str = '',
        latched: tuple[str, bytes] | None = None,
    ) -> None:
        time_ns = received_ns if steady_ns is None else steady_ns
        row = _Row(add, received_ns, time_ns, size + ROW_BYTES, of, latched)
        self._rows.append(row)
        self._bytes += row.size
        self._newest_ns = max(self._newest_ns, time_ns)
        if self._create is None:
            self._give_way()

    def _give_way(self) -> None:
        """Forget the oldest rows while they are too old or too much; latched messages stay."""
        oldest_ns = self._newest_ns - self._span_ns
        while self._rows and (
            self._bytes + self._latched.size > self._max_bytes
            or self._rows[0].steady_ns < oldest_ns
        ):
            row = self._remove_oldest()
            if row.latched is not None:
                self._latched.hold(row.latched, row, LATCHED_SHARE * self._max_bytes)

    def _remove_oldest(self) -> _Row:
        row = self._rows.popleft()
        self._bytes -= row.size
        self._frames -= row.of == FRAMES
        return row

    def _opened(self) -> EpisodeWriter:
        """Return the file; make it first."""
        if self._file is None:
            assert self._create is not None, 'only what is to be kept is closed'
            file = self._file = self._create(self._proposed)
            file.set_late(**self._late)
            if self._rows:
                first = self._rows[0]
                file.add_event('start', first.received_ns, steady_ns=first.steady_ns)
                for of, count in self._latched.lost.items():
                    name, text = loss(count, of, 'latched, and no room in the black box')
                    file.add_event(name, first.received_ns, text, steady_ns=first.steady_ns)
            # In front of the others, so that they count as lost where the disk is full.
            self._rows.extendleft(reversed(self._latched.rows.values()))
            self._bytes += self._latched.size
            self._latched = _Latched()
        return self._file

    def _pass_on(self, count: int) -> None:
        file = self._opened()
        for _ in range(min(count, len(self._rows))):
            self._remove_oldest().add(file)

    def _without_bulk(self, file: EpisodeWriter, full: DiskFull) -> DiskFull:
        """Drop and count the frames and messages that are left: the disk has no room for them."""
        lost = Counter(row.of for row in self._rows if row.of)
        self._rows, self._frames = deque(row for row in self._rows if not row.of), 0
        time_ns, steady_ns = file.last
        for of, count in lost.items():
            name, text = loss(count, of, DISK_FULL)
            file.add_event(name, time_ns, text, steady_ns=steady_ns)
        return DiskFull(self._folder, lost + full.lost)
