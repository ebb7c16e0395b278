"""MCAP files record by record, as no writer makes them."""

import struct

import lz4.frame
from backports import zstd

from bags import STORE

MAGIC = b'\x89MCAP0\r\n'
COMPRESS = {'': bytes, 'zstd': zstd.compress, 'lz4': lz4.frame.compress}


def text(value: str) -> bytes:
    """Return a text as a field."""
    return struct.pack('<I', len(value)) + value.encode()


def record(operation: int, body: bytes) -> bytes:
    """Return a record."""
    return struct.pack('<BQ', operation, len(body)) + body


def channel(number: int, topic: str, kind: str, definition: str = '', encoding: str = 'cdr'):
    """Return a schema and its channel of the same number."""
    schema = struct.pack('<H', number) + text(kind) + text('ros2msg') + text(definition)
    body = struct.pack('<HH', number, number) + text(topic) + text(encoding) + text('')
    return record(3, schema) + record(4, body)


def message(number: int, time_ns: int, data: bytes) -> bytes:
    """Return a message."""
    return record(5, struct.pack('<HIQQ', number, 0, time_ns, time_ns) + data)


def chunk(raw: bytes, compression: str = '', *, start_ns: int = 0, claims: int | None = None):
    """Return a chunk of records; ``claims`` replaces their size."""
    stored = COMPRESS[compression](raw)
    size = len(raw) if claims is None else claims
    head = struct.pack('<QQQI', start_ns, start_ns, size, 0) + text(compression)
    return record(6, head + struct.pack('<Q', len(stored)) + stored)


def mcap(*records: bytes, profile: str = 'ros2') -> bytes:
    """Return a file of some records, without a summary."""
    end = record(2, struct.pack('<QQI', 0, 0, 0)) + MAGIC
    return MAGIC + record(1, text(profile) + text('')) + b''.join(records) + end


def records_of(messages: list[tuple]) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Return the channels of (topic, message, time), and (time, record) of each message."""
    numbers: dict[str, int] = {}
    channels, found = b'', []
    for topic, one, time_ns in messages:
        kind = one.__msgtype__
        if topic not in numbers:
            numbers[topic] = len(numbers) + 1
            channels += channel(numbers[topic], topic, kind)
        data = bytes(STORE.serialize_cdr(one, kind))
        found.append((time_ns, message(numbers[topic], time_ns, data)))
    return channels, found
