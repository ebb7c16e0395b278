"""The parts of `mobile_vla bench record`."""

from pathlib import Path

from mobile_vla_ros.bench.table import Figure

PARTS = ('load', 'kill', 'disk', 'encode')
LOAD_S, KILLS = 600.0, 100


def measure(
    part: str, folder: Path, *, seconds: float, kills: int, seed: int, quiet: bool
) -> list[Figure]:
    """
    Measure one part.

    :param folder: empty; keeps episodes and logs.
    :param seconds: length of the episode recorded under load.
    :param kills: recorders to kill, at moments drawn from ``seed``.
    """
    from mobile_vla_ros.bench.record import disk, encode, kill, load

    match part:
        case 'load':
            return load.measure(folder, seconds, quiet=quiet)
        case 'kill':
            return kill.measure(folder, kills, seed, quiet=quiet)
        case 'disk':
            return disk.measure(folder)
        case _:
            return encode.measure(folder, quiet=quiet)
