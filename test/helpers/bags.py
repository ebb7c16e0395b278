"""Bags like those of ROS, made without it, and their import."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rosbags import rosbag1
from rosbags.convert.converter import migrate_bytes
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.bags import commands, video
from mobile_vla_ros.interop.imports import FAILED, IMPORTED, ImportResult, import_plain
from mobile_vla_ros.interop.source import ImportOptions

STORE, STORE_1 = get_typestore(Stores.ROS2_JAZZY), get_typestore(Stores.ROS1_NOETIC)
for store in (STORE, STORE_1):
    for name, definition in (commands.DEFINITIONS | video.DEFINITIONS).items():
        store.register(get_types_from_msg(definition, name))
PERIOD_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000
DELAY_NS = 20_000_000
PNG = ImportOptions('go to the red box', image_format='png')  # without loss: pixels compare


def pixels_of(index: int, size: tuple[int, int] = (32, 24)) -> np.ndarray:
    """Return a sharp, bright RGB image of (width, height), different for each index."""
    width, height = size
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)


def make(name: str, *fields):
    """Return a message of a type such as ``std_msgs/msg/String``."""
    return STORE.types[name](*fields)


def header(stamp_ns: int, frame_id: str = 'eye'):
    """Return a std_msgs/Header."""
    return make(
        'std_msgs/msg/Header',
        make('builtin_interfaces/msg/Time', *divmod(stamp_ns, 10**9)),
        frame_id,
    )


def image(pixels: np.ndarray, stamp_ns: int, encoding: str = 'rgb8', **changes):
    """Return a sensor_msgs/Image of (height, width, channels) uint8."""
    fields = {
        'height': pixels.shape[0],
        'width': pixels.shape[1],
        'encoding': encoding,
        'is_bigendian': 0,
        'step': pixels[0].size,
        'data': np.ascontiguousarray(pixels).reshape(-1),
        **changes,
    }
    return make('sensor_msgs/msg/Image', header(stamp_ns), *fields.values())


def compressed(data: bytes, stamp_ns: int, kind: str = 'jpeg'):
    """Return a sensor_msgs/CompressedImage."""
    return make(
        'sensor_msgs/msg/CompressedImage', header(stamp_ns), kind, np.frombuffer(data, np.uint8)
    )


def twist(vx: float, vy: float = 0.0, wz: float = 0.0):
    """Return a geometry_msgs/Twist."""
    return make(
        'geometry_msgs/msg/Twist',
        make('geometry_msgs/msg/Vector3', vx, vy, 0.0),
        make('geometry_msgs/msg/Vector3', 0.0, 0.0, wz),
    )


def twist_stamped(stamp_ns: int, *speeds: float):
    """Return a geometry_msgs/TwistStamped."""
    return make('geometry_msgs/msg/TwistStamped', header(stamp_ns, ''), twist(*speeds))


def odometry(stamp_ns: int, speeds: tuple[float, float, float], x: float = 0.0):
    """Return a nav_msgs/Odometry of a base at x with vx, vy and wz."""
    point, turn = make('geometry_msgs/msg/Point', x, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)
    pose = make('geometry_msgs/msg/Pose', point, make('geometry_msgs/msg/Quaternion', *turn))
    return make(
        'nav_msgs/msg/Odometry',
        header(stamp_ns),
        'base',
        make('geometry_msgs/msg/PoseWithCovariance', pose, np.zeros(36)),
        make('geometry_msgs/msg/TwistWithCovariance', twist(*speeds), np.zeros(36)),
    )


def drive(frames: int = 12, *, image_of=None, command_of=None) -> list[tuple]:
    """
    Return (topic, message, time) of a short drive: images at 10 Hz, a command beside each.

    :param image_of: ``(index, stamp_ns) -> message``; an rgb8 Image unless given.
    :param command_of: likewise; a Twist whose vx grows unless given.
    """
    messages = []
    for index in range(frames):
        stamp_ns = START_NS + index * PERIOD_NS
        messages.append(
            (
                '/camera/image_raw',
                (image_of or (lambda i, ns: image(pixels_of(i), ns)))(index, stamp_ns),
                stamp_ns + DELAY_NS,
            )
        )
        messages.append(
            (
                '/cmd_vel',
                (command_of or (lambda i, _: twist(0.1 + i / 100)))(index, stamp_ns),
                stamp_ns + DELAY_NS + 1,
            )
        )
    return messages


def write_bag(folder: Path, messages: list[tuple], storage: str = 'mcap') -> Path:
    """
    Write (topic, message, time in ns) as a rosbag2 folder, or a ROS 1 bag beside it; return it.

    :param storage: ``mcap``, ``sqlite3``, or of ROS 1 ``none``, ``bz2`` or ``lz4``.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if storage in ('none', 'bz2', 'lz4'):
        return _write_ros1(folder.with_name(f'{folder.name}.bag'), messages, storage)
    with Writer(
        folder, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin[storage.upper()]
    ) as bag:
        connections = {}
        for topic, message, time_ns in messages:
            kind = message.__msgtype__
            if (topic, kind) not in connections:
                connections[topic, kind] = bag.add_connection(topic, kind, typestore=STORE)
            bag.write(connections[topic, kind], time_ns, STORE.serialize_cdr(message, kind))
    return folder


def _write_ros1(path: Path, messages: list[tuple], compression: str) -> Path:
    bag = rosbag1.Writer(path)
    if compression != 'none':
        bag.set_compression(bag.CompressionFormat[compression.upper()])
    connections = {}
    with bag:
        for topic, message, time_ns in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=STORE_1)
            data = STORE.serialize_cdr(message, kind)
            both = STORE, STORE_1, kind, kind, {}, data
            bag.write(
                connections[topic], time_ns, migrate_bytes(*both, src_is2=True, dst_is2=False)
            )
    return path


def import_one(source, out, options: ImportOptions, key: str = '') -> ImportResult:
    """Import one source as the command does, in this process; return the result."""
    out.mkdir(exist_ok=True)
    with TemporaryDirectory() as scratch:
        try:
            found = import_plain(
                source,
                key,
                f'{Path(source.name, key)}#1',
                *('', str(out), asdict(options), scratch, lambda _: None),
            )
        except UserError as error:
            return ImportResult(source, FAILED, reason=str(error))
    return ImportResult(**found | {'source': source, 'path': out / found['path']})


def imported_episode(source, out, options: ImportOptions, key: str = '') -> Episode:
    """Import one source, which must succeed; return the open episode."""
    outcome = import_one(source, out, options, key)
    assert outcome.status == IMPORTED, outcome.reason
    return Episode.open(outcome.path)
