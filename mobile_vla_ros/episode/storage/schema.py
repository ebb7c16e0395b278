"""Define the layout of an episode file (HDF5): names, types and attributes."""

import dataclasses
import datetime
import hashlib
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mobile_vla_ros import __version__
from mobile_vla_ros.episode.timing.command_rule import SETTING, known_rule
from mobile_vla_ros.errors import UserError

FORMAT = 'mobile_vla_episode'
VERSION = 2  # of new episodes; older versions stay readable

SUFFIX = '.h5'
PART_SUFFIX = '.h5.part'
NASCENT_SUFFIX = '.new'

OUTCOMES = ('success', 'failure', 'unknown')
EVENTS = (
    'start',
    'stop',
    'pause',
    'takeover',
    'drop',
    'instruction',
    'outcome',
    'problem',
    'recovered',
    'action',
    'trigger',  # of a black box: what happened
)

FRAMES = 'frames'  # what lost ones are called where they are counted; others: ``messages_of``

# Fill values: they distinguish rows that were never written from real zeros.
NO_TIME = np.iinfo(np.int64).min
NO_SPEED = np.nan

# Chunks hold one or two seconds: short episodes stay small, and a flush rewrites little.
FRAME_ROWS = 64
COMMAND_ROWS = 256
EVENT_ROWS = 32
CHANNEL_ROWS = 8
MAX_UNREADABLE_MESSAGES = 4096  # at the end of a killed episode

# Each flush writes the last chunk of the images again: at 30 Hz 12 % more bytes with 40 kB images,
# 4 % with 130 kB. A larger chunk writes more, a smaller one takes more CPU.
IMAGE_CHUNK_BYTES = 64 * 1024

EVENT_NAME_BYTES = 16
EVENT_TEXT_BYTES = 240
HASH_BYTES = 96  # of a type, as ROS writes it
TOPIC_BYTES = 256  # of the names of topics and types; ROS allows no longer ones

# path -> (columns, dtype, rows a chunk, fill value)
Layout = dict[str, tuple[int | None, Any, int, float | None]]
IMAGE_BYTES = 'frames/bytes'  # of all images, one after another; the other datasets have rows
DATASETS: Layout = {
    IMAGE_BYTES: (None, np.uint8, IMAGE_CHUNK_BYTES, None),
    'frames/offset': (None, np.int64, FRAME_ROWS, NO_TIME),
    'frames/size': (None, np.int32, FRAME_ROWS, 0),
    'frames/stamp_ns': (None, np.int64, FRAME_ROWS, NO_TIME),
    'frames/received_ns': (None, np.int64, FRAME_ROWS, NO_TIME),
    'frames/steady_ns': (None, np.int64, FRAME_ROWS, NO_TIME),
    'commands/twist': (6, np.float64, COMMAND_ROWS, NO_SPEED),
    'commands/stamp_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'commands/received_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'commands/steady_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'commands/source': (None, np.uint8, COMMAND_ROWS, 0),
    'events/time_ns': (None, np.int64, EVENT_ROWS, NO_TIME),
    'events/steady_ns': (None, np.int64, EVENT_ROWS, NO_TIME),
    'events/name': (None, h5py.string_dtype('utf-8', EVENT_NAME_BYTES), EVENT_ROWS, None),
    'events/text': (None, h5py.string_dtype('utf-8', EVENT_TEXT_BYTES), EVENT_ROWS, None),
}

# A policy's proposals beside the commands, in episodes with a policy.
PROPOSALS: Layout = {
    'proposals/twist': (6, np.float64, COMMAND_ROWS, NO_SPEED),
    'proposals/stamp_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'proposals/received_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'proposals/steady_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
}

# Other topics as they arrived, in episodes of a recorder with extra topics. A channel is a topic;
# the bytes are those of the messages (CDR) and of the definitions of their types.
MESSAGE_BYTES = 'messages/bytes'
MESSAGES: Layout = {
    MESSAGE_BYTES: (None, np.uint8, IMAGE_CHUNK_BYTES, None),
    'messages/channel': (None, np.uint16, COMMAND_ROWS, 0),
    'messages/offset': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'messages/size': (None, np.int32, COMMAND_ROWS, 0),
    'messages/stamp_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'messages/received_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'messages/steady_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'channels/topic': (None, h5py.string_dtype('utf-8', TOPIC_BYTES), CHANNEL_ROWS, None),
    'channels/type': (None, h5py.string_dtype('utf-8', TOPIC_BYTES), CHANNEL_ROWS, None),
    'channels/type_hash': (None, h5py.string_dtype('utf-8', HASH_BYTES), CHANNEL_ROWS, None),
    'channels/latched': (None, np.uint8, CHANNEL_ROWS, 0),
    'channels/offset': (None, np.int64, CHANNEL_ROWS, NO_TIME),
    'channels/size': (None, np.int32, CHANNEL_ROWS, 0),
}
# By stream; each is there as a whole, or not at all.
OPTIONAL: dict[str, Layout] = {'proposals': PROPOSALS, 'messages': MESSAGES}
LAYOUT = DATASETS | {path: one for layout in OPTIONAL.values() for path, one in layout.items()}
BYTES = (IMAGE_BYTES, MESSAGE_BYTES)  # never read as a whole

# Attributes that change during recording. SWMR forbids new attributes but allows rewriting an
# existing one in place, so these exist from the start with a fixed size.
LATE_TEXT_BYTES = {'outcome': 16, 'command_type': 96, 'frame_id': 128, 'health': 8192}
LATE_FLAGS = ('complete', 'recovered')

# Attributes that every episode has, and those that it may lack, with their exact types.
ATTRIBUTES: dict[str, type] = {
    'episode_id': str,
    'created_utc': str,
    'instruction': str,
    'outcome': str,
    'complete': bool,
    'frame_id': str,
    'health': str,
}
OPTIONAL_ATTRIBUTES: dict[str, type] = {
    'operator': str,
    'robot': str,
    'image_topic': str,
    'command_topic': str,
    'command_type': str,
    'package_version': str,
    'ros_version': str,
    'origin': str,
    'camera_time': str,
    'recovered': bool,
    'base_command_timeout_s': float,
}
# Nanoseconds, in either direction: the difference of two times fits into an int64. ROS stamps are
# at most half of it.
MAX_TIME = 2**62
MAX_COLUMN_BYTES = 1 << 28  # of rows that are read at once, as they are in memory


@dataclass(frozen=True)
class EpisodeInfo:
    """
    Attributes of an episode known at its start; written to the file.

    :param instruction: the robot's task in the operator's words; not empty.
    :param image_topic: resolved name of the camera topic; likewise ``command_topic``.
    :param command_type: ``geometry_msgs/msg/Twist`` or ``…/TwistStamped``; '' while unknown.
    :param origin: source of an imported episode; '' for a recorded one.
    :param base_command_timeout_s: the base stops this long after a command; 0: it holds the last
        one; None: unknown.
    :param camera_time: ``stamp``, or ``receipt``: ``stamp_ns`` of a frame is not its header's
        stamp, but its receipt minus its transport; '' where unknown.
    :raises UserError: for an empty instruction, or a timeout that is out of range.
    """

    instruction: str
    operator: str = ''
    robot: str = ''
    image_topic: str = ''
    command_topic: str = ''
    command_type: str = ''
    frame_id: str = ''
    ros_version: str = ''
    origin: str = ''
    base_command_timeout_s: float | None = None
    camera_time: str = ''

    def __post_init__(self) -> None:
        known_rule(self.base_command_timeout_s)
        if not self.instruction.strip():
            raise UserError(
                'the instruction is empty',
                got=repr(self.instruction),
                expected='a sentence such as "go to the red box"',
                remedy="set the recorder's parameter instruction, or publish one "
                'on the topic instruction',
            )


def new_episode_id(created_ns: int, origin: str = '') -> str:
    """
    Return ``<UTC time>_<8 hex>`` for an episode that starts at ``created_ns`` (Unix time).

    :param origin: source of an imported episode: the same origin always gives the same name.
    """
    utc = datetime.datetime.fromtimestamp(created_ns // 1_000_000_000, datetime.timezone.utc)
    mark = hashlib.sha256(origin.encode()).hexdigest() if origin else uuid.uuid4().hex
    return f'{utc:%Y%m%dT%H%M%SZ}_{mark[:8]}'


def utc_text(created_ns: int) -> str:
    """Return the ISO 8601 text of a Unix time in nanoseconds."""
    utc = datetime.datetime.fromtimestamp(created_ns // 1_000_000_000, datetime.timezone.utc)
    return f'{utc:%Y-%m-%dT%H:%M:%SZ}'


def messages_of(topic: str) -> str:
    """Return what messages of a topic are called where lost ones are counted."""
    return f'messages of {topic}'


def loss(count: int, of: str, why: str) -> tuple[str, str]:
    """Return name and text of the event of a loss; of: ``FRAMES``, ``messages_of`` a topic, …"""
    return 'drop' if of == FRAMES else 'problem', f'{count} {of}: {why}'


def dropped_frames(text: str) -> int:
    """Return the number of frames in a 'drop' event, with which its text begins."""
    number = text.split(' ', 1)[0]
    return int(number) if number.isdecimal() else 0


def fixed_text(text: str, size: int) -> np.bytes_:
    """Return ``text`` in UTF-8, cut to ``size`` bytes at a character boundary."""
    cut: np.bytes_ = np.bytes_(text.encode()[:size].decode(errors='ignore').encode())
    return cut


def lay_out(
    file: h5py.File,
    info: EpisodeInfo,
    episode_id: str,
    created_ns: int,
    optional: Mapping[str, bool],
) -> dict[str, h5py.Dataset]:
    """
    Write attributes and empty datasets into a new file and switch it to SWMR.

    :param optional: whether to include each of ``OPTIONAL``.
    :returns: the datasets by path.
    """
    file.attrs['version'] = VERSION
    values = {
        'format': FORMAT,
        'episode_id': episode_id,
        'created_utc': utc_text(created_ns),
        'package_version': __version__,
        **dataclasses.asdict(info),
        'outcome': 'unknown',
        'health': '',
    }
    for name, value in values.items():
        if not isinstance(value, str):
            if value is not None:
                file.attrs[name] = value
            continue
        # Of a fixed length, also those that stay: HDF5 keeps others in a heap without a checksum.
        size = LATE_TEXT_BYTES.get(name) or max(len(value.encode()), 1)
        kind = h5py.string_dtype('utf-8', size)
        file.attrs.create(name, fixed_text(value, size), dtype=kind)
    for name in LATE_FLAGS:
        file.attrs.create(name, False)
    datasets = {}
    left_out = {path for stream, one in OPTIONAL.items() if not optional[stream] for path in one}
    for path, (columns, dtype, rows, fill) in LAYOUT.items():
        if path in left_out:
            continue
        tail = () if columns is None else (columns,)
        datasets[path] = file.create_dataset(
            path,
            (0, *tail),
            maxshape=(None, *tail),
            chunks=(rows, *tail),
            dtype=dtype,
            fillvalue=fill,
        )
    file.swmr_mode = True
    file.flush()
    return datasets


def check_datasets(datasets: dict[str, h5py.Dataset], layout: Layout) -> None:
    """
    Check that the datasets of a file are those of an episode, with exact types and shapes.

    :param layout: of its version, with what is optional.
    :raises ValueError: names the first that is not.
    """
    missing = (one for one in OPTIONAL.values() if not one.keys() & datasets.keys())
    absent = {path for one in missing for path in one}
    for path in layout:
        if path in absent:
            continue
        if path not in datasets:
            raise ValueError(f'no dataset {path}')
        fault = dataset_fault(path, datasets[path], layout)
        if fault:
            raise ValueError(f'{path} {fault}')


def dataset_fault(path: str, dataset: h5py.Dataset, layout: Layout) -> str:
    """Return how a dataset differs from the one of a layout at this path, '' if it does not."""
    columns, dtype, *_ = layout[path]
    tail = () if columns is None else (columns,)
    shape, found = dataset.shape, dataset.dtype
    if shape is None or len(shape) != 1 + len(tail) or shape[1:] != tail:  # None: no dataspace
        return f'has the shape {shape}, not {("N", *tail)}'
    special = h5py.check_enum_dtype(found) or h5py.check_vlen_dtype(found)
    if found != dtype or special != h5py.check_vlen_dtype(np.dtype(dtype)):
        return f'has the type {found}, not {np.dtype(dtype)}'
    if path in BYTES:
        packed = dataset.id.get_create_plist().get_nfilters()
        return 'passes a filter, and these bytes are stored as they are' if packed else ''
    size = math.prod(shape) * found.itemsize
    return '' if size <= MAX_COLUMN_BYTES else f'has {size} bytes, more than {MAX_COLUMN_BYTES}'


def check_attributes(attributes: dict[str, Any]) -> None:
    """
    Check that the attributes of an episode have their types.

    :raises ValueError: names the first that does not.
    """
    for name, kind in (ATTRIBUTES | OPTIONAL_ATTRIBUTES).items():
        if name not in attributes:
            if name in OPTIONAL_ATTRIBUTES:
                continue
            raise ValueError(f'no attribute {name}, or one of another type than {kind.__name__}')
        if type(attributes[name]) is not kind:
            raise ValueError(f'attribute {name} is {attributes[name]!r:.40}, not {kind.__name__}')
    if attributes['outcome'] not in OUTCOMES:
        raise ValueError(f'attribute outcome is {attributes["outcome"]!r:.40}')
    try:
        known_rule(attributes.get(SETTING))
    except UserError as error:
        raise ValueError(str(error)) from None


def episode_name(path: Path) -> str:
    """Return the name of an episode's file without its suffixes."""
    return path.name.removesuffix('.part').removesuffix(SUFFIX)


def hidden_name(episode_id: str) -> str:
    """Return the name of an episode's file before it is readable."""
    return f'.{episode_id}{NASCENT_SUFFIX}'


def check_outcome(outcome: str) -> str:
    """Return ``outcome``; raise UserError unless it is one of ``OUTCOMES``."""
    if outcome not in OUTCOMES:
        raise UserError('unknown outcome', got=repr(outcome), expected=', '.join(OUTCOMES))
    return outcome
