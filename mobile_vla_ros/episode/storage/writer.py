"""Write one episode so that it is whole, or readable, however the process ends."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros.episode.odometry import odometry_topic, read_odometry
from mobile_vla_ros.episode.quality import verdict
from mobile_vla_ros.episode.quality.image_quality import ImageTally
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage import disk, schema
from mobile_vla_ros.episode.storage.byte_rows import misfit
from mobile_vla_ros.episode.storage.part_file import MARGIN_BYTES, PartFile
from mobile_vla_ros.episode.timing.base_estimate import estimate
from mobile_vla_ros.episode.timing.command_rule import known_rule
from mobile_vla_ros.episode.timing.receipts import without_steps
from mobile_vla_ros.episode.timing.timeline import frame_times
from mobile_vla_ros.types import NANOSECONDS, SOURCES, Command

# Overhead per row: its share of the HDF5 chunks.
ROW_BYTES = 512
CLOSE_BYTES = 128 * 1024
MAX_ROWS = 1024  # of commands and of events between two flushes: they fit into the margin
MAX_PENDING_BYTES = 8 << 20  # of messages between two flushes
STREAMS = {
    'frames': ('stamp_ns', 'received_ns', 'steady_ns'),
    'commands': ('twist', 'stamp_ns', 'received_ns', 'steady_ns', 'source'),
    'events': ('time_ns', 'steady_ns', 'name', 'text'),
    'proposals': ('twist', 'stamp_ns', 'received_ns', 'steady_ns'),
    'channels': ('topic', 'type', 'type_hash', 'latched'),
    'messages': ('channel', 'stamp_ns', 'received_ns', 'steady_ns'),
}
# Streams whose rows have bytes, and also ``offset`` and ``size``, which say where these are.
BYTES_OF = {
    'frames': schema.IMAGE_BYTES,
    'channels': schema.MESSAGE_BYTES,
    'messages': schema.MESSAGE_BYTES,
}


@dataclass
class _Pending:
    """Rows since the last flush, each in the order of ``STREAMS``, and the bytes of some."""

    pieces: dict[str, list[bytes]] = field(
        default_factory=lambda: {stream: [] for stream in BYTES_OF}
    )
    rows: dict[str, list[tuple[Any, ...]]] = field(
        default_factory=lambda: {stream: [] for stream in STREAMS}
    )
    message_bytes: int = 0

    def __bool__(self) -> bool:
        return any(self.rows.values())

    @property
    def bulk_bytes(self) -> int:
        """Bytes that images and messages need in the file."""
        images = sum(map(len, self.pieces['frames']))
        return images + self.message_bytes + 2 * schema.IMAGE_CHUNK_BYTES

    @property
    def row_bytes(self) -> int:
        """Bytes that everything else needs in the file."""
        definitions = sum(map(len, self.pieces['channels']))
        return ROW_BYTES * sum(map(len, self.rows.values())) + definitions

    def write(self, part: PartFile) -> None:
        """Append everything to the file and forget it: the bytes of rows before the rows."""
        for stream, names in STREAMS.items():
            pieces = self.pieces.get(stream)
            if pieces:
                offsets = part.append_bytes(BYTES_OF[stream], pieces)
                part.append(f'{stream}/offset', offsets)
                part.append(f'{stream}/size', list(map(len, pieces)))
            for name, column in zip(names, zip(*self.rows[stream], strict=True), strict=False):
                part.append(f'{stream}/{name}', column)
            self.forget(stream)
        part.flush()

    def forget(self, stream: str) -> None:
        """Remove the rows of a stream."""
        self.rows[stream].clear()
        self.pieces.get(stream, []).clear()
        if stream == 'messages':
            self.message_bytes = 0


@dataclass
class _Counts:
    """Rows written or pending, by stream, and frames lost."""

    rows: Counter[str] = field(default_factory=Counter)
    drops: int = 0
    image_bytes: int = 0
    channels: dict[str, Channel] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # of the channels, by topic


class EpisodeWriter:
    """
    One episode on its way to disk.

    Rows are kept in memory until ``flush``, which writes them in one go; flushed rows survive the
    death of the process and are read back by ``Episode.open``. ``PartFile`` describes the names
    that the file has meanwhile.

    The blocks for a flush, and for the close, are reserved before HDF5 receives anything: on a
    full disk the pending frames are dropped and counted, and the episode can be closed.

    Not thread-safe: all methods must be called from one thread at a time. Times are the caller's;
    the writer reads no clock.
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
        messages: bool = False,
    ) -> None:
        """
        Create the folder if it is missing, and the file in it.

        :param created_ns: Unix time of the start, nanoseconds.
        :param flush_period_s: how long rows may stay in memory, for ``flush_if_due``.
        :param expected_rate_hz: the camera's rate, for the verdict; may be set later.
        :param timed: False if the caller invented the times; likewise for the verdict.
        :param episode_id: an existing id; None: a new one.
        :param hidden: keep the hidden name until ``close``: for an episode made from another file,
            which is worth nothing unless it is whole.
        :param proposals: whether to store proposals (``add_proposal``).
        :param messages: whether to store messages of other topics (``add_message``).
        :raises UserError: when the folder cannot be created or written.
        """
        self.expected_rate_hz, self.timed = expected_rate_hz, timed
        self._base_timeout_s = info.base_command_timeout_s
        self.proposals = proposals
        self.last = 0, 0  # receipt of the newest row, and its steady one
        self.health: verdict.Health | None = None
        self.full: disk.DiskFull | None = None  # what did not fit on closing
        self._flush_period_ns = int(flush_period_s * NANOSECONDS)
        self._flushed_ns: int | None = None
        self._pending = _Pending()
        self._counts = _Counts()
        self._tally = ImageTally()
        self._part = PartFile(
            Path(folder).expanduser(),
            info,
            created_ns,
            episode_id=episode_id or schema.new_episode_id(created_ns),
            hidden=hidden,
            optional={'proposals': proposals, 'messages': messages},
        )

    @property
    def episode_id(self) -> str:
        """``<UTC time>_<8 hex>``."""
        return self._part.episode_id

    @property
    def part_path(self) -> Path:
        """The file until ``close``."""
        return self._part.path

    @property
    def final_path(self) -> Path:
        """The file from ``close`` on."""
        return self._part.final_path

    @property
    def frames(self) -> int:
        """Frames written or pending."""
        return self._counts.rows['frames']

    @property
    def commands(self) -> int:
        """Commands written or pending."""
        return self._counts.rows['commands']

    @property
    def drops(self) -> int:
        """Frames lost."""
        return self._counts.drops

    @property
    def messages(self) -> int:
        """Messages of other topics, written or pending."""
        return self._counts.rows['messages']

    @property
    def bytes_written(self) -> int:
        """Bytes of the images written or pending."""
        return self._counts.image_bytes

    def add_frame(
        self, encoded: bytes, stamp_ns: int, received_ns: int, steady_ns: int | None = None
    ) -> None:
        """
        Store one encoded image (JPEG or PNG, not empty) with its header stamp and receipt.

        About one image a second is sampled for the verdict.

        :param steady_ns: see ``types.Command``.
        :raises DiskFull: when a flush was due and the disk has no room; see ``flush``.
        """
        if not encoded:
            raise ValueError('an encoded image has at least one byte')
        self._tally.add(encoded, received_ns)
        times = self._received(received_ns, steady_ns)
        self._pending.pieces['frames'].append(encoded)
        self._counts.image_bytes += len(encoded)
        self._add('frames', stamp_ns, *times)

    def add_command(self, command: Command) -> None:
        """Store one command."""
        times = self._received(command.received_ns, command.steady_ns)
        self._add(
            'commands', np.array(command.twist), command.stamp_ns, *times, SOURCES[command.source]
        )

    def add_proposal(
        self, twist: np.ndarray, stamp_ns: int, received_ns: int, steady_ns: int | None = None
    ) -> None:
        """
        Store a policy's proposal, driven or not; for a writer created with ``proposals``.

        :param twist: (6,) m/s and rad/s.
        :param stamp_ns: of the image that it is based on.
        :param steady_ns: see ``types.Command``.
        """
        times = self._received(received_ns, steady_ns)
        self._add('proposals', np.array(twist), stamp_ns, *times)

    def add_message(
        self,
        channel: Channel,
        data: bytes,
        stamp_ns: int,
        received_ns: int,
        steady_ns: int | None = None,
    ) -> None:
        """
        Store a message of another topic; for a writer created with ``messages``.

        :param channel: of its topic, always the same one.
        :param data: CDR as it arrived.
        :param stamp_ns: of its header; the receipt, of a message without one.
        :param steady_ns: see ``types.Command``.
        :raises DiskFull: as ``add_frame``; ValueError: when there is a ``misfit``.
        """
        wrong = self.misfit(channel, data)
        if wrong:
            raise ValueError(f'a message of {channel.topic}: {wrong}')
        pending, counts = self._pending, self._counts
        if channel.topic not in counts.channels:
            counts.numbers[channel.topic] = len(counts.channels)
            counts.channels[channel.topic] = channel
            pending.pieces['channels'].append(channel.definition.encode())
            self._add(
                'channels',
                schema.fixed_text(channel.topic, schema.TOPIC_BYTES),
                schema.fixed_text(channel.type, schema.TOPIC_BYTES),
                schema.fixed_text(channel.type_hash, schema.HASH_BYTES),
                channel.latched,
            )
        times = self._received(received_ns, steady_ns)
        pending.pieces['messages'].append(data)
        pending.message_bytes += len(data)
        self._add('messages', counts.numbers[channel.topic], stamp_ns, *times)

    def misfit(self, channel: Channel, data: bytes) -> str:
        """Return why the file cannot hold a message, '' if it can (``byte_rows.misfit``)."""
        return misfit(self._counts.channels, channel, data)

    def add_event(
        self, name: str, time_ns: int, text: str = '', *, steady_ns: int | None = None
    ) -> None:
        """
        Store one event.

        :param name: one of ``schema.EVENTS``; the frames of a ``drop`` count in the verdict.
        :param text: of what is lost: ``schema.loss``.
        :param steady_ns: see ``types.Command``.
        """
        if name not in schema.EVENTS:
            raise ValueError(f'unknown event {name!r}; known are {", ".join(schema.EVENTS)}')
        times = self._received(time_ns, steady_ns)
        if name == 'drop':
            self._counts.drops += schema.dropped_frames(text)
        self._add('events', *_event(times, name, text))

    def _received(self, received_ns: int, steady_ns: int | None) -> tuple[int, int]:
        """Return both receipts of a row, and store them unless a newer row came before."""
        times = received_ns, received_ns if steady_ns is None else steady_ns
        self.last = max(self.last, times, key=lambda one: one[1])
        return times

    def _add(self, stream: str, *row: Any) -> None:
        pending = self._pending
        self._counts.rows[stream] += 1
        pending.rows[stream].append(row)
        most = schema.FRAME_ROWS if stream == 'frames' else MAX_ROWS
        if len(pending.rows[stream]) >= most or pending.message_bytes >= MAX_PENDING_BYTES:
            self.flush()

    def flush_if_due(self, now_ns: int) -> bool:
        """
        Flush if the flush period has passed since the last time; return whether it did.

        :param now_ns: any clock that does not jump (a monotonic one), nanoseconds.
        """
        if self._flushed_ns is not None and now_ns - self._flushed_ns < self._flush_period_ns:
            return False
        self._flushed_ns = now_ns
        self.flush()
        return True

    def flush(self) -> None:
        """
        Hand every row to the operating system: flushed rows survive the death of the process.

        :raises DiskFull: when there is no room for the pending frames and messages. They are
            dropped whole and named in events; everything else is written, and ``close`` works.
        """
        pending = self._pending
        if not pending:
            return
        row_bytes = pending.row_bytes
        if self._part.reserve(pending.bulk_bytes + row_bytes + MARGIN_BYTES):
            pending.write(self._part)
            return
        lost = self._lose('frames') + self._lose('messages')
        if not self._part.reserve(row_bytes + CLOSE_BYTES):
            # Happens only if the disk reserves nothing and other processes filled it.
            lost += self._lose('commands') + self._lose('proposals')
        pending.write(self._part)
        if lost:
            raise disk.DiskFull(self.part_path.parent, lost)

    def _lose(self, stream: str) -> Counter[str]:
        """Forget the pending rows of a stream, with an event of each kind; return how many."""
        pending, counts = self._pending, self._counts
        topics, at = [*counts.channels], STREAMS[stream].index('received_ns')
        lost: Counter[str] = Counter()
        firsts: dict[str, tuple[int, int]] = {}
        for row in pending.rows[stream]:
            of = schema.messages_of(topics[row[0]]) if stream == 'messages' else stream
            firsts.setdefault(of, row[at : at + 2])
            lost[of] += 1
        for of, count in lost.items():
            name, text = schema.loss(count, of, disk.DISK_FULL)
            pending.rows['events'].append(_event(firsts[of], name, text))
        counts.rows[stream] -= lost.total()
        if stream == 'frames':
            counts.drops += lost.total()
            counts.image_bytes -= sum(map(len, pending.pieces[stream]))
            self._tally.cut(counts.rows[stream])
        pending.forget(stream)
        return lost

    def set_late(self, **values: str) -> None:
        """Rewrite attributes that change during recording: ``command_type``, ``frame_id``."""
        for name, text in values.items():
            self._part.set_text(name, text)

    def mark_recovered(self) -> None:
        """Mark in the file that it was completed after the death of its writer."""
        self._part.set_flag('recovered')

    def close(self, outcome: str = 'unknown') -> Path:
        """
        Write pending rows, the outcome and the verdict; make the episode durable and whole.

        Frames without room on the disk are dropped and counted, as in ``flush``.

        :param outcome: one of ``schema.OUTCOMES``.
        :returns: the path of the finished episode.
        :raises UserError: when a file of the final name exists; the episode keeps its ``.part``.
        """
        schema.check_outcome(outcome)
        try:
            self.flush()
        except disk.DiskFull as full:
            self.full = full
            self._pending.rows['events'].append(_event(self.last, 'problem', str(full)))
            self._pending.write(self._part)
        self.health = self._judged()
        self.set_late(outcome=outcome, health=json.dumps(self.health))
        self._part.set_flag('complete')
        return self._part.finish()

    def _judged(self) -> verdict.Health:
        """Return the verdict on what is in the file."""
        column, counts = self._part.column, self._counts
        topic, streams = odometry_topic(counts.channels.values()), ['frames', 'commands']
        streams += ['messages'] * (topic is not None)
        frames_ns, commands_ns, *messages_ns = without_steps(
            *(column(f'{stream}/steady_ns') for stream in streams)
        )
        stamp_ns, received_ns = column('frames/stamp_ns'), column('frames/received_ns')
        twist, odometry = column('commands/twist'), None
        if topic is not None:
            rows = np.flatnonzero(column('messages/channel') == counts.numbers[topic])
            odometry = read_odometry(self._part.messages(rows), messages_ns[0][rows])
        times_ns, _ = frame_times(stamp_ns, received_ns, frames_ns)
        rule = known_rule(self._base_timeout_s)
        return verdict.judge(
            frame_stamp_ns=stamp_ns,
            frame_received_ns=received_ns,
            frame_steady_ns=frames_ns,
            frozen=self._tally.frozen,
            command_steady_ns=commands_ns,
            twist=twist,
            drops=self.drops,
            broken=self._tally.broken,
            samples=self._tally.samples,
            expected_rate_hz=self.expected_rate_hz,
            timed=self.timed,
            rule=rule or estimate(times_ns, commands_ns, twist, self._part.image, odometry),
            odometry=odometry,
        )

    def discard(self) -> None:
        """Delete the episode."""
        self.abandon()
        self.part_path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Close the file as it is, after an error: the ``.part`` stays, to be recovered."""
        self._part.abandon()


def _event(times: tuple[int, int], name: str, text: str) -> tuple[Any, ...]:
    """Return the row of an event at a receipt and its steady time."""
    return (
        *times,
        schema.fixed_text(name, schema.EVENT_NAME_BYTES),
        schema.fixed_text(text, schema.EVENT_TEXT_BYTES),
    )
