"""
The files of a bag, read as a stranger's: MCAP and SQLite, whole or cut short.

Nothing in a file is believed beyond its own bytes: what a chunk or a message may need is bounded,
and the definitions of message types are kept, not parsed.
"""

import os
import shutil
import sqlite3
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import lz4.frame

from mobile_vla_ros.episode.storage.disk import free_bytes
from mobile_vla_ros.errors import UserError

if sys.version_info >= (3, 14):  # lz4 and zstd come with rosbags
    from compression import zstd
else:
    from backports import zstd

MAX_BYTES = 1 << 26  # of a chunk or a message; a raw image of 22 megapixels
MAX_RATIO = 1000  # of a file compressed as a whole
MIN_FREE_BYTES = 1 << 28  # to leave on the disk that it is decompressed on
MAX_PARTS = 1 << 20
MAX_NAME = 4096
MAX_SCHEMA, MAX_DEFINITIONS = 1 << 16, 1000  # bytes of a schema; how many of their texts are kept
CHUNK_HEAD_BYTES = 64  # at most, of what comes before the records in a chunk
MAGIC = b'\x89MCAP0\r\n'
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, INDEX = range(1, 8)
CDR = 'cdr'


class Topic(NamedTuple):
    """
    A topic with messages.

    :param encoding: of its messages: ``cdr`` in ROS 2.
    """

    name: str
    type: str
    encoding: str = CDR


class Message(NamedTuple):
    """
    One message of a file.

    :param time_ns: the bag's time of it.
    :param place: where it is in the file: later ones are greater.
    :param data: CDR; None when it is larger than ``MAX_BYTES``.
    """

    time_ns: int
    place: tuple[int, int]
    topic: Topic
    data: bytes | None


class BagFile(Protocol):
    """
    One file of a bag; closed by ``close``.

    :ivar topics: those with messages, in no order.
    :ivar silent: those without.
    :ivar definitions: of the types of topics, where the file has them (``ros2msg``).
    :ivar note: what is missing of the file, in words; '' if it is whole.
    """

    topics: set[Topic]
    silent: set[Topic]
    definitions: dict[Topic, str]
    note: str

    def messages(self, topics: Collection[Topic]) -> Iterator[Message]:
        """Yield the messages of some topics in the order in which the file has them."""

    def close(self) -> None:
        """Close the file."""


class Part(NamedTuple):
    """A chunk, or a message outside of any."""

    place: int
    size: int
    is_chunk: bool


class McapFile:
    """
    An MCAP file; of one that is cut short, everything up to the cut.

    :raises UserError: when it is not one, or needs more memory than ``MAX_BYTES`` at a place.
    """

    def __init__(self, path: Path) -> None:
        self.note = ''
        self._file = path.open('rb')
        self._end = os.fstat(self._file.fileno()).st_size
        self._schemas: dict[int, tuple[str, str]] = {}  # name and definition of a type
        self.definitions: dict[Topic, str] = {}
        self._channels: dict[int, Topic] = {}
        self._counts: Counter[int] = Counter()
        self._parts: list[Part] = []
        try:
            self.profile, indexed = self._walk()
            if not indexed or self.note or not self._counts.keys() <= self._channels.keys():
                self._look_inside()
        except BaseException:
            self.close()
            raise
        self.topics = {self._channels[one] for one in self._counts if one in self._channels}
        self.silent = set(self._channels.values()) - self.topics

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, topics: Collection[Topic]) -> Iterator[Message]:
        """Yield the messages of some topics in the order in which the file has them."""
        wanted = {number: one for number, one in self._channels.items() if one in topics}
        for part in self._parts:
            for offset, operation, body in self._records_of(part):
                if operation != MESSAGE or len(body) < 22:
                    continue
                number, _, time_ns = struct.unpack_from('<HIQ', body)
                if number in wanted:
                    data = bytes(body[22:])  # a slice would keep the whole chunk
                    yield Message(time_ns, (part.place, offset), wanted[number], data)

    def _walk(self) -> tuple[str, bool]:
        """Walk the records outside of chunks; return the profile, and if there are indexes."""
        file = self._file
        if file.read(8) != MAGIC:
            raise UserError('it is not an MCAP file', got='other first bytes')
        profile, indexed, place, ended = '', False, 8, False
        while not ended and place + 9 <= self._end:
            file.seek(place)
            operation, size = struct.unpack('<BQ', file.read(9))
            cut = place + 9 + size > self._end
            head = file.read(min(size, 2 * MAX_NAME if operation != SCHEMA else MAX_SCHEMA))
            if cut and (operation != CHUNK or len(head) < CHUNK_HEAD_BYTES):
                break
            if operation == HEADER:
                profile = _text(head, 0)[0]
            elif operation == CHUNK and len(head) >= 28:
                self._add(Part(place, min(size, self._end - place - 9), True))
            elif operation == INDEX and len(head) >= 6:
                indexed = True
                number, length = struct.unpack_from('<HI', head)
                self._counts[number] += length // 16
            elif operation == MESSAGE and len(head) >= 22:
                self._counts[struct.unpack_from('<H', head)[0]] += 1
                self._add(Part(place, size, False))
            else:
                self._note(operation, head)
                ended = operation == FOOTER
            place += 9 + size
        if not ended:
            self.note = 'it is cut short: its messages up to there were read'
        return profile, indexed

    def _add(self, part: Part) -> None:
        if len(self._parts) >= MAX_PARTS:
            raise UserError('it has too many pieces', expected=f'at most {MAX_PARTS} chunks')
        self._parts.append(part)

    def _note(self, operation: int, body: bytes | memoryview) -> None:
        """Keep the name and definition of a schema, or a channel."""
        try:
            if operation == SCHEMA:
                (name, end), (number,) = _text(body, 2), struct.unpack_from('<H', body)
                encoding, end = _text(body, end)
                more = encoding == 'ros2msg' and len(self._schemas) < MAX_DEFINITIONS
                self._schemas[number] = name, _text(body, end, MAX_SCHEMA)[0] if more else ''
            elif operation == CHANNEL:
                number, schema = struct.unpack_from('<HH', body)
                name, end = _text(body, 4)
                encoding, _ = _text(body, end)
                kind, definition = self._schemas.get(schema, ('', ''))
                self._channels[number] = topic = Topic(name, kind, encoding)
                self.definitions[topic] = definition
        except struct.error:
            pass  # too short to be one

    def _look_inside(self) -> None:
        """Read schemas and channels, and count messages, in the chunks."""
        self._counts.clear()
        for part in self._parts:
            for _, operation, body in self._records_of(part):
                if operation == MESSAGE and len(body) >= 22:
                    self._counts[struct.unpack_from('<H', body)[0]] += 1
                else:
                    self._note(operation, body)

    def _records_of(self, part: Part) -> Iterator[tuple[int, int, memoryview]]:
        """Yield (offset, operation, body) of the whole records in a part."""
        if part.size > MAX_BYTES:
            raise too_large('a record', part.size)
        self._file.seek(part.place + 9)
        stored = memoryview(self._file.read(part.size))
        if not part.is_chunk:
            yield 0, MESSAGE, stored
            return
        data, place = memoryview(_chunk(stored)), 0
        del stored
        while place + 9 <= len(data):
            operation, size = struct.unpack_from('<BQ', data, place)
            if place + 9 + size > len(data):
                return
            yield place, operation, data[place + 9 : place + 9 + size]
            place += 9 + size


def _chunk(body: memoryview) -> bytes | memoryview:
    """Return the records in a chunk, as far as they go."""
    size, checksum = struct.unpack_from('<QI', body, 16)
    compression, end = _text(body, 28)
    stored = body[end + 8 :]
    if size > MAX_BYTES:
        raise too_large('a chunk', size)
    if compression == '':
        return stored
    if compression == 'zstd':
        data = inflate(stored, size)
    elif compression == 'lz4':
        data = lz4.frame.LZ4FrameDecompressor().decompress(stored, size + 1)
    else:
        raise UserError('a chunk has an unknown compression', got=compression[:40])
    if len(data) > size:
        raise UserError('a chunk is larger than it says', got=f'more than {size} bytes')
    if checksum and len(data) == size and zlib.crc32(data) != checksum:
        raise UserError('a chunk is damaged', got='another checksum')
    return data


def inflate(stored: bytes | memoryview, limit: int) -> bytes:
    """Return bytes compressed with zstd, as far as they go; at most one more than the limit."""
    pieces, size = [], 0
    while stored and size <= limit:
        decompressor = zstd.ZstdDecompressor()
        pieces.append(decompressor.decompress(stored, limit + 1 - size))
        size += len(pieces[-1])
        if not decompressor.eof:
            break
        stored = decompressor.unused_data
    return b''.join(pieces)


def inflate_file(stored: Path, target: Path) -> None:
    """
    Write a file that was compressed as a whole (zstd) as it was before.

    :raises UserError: when it grows beyond ``MAX_RATIO``, or the disk has no room for it.
    """
    limit, size = MAX_RATIO * stored.stat().st_size, 0
    with stored.open('rb') as source, zstd.open(source) as whole, target.open('xb') as file:
        while block := whole.read(1 << 20):
            size += len(block)
            if size > limit:
                raise UserError(
                    'it grows too much when it is decompressed',
                    got=f'{size} bytes',
                    expected=f'at most {MAX_RATIO} times its own size',
                )
            if free_bytes(target.parent) < MIN_FREE_BYTES + len(block):
                raise UserError(
                    'the disk has no room for what it is when it is decompressed',
                    got=f'{size} bytes and more',
                    remedy='make room, or choose another --out',
                )
            file.write(block)


def too_large(what: str, size: int) -> UserError:
    """Return the error for a part of a bag beyond the limit."""
    return UserError(
        f'{what} is too large', got=f'{size} bytes', expected=f'at most {MAX_BYTES} bytes'
    )


def _text(body: bytes | memoryview, place: int, most: int = MAX_NAME) -> tuple[str, int]:
    """Return a text of at most ``most`` bytes in a record, and where it ends."""
    (size,) = struct.unpack_from('<I', body, place)
    end = place + 4 + size
    if size > most or end > len(body):
        raise struct.error
    return bytes(body[place + 4 : end]).decode(errors='replace'), end


class SqliteFile:
    """
    A SQLite file.

    :param folder: for a copy, where the file has a log of writes beside it.
    :raises sqlite3.Error: when it is broken, or not one of rosbag2.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.note = ''
        self.definitions: dict[Topic, str] = {}
        logs = [path.with_name(path.name + end) for end in ('-wal', '-journal')]
        logs = [log for log in logs if log.is_file() and log.stat().st_size]
        if logs:  # reading them writes: into a copy, not into the user's files
            for one in (path, *logs):
                shutil.copyfile(one, folder / one.name)
            path = folder / path.name
        end = '' if logs else '?mode=ro&immutable=1'
        self._db = sqlite3.connect(f'{path.absolute().as_uri()}{end}', uri=True)
        try:
            self._db.execute('PRAGMA trusted_schema = OFF')
            kinds = self._db.execute(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table' "
                "AND name IN ('topics', 'messages')"
            ).fetchone()
            if kinds != (2,):
                raise sqlite3.DatabaseError('no tables of rosbag2')
            self._topics = {
                number: Topic(str(name), str(kind), str(encoding))
                for number, name, kind, encoding in self._db.execute(
                    'SELECT id, name, type, serialization_format FROM topics'
                )
            }
            used = {
                number for (number,) in self._db.execute('SELECT DISTINCT topic_id FROM messages')
            }
        except BaseException:
            self.close()
            raise
        self.topics = {one for number, one in self._topics.items() if number in used}
        self.silent = set(self._topics.values()) - self.topics

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def messages(self, topics: Collection[Topic]) -> Iterator[Message]:
        """Yield the messages of some topics in the order in which the file has them."""
        numbers = [number for number, one in self._topics.items() if one in topics]
        marks = ','.join('?' * len(numbers))
        for row, number, time_ns in self._db.execute(
            f'SELECT rowid, topic_id, timestamp FROM messages WHERE topic_id IN ({marks}) '
            'ORDER BY rowid',
            numbers,
        ):
            (data,) = self._db.execute(
                'SELECT CASE WHEN length(data) <= ? THEN data END FROM messages WHERE rowid = ?',
                (MAX_BYTES, row),
            ).fetchone()
            if not isinstance(time_ns, int):
                raise sqlite3.DatabaseError('a time that is not a number')
            yield Message(time_ns, (0, row), self._topics[number], data)
