"""
Export episodes for other tools, each as plain files (csv) or as a rosbag2 folder (MCAP).

An episode is written into a hidden folder, synced and then renamed: a folder with the name of an
episode is whole, however an export ends.
"""

import contextlib
import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mobile_vla_ros import file_lock
from mobile_vla_ros.episode.catalog.inspect import judged, topics, vetted
from mobile_vla_ros.episode.odometry import STATE
from mobile_vla_ros.episode.records import NO_HASH, Channel, Commands
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.timing.timeline import times_of
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import make_folder, sync, sync_tree
from mobile_vla_ros.images.stored import JPEG_START, PNG_START
from mobile_vla_ros.plain_text import cell
from mobile_vla_ros.types import NANOSECONDS, SOURCE_NAMES, TWIST_AXES

PARTIAL = '.exporting_'
# First bytes of an encoded image, suffix of its file, and its format in a CompressedImage.
SIGNATURES = ((JPEG_START, 'jpg', 'jpeg'), (PNG_START, 'png', 'png'))
IMAGE_TOPIC, COMMAND_TOPIC, INSTRUCTION_TOPIC = '/camera/image_raw', '/cmd_vel', '/instruction'
PROPOSAL_TOPIC = '/policy/cmd_vel'
LATCHED_DEPTH = 100


def to_csv(episode: Episode, folder: Path) -> None:
    """
    Write an episode as plain files into an empty folder.

    ``frames/000000.jpg`` …: the images as stored; ``frames.csv``, with the command in force at
    each frame (m/s, rad/s) and, if there is odometry, its state there (``Odometry.state``),
    ``commands.csv``, ``events.csv``, and ``proposals.csv`` if there are any: one row each, times
    in nanoseconds; ``episode.json``: everything else.

    :raises UserError: when the file is broken at a frame.
    """
    (folder / 'frames').mkdir()
    names = []
    for index in range(len(episode)):
        data = episode.encoded(index)
        names.append(f'frames/{index:06}.{_kind(episode, index, data)[0]}')
        (folder / names[-1]).write_bytes(data)
    times = {'stamp_ns': episode.frame_stamp_ns, 'received_ns': episode.frame_received_ns}
    steady = {'steady_ns': episode.frame_steady_ns}
    frames_ns, _ = times_of(episode)
    in_force, _ = episode.command_log().at(frames_ns)
    numbered = {'index': range(len(names)), 'file': names}
    state = {}
    if episode.odometry is not None:
        observed = _columns(episode.odometry.state(frames_ns), STATE)
        state = {f'odometry_{name}': values for name, values in observed.items()}
    _table(folder / 'frames.csv', {**numbered, **times, **steady, **_axes(in_force), **state})
    for stream, rows in (('commands', episode.commands), ('proposals', episode.proposals)):
        if rows is not None:
            sources = [SOURCE_NAMES.get(number, 'unknown') for number in rows.source.tolist()]
            times = {'stamp_ns': rows.stamp_ns, 'received_ns': rows.received_ns}
            source = {'source': sources} if stream == 'commands' else {}
            steady = {'steady_ns': rows.steady_ns}
            _table(folder / f'{stream}.csv', {**times, **source, **_axes(rows.twist), **steady})
    columns = ('time_ns', 'name', 'text', 'steady_ns')
    _table(
        folder / 'events.csv',
        {name: [getattr(event, name) for event in episode.events] for name in columns},
    )
    (folder / 'episode.json').write_text(
        json.dumps(about(episode), indent=2) + '\n', encoding='utf-8'
    )


def to_rosbag2(episode: Episode, folder: Path) -> None:
    """
    Write an episode as a rosbag2 (MCAP) into an empty folder, which it replaces.

    Images become CompressedImage as stored, commands TwistStamped, and so do a policy's proposals,
    on `policy/cmd_vel`; the instruction is a String. The header has the stamp, the bag's own time
    is the receipt. Topics that were kept as they arrived are written byte for byte, with their
    types and definitions; nothing else is written under their names. Data without a message type
    (outcome, verdict, events, command sources) is JSON in the bag's custom data,
    ``mobile_vla_episode``.

    :raises UserError: when the file is broken at a frame, or rosbags is not installed.
    """
    try:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise UserError('bags need the library rosbags', remedy='pip install rosbags') from None
    store = get_typestore(Stores.ROS2_JAZZY)
    folder.rmdir()  # the writer creates it itself
    kept = {topic: channel for topic, channel in episode.topics.items() if channel.count}
    with Writer(folder, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP) as bag:
        add = partial(bag.add_connection, typestore=store)
        streams = [
            *_own_streams(episode, kept, _Messages(store), add),
            *(_raw_stream(episode, channel, bag.add_connection) for channel in kept.values()),
        ]
        times = np.concatenate([stream.received_ns for stream in streams])
        steady = np.concatenate([stream.steady_ns for stream in streams])
        order = np.argsort(steady, kind='stable')
        if (np.diff(times[order]) < 0).any():  # the clock was set back: a bag is read by time
            times = times[order[0]] + steady - steady[order[0]]
        if INSTRUCTION_TOPIC not in kept:
            words = add(INSTRUCTION_TOPIC, _Messages.STRING)
            first_ns = int(times.min()) if len(times) else 0
            bag.write(words, max(first_ns, 0), _Messages(store).string(episode.instruction))
        firsts = np.cumsum([0, *(len(stream.steady_ns) for stream in streams)])
        for row in order.tolist():
            if int(times[row]) < 0:
                raise UserError(
                    f'{episode.path} has times before 1970, which a bag cannot hold',
                    got=f'{times[row]} ns',
                    remedy='export it as csv',
                )
            number = int(np.searchsorted(firsts, row, 'right')) - 1
            stream = streams[number]
            bag.write(stream.connection, int(times[row]), stream.data(row - int(firsts[number])))
        bag.set_custom_data('mobile_vla_episode', json.dumps(about(episode)))


class _Stream(NamedTuple):
    """
    The messages of one topic of a bag.

    :param data: returns the CDR bytes of a row; the times are those of its receipt.
    """

    connection: Any
    received_ns: np.ndarray
    steady_ns: np.ndarray
    data: Callable[[int], bytes]


def _own_streams(
    episode: Episode, kept: Container[str], message: '_Messages', add: Callable[..., Any]
) -> Iterator[_Stream]:
    """Yield images, commands and proposals, unless their topic is kept as it arrived."""
    image_topic = episode.attributes.get('image_topic') or IMAGE_TOPIC
    if not image_topic.endswith('/compressed'):
        image_topic += '/compressed'
    if image_topic not in kept:

        def image(row: int) -> bytes:
            data = episode.encoded(row)
            stamp_ns, kind = int(episode.frame_stamp_ns[row]), _kind(episode, row, data)[1]
            return message.image(stamp_ns, episode.attributes['frame_id'], kind, data)

        times = episode.frame_received_ns, episode.frame_steady_ns
        yield _Stream(add(image_topic, message.IMAGE), *times, image)
    command_topic = episode.attributes.get('command_topic') or COMMAND_TOPIC
    for topic, twists in ((command_topic, episode.commands), (PROPOSAL_TOPIC, episode.proposals)):
        if twists is not None and topic not in kept:
            times = twists.received_ns, twists.steady_ns
            yield _Stream(add(topic, message.TWIST), *times, partial(message.command, twists))


def _raw_stream(episode: Episode, channel: Channel, add: Callable[..., Any]) -> _Stream:
    """Return a topic that was kept as it arrived."""
    messages = episode.messages(channel.topic)
    connection = add(
        channel.topic,
        channel.type,
        msgdef=channel.definition,
        rihs01=channel.type_hash or NO_HASH,
        offered_qos_profiles=[latched_qos()] if channel.latched else [],
    )
    return _Stream(connection, messages.received_ns, messages.steady_ns, messages.__getitem__)


def latched_qos() -> Any:
    """Return the quality of service by which a player latches a topic again."""
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    forever = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        LATCHED_DEPTH,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )


FORMATS: dict[str, Callable[[Episode, Path], None]] = {'csv': to_csv, 'rosbag2': to_rosbag2}
MARKS = {'csv': 'episode.json', 'rosbag2': 'metadata.yaml'}  # present in every whole export


def exported(
    paths: Iterable[Path],
    out: Path,
    kind: str,
    *,
    excluded: bool = False,
    camera: str = '',
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """
    Export episodes one after the other, yielding each with its result.

    :returns: as ``export``; of an episode that cannot be exported the ``status`` is ``failed``.
    :raises UserError: when the folder cannot be made.
    """
    make_folder(out)
    clear_away(out)
    for path, fault in vetted(paths):
        try:
            if fault is not None:
                raise fault
            yield path, export(path, out, kind, excluded=excluded, camera=camera)
        except UserError as error:
            yield path, {'status': 'failed', 'reason': str(error)}


def export(
    path: Path, out: Path, kind: str, *, excluded: bool = False, camera: str = ''
) -> dict[str, Any]:
    """
    Export one episode to ``out/<its name>``, or by a further camera ``out/<its name>_<camera>``.

    :param kind: a key of ``FORMATS``.
    :param excluded: export it although somebody excluded it.
    :param camera: as of ``Episode.open``; a bag has all of them.
    :returns: ``path`` of the folder, ``frames``, ``commands``, and ``status``: ``exported``;
        ``skipped``, and in words the ``reason``, if the folder exists or the episode is excluded.
    :raises UserError: when the episode cannot be read, the folder cannot be written, or its name
        is in use; nothing is left behind.
    """
    with Episode.open(path, camera=camera) as episode:
        target = out / schema.episode_name(path)
        if not episode.by_main_camera:
            target = target.with_name(target.name + episode.camera.replace('/', '_'))
        done = {'path': str(target), 'frames': len(episode), 'commands': len(episode.commands)}
        if episode.excluded and not excluded:
            why = f'{path.name} is excluded: {episode.excluded}'
            return {**done, 'status': 'skipped', 'reason': why}
        if (target / MARKS[kind]).exists():
            return {**done, 'status': 'skipped', 'reason': f'{target} exists'}
        if target.exists():
            raise UserError(
                f'{target} already exists and is not a {kind} export of this package',
                remedy='choose another folder with --out',
            )
        try:
            with hidden_folder(out) as hidden:
                inside = hidden / target.name
                inside.mkdir()
                FORMATS[kind](episode, inside)
                sync_tree(inside)
                os.rename(inside, target)
            sync(out)
        except OSError as error:
            raise UserError(
                f'cannot write {target}',
                got=error.strerror or error,
                expected='a folder with room that this user may write',
            ) from None
        return {**done, 'status': 'exported'}


def clear_away(out: Path) -> None:
    """Remove the hidden folders of processes that were killed from a folder."""
    for hidden in out.glob(f'{PARTIAL}*'):
        with contextlib.suppress(OSError), locked(hidden):
            shutil.rmtree(hidden)


@contextlib.contextmanager
def hidden_folder(out: Path) -> Iterator[Path]:
    """Provide a hidden folder, locked while this process lives, and remove it afterwards."""
    with contextlib.ExitStack() as lock:
        while True:
            hidden = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=out))
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                lock.enter_context(locked(hidden))
                if hidden.is_dir():  # else another process cleared it away before it was locked
                    break
        try:
            yield hidden
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other exports out of a folder; raise BlockingIOError when one is in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        file_lock.claim(handle)
        yield
    finally:
        os.close(handle)


def _kind(episode: Episode, index: int, data: bytes) -> tuple[str, str]:
    for signature, suffix, name in SIGNATURES:
        if data.startswith(signature):
            return suffix, name
    raise UserError(
        f'{episode.path} is broken at frame {index}',
        got=f'{len(data)} bytes',
        expected='a JPEG or PNG image',
    )


def _axes(twist: np.ndarray) -> dict[str, list[str]]:
    """Return columns of twists."""
    return _columns(twist, TWIST_AXES)


def _columns(values: np.ndarray, names: Sequence[str]) -> dict[str, list[str]]:
    """Return named columns; the repr of a float is the shortest text of the same value."""
    return {
        name: [repr(value) for value in values[:, column].tolist()]
        for column, name in enumerate(names)
    }


def _table(path: Path, columns: dict[str, Sequence[object] | np.ndarray]) -> None:
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(columns)
        writer.writerows(map(cell, row) for row in zip(*columns.values(), strict=True))


def about(episode: Episode) -> dict[str, Any]:
    """Return everything but frames and commands of an episode, fit for JSON."""
    rule = episode.command_rule()
    sources = [
        [SOURCE_NAMES.get(source, 'unknown'), len(list(group))]
        for source, group in groupby(episode.commands.source.tolist())
    ]
    return {
        **episode.attributes,
        **({'edits': episode.edits.words()} if episode.edits.standing else {}),
        'health': judged(episode),
        'base': {
            'command_timeout_s': rule.timeout_s,
            'known_by': rule.known_by.value,
        },
        'camera': episode.camera,
        'frames': len(episode),
        'commands': len(episode.commands),
        'command_sources': sources,
        **({} if episode.proposals is None else {'proposals': len(episode.proposals)}),
        **({'topics': topics(episode)} if episode.topics else {}),
        'events': [vars(event) for event in episode.events],
    }


class _Messages:
    """Serialises the messages of a bag (CDR)."""

    IMAGE = 'sensor_msgs/msg/CompressedImage'
    TWIST = 'geometry_msgs/msg/TwistStamped'
    STRING = 'std_msgs/msg/String'

    def __init__(self, store: Any) -> None:
        self._store = store

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        types = self._store.types
        seconds, rest = divmod(stamp_ns, NANOSECONDS)
        if not -(2**31) <= seconds < 2**31:
            raise UserError(
                'a header stamp is too large for a message',
                got=f'{stamp_ns} ns',
                expected='a time before the year 2038',
                remedy='export it as csv',
            )
        return types['std_msgs/msg/Header'](
            types['builtin_interfaces/msg/Time'](seconds, rest), frame_id
        )

    def _bytes(self, name: str, *fields: Any) -> bytes:
        return self._store.serialize_cdr(self._store.types[name](*fields), name)

    def image(self, stamp_ns: int, frame_id: str, kind: str, data: bytes) -> bytes:
        return self._bytes(
            self.IMAGE, self._header(stamp_ns, frame_id), kind, np.frombuffer(data, np.uint8)
        )

    def command(self, rows: Commands, row: int) -> bytes:
        stamp_ns, six = int(rows.stamp_ns[row]), rows.twist[row].tolist()
        types = self._store.types
        vector = types['geometry_msgs/msg/Vector3']
        return self._bytes(
            self.TWIST,
            self._header(stamp_ns, ''),
            types['geometry_msgs/msg/Twist'](vector(*six[:3]), vector(*six[3:])),
        )

    def string(self, text: str) -> bytes:
        return self._bytes(self.STRING, text)
