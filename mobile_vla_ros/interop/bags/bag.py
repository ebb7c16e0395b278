"""A bag: a rosbag2 folder, one of its files or a ROS 1 bag, and the messages in it."""

import bisect
import contextlib
import heapq
import operator
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from rosbags.convert.converter import migrate_bytes
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mobile_vla_ros.episode.timing.receipts import MIN_STEP_NS
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.interop.bags import commands, video
from mobile_vla_ros.interop.bags.bag_files import (
    CDR,
    MAX_BYTES,
    BagFile,
    McapFile,
    Message,
    SqliteFile,
    Topic,
    inflate,
    inflate_file,
)
from mobile_vla_ros.interop.bags.ros1_file import ROS1, Ros1File
from mobile_vla_ros.types import NANOSECONDS

SUFFIXES = ('.mcap', '.db3', '.bag', '.mcap.zstd', '.db3.zstd')
METADATA = 'metadata.yaml'
MAX_METADATA_BYTES = 4_000_000
ZSTD = '.zstd'
MAX_LATE_NS = NANOSECONDS  # a topic that goes back further had its clock set back
MAX_WAITING = 32  # messages that may be written before one that arrived earlier
LATE_GAP = 0.75  # intervals of its topic between a late message and its neighbours
T = TypeVar('T')


class Received(NamedTuple):
    """
    One message of a bag.

    :param time_ns: the bag's time of it.
    :param place: where it is in the bag: later ones are greater.
    :param message: an object with the fields of its type, or its bytes; None when it cannot be
        read, and ``problem`` says why.
    """

    time_ns: int
    place: tuple[int, ...]
    topic: Topic
    message: Any
    problem: str = ''


class Bag:
    """
    An open bag; use it as a context manager.

    Messages are read with ROS 2's own definitions of their types, whatever the bag says: those
    that are read here have never changed, and bags from before Iron have no definitions.

    :param scratch: an empty folder for copies, of the caller's.
    :ivar topics: with messages of ROS, sorted.
    :ivar others: every other topic, sorted.
    :ivar notes: sentences on what is missing of its files.
    :raises UserError: when it is broken, or not of ROS.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self.ros_distro = ''
        self._store, self._ros1 = map(get_typestore, (Stores.LATEST, Stores.ROS1_NOETIC))
        for store in (self._store, self._ros1):
            for kind, definition in (commands.DEFINITIONS | video.DEFINITIONS).items():
                store.register(get_types_from_msg(definition, kind))
        self._migrations: dict[str, object] = {}  # how messages of ROS 1 become those of ROS 2
        self._files: list[BagFile] = []
        self._by_message = False
        with contextlib.ExitStack() as closing:
            for one in self._paths(path) if path.is_dir() else [path]:
                file = checked(lambda: _open(one, scratch))  # noqa: B023
                closing.callback(file.close)
                self._files.append(file)
            topics = {topic for file in self._files for topic in file.topics}
            self.topics = sorted(one for one in topics if one.encoding in (CDR, ROS1))
            silent = {topic for file in self._files for topic in file.silent}
            self.others = sorted((topics | silent) - set(self.topics))
            if not self.topics:
                self._refuse(topics)
            self._closing = closing.pop_all()
        self.notes = [file.note for file in self._files if file.note]

    def __enter__(self) -> 'Bag':
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def definition(self, topic: Topic) -> str:
        """Return the definition of a topic's type: the bag's, else that of ROS; '' for neither."""
        found = [file.definitions.get(topic) for file in self._files]
        own = next(filter(None, found), '')
        if own or topic.type not in self._store.types:
            return own
        return self._store.generate_msgdef(topic.type, ros_version=2)[0]

    def messages(
        self, topics: Collection[Topic], raw: Collection[Topic] = ()
    ) -> Iterator[Received]:
        """
        Yield the messages of some topics in the order of arrival (``in_order``), file by file.

        :param raw: topics among them whose messages are their bytes (CDR).
        :raises UserError: when the bag is broken.
        """
        for number, file in enumerate(self._files if topics else ()):
            messages = in_order(file.messages(topics))
            while True:
                found = checked(lambda: next(messages, None))  # noqa: B023
                if found is None:
                    break
                place = (number, *found.place)
                try:
                    data, problem = self._inflated(found.data), ''
                    message = self._message(data, found.topic, found.topic in raw)
                except Exception as error:  # of any kind: struct, ValueError, MemoryError
                    message = None
                    problem = f'a message cannot be read; got {first_line(error)}'
                yield Received(found.time_ns, place, found.topic, message, problem)

    def _message(self, data: bytes, topic: Topic, raw: bool) -> Any:
        """Return a message as an object, or the bytes that it has in ROS 2."""
        if topic.encoding == CDR:
            return data if raw else self._store.deserialize_cdr(data, topic.type)
        if not raw:
            return self._ros1.deserialize_ros1(data, topic.type)
        return bytes(
            migrate_bytes(
                *(self._ros1, self._store, topic.type, topic.type, self._migrations, data),
                src_is2=False,
                dst_is2=True,
            )
        )

    def _inflated(self, data: bytes | None) -> bytes:
        if data is not None and self._by_message:
            data = inflate(data, MAX_BYTES)
        if data is None or len(data) > MAX_BYTES:
            raise ValueError(f'more than {MAX_BYTES} bytes')
        return data

    def _paths(self, folder: Path) -> list[Path]:
        """Return the files of a bag, as its metadata names them."""
        metadata = folder / METADATA
        if metadata.stat().st_size > MAX_METADATA_BYTES:
            raise UserError(
                f'its {METADATA} is too large',
                got=f'{metadata.stat().st_size} bytes',
                expected=f'at most {MAX_METADATA_BYTES}',
                remedy='import its files one by one',
            )

        def read() -> tuple[list[str], str, str]:
            about = yaml.safe_load(metadata.read_text())['rosbag2_bagfile_information']
            names = [Path(name).name for name in about['relative_file_paths']]
            mode = str(about.get('compression_mode') or '').lower()
            return names, mode, str(about.get('ros_distro') or '')

        names, mode, self.ros_distro = checked(read)
        self._by_message = mode == 'message'
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise UserError(
                'its data is missing',
                got=f'no {missing[0]} beside {METADATA}' if missing else f'{METADATA} alone',
                expected='the whole folder of the recording',
                remedy='copy it again',
            )
        return [folder / name for name in names]

    def _refuse(self, topics: Collection[Topic]) -> None:
        """Raise UserError for a bag without a message of ROS 2."""
        if topics:
            raise UserError(
                'its messages are not of ROS',
                got=', '.join(sorted({one.encoding[:40] for one in topics})),
                expected='CDR, as ros2 bag record writes them',
                remedy='convert them to ROS 2 messages first',
            )
        other = [one.profile for one in self._files if isinstance(one, McapFile)]
        if other and set(other) != {'ros2'}:
            raise UserError(
                'it is an MCAP file without messages of ROS 2',
                got=f'profile {other[0][:40]!r}',
                expected="profile 'ros2'",
                remedy='convert its messages (protobuf, JSON) to ROS 2 first',
            )


def in_order(messages: Iterator[Message]) -> Iterator[Message]:
    """
    Yield the messages of a file, those of each topic in the order of arrival.

    A recorder writes them nearly so: a few may be late, since others compressed faster. They are
    sorted by their times, but never across a step of the clock back.
    """
    waiting: list[Message] = []
    size = 0
    newest_ns: dict[Topic, list[int]] = defaultdict(list)  # sorted times of each topic
    for one in messages:
        times_ns = newest_ns[one.topic]
        if _is_step(one.time_ns, times_ns):
            yield from sorted(waiting)
            waiting, size = [], 0
            times_ns.clear()
        bisect.insort(times_ns, one.time_ns)
        del times_ns[:-MAX_WAITING]
        heapq.heappush(waiting, one)
        size += len(one.data or b'')
        while len(waiting) > MAX_WAITING or size > MAX_BYTES:
            first = heapq.heappop(waiting)
            size -= len(first.data or b'')
            yield first
    yield from sorted(waiting)


def _is_step(time_ns: int, before_ns: Sequence[int]) -> bool:
    """
    Whether the clock was set back before a message, rather than that it was written late.

    A late one fills the hole that it left among those written before; after a step, the topic
    goes on in the midst of them.

    :param before_ns: sorted times of the last messages of its topic.
    """
    back_ns = before_ns[-1] - time_ns if before_ns else 0
    if back_ns < MIN_STEP_NS:
        return False
    if back_ns > MAX_LATE_NS or len(before_ns) == 1:
        return True
    interval_ns = statistics.median(map(operator.sub, before_ns[1:], before_ns[:-1]))
    return min(abs(time_ns - one) for one in before_ns) < LATE_GAP * interval_ns


def checked(call: Callable[[], T]) -> T:
    """Return the result of reading; raise UserError if the bag is broken."""
    try:
        return call()
    except UserError:
        raise
    except Exception as error:  # many kinds: struct, sqlite3, zstd, YAML
        raise UserError(
            'the bag is broken',
            got=first_line(error).rstrip('.'),
            remedy='try ros2 bag reindex, or mcap recover',
        ) from None


def _open(path: Path, scratch: Path) -> BagFile:
    if path.suffix == ZSTD:
        whole = scratch / path.stem
        inflate_file(path, whole)
        path = whole
    if path.suffix == '.bag':
        return Ros1File(path)
    return McapFile(path) if path.suffix == '.mcap' else SqliteFile(path, scratch)
