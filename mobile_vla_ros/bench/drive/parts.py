"""The parts of `mobile_vla bench drive`."""

from pathlib import Path

from mobile_vla_ros.bench.table import Figure

PARTS = ('guard', 'latency', 'step')
BY_NAME = ('step',)


def measure(part: str, folder: Path, *, quiet: bool) -> list[Figure]:
    """
    Measure one part.

    :param folder: empty; keeps weights and logs.
    """
    from mobile_vla_ros.bench.drive import guard, latency, step

    module = {'guard': guard, 'latency': latency, 'step': step}[part]
    return module.measure(folder, quiet=quiet)
