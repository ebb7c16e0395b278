"""Episodes as version 1 of the format was written, until the end of 2026."""

from pathlib import Path

import h5py
import numpy as np

from mobile_vla_ros.episode.storage.reader import Episode

LATE_TEXTS = {'outcome': 16, 'command_type': 96, 'frame_id': 128, 'health': 8192}
NO_TIME = np.iinfo(np.int64).min
# Path: type, columns, rows a chunk, fill value.
TIMES = (np.int64, (), 256, NO_TIME)
COMMANDS = {'twist': (np.float64, (6,), 256, np.nan), 'stamp_ns': TIMES, 'received_ns': TIMES}
LAYOUT = {
    'frames/data': (h5py.vlen_dtype(np.uint8), (), 64, None),
    'frames/stamp_ns': (np.int64, (), 64, NO_TIME),
    'frames/received_ns': (np.int64, (), 64, NO_TIME),
    **{f'commands/{name}': kind for name, kind in COMMANDS.items()},
    'commands/source': (np.uint8, (), 256, 0),
    'events/time_ns': (np.int64, (), 32, NO_TIME),
    'events/name': (h5py.string_dtype('utf-8', 16), (), 32, None),
    'events/text': (h5py.string_dtype('utf-8', 240), (), 32, None),
}
PROPOSALS = {f'proposals/{name}': kind for name, kind in COMMANDS.items()}


def as_version1(path: Path, *, killed: bool = False, flush_rows: int = 7) -> Path:
    """
    Replace an episode by the same one in version 1; return its path.

    :param killed: leave the ``.part`` of a writer that died after its last flush.
    """
    with Episode.open(path) as episode:
        attributes = episode.attributes
        rows = _rows(episode)
    path.unlink()
    part = path.with_name(f'{path.stem}.h5.part')
    file = h5py.File(part, 'w', libver='latest')
    for name, value in attributes.items():
        if name in LATE_TEXTS:
            kind = h5py.string_dtype('utf-8', LATE_TEXTS[name])
            value = '' if killed and name == 'health' else value
            file.attrs.create(name, np.bytes_(value.encode()), dtype=kind)
        elif name == 'complete':
            file.attrs.create(name, not killed)
        else:
            file.attrs[name] = 1 if name == 'version' else value
    layout = LAYOUT | (PROPOSALS if 'proposals/twist' in rows else {})
    for name, (dtype, tail, chunk, fill) in layout.items():
        options = {'maxshape': (None, *tail), 'chunks': (chunk, *tail), 'fillvalue': fill}
        file.create_dataset(name, (0, *tail), dtype=dtype, **options)
    file.swmr_mode = True
    for first in range(0, max(map(len, rows.values())), flush_rows):
        for name, column in rows.items():
            _append(file[name], column[first : first + flush_rows])
        file.flush()
    content = part.read_bytes()
    file.close()
    if killed:
        part.write_bytes(content)
        return part
    return part.rename(path)


def _rows(episode: Episode) -> dict:
    """Return every column of version 1, by path."""
    rows = {
        'frames/data': [
            np.frombuffer(episode.encoded(row), np.uint8) for row in range(len(episode))
        ],
        'frames/stamp_ns': episode.frame_stamp_ns,
        'frames/received_ns': episode.frame_received_ns,
        'commands/source': episode.commands.source,
        'events/time_ns': [event.time_ns for event in episode.events],
        'events/name': [event.name.encode() for event in episode.events],
        'events/text': [event.text.encode() for event in episode.events],
    }
    for stream in ('commands', 'proposals'):
        if getattr(episode, stream) is not None:
            for name in COMMANDS:
                rows[f'{stream}/{name}'] = getattr(getattr(episode, stream), name)
    return rows


def _append(dataset: h5py.Dataset, rows) -> None:
    old = len(dataset)
    dataset.resize(old + len(rows), axis=0)
    if dataset.dtype != object:
        dataset[old:] = np.asarray(rows, dtype=dataset.dtype)
        return
    # Low level: h5py would turn images of equal length into a matrix.
    images = np.empty(len(rows), dtype=dataset.dtype)
    for row, image in enumerate(rows):
        images[row] = image
    space = dataset.id.get_space()
    space.select_hyperslab((old,), (len(rows),))
    dataset.id.write(h5py.h5s.create_simple((len(rows),)), space, images)
