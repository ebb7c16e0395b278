"""Names, types and attributes of an episode file: the one place that says what HDF5 holds."""

import dataclasses
import datetime
import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mobile_vla_ros import __version__
from mobile_vla_ros.errors import UserError

FORMAT = 'mobile_vla_episode'
VERSION = 1

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
)

# Rows that were never written read as these, so that a reader can tell them from a real zero.
NO_TIME = np.iinfo(np.int64).min
NO_SPEED = np.nan

# Chunks hold about a second or two: small takes stay small, and a flush rewrites little.
FRAME_ROWS = 64
COMMAND_ROWS = 256
EVENT_ROWS = 32

IMAGE_DTYPE = h5py.vlen_dtype(np.uint8)
EVENT_NAME_BYTES = 16
EVENT_TEXT_BYTES = 240

# path -> (columns, dtype, rows a chunk, what an unwritten row reads as)
DATASETS = {
    'frames/data': (None, IMAGE_DTYPE, FRAME_ROWS, None),
    'frames/stamp_ns': (None, np.int64, FRAME_ROWS, NO_TIME),
    'frames/received_ns': (None, np.int64, FRAME_ROWS, NO_TIME),
    'commands/twist': (6, np.float64, COMMAND_ROWS, NO_SPEED),
    'commands/stamp_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'commands/received_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'commands/source': (None, np.uint8, COMMAND_ROWS, 0),
    'events/time_ns': (None, np.int64, EVENT_ROWS, NO_TIME),
    'events/name': (None, h5py.string_dtype('utf-8', EVENT_NAME_BYTES), EVENT_ROWS, None),
    'events/text': (None, h5py.string_dtype('utf-8', EVENT_TEXT_BYTES), EVENT_ROWS, None),
}

# What a policy proposed beside what was driven, in takes where one did. A reader of before
# this group knows nothing of it and loses nothing else, so the version is the same.
PROPOSALS = {
    'proposals/twist': (6, np.float64, COMMAND_ROWS, NO_SPEED),
    'proposals/stamp_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
    'proposals/received_ns': (None, np.int64, COMMAND_ROWS, NO_TIME),
}

# Attributes that a take may still learn while it runs. SWMR forbids new attributes but allows
# an existing one to be rewritten in its own bytes: so they exist from the start, with room.
LATE_TEXT_BYTES = {'outcome': 16, 'command_type': 96, 'frame_id': 128, 'health': 8192}
LATE_FLAGS = ('complete', 'recovered')


@dataclass(frozen=True)
class EpisodeInfo:
    """
    What is known of a take when it starts; written as attributes of the file.

    :param instruction: what the robot is told to do, in the operator's words; not empty.
    :param image_topic: resolved name of the camera topic; likewise ``command_topic``.
    :param command_type: ``geometry_msgs/msg/Twist`` or ``…/TwistStamped``; '' while unknown.
    :param origin: what the take was imported from; '' for a take that was recorded.
    :raises UserError: for an empty instruction.
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

    def __post_init__(self):
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
    Return ``<UTC time>_<8 hex>`` for a take that starts at ``created_ns`` (Unix time).

    :param origin: what the take is imported from: one origin always gives the same name.
    """
    utc = datetime.datetime.fromtimestamp(created_ns // 1_000_000_000, datetime.UTC)
    mark = hashlib.sha256(origin.encode()).hexdigest() if origin else uuid.uuid4().hex
    return f'{utc:%Y%m%dT%H%M%SZ}_{mark[:8]}'


def utc_text(created_ns: int) -> str:
    """Return the ISO 8601 text of a Unix time in nanoseconds."""
    utc = datetime.datetime.fromtimestamp(created_ns // 1_000_000_000, datetime.UTC)
    return f'{utc:%Y-%m-%dT%H:%M:%SZ}'


def dropped_frames(text: str) -> int:
    """Return how many frames a 'drop' event tells of: its text begins with the number."""
    number = text.split(' ', 1)[0]
    return int(number) if number.isdecimal() else 0


def fixed_text(text: str, size: int) -> np.bytes_:
    """Return UTF-8 of ``text`` cut to ``size`` bytes at a character's edge."""
    return np.bytes_(text.encode()[:size].decode(errors='ignore').encode())


def lay_out(
    file: h5py.File,
    info: EpisodeInfo,
    episode_id: str,
    created_ns: int,
    *,
    proposals: bool = False,
) -> dict[str, h5py.Dataset]:
    """
    Write attributes and empty datasets into a new file and switch it to SWMR.

    :param proposals: with those of ``PROPOSALS``.
    """
    attributes = file.attrs
    attributes['format'] = FORMAT
    attributes['version'] = VERSION
    attributes['episode_id'] = episode_id
    attributes['created_utc'] = utc_text(created_ns)
    attributes['package_version'] = __version__
    values = dataclasses.asdict(info)
    for name, text in values.items():
        if name not in LATE_TEXT_BYTES:
            attributes[name] = text
    late = {**values, 'outcome': 'unknown', 'health': ''}
    for name, size in LATE_TEXT_BYTES.items():
        attributes.create(
            name, fixed_text(late[name], size), dtype=h5py.string_dtype('utf-8', size)
        )
    for name in LATE_FLAGS:
        attributes.create(name, False)
    datasets = {}
    wanted = DATASETS | PROPOSALS if proposals else DATASETS
    for path, (columns, dtype, rows, unwritten) in wanted.items():
        tail = () if columns is None else (columns,)
        datasets[path] = file.create_dataset(
            path,
            (0, *tail),
            maxshape=(None, *tail),
            chunks=(rows, *tail),
            dtype=dtype,
            fillvalue=unwritten,
        )
    file.swmr_mode = True
    file.flush()
    return datasets


def take_name(path: Path) -> str:
    """Return the name of a take's file without what tells whether it is finished."""
    return path.name.removesuffix('.part').removesuffix(SUFFIX)


def hidden_name(episode_id: str) -> str:
    """Return the name of a take's file before it can be read."""
    return f'.{episode_id}{NASCENT_SUFFIX}'


def check_outcome(outcome: str) -> str:
    """Return ``outcome``; raise UserError when it is none of ``OUTCOMES``."""
    if outcome not in OUTCOMES:
        raise UserError('unknown outcome', got=repr(outcome), expected=', '.join(OUTCOMES))
    return outcome
