"""Rows of bytes in one dataset, one after another: images, and messages of other topics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import h5py
import numpy as np

from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.hdf5_gate import MALFORMED, MAX_IMAGE_BYTES
from mobile_vla_ros.errors import UserError, first_line

MAX_DEFINITION_BYTES = 1 << 20
MAX_CHANNELS = 1000
SPAN_BYTES = 4 << 20  # read at once: every HDF5 read costs as much as many bytes


def misfit(known: Mapping[str, Channel], channel: Channel, data: bytes) -> str:
    """
    Return why no episode can hold a message: ``read_topics`` would refuse it; '' if one can.

    :param known: the channels that it holds already, by topic.
    """
    if not 0 < len(data) <= MAX_IMAGE_BYTES:
        return f'empty, or more than {MAX_IMAGE_BYTES >> 20} MB'
    if channel.topic in known:
        return '' if known[channel.topic] == channel else 'the topic has another type by now'
    if len(known) >= MAX_CHANNELS:
        return f'the episode holds {MAX_CHANNELS} topics already'
    named = 0 < len(channel.topic.encode()) <= schema.TOPIC_BYTES
    if not named or len(channel.definition.encode()) > MAX_DEFINITION_BYTES:
        return 'the name of the topic, or the definition of its type, is too long'
    return ''


class ByteRows:
    """
    Pieces of one dataset of bytes, in order.

    ``count`` leaves out the last rows if their bytes are not stored: a kill in the middle of a
    flush can leave such rows. All rows together have at most the bytes that are stored.

    :param what: the rows in one word, and the group that holds ``offset`` and ``size``.
    :param offset: (N,) int64 first byte of each row; size: (N,) int32 bytes.
    :param most: rows that a flush may leave without bytes.
    :param limits: fewest and most bytes of a row.
    :raises OSError: when more rows are left out than that, or rows overlap.
    """

    def __init__(
        self,
        what: tuple[str, str],
        stored: h5py.Dataset,
        offset: np.ndarray,
        size: np.ndarray,
        *,
        most: int,
        limits: tuple[int, int] = (1, MAX_IMAGE_BYTES),
    ) -> None:
        self._stored, self._first, self._end = stored, offset, offset + size
        word, self._group = what
        room = min(len(stored), stored.id.get_storage_size())
        self._fits = (offset >= 0) & (size >= limits[0]) & (size <= limits[1])
        self._fits &= self._end <= room
        self._fits[1:] &= offset[1:] >= np.where(self._fits, self._end, 0)[:-1]
        self.count = int(np.flatnonzero(self._fits)[-1]) + 1 if self._fits.any() else 0
        if len(offset) - self.count > most:
            raise OSError(f'its last {len(offset) - self.count} {word} cannot be read')
        claimed = int(size[self._fits].sum(dtype=np.int64))
        if claimed > room:
            raise OSError(
                f'{self._group}/size adds up to {claimed} bytes, of which {room} are stored'
            )

    def __getitem__(self, row: int) -> np.ndarray:
        """Return the bytes of one row."""
        if not self._fits[row]:
            raise OSError(
                f'row {row} of {self._group}/offset and {self._group}/size is impossible'
            )
        return np.asarray(self._stored[self._first[row] : self._end[row]])

    def readable(self, rows: np.ndarray) -> Iterator[bytes]:
        """Yield the bytes of these rows, which increase; b'' for one that cannot be read."""
        fits = self._fits[rows]
        whole = read_rows(self._stored, self._first[rows[fits]], self._end[rows[fits]])
        return (next(whole) if one else b'' for one in fits.tolist())


def read_rows(
    stored: h5py.Dataset, first: np.ndarray, end: np.ndarray, most: int = SPAN_BYTES
) -> Iterator[bytes]:
    """
    Yield rows of a dataset of bytes, those that are neighbours at once; b'' for unreadable ones.

    :param first, end: (N,) int64 bytes where each begins and ends; most: bytes at once.
    """
    gap = first[1:] - end[:-1]
    near = (gap >= 0) & (gap <= schema.IMAGE_CHUNK_BYTES)
    row = 0
    while row < len(first):
        at, stop = first[row], row + 1
        while stop < len(first) and near[stop - 1] and end[stop] - at <= most:
            stop += 1
        try:
            span = stored[at : end[stop - 1]].tobytes()
        except MALFORMED:
            span = b''
        if not span and stop - row > 1:
            yield from read_rows(stored, first[row:stop], end[row:stop], most=0)
        else:
            ends = zip(first[row:stop] - at, end[row:stop] - at, strict=True)
            yield from (span[one:other] for one, other in ends)
        row = stop


@dataclass(frozen=True)
class Messages(Sequence[bytes]):
    """
    The messages of one topic, in the order of arrival; ``messages[i]`` reads the CDR bytes of one.

    :param stamp_ns: (N,) int64 header stamps; the receipt of a message without a header.
    :param received_ns: (N,) int64 times of receipt; steady_ns: on a clock that never steps.
    """

    topic: str
    stamp_ns: np.ndarray
    received_ns: np.ndarray
    steady_ns: np.ndarray
    _rows: np.ndarray
    _stored: ByteRows
    _path: Path

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        """
        Return one message as it arrived.

        :raises UserError: when the file is broken there.
        """
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        try:
            return bytes(self._stored[int(self._rows[index])])
        except MALFORMED as error:
            if isinstance(error, IndexError):
                raise
            raise UserError(
                f'{self._path} is broken at message {index} of {self.topic}',
                got=first_line(error),
                expected='the bytes of a message',
            ) from None

    def readable(self, rows: np.ndarray | slice = slice(None)) -> Iterator[bytes]:
        """Yield every message, or those of some rows; b'' for one that cannot be read."""
        return self._stored.readable(self._rows[rows])


@dataclass(frozen=True)
class TopicRows:
    """
    The messages of all extra topics of an episode.

    :param channels: of the topics, in the order of their first messages.
    :param channel: (N,) int64 which of them a message belongs to; the times as in ``Messages``.
    """

    channels: Sequence[Channel]
    stored: ByteRows
    channel: np.ndarray
    stamp_ns: np.ndarray
    received_ns: np.ndarray
    steady_ns: np.ndarray
    rows: np.ndarray

    def shown(self, first_ns: int, last_ns: int) -> 'TopicRows':
        """
        Return the messages between two steady times.

        The earlier ones of latched topics are among them: they are still in force.
        """
        latched = np.array([one.latched for one in self.channels], bool)[self.channel]
        kept = (self.steady_ns <= last_ns) & (latched | (self.steady_ns >= first_ns))
        columns = {
            name: getattr(self, name)[kept]
            for name in ('channel', 'stamp_ns', 'received_ns', 'steady_ns', 'rows')
        }
        return replace(self, **columns)

    def topics(self) -> dict[str, Channel]:
        """Return the channels by topic, with the number of their messages."""
        counts = np.bincount(self.channel, minlength=len(self.channels)).tolist()
        return {
            one.topic: replace(one, count=count)
            for one, count in zip(self.channels, counts, strict=True)
        }

    def of(self, topic: str, path: Path) -> Messages:
        """Return the messages of a topic; path: of the episode, for messages about it."""
        names = [one.topic for one in self.channels]
        mine = np.flatnonzero(self.channel == names.index(topic))
        return Messages(
            topic,
            self.stamp_ns[mine],
            self.received_ns[mine],
            self.steady_ns[mine],
            self.rows[mine],
            self.stored,
            path,
        )


def read_topics(
    stored: h5py.Dataset, channels: Sequence[np.ndarray], messages: Sequence[np.ndarray]
) -> TopicRows:
    """
    Return the messages of a file.

    :param stored: ``schema.MESSAGE_BYTES``.
    :param channels: columns topic, type, type_hash, latched, offset and size of ``channels``.
    :param messages: columns channel, offset, size and the three times of ``messages``.
    :raises OSError: when rows are impossible; ValueError: when channels are.
    """
    *words, latched, offset, size = channels
    if len(latched) > MAX_CHANNELS:
        raise ValueError(f'it has {len(latched)} channels, more than {MAX_CHANNELS}')
    limits = 0, MAX_DEFINITION_BYTES
    texts = ByteRows(
        ('channels', 'channels'), stored, offset, size, most=MAX_CHANNELS, limits=limits
    )
    found = []
    for row in range(texts.count):
        topic, kind, type_hash = (column[row].decode() for column in words)
        definition = bytes(texts[row]).decode()
        found.append(Channel(topic, kind, definition, type_hash, bool(latched[row])))
    names = [one.topic for one in found]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError('channels/topic names a topic twice, or none')
    channel, offset, size, stamp_ns, received_ns, steady_ns = messages
    rows = ByteRows(
        ('messages', 'messages'), stored, offset, size, most=schema.MAX_UNREADABLE_MESSAGES
    )
    known = np.flatnonzero(channel[: rows.count] < len(found))
    count = int(known[-1]) + 1 if len(known) else 0
    if rows.count - count > schema.MAX_UNREADABLE_MESSAGES or len(known) < count:
        raise ValueError('messages/channel names a channel that channels/topic does not have')
    return TopicRows(
        found,
        rows,
        channel[:count].astype(np.int64),
        stamp_ns[:count],
        received_ns[:count],
        steady_ns[:count],
        np.arange(count),
    )
