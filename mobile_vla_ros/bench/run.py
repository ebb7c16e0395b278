"""What every benchmark does around its parts: choose, give folders, print the table."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mobile_vla_ros.errors import UserError, did_you_mean


def add_arguments(
    parser: argparse.ArgumentParser, parts: Sequence[str], keeps: str, by_name: Sequence[str] = ()
) -> None:
    """
    Add what every benchmark takes.

    :param keeps: what stays in the folder of --out, in words.
    :param by_name: parts that are left out unless they are named.
    """
    usual = f'all but {", ".join(by_name)}' if by_name else 'all of them'
    parser.add_argument(
        'parts', nargs='*', metavar='PART', help=f'any of {", ".join(parts)} ({usual})'
    )
    if by_name:
        parser.add_argument('--all', action='store_true', help='every part')
    parser.add_argument('--out', type=Path, metavar='DIR', help=f'keep {keeps} in this new folder')
    parser.add_argument('--json', action='store_true', help='print JSON')


def asked(
    args: argparse.Namespace, parts: Sequence[str], by_name: Sequence[str] = ()
) -> list[str]:
    """
    Return the parts to measure.

    :raises UserError: for one that is not there.
    """
    if getattr(args, 'all', False):
        return list(parts)
    return chosen(args.parts, parts, [part for part in parts if part not in by_name])


def chosen(given: Sequence[str], known: Sequence[str], default: Sequence[str]) -> list[str]:
    """
    Return the parts that were asked for, in their own order.

    :raises UserError: for one that is not there.
    """
    for part in given:
        if part not in known:
            raise UserError(
                'the benchmark has no such part',
                got=repr(part),
                expected=', '.join(known),
                remedy=did_you_mean(part, known),
            )
    return [part for part in known if part in (given or default)]


def run_parts(
    parts: Sequence[str], measure: Callable[[str, Path], list], out: Path | None, *, as_json: bool
) -> int:
    """
    Measure and print; 1 when a promise is broken.

    :param measure: a part's name and a new folder to its figures.
    :param out: the user's folder to work in; None: one that goes when it is over.
    """
    from mobile_vla_ros.bench.table import as_json as listed
    from mobile_vla_ros.bench.table import table

    figures = []
    with _folder(out) as folder:
        for part in parts:
            (folder / part).mkdir()
            figures += measure(part, folder / part)
            if not as_json:
                print(f'{part}: done', file=sys.stderr, flush=True)
    kept = all(one.kept is not False for one in figures)
    if as_json:
        print(json.dumps({'kept': kept, 'cpus': os.cpu_count(), 'figures': listed(figures)}))
    else:
        print(table(figures))
    return 0 if kept else 1


def refuse_full(out: Path | None) -> None:
    """Raise UserError when something lies in the folder that a benchmark is to work in."""
    if out is not None and out.exists() and any(out.iterdir()):
        raise UserError(f'{out} is not empty', expected='a new folder for --out')


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Give a folder to work in: the user's, or one that goes when it is over."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix='mobile_vla_bench_') as folder:
            yield Path(folder)
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'{out} cannot be made', got=error.strerror, expected='a folder for --out'
        ) from None
    yield out.resolve()
