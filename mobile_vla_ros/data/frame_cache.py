"""Frames of takes, decoded and resized once."""

import threading
from concurrent.futures import Future

import numpy as np

from mobile_vla_ros.data.preprocess import resize
from mobile_vla_ros.data.runs import Run
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ImageSpec


class FrameCache:
    """
    Frames decoded and resized once, kept as uint8 while there is room.

    May be asked by several threads at once: a frame that one of them is decoding is waited for.

    :param budget_bytes: memory that kept frames may take.
    """

    def __init__(self, spec: ImageSpec, budget_bytes: int = 1 << 30):
        self.spec = spec
        self.room = budget_bytes
        self.kept: dict[tuple[str, int], np.ndarray] = {}
        self.decoded = 0
        self._lock = threading.Lock()
        self._coming: dict[tuple[str, int], Future[np.ndarray]] = {}

    def frames(self, run: Run, rows: slice) -> np.ndarray:
        """
        Return (T, S, S, 3) uint8 of some rows of a run.

        :raises UserError: when the file is gone, or broken at one of them; it names both.
        """
        wanted = [(str(run.path), int(index)) for index in run.frames[rows]]
        ours: dict[tuple[str, int], Future[np.ndarray]] = {}
        found: dict[tuple[str, int], np.ndarray | Future[np.ndarray]] = {}
        with self._lock:
            for key in wanted:
                found[key] = self.kept.get(key, self._coming.get(key))
                if found[key] is None:
                    found[key] = self._coming[key] = ours[key] = Future()
        # Ours first: whoever waits for another thread owes none a frame, so none waits for ever.
        if ours:
            self._decode(run, ours)
        return np.stack(
            [
                found[key].result() if isinstance(found[key], Future) else found[key]
                for key in wanted
            ]
        )

    def _decode(self, run: Run, ours: dict[tuple[str, int], 'Future[np.ndarray]']) -> None:
        """Give every future its frame, or the error that there is instead."""
        try:
            with Episode.open(run.path) as episode:
                for key, future in ours.items():
                    try:
                        image = resize(_pixels(episode, key[1], self.spec), self.spec)
                    except UserError as error:
                        future.set_exception(error)  # a neighbour's frames are none the worse
                        continue
                    with self._lock:
                        self.decoded += 1
                        if image.nbytes <= self.room:
                            self.kept[key] = image
                            self.room -= image.nbytes
                    future.set_result(image)
        except BaseException as error:
            for future in ours.values():
                if not future.done():
                    future.set_exception(error)
            raise
        finally:
            with self._lock:
                for key in ours:
                    del self._coming[key]


def _pixels(episode: Episode, index: int, spec: ImageSpec) -> np.ndarray:
    """Return a frame as driving would decode it (`nodes.inference_node.Shot`)."""
    if not index < len(episode):
        raise UserError(
            f'{episode.path} is broken at frame {index}',
            got=f'{len(episode)} frames',
            expected='those that it had before',
        )
    return episode.frame(index, spec.size).image
