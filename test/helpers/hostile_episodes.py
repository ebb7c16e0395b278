"""
Episodes as a stranger may send them: a good one with one thing exchanged in it.

As a script it runs the commands over every kind and counts tracebacks, leaks and hangs:
``python test/helpers/hostile_episodes.py FOLDER`` (20 minutes; with ``direct`` behind it, the
commands read in their own process, so that only the gate stands before a traceback).
"""

import contextlib
import importlib
import io
import json
import os
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np

from mobile_vla_ros.episode.catalog.inspect import check, describe, read_through
from mobile_vla_ros.episode.catalog.read import read_row
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.interop.export import export
from mobile_vla_ros.replay.run import arrival_times
from mobile_vla_ros.report.builders.episode_view import read_view
from small_episodes import CREATED_NS, IMU, START_NS, TF, message, write_rows

SECRET = 'root:x:0:0:only the reader of this episode may see this line\n'
LAYOUT = schema.LAYOUT
Change = Callable[[h5py.File, str], None]


def good_episode(folder: Path, frames: int = 12) -> Path:
    """Write an episode with every dataset of the format; return its path."""
    info = EpisodeInfo('go to the red box')
    writer = EpisodeWriter(folder, info, CREATED_NS, proposals=True, messages=True)
    writer.add_event('start', START_NS, 'by hand')
    write_rows(writer, frames)
    for row in range(frames):
        writer.add_proposal(np.zeros(6), START_NS + row, START_NS + row)
        writer.add_message((IMU, TF)[row % 2], message(row), *[START_NS + row] * 3)
    writer.add_event('stop', START_NS + frames * 100_000_000, 'by hand')
    return writer.close('success')


def secret_file(folder: Path) -> Path:
    """Write what only its reader may see."""
    path = folder / 'secret.txt'
    path.write_text(SECRET * 100)
    return path


def fifo(folder: Path) -> Path:
    """Make a FIFO that nobody writes to: whoever opens it waits forever."""
    path = folder / 'fifo'
    os.mkfifo(path)
    return path


# --- datasets: what is put in the place of one ---


def put(make: Callable[[h5py.File, str, h5py.Dataset], object]) -> Change:
    """Return what deletes a dataset and puts something else in its place."""

    def change(file: h5py.File, path: str) -> None:
        old = file[path]
        del file[path]
        make(file, path, old)

    return change


def like(dtype, *, shape=None) -> Change:
    """Return what exchanges the type of a dataset, or its shape."""

    def make(file, path, old):
        file.create_dataset(path, shape or old.shape, dtype=dtype, chunks=True)

    return put(make)


def same(**options) -> Change:
    """Return what makes a dataset of the same rows with other options of h5py."""

    def make(file, path, old):
        new = file.create_dataset(path, old.shape, dtype=old.dtype, **options)
        with contextlib.suppress(TypeError):
            new[...] = old[...]

    return put(make)


def stored_elsewhere(name: str) -> Change:
    """Return what says that a dataset's bytes are in another file."""

    def make(file, path, old):
        shape = (2, *old.shape[1:])
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        count = 2 * int(np.prod(shape)) * old.id.get_type().get_size()
        plist.set_external(name.encode(), 0, count)
        h5py.h5d.create(
            file.id, path.encode(), old.id.get_type(), h5py.h5s.create_simple(shape), plist
        )

    return put(make)


def virtual(file: h5py.File, path: str, old: h5py.Dataset) -> None:
    """Show rows of another file."""
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    layout[...] = h5py.VirtualSource('other.h5', path, old.shape, old.dtype)
    file.create_virtual_dataset(path, layout)


def filtered(*filters: tuple[int, tuple[int, ...]]) -> Change:
    """Return what passes a dataset through filters, known or not."""

    def make(file, path, old):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((64, *old.shape[1:]))
        for number, values in filters:
            plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, values)
        space = h5py.h5s.create_simple(old.shape, (h5py.h5s.UNLIMITED, *old.shape[1:]))
        h5py.h5d.create(file.id, path.encode(), old.id.get_type(), space, plist)

    return put(make)


def claiming(rows: int, *, chunked: bool) -> Change:
    """Return what claims rows of which no byte is stored."""

    def make(file, path, old):
        chunks = (64, *old.shape[1:]) if chunked else None
        file.create_dataset(path, (rows, *old.shape[1:]), dtype=old.dtype, chunks=chunks)

    return put(make)


def bomb(rows: int, chunk_rows: int) -> Change:
    """Return what stores rows of zeros in almost no bytes."""

    def make(file, path, old):
        tail = old.shape[1:]
        new = file.create_dataset(
            path,
            (rows, *tail),
            dtype=old.dtype,
            chunks=(chunk_rows, *tail),
            compression='gzip',
        )
        size = chunk_rows * int(np.prod(tail, dtype=int)) * old.id.get_type().get_size()
        data = zlib.compress(bytes(size), 9)
        for first in range(0, rows, chunk_rows):
            new.id.write_direct_chunk((first, *(0 for _ in tail)), data)

    return put(make)


def null_images(file: h5py.File, path: str) -> None:
    """List 262,144 images of no bytes, which a reader may try one after another."""
    rows = 1 << 18
    for name, dataset in file['frames'].items():
        if name != 'bytes':
            dataset.resize(rows, axis=0)
            dataset[:] = START_NS + np.arange(rows) if name.endswith('_ns') else 0


def lying_size(file: h5py.File, path: str) -> None:
    """Let the last image claim 2 GB."""
    file['frames/size'][-1] = 2**31 - 1


def repeated_image(file: h5py.File, path: str) -> None:
    """List the first image thousands of times, with an impossible row between each two."""
    rows, size = 1 << 14, file['frames/size'][0]
    for name, dataset in file['frames'].items():
        if name != 'bytes':
            dataset.resize(rows, axis=0)
            dataset[:] = START_NS + np.arange(rows) if name.endswith('_ns') else 0
    file['frames/size'][0::2] = size


def version1_null_images(file: h5py.File, path: str) -> None:
    """Store 262,144 images of no bytes: 4 MB of rows that a reader may try one after another."""
    rows = 1 << 18
    for name in ('stamp_ns', 'received_ns', 'data'):
        dataset = file[f'frames/{name}']
        dataset.resize(rows, axis=0)
        if name == 'data':
            for first in range(0, rows, 64):
                dataset.id.write_direct_chunk((first,), bytes(64 * 16))
        else:
            dataset[:] = START_NS + np.arange(rows)


def version1_lying_length(file: h5py.File, path: str) -> None:
    """Let the last image claim 4 GB, which HDF5 fetches memory for before it looks."""
    dataset = file['frames/data']
    _, chunk = dataset.id.read_direct_chunk((0,))
    row = (len(dataset) - 1) * 16
    lie = struct.pack('<I', 0xFFFFFFF0)
    dataset.id.write_direct_chunk((0,), chunk[:row] + lie + chunk[row + 4 :])


def slow_commands(file: h5py.File, path: str) -> None:
    """Store 4 million commands and a million events of zeros, packed: seconds to read."""
    for name, rows in (
        *((f'commands/{one}', 1 << 22) for one in ('twist', 'stamp_ns', 'received_ns', 'source')),
        *((f'events/{one}', 1 << 20) for one in ('time_ns', 'name', 'text')),
    ):
        bomb(rows, 1 << 17)(file, name)


def rows_of(value) -> Change:
    """Return what overwrites every row of a dataset."""

    def change(file: h5py.File, path: str) -> None:
        file[path][...] = value

    return change


TYPES: dict[str, Change] = {
    'int8': like('i1'),
    'int32': like('i4'),
    'uint64': like('u8'),
    'int64': like('i8'),
    'big endian': like('>i8'),
    'float32': like('f4'),
    'float64': like('f8'),
    'float128': like('longdouble'),
    'complex': like('c16'),
    'compound': like(np.dtype([('a', 'i8'), ('b', 'f8')])),
    'opaque': like(np.dtype('V7')),
    'long opaque': like(h5py.opaque_dtype(np.dtype('M8[ns]'))),
    'text': like(h5py.string_dtype()),
    'fixed text': like('S5'),
    'reference': like(h5py.ref_dtype),
    'region reference': like(h5py.regionref_dtype),
    'enum': like(h5py.enum_dtype({'A': 1, 'B': 2}, 'i8')),
    'bool': like(bool),
    'array': like(np.dtype(('i8', (3,)))),
    'vlen float': like(h5py.vlen_dtype(np.float64)),
    'vlen uint8': like(h5py.vlen_dtype(np.uint8)),
    'vlen vlen': like(h5py.vlen_dtype(h5py.vlen_dtype(np.uint8))),
}
SHAPES: dict[str, Change] = {
    'missing': put(lambda file, path, old: None),
    'group': put(lambda file, path, old: file.create_group(path)),
    'null': put(lambda file, path, old: file.create_dataset(path, data=h5py.Empty(old.dtype))),
    'scalar': put(lambda file, path, old: file.create_dataset(path, (), dtype=old.dtype)),
    'another axis': put(
        lambda file, path, old: file.create_dataset(path, (*old.shape, 2), dtype=old.dtype)
    ),
    'no row': put(
        lambda file, path, old: file.create_dataset(path, (0, *old.shape[1:]), dtype=old.dtype)
    ),
    'named type': put(lambda file, path, old: file.__setitem__(path, np.dtype('i8'))),
}
LINKS: dict[str, Change] = {
    'external link': put(
        lambda file, path, old: file.__setitem__(path, h5py.ExternalLink('other.h5', path))
    ),
    'external link to a FIFO': put(
        lambda file, path, old: file.__setitem__(path, h5py.ExternalLink('fifo', path))
    ),
    'soft link to nothing': put(
        lambda file, path, old: file.__setitem__(path, h5py.SoftLink('/nowhere'))
    ),
    'soft link to itself': put(
        lambda file, path, old: file.__setitem__(path, h5py.SoftLink(f'/{path}'))
    ),
    'soft link out': put(
        lambda file, path, old: (
            file.__setitem__('out', h5py.ExternalLink('other.h5', '/')),
            file.__setitem__(path, h5py.SoftLink(f'/out/{path}')),
        )
    ),
    'external storage': stored_elsewhere('secret.txt'),
    'external storage in a FIFO': stored_elsewhere('fifo'),
    'virtual': put(virtual),
}
FILTERS: dict[str, Change] = {
    'unknown filter': filtered((32_123, ())),
    'lzf': filtered((32_000, ())),
    'gzip twice': filtered((1, (9,)), (1, (9,))),
    'scale offset': filtered((6, (2, 0))),
    'claims 1e9 rows': claiming(1_000_000_000, chunked=True),
    'claims 1e9 rows in a piece': claiming(1_000_000_000, chunked=False),
    'claims 2^60 rows': claiming(1 << 60, chunked=True),
    'gzip bomb': bomb(1 << 26, 1 << 20),
}
DATASET_KINDS = TYPES | SHAPES | LINKS | FILTERS

# --- attributes ---


def attribute(value, **options) -> Change:
    """Return what exchanges an attribute."""

    def change(file: h5py.File, name: str) -> None:
        if name in file.attrs:
            del file.attrs[name]
        file.attrs.create(name, value, **options)

    return change


ATTRIBUTE_KINDS: dict[str, Change] = {
    'missing': lambda file, name: file.attrs.__delitem__(name),
    'number': attribute(3),
    'huge number': attribute(np.uint64(2**64 - 1)),
    'nan': attribute(np.nan),
    'inf': attribute(-np.inf),
    'float128': attribute(np.longdouble(1)),
    'text': attribute('something else'),
    'numbers': attribute(np.arange(3)),
    'texts': attribute(['a', 'b'], dtype=h5py.string_dtype()),
    'one in a row': attribute(np.array([1])),
    'null': attribute(h5py.Empty('f')),
    'null text': attribute(h5py.Empty(h5py.string_dtype())),
    'flag': attribute(True),
    'no UTF-8': attribute(np.bytes_(b'\xff\xfe\x80')),
    'no UTF-8, variable': attribute(b'\xff\xfe\x80', dtype=h5py.string_dtype()),
    'complex': attribute(1j),
    'compound': attribute(np.zeros((), [('a', 'i8'), ('b', 'f8')])),
    'opaque': attribute(np.void(b'1234567')),
    'enum': attribute(1, dtype=h5py.enum_dtype({'A': 1, 'B': 2}, 'i4')),
    'array': attribute(np.zeros((), np.dtype(('i8', (3,))))),
    'long text': attribute('x' * 8_000_000),
    'reference': lambda file, name: attribute(file['frames'].ref, dtype=h5py.ref_dtype)(
        file, name
    ),
    'vlen': lambda file, name: _vlen_attribute(file, name),
}


def _vlen_attribute(file: h5py.File, name: str) -> None:
    value = np.empty(1, object)
    value[0] = np.arange(3, dtype=np.uint8)
    attribute(value, dtype=h5py.vlen_dtype(np.uint8))(file, name)


def health(value) -> Change:
    """Return what exchanges the verdict: JSON of another shape."""

    def change(file: h5py.File, name: str) -> None:
        old = json.loads(file.attrs['health'])
        new = {**old, **value} if isinstance(value, dict) else value
        text = schema.fixed_text(json.dumps(new), schema.LATE_TEXT_BYTES['health'])
        file.attrs.modify('health', text)

    return change


HEALTH_KINDS: dict[str, Change] = {
    'a list': health([1]),
    'a number': health(1),
    'an unknown verdict': health({'verdict': 'splendid'}),
    'a verdict that is a list': health({'verdict': [1]}),
    'reasons in a text': health({'reasons': 'none'}),
    'reasons that are numbers': health({'reasons': [1, {}]}),
    'no reasons': health({'reasons': None}),
    'measures in words': health({'frame_rate_hz': 'fast', 'skew_s': [], 'drops': {}}),
    'measures that are no number': health({'frame_rate_hz': float('nan'), 'worst_gap_s': 1e400}),
    'an expected rate in words': health({'expected_rate_hz': 'ten'}),
    'an expected rate of zero': health({'expected_rate_hz': 0}),
    'timed in words': health({'timed': 'yes'}),
    'a scale of an unknown axis': health({'odometry_scale': {'up': 1.0}}),
    'a scale in words': health({'odometry_scale': {'linear_x': 'fast'}}),
    'lags in a list': health({'odometry_lag_s': [0.1]}),
    'deeply nested': lambda file, name: file.attrs.modify('health', np.bytes_(b'[' * 8000)),
}


def topic_of_escapes(file: h5py.File) -> None:
    """Name a topic and its type with what a terminal would obey."""
    file['channels/topic'][0] = np.bytes_(b'/\x1b[31m\n')
    file['channels/type'][0] = np.bytes_(b'\x1b]0;x\x07')


CONTENT_KINDS: dict[str, tuple[str, Change]] = {
    'latest times': ('frames/received_ns', rows_of(2**63 - 1)),
    'earliest times': ('frames/received_ns', rows_of(-(2**63) + 1)),
    'latest stamps': ('frames/stamp_ns', rows_of(2**63 - 1)),
    'commands at the earliest times': ('commands/received_ns', rows_of(-(2**63) + 1)),
    'events at the latest times': ('events/time_ns', rows_of(2**63 - 1)),
    'frames a year apart': (
        'frames/received_ns',
        lambda file, path: rows_of(START_NS + np.arange(12) * 10**17)(file, path),
    ),
    'commands a year apart': (
        'commands/received_ns',
        lambda file, path: rows_of(START_NS + np.arange(24) * 10**17)(file, path),
    ),
    'nan commands': ('commands/twist', rows_of(np.nan)),
    'huge commands': ('commands/twist', rows_of(1e308)),
    'unknown sources': ('commands/source', rows_of(255)),
    'nan proposals': ('proposals/twist', rows_of(np.inf)),
    'event names that are no UTF-8': ('events/name', rows_of(np.bytes_(b'\xff\xfe'))),
    'event texts that are no UTF-8': ('events/text', rows_of(np.bytes_(b'\xff\xfe'))),
    'unknown events': ('events/name', rows_of(np.bytes_(b'party'))),
    '262144 images of nothing': ('frames/size', null_images),
    'an image of 2 GB': ('frames/size', lying_size),
    '8192 times one image': ('frames/offset', repeated_image),
    'a message of 2 GB': ('messages/size', rows_of(2**31 - 1)),
    'one message again and again': ('messages/offset', rows_of(0)),
    'messages of no channel': ('messages/channel', rows_of(7)),
    'messages at the latest times': ('messages/steady_ns', rows_of(2**63 - 1)),
    'one topic twice': ('channels/topic', rows_of(np.bytes_(b'/imu'))),
    'topics that are no UTF-8': ('channels/topic', rows_of(np.bytes_(b'\xff\xfe'))),
    'topics of control characters': ('channels/topic', lambda file, path: topic_of_escapes(file)),
    'definitions beyond the end': ('channels/offset', rows_of(2**60)),
}
VERSION1_KINDS: dict[str, tuple[Change, str]] = {
    '262144 images of nothing': (version1_null_images, 'frames/data'),
    'an image of 4 GB': (version1_lying_length, 'frames/data'),
}


def many_groups(file: h5py.File, path: str) -> None:
    """Put more objects into a file than any episode has."""
    for index in range(20_000):
        file.create_group(f'more/{index}')


def cycle(file: h5py.File, path: str) -> None:
    """Let a group contain itself."""
    file['frames/again'] = file['frames']


def other_link(file: h5py.File, path: str) -> None:
    """Name another file where no reader of episodes looks."""
    file['notes'] = h5py.ExternalLink('other.h5', '/')


FILE_KINDS: dict[str, Change] = {
    'many groups': many_groups,
    'a group in itself': cycle,
    'an external link elsewhere': other_link,
    'no group frames': lambda file, path: file.__delitem__('frames'),
    'no group commands': lambda file, path: file.__delitem__('commands'),
    'no group events': lambda file, path: file.__delitem__('events'),
    'frames is a dataset': put(lambda file, path, old: file.create_dataset('frames', data=1)),
    'many attributes': lambda file, path: [
        file.attrs.__setitem__(f'more{index}', index) for index in range(3000)
    ],
}


def changes() -> Iterator[tuple[str, Change, str]]:
    """Yield the name of every kind, what makes it, and the path or attribute that it changes."""
    for path, (_, dtype, *_) in LAYOUT.items():
        for kind, change in DATASET_KINDS.items():
            if kind == 'scale offset' and np.dtype(dtype).kind == 'S':
                continue  # HDF5 knows none for texts
            yield f'{path}: {kind}', change, path
    names = (
        'format',
        'version',
        'episode_id',
        'created_utc',
        'instruction',
        'operator',
        'robot',
        'outcome',
        'complete',
        'recovered',
        'image_topic',
        'command_topic',
        'command_type',
        'frame_id',
        'package_version',
        'ros_version',
        'origin',
        'camera_time',
        'health',
        'stranger',
    )
    for name in names:
        for kind, change in ATTRIBUTE_KINDS.items():
            if (name, kind) != ('stranger', 'missing'):
                yield f'{name}: {kind}', change, name
    for kind, change in HEALTH_KINDS.items():
        yield f'health: {kind}', change, 'health'
    for kind, (path, change) in CONTENT_KINDS.items():
        yield f'{path}: {kind}', change, path
    for kind, change in FILE_KINDS.items():
        yield f'file: {kind}', change, 'frames'


def spoil(good: Path, target: Path, change: Change, path: str) -> Path:
    """Write a copy of a good episode with one change; return its path."""
    shutil.copyfile(good, target)
    with h5py.File(target, 'r+') as file:
        change(file, path)
    return target


def open_all(path: Path, out: Path) -> None:
    """Do what the commands do with an episode; only UserError may come out."""
    describe(path)
    check(path)
    read_row(path)
    read_view(path, 10, 100, 1_000_000)
    export(path, out, 'csv')
    read_through(path, images=True)
    with Episode.open(path) as episode:
        if len(episode):
            arrival_times(episode)


# --- the commands, as a script ---

LIMIT_S = 10
SLOW_S = 5.0
MEMORY = 3 << 30
# The script takes these, one of each kind of stream and of attribute.
DATASETS = (
    *('frames/bytes', 'frames/offset', 'commands/twist', 'events/text', 'proposals/twist'),
    *('messages/bytes', 'messages/channel', 'channels/topic'),
)
ATTRIBUTES = (
    *('format', 'version', 'episode_id', 'created_utc', 'instruction', 'outcome', 'complete'),
    *('frame_id', 'health', 'stranger'),
)


def commands(path: Path, folder: Path) -> dict[str, list[str]]:
    """Return the commands that open an episode, by name."""
    episode, out = str(path), str(folder / 'out')
    return {
        'show': ['episodes', 'show', episode, '--json'],
        'list': ['episodes', 'list', episode],
        'check': ['episodes', 'check', episode],
        'view': ['episodes', 'view', episode, '--out', str(folder / 'page.html')],
        'export csv': ['episodes', 'export', episode, '--out', out, '--format', 'csv'],
        'export rosbag2': ['episodes', 'export', episode, '--out', out, '--format', 'rosbag2'],
        'recover': ['episodes', 'recover', episode],
        'import': [
            *('episodes', 'import', episode, '--out', str(folder / 'imported')),
            *('--rate', '5', '--instruction', 'go'),
        ],
        'train': [],
        'replay': [],
    }


def run_one(name: str, arguments: list[str], path: Path) -> None:
    """Run one command in this process."""
    if name == 'train':
        from mobile_vla_ros.data.segments import Sampling, read_episodes

        print(read_episodes([path], Sampling(), ['good', 'poor', 'bad']).skipped)
    elif name == 'replay':
        from mobile_vla_ros.episode.storage.reader import Episode
        from mobile_vla_ros.errors import UserError
        from mobile_vla_ros.replay.run import arrival_times, instruction_of

        with contextlib.suppress(UserError), Episode.open(path) as episode:
            instruction_of(episode, None)
            arrival_times(episode)
    else:
        from mobile_vla_ros.cli.main import main

        main(arguments)


def outcome(name: str, arguments: list[str], path: Path, folder: Path) -> str:
    """Run a command; return 'fine', or what went wrong."""
    for one in ('out', 'imported'):
        shutil.rmtree(folder / one, ignore_errors=True)
    page = folder / 'page.html'
    page.unlink(missing_ok=True)
    text, fault = io.StringIO(), ''
    began = time.monotonic()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            run_one(name, arguments, path)
        except SystemExit:
            pass
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            fault = f'traceback: {type(error).__name__} in {Path(last.filename).name}'
    took = time.monotonic() - began
    written = [one for kind in ('out', 'imported') for one in (folder / kind).rglob('*')]
    said = text.getvalue().encode(errors='replace')
    said += b''.join(one.read_bytes() for one in [*written, page] if one.is_file())
    if SECRET[:30].encode() in said:
        return 'leak'
    if b'Traceback' in said:
        fault = 'traceback: printed'
    return fault or (f'slow: {took:.0f} s' if took > SLOW_S else 'fine')


def outcomes(path: Path, folder: Path) -> dict[str, str]:
    """Run every command in a child; return by command what went wrong."""
    report = folder / 'report'
    found: dict[str, str] = {}
    todo = commands(path, folder)
    while todo:
        report.write_text('')
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with report.open('a') as lines:
                for name, arguments in todo.items():
                    signal.alarm(LIMIT_S)
                    lines.write(f'{outcome(name, arguments, path, folder)}\n')
                    lines.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        lines = report.read_text().splitlines()
        if os.WIFSIGNALED(status):
            lines.append('hang' if os.WTERMSIG(status) == signal.SIGALRM else 'killed')
        found |= dict(zip(todo, lines, strict=False))
        todo = {name: todo[name] for name in list(todo)[len(lines) :]}
    return {name: one for name, one in found.items() if one != 'fine'}


def call_directly(worker: object, work: str, path: Path, *more, whole: bool = False, step=None):
    """Do what ``FileWorker.call`` does, in this process."""
    module, _, name = work.partition(':')
    function = getattr(importlib.import_module(f'mobile_vla_ros.{module}'), name)
    return json.loads(json.dumps(function(path, *more, *filter(None, [step]))))


def main(folder_name: str, how: str = '') -> None:
    """Print every kind that a command does not survive, and totals."""
    if how == 'direct':
        from mobile_vla_ros.episode.catalog.file_worker import FileWorker

        FileWorker.call = call_directly
    for name in ('data.segments', 'episode.catalog.inspect', 'interop.export', 'interop.imports'):
        importlib.import_module(f'mobile_vla_ros.{name}')
    for name in ('replay.run', 'report.builders.episodes', 'cli.main'):
        importlib.import_module(f'mobile_vla_ros.{name}')
    folder = Path(folder_name).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    good = good_episode(folder / 'good')
    shutil.copyfile(good, folder / 'other.h5')
    secret_file(folder)
    fifo(folder)
    os.chdir(folder)
    outcomes(good, folder)  # warms up
    assert not outcomes(good, folder)
    faults: dict[str, Counter[str]] = defaultdict(Counter)
    kinds, failed = 0, 0
    for kind, change, path in changes():
        if path not in (*DATASETS, *ATTRIBUTES, 'frames') and kind.split(': ')[1] in (
            DATASET_KINDS | ATTRIBUTE_KINDS
        ):
            continue
        target = spoil(good, folder / good.name, change, path)
        kinds += 1
        wrong = outcomes(target, folder)
        for rest in folder.glob('*_recovered.h5'):
            rest.unlink()
        for name, found in wrong.items():
            faults[name][found.partition(':')[0]] += 1
        failed += bool(wrong)
        if wrong:
            print(f'{kind}: {wrong}', flush=True)
    print(f'{failed} of {kinds} kinds go wrong in some command')
    for name, counts in faults.items():
        print(f'{name}: {dict(counts)}')


if __name__ == '__main__':
    main(*sys.argv[1:])
