"""Open the index of a set of episodes with a progress bar; print its note."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from mobile_vla_ros.episode.catalog.index import EpisodeIndex

MIN_FOR_BAR = 20  # episodes


@contextlib.contextmanager
def indexed(path: Path) -> Iterator[EpisodeIndex]:
    """
    Open the index of a folder, or of one file, and bring it up to date.

    :raises UserError: if there is no such path, or no episode in it.
    """
    with EpisodeIndex(path) as index, contextlib.ExitStack() as closing:
        bar = None

        def progress(done: int, total: int):
            nonlocal bar
            if bar is None and total >= MIN_FOR_BAR:
                from tqdm import tqdm

                bar = closing.enter_context(
                    tqdm(total=total, unit='episode', desc='reading', disable=None, leave=False)
                )
            if bar is not None:
                bar.update(done - bar.n)

        index.refresh(progress)
        closing.close()
        for sentence in filter(None, (index.note, index.lost)):
            print(f'mobile_vla: {sentence}', file=sys.stderr)
        if next(index.rows(), None) is None:
            from mobile_vla_ros.episode.storage.reader import find_episodes

            find_episodes(path)  # raises the error
        yield index
