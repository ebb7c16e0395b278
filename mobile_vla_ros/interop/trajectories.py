"""
Read trajectories as GNM, ViNT and NoMaD are trained on: numbered JPEG files and their poses.

The layout is that of robodhruv/visualnav-transformer (README.md, "Data Processing"): a folder has
``traj_data.pkl``, a dict of ``position`` (T, 2) and ``yaw`` (T,), beside ``0.jpg`` to ``T-1.jpg``.
It has no times, and no commands: these are the velocities by which one pose becomes the next.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.stored import decode
from mobile_vla_ros.interop.plain_pickle import MAX_BYTES, read_arrays
from mobile_vla_ros.interop.source import ImportOptions, Source
from mobile_vla_ros.types import NANOSECONDS, Command

MARKER = 'traj_data.pkl'


@contextlib.contextmanager
def open_trajectory(
    path: Path, _key: str, options: ImportOptions, _scratch: Path
) -> Iterator[Source]:
    """
    Open one folder.

    :raises UserError: when its poses cannot be read, images are missing, or its rate or
        instruction is unknown; ``Source.copy`` raises it for a broken image.
    """
    with (path / MARKER).open('rb') as file:
        arrays = read_arrays(file.read(MAX_BYTES + 1))
    shapes = {name: getattr(arrays.get(name), 'shape', None) for name in ('position', 'yaw')}
    count = len(arrays['yaw']) if shapes['yaw'] else 0
    if count < 2 or shapes != {'position': (count, 2), 'yaw': (count,)}:
        raise UserError(
            'its poses have another form',
            got=', '.join(f'{name} {shape}' for name, shape in shapes.items()),
            expected='position (T, 2) in m and yaw (T,) in rad',
        )
    if not all(np.isfinite(arrays[name]).all() for name in shapes):
        raise UserError('a pose is not finite')
    frames = [path / f'{row}.jpg' for row in range(count)]
    missing = [one.name for one in frames if not one.is_file()]
    if missing:
        raise UserError(
            'its images are missing',
            got=f'no {missing[0]}',
            expected=f'one for each of {count} poses',
        )
    if options.rate_hz is None:
        raise UserError('it has no times', remedy='give --rate the poses a second')
    surplus = sum(one.stem.isdecimal() for one in path.glob('*.jpg')) - count
    created_ns, rate_hz = (path / MARKER).stat().st_mtime_ns, options.rate_hz
    twists = velocities(arrays['position'], arrays['yaw'], rate_hz)
    yield Source(
        created_ns,
        lambda writer, seen: _copy(frames, twists, created_ns, rate_hz, writer, seen),
        {'instruction': options.or_given('')},
        rate_hz,
        timed=False,
        notes=(f'not imported: {surplus} images beyond the last pose',) if surplus else (),
    )


def velocities(position: np.ndarray, yaw: np.ndarray, rate_hz: float) -> np.ndarray:
    """
    Return the constant velocities that lead from each pose to the next (the logarithm in SE(2)).

    :param position: (T, 2) m; yaw: (T,) rad.
    :returns: (T - 1, 6) float64, m/s and rad/s in the base's axes.
    """
    position, yaw = position.astype(np.float64), yaw.astype(np.float64)
    turn = (np.diff(yaw) + np.pi) % (2 * np.pi) - np.pi
    half = turn / 2
    # The chord, seen from half-way, is longer along the arc by half / sin(half).
    x, y = (np.diff(position, axis=0) / np.sinc(half / np.pi)[:, None]).T
    along, cos, sin = yaw[:-1] + half, np.cos, np.sin
    twists = np.zeros((len(turn), 6))
    twists[:, 0] = x * cos(along) + y * sin(along)
    twists[:, 1] = y * cos(along) - x * sin(along)
    twists[:, 5] = turn
    return twists * rate_hz


def _copy(
    frames: list[Path],
    twists: np.ndarray,
    first_ns: int,
    rate_hz: float,
    writer: EpisodeWriter,
    seen: Callable[[], None],
) -> None:
    writer.add_event('start', first_ns, f'poses at {rate_hz:g} Hz; no times were kept')
    period_ns = int(NANOSECONDS / rate_hz)
    for row, path in enumerate(frames):
        encoded, time_ns = path.read_bytes(), first_ns + row * period_ns
        try:
            decode(encoded)
        except UserError as error:
            raise UserError(f'{path.name} cannot be read', got=error) from None
        if row < len(twists):  # after the last pose nobody knows
            writer.add_command(Command(twists[row], time_ns, time_ns))
        writer.add_frame(encoded, time_ns, time_ns)
        seen()
    writer.add_event('stop', first_ns + (len(frames) - 1) * period_ns)
