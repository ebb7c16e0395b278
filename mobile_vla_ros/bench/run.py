"""The parts of the three benchmarks; run the chosen ones, each in its own folder."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mobile_vla_ros.bench.table import Figure
from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.files import make_folder

# The parts of each benchmark; those BY_NAME run only by name or with --all.
RECORD_PARTS = ('load', 'ring', 'kill', 'disk', 'encode')
RECORD_S, KILLS = 600.0, 100
RING_S = 60.0  # of each phase, at most
TRAIN_PARTS, TRAIN_BY_NAME = ('encodes', 'tokens', 'decode', 'loader', 'memory', 'full'), ('full',)
EPISODES, TURNS = 3, 3
DRIVE_PARTS, DRIVE_BY_NAME = ('guard', 'latency', 'step', 'load'), ('step', 'load')


def chosen(given: Sequence[str], known: Sequence[str], default: Sequence[str]) -> list[str]:
    """
    Return the requested parts, in the order of ``known``.

    :raises UserError: for an unknown part.
    """
    for part in given:
        if part not in known:
            raise UserError(
                'unknown part of the benchmark',
                got=repr(part),
                expected=', '.join(known),
                remedy=did_you_mean(part, known),
            )
    return [part for part in known if part in (given or default)]


def check_counts(**counts: float) -> None:
    """Raise UserError for a count of less than 1, by the name of its flag."""
    if min(counts.values()) < 1:
        raise UserError(
            'nothing to measure',
            got=' '.join(f'--{name} {value:g}' for name, value in counts.items()),
            expected='at least 1 of each',
        )


def run_parts(
    parts: Sequence[str],
    measure: Callable[[str, Path], list[Figure]],
    out: Path | None,
    done: Callable[[str], None],
) -> list[Figure]:
    """
    Measure the parts, each in its own folder.

    :param measure: maps a part and its new folder to figures.
    :param out: the user's folder; None: a temporary one.
    :param done: called with the name of each finished part.
    """
    figures = []
    with _folder(out) as folder:
        for part in parts:
            (folder / part).mkdir()
            figures += measure(part, folder / part)
            done(part)
    return figures


def measure_record(
    part: str, folder: Path, *, seconds: float, kills: int, seed: int, quiet: bool
) -> list[Figure]:
    """
    Measure one part of `mobile_vla bench record`.

    :param folder: empty; keeps episodes and logs.
    :param seconds: length of the episode recorded under load.
    :param kills: recorders to kill, at moments drawn from ``seed``.
    """
    from mobile_vla_ros.bench.record import disk, encode, kill, load, ring

    match part:
        case 'load':
            return load.measure(folder, seconds, quiet=quiet)
        case 'ring':
            return ring.measure(folder, min(seconds, RING_S), quiet=quiet)
        case 'kill':
            return kill.measure(folder, kills, seed, quiet=quiet)
        case 'disk':
            return disk.measure(folder)
        case _:
            return encode.measure(folder, quiet=quiet)


def measure_train(
    part: str,
    folder: Path,
    *,
    episodes: int,
    turns: int,
    batches: Sequence[int],
    device: str = 'cpu',
    quiet: bool,
) -> list[Figure]:
    """
    Measure one part of `mobile_vla bench train`.

    :param folder: empty; keeps episodes, weights and training runs.
    :param turns: how often each way is timed.
    :param batches: batch sizes whose memory is counted.
    :param device: of the part ``full``.
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
            return full_size.measure(folder, device)


def measure_drive(part: str, folder: Path, *, device: str = 'cpu', quiet: bool) -> list[Figure]:
    """
    Measure one part of `mobile_vla bench drive`.

    :param folder: empty; keeps weights and logs.
    :param device: of the parts ``step`` and ``load``.
    """
    from mobile_vla_ros.bench.drive import guard, latency, load, step

    if part in ('step', 'load'):
        return {'step': step, 'load': load}[part].measure(folder, device, quiet=quiet)
    return {'guard': guard, 'latency': latency}[part].measure(folder, quiet=quiet)


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Yield the user's folder, created if missing, or a temporary one."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix='mobile_vla_bench_') as folder:
            yield Path(folder)
        return
    make_folder(out)
    yield out.resolve()
