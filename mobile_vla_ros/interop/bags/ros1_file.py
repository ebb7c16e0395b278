"""
A bag of ROS 1 (``.bag``, version 2.0), whole, without its index, or cut short.

The format is that of http://wiki.ros.org/Bags/Format/2.0. As of any bag, nothing is believed
beyond the file's own bytes, and messages come in the order in which they were written.
"""

import bz2
import os
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import lz4.frame
from rosbags.typesys.msg import normalize_msgtype

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.bags.bag_files import MAX_BYTES, MAX_PARTS, Message, Topic, too_large
from mobile_vla_ros.types import NANOSECONDS

MAGIC = b'#ROSBAG V2.0\n'
MESSAGE, BAG, INDEX, CHUNK, CHUNK_INFO, CONNECTION = range(2, 8)
MAX_HEADER, MAX_CONNECTION = 1 << 16, 1 << 20  # bytes of the fields of a record, a connection
ROS1 = 'ros1'
DECOMPRESSORS = {'bz2': bz2.BZ2Decompressor, 'lz4': lz4.frame.LZ4FrameDecompressor}
Fields = dict[bytes, bytes]


class Ros1File:
    """
    A ``BagFile`` of ROS 1; its types have the names that they have in ROS 2.

    :raises UserError: when it is not one, or needs more memory than ``MAX_BYTES`` at a place.
    """

    def __init__(self, path: Path) -> None:
        self.note = ''
        self.definitions: dict[Topic, str] = {}  # the messages are given as those of ROS 2
        self._file = path.open('rb')
        self._end = os.fstat(self._file.fileno()).st_size
        self._connections: dict[int, Topic] = {}
        self._counts: Counter[int] = Counter()
        self._chunks: list[tuple[int, int, Fields]] = []  # place and size of the data, header
        try:
            self._walk()
            if self.note or not self._counts.keys() <= self._connections.keys():
                self._look_inside()
        except BaseException:
            self.close()
            raise
        used = (self._connections.get(one) for one, count in self._counts.items() if count)
        self.topics = {one for one in used if one}
        self.silent = set(self._connections.values()) - self.topics

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, topics: Collection[Topic]) -> Iterator[Message]:
        """Yield the messages of some topics in the order in which the file has them."""
        wanted = {number: one for number, one in self._connections.items() if one in topics}
        for part in range(len(self._chunks)):
            for offset, fields, data in self._records_of(part):
                if _number(fields, b'op') == MESSAGE and _number(fields, b'conn') in wanted:
                    seconds, nanoseconds = struct.unpack('<II', fields[b'time'])
                    topic = wanted[_number(fields, b'conn')]
                    time_ns = seconds * NANOSECONDS + nanoseconds
                    yield Message(time_ns, (part, offset), topic, bytes(data))

    def _walk(self) -> None:
        """Walk the records outside of chunks."""
        file = self._file
        if file.read(len(MAGIC)) != MAGIC:
            raise UserError('it is not a ROS 1 bag of version 2.0', got='other first bytes')
        place, closed = len(MAGIC), False
        while place + 8 <= self._end:
            file.seek(place)
            (size,) = struct.unpack('<I', file.read(4))
            if size > MAX_HEADER or place + 8 + size > self._end:
                break
            fields = _fields(file.read(size))
            (length,) = struct.unpack('<I', file.read(4))
            place += 8 + size
            operation = _number(fields, b'op')
            if operation == CHUNK:
                if len(self._chunks) >= MAX_PARTS:
                    raise UserError(
                        'it has too many pieces', expected=f'at most {MAX_PARTS} chunks'
                    )
                self._chunks.append((place, min(length, self._end - place), fields))
            elif place + length > self._end:
                break
            elif operation == BAG:
                closed = _number(fields, b'index_pos') > 0
            elif operation == INDEX:
                self._counts[_number(fields, b'conn')] += _number(fields, b'count')
            elif operation == CONNECTION:
                self._connect(fields, file.read(min(length, MAX_CONNECTION)))
            place += length
        if not closed or place != self._end:
            self.note = 'it is cut short: its messages up to there were read'

    def _look_inside(self) -> None:
        """Read connections, and count messages, in the chunks."""
        self._counts.clear()
        for part in range(len(self._chunks)):
            for _, fields, data in self._records_of(part):
                if _number(fields, b'op') == MESSAGE:
                    self._counts[_number(fields, b'conn')] += 1
                elif _number(fields, b'op') == CONNECTION:
                    self._connect(fields, bytes(data[:MAX_CONNECTION]))

    def _connect(self, fields: Fields, data: bytes) -> None:
        kind = _fields(data).get(b'type', b'').decode(errors='replace')
        name = fields.get(b'topic', b'').decode(errors='replace')
        if not kind or not name:
            self.note = self.note or 'a connection is damaged: its messages were not read'
            return
        kind = normalize_msgtype(kind)
        self._connections[_number(fields, b'conn')] = Topic(name, kind, ROS1)

    def _records_of(self, part: int) -> Iterator[tuple[int, Fields, memoryview]]:
        """Yield (offset, fields, data) of the whole records in a chunk."""
        start, length, about = self._chunks[part]
        compression, size = about[b'compression'].decode(), _number(about, b'size')
        if max(size, length) > MAX_BYTES:
            raise too_large('a chunk', max(size, length))
        self._file.seek(start)
        data = self._file.read(length)
        if compression != 'none':
            if compression not in DECOMPRESSORS:
                raise UserError('a chunk has an unknown compression', got=compression[:40])
            data = DECOMPRESSORS[compression]().decompress(data, size + 1)
        if len(data) > size:
            raise UserError('a chunk is larger than it says', got=f'more than {size} bytes')
        view, place = memoryview(data), 0
        while place + 8 <= len(data):
            (head,) = struct.unpack_from('<I', data, place)
            body = place + 8 + head
            if body > len(data):
                return
            (length,) = struct.unpack_from('<I', data, body - 4)
            if body + length > len(data):
                return
            yield place, _fields(view[place + 4 : body - 4]), view[body : body + length]
            place = body + length


def _fields(data: bytes | memoryview) -> Fields:
    """Return the fields of a header by name."""
    found, place = {}, 0
    while place + 4 <= len(data):
        (size,) = struct.unpack_from('<I', data, place)
        name, _, value = bytes(data[place + 4 : place + 4 + size]).partition(b'=')
        found[name] = value
        place += 4 + size
    return found


def _number(fields: Fields, name: bytes) -> int:
    return int.from_bytes(fields.get(name, b''), 'little')
