"""
What the files of a LeRobot data set are: names, features and the types of their columns.

The set that is written is LeRobotDataset v3.0. Beside LeRobot's own features it has these: the
whole command, the policy's proposal, if a person had taken over, outcome, verdict and the true
times of each frame.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mobile_vla_ros.types import AXIS_UNITS, TWIST_AXES

VERSION = 'v3.0'
INFO, STATS, TASKS = 'meta/info.json', 'meta/stats.json', 'meta/tasks.parquet'
FILE = 'chunk-{chunk_index:03d}/file-{file_index:03d}'
DATA, EPISODES = f'data/{FILE}.parquet', f'meta/episodes/{FILE}.parquet'
VIDEO = f'videos/{{video_key}}/{FILE}.mp4'
CHUNK_FILES = 1000

IMAGE, STATE, ACTION, TASK = 'observation.images.front', 'observation.state', 'action', 'task'
COMMAND, PROPOSAL, TAKEOVER = 'command', 'proposal', 'takeover'
OUTCOME, VERDICT = 'outcome', 'verdict'
TIMES = ('stamp_ns', 'received_ns', 'steady_ns')
INDEXES = ('frame_index', 'episode_index', 'index', 'task_index')
# A column of the episodes' own table: everything else that is known of the episode, as JSON.
ABOUT = 'mobile_vla/about'

# Names of the axes as the robots of LeRobot have them, and of what the odometry says.
AXIS_NAMES = dict(
    zip(
        TWIST_AXES,
        ('x.vel', 'y.vel', 'z.vel', 'roll.vel', 'pitch.vel', 'theta.vel'),
        strict=True,
    )
)
ODOMETRY, LAST_COMMAND = STATES = 'odom', 'command'
STATE_NAMES = ('x.vel', 'y.vel', 'theta.vel', 'x.pos', 'y.pos', 'theta.pos')
STATE_UNITS = ('m/s', 'm/s', 'rad/s', 'm', 'm', 'rad')

Features = dict[str, dict[str, Any]]
NO_NUMBERS = ('image', 'video', 'string')  # types of features without values to count


def place(number: int) -> dict[str, int]:
    """Return chunk and number of a file in the order in which files are written."""
    return {'chunk_index': number // CHUNK_FILES, 'file_index': number % CHUNK_FILES}


def features(
    actions: Mapping[str, str],
    size: tuple[int, int],
    fps: int,
    *,
    video: Mapping[str, Any] | None,
    state: str,
    proposals: bool,
) -> Features:
    """
    Return the features of a set, in the order of its columns.

    :param actions: the name of each axis that is exported.
    :param size: width and height of the images.
    :param state: ``odom`` or ``command``: what `observation.state` is; '': there is none.
    :param video: codec and pixel format of its images as video; None: as images.
    """
    image = _feature('video' if video else 'image', [size[1], size[0], 3])
    image['names'] = ['height', 'width', 'channels']
    if video:
        about = {'height': size[1], 'width': size[0], 'fps': fps, 'channels': 3, **video}
        image['info'] = {f'video.{name}': value for name, value in about.items()}
        image['info'] |= {'video.is_depth_map': False, 'is_depth_map': False, 'has_audio': False}
    units = [AXIS_UNITS[axis] for axis in actions]
    action = _feature('float32', [len(actions)], [*actions.values()], units)
    found = {IMAGE: image}
    if state == ODOMETRY:
        found[STATE] = _feature('float32', [6], [*STATE_NAMES], [*STATE_UNITS])
    elif state:
        found[STATE] = action
    found[ACTION] = action
    found[COMMAND] = _feature('float64', [6], [*TWIST_AXES], [*AXIS_UNITS.values()])
    if proposals:
        found[PROPOSAL] = action
    found |= {TAKEOVER: _feature('bool'), OUTCOME: _feature('string')}
    found |= {VERDICT: _feature('string'), **{name: _feature('int64') for name in TIMES}}
    found |= {'timestamp': _feature('float32'), **{name: _feature('int64') for name in INDEXES}}
    return found


def _feature(
    dtype: str,
    shape: Sequence[int] = (1,),
    names: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
) -> dict[str, Any]:
    feature = {'dtype': dtype, 'shape': list(shape), 'names': names}
    return feature | ({'info': {'units': units}} if units else {})


def schema(found: Features) -> pa.Schema:
    """
    Return the columns of the data files, with the metadata of the library ``datasets``.

    LeRobot's streaming and the viewer of the hub know the images by it.
    """
    fields = []
    described: dict[str, dict[str, Any]] = {}
    for name, feature in found.items():
        dtype = feature['dtype']
        if dtype == 'video':
            continue
        if dtype == 'image':
            kind = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
            described[name] = {'_type': 'Image'}
        else:
            kind = {'bool': pa.bool_()}.get(dtype) or pa.type_for_alias(dtype)
            described[name] = {'dtype': dtype, '_type': 'Value'}
            if feature['names']:
                length = feature['shape'][0]
                kind = pa.list_(kind, length)
                described[name] = {
                    'feature': described[name], 'length': length, '_type': 'List',
                }  # fmt: skip
        fields.append(pa.field(name, kind))
    return pa.schema(fields, {'huggingface': json.dumps({'info': {'features': described}})})


def values(column: pa.Array) -> np.ndarray:
    """Return a column of numbers, (N,) or, of lists of one length, (N, n)."""
    if pa.types.is_nested(column.type):
        inner: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
        return inner.reshape(len(column), -1)
    found: np.ndarray = column.to_numpy(zero_copy_only=False)
    return found


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """Return the table of tasks, whose index in pandas is the task."""
    columns = [('task_index', 'int64', 'int64'), (TASK, 'unicode', 'object')]
    pandas = {
        'index_columns': [TASK],
        'column_indexes': [],
        'columns': [
            {
                'name': name, 'field_name': name, 'pandas_type': kind, 'numpy_type': numpy,
                'metadata': None,
            }
            for name, kind, numpy in columns
        ],
        'pandas_version': '2.2.3',
    }  # fmt: skip
    table = pa.table({'task_index': pa.array(range(len(tasks)), pa.int64()), TASK: [*tasks]})
    return table.replace_schema_metadata({'pandas': json.dumps(pandas)})


def info(
    found: Features, fps: int, lengths: Sequence[int], tasks: int, robot: str
) -> dict[str, Any]:
    """
    Return the content of ``INFO``.

    :param lengths: frames of each episode.
    :param tasks: how many tasks there are.
    :param robot: its type; '': unknown.
    """
    has_video = any(one['dtype'] == 'video' for one in found.values())
    return {
        'codebase_version': VERSION,
        'robot_type': robot or None,
        'total_episodes': len(lengths),
        'total_frames': sum(lengths),
        'total_tasks': tasks,
        'chunks_size': CHUNK_FILES,
        'data_files_size_in_mb': 100,
        'video_files_size_in_mb': 200,
        'fps': fps,
        'splits': {'train': f'0:{len(lengths)}'},
        'data_path': DATA,
        'video_path': VIDEO if has_video else None,
        'features': found,
    }
