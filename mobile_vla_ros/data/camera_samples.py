"""What a bundle stores of the camera: a window for golden frames, and the image sizes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mobile_vla_ros.data.episodes import EpisodeSet
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.segments import Segment
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.stored import read_header

MAX_SIZES = 8  # image sizes in a bundle


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
