"""Decode and resize each frame of an episode once; what a bundle stores of the images."""

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from mobile_vla_ros.data.episodes import EpisodeSet
from mobile_vla_ros.data.preprocess import resize
from mobile_vla_ros.data.segments import Segment
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.stored import read_header
from mobile_vla_ros.types import ImageSpec

Key = tuple[str, int]  # path of the episode, row of the frame
MAX_SIZES = 8  # image sizes in a bundle


class FrameCache:
    """
    Decoded and resized frames, kept as uint8 while they fit into the budget.

    Thread-safe: a thread waits for a frame that another one is decoding.

    :param budget_bytes: memory that cached frames may use.
    """

    def __init__(self, spec: ImageSpec, budget_bytes: int = 1 << 30):
        self.spec = spec
        self.room = budget_bytes
        self.kept: dict[Key, np.ndarray] = {}
        self.decoded = 0
        self._lock = threading.Lock()
        self._pending: dict[Key, Future[np.ndarray]] = {}

    def frames(self, segment: Segment, rows: np.ndarray) -> np.ndarray:
        """
        Return (T, S, S, 3) uint8 images of some frames of a segment.

        :param rows: (T,) their places in it.

        :raises UserError: when the file is missing, or broken at one of the frames; names both.
        """
        wanted = [(str(segment.path), int(index)) for index in segment.frames[rows]]
        own: dict[Key, Future[np.ndarray]] = {}
        pending: dict[Key, Future[np.ndarray]] = {}
        found: dict[Key, np.ndarray] = {}
        with self._lock:
            for key in wanted:
                if key in self.kept:
                    found[key] = self.kept[key]
                elif key in self._pending:
                    pending[key] = self._pending[key]
                else:
                    pending[key] = self._pending[key] = own[key] = Future()
        # Decode before waiting: a thread that waits owes no frame, so there is no deadlock.
        if own:
            self._decode(segment, own)
        found |= {key: future.result() for key, future in pending.items()}
        return np.stack([found[key] for key in wanted])

    def _decode(self, segment: Segment, own: dict[Key, Future[np.ndarray]]) -> None:
        """Give every future its frame, or the error."""
        try:
            with segment.open() as episode:
                for key, future in own.items():
                    try:
                        image = resize(_pixels(episode, key[1], self.spec), self.spec)
                    except UserError as error:
                        future.set_exception(error)  # other frames may still be readable
                        continue
                    with self._lock:
                        self.decoded += 1
                        if image.nbytes <= self.room:
                            self.kept[key] = image
                            self.room -= image.nbytes
                    future.set_result(image)
        except BaseException as error:
            for future in own.values():
                if not future.done():
                    future.set_exception(error)
            raise
        finally:
            with self._lock:
                for key in own:
                    del self._pending[key]


def _pixels(episode: Episode, index: int, spec: ImageSpec) -> np.ndarray:
    """Return a frame's image, decoded as the inference node does."""
    if index >= len(episode):
        raise UserError(
            f'{episode.path} is broken at frame {index}',
            got=f'{len(episode)} frames',
            expected='as many frames as before',
        )
    return episode.frame(index, spec.size).image


def golden_window(episodes: EpisodeSet, cache: FrameCache) -> tuple[np.ndarray, str] | None:
    """
    Return the first readable window, from the validation side if possible.

    :returns: (window, S, S, 3) uint8 and the episode's instruction; None if none is readable.
    """
    for segment in (*episodes.val, *episodes.train):
        try:
            return cache.frames(segment, segment.windows[0]), segment.instruction
        except UserError:  # training reports it
            continue
    return None


def camera_sizes(segments: Sequence[Segment]) -> list[list[int]]:
    """Return [width, height] of the first image of each episode, the most frequent first."""
    sizes: Counter[tuple[int, int]] = Counter()
    for segment in {segment.path: segment for segment in segments}.values():
        try:
            with segment.open() as episode:
                header = read_header(episode.encoded(int(segment.frames[0])))
        except UserError:  # training reports it
            continue
        sizes[header.width, header.height] += 1
    return [list(size) for size, _ in sizes.most_common(MAX_SIZES)]
