"""Run the chosen parts of a benchmark, each in its own folder."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mobile_vla_ros.bench.table import Figure
from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.files import make_folder


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


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Yield the user's folder, created if missing, or a temporary one."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix='mobile_vla_bench_') as folder:
            yield Path(folder)
        return
    make_folder(out)
    yield out.resolve()
