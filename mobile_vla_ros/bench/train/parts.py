"""The parts of `mobile_vla bench train`."""

from collections.abc import Sequence
from pathlib import Path

from mobile_vla_ros.bench.table import Figure

PARTS = ('encodes', 'tokens', 'decode', 'loader', 'memory', 'full')
BY_NAME = ('full',)
EPISODES, TURNS = 3, 3


def measure(
    part: str, folder: Path, *, episodes: int, turns: int, batches: Sequence[int], quiet: bool
) -> list[Figure]:
    """
    Measure one part.

    :param folder: empty; keeps episodes, weights and training runs.
    :param turns: how often each way is timed.
    :param batches: batch sizes whose memory is counted.
    """
    from mobile_vla_ros.bench.train import encodes, feed, full_size, memory

    match part:
        case 'encodes':
            return encodes.measure(folder, episodes, turns, quiet=quiet)
        case 'tokens':
            return feed.tokens(folder, episodes, turns)
        case 'decode':
            return feed.decoding(turns)
        case 'loader':
            return feed.loader(folder, max(2, 4 * episodes - 2))
        case 'memory':
            return memory.measure(folder, tuple(batches))
        case _:
            return full_size.measure(folder)
