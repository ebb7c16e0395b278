"""What the camera showed in the takes: a window to keep as golden frames, and the sizes."""

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mobile_vla_ros.data.episodes import Takes
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.runs import Run
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError

MOST_SIZES = 8  # of images that a bundle names


def golden_window(takes: Takes, window: int, cache: FrameCache) -> tuple[np.ndarray, str] | None:
    """
    Return the first window of a take that validates, or else of one that is trained on.

    :returns: (window, S, S, 3) uint8 and the take's instruction; None when none can be read.
    """
    for run in (*takes.val, *takes.train):
        try:
            return cache.frames(run, slice(0, window)), run.instruction
        except UserError:  # named where it is trained on
            continue
    return None


def camera_sizes(runs: Sequence[Run]) -> list[list[int]]:
    """Return [width, height] of the first image of each take, the commonest first."""
    found = Counter()
    for run in {run.path: run for run in runs}.values():
        try:
            with Episode.open(run.path) as episode:
                image = Image.open(io.BytesIO(episode.encoded(int(run.frames[0]))))
        except (UserError, OSError):  # named where it is trained on
            continue
        found[image.size] += 1
    return [list(size) for size, _ in found.most_common(MOST_SIZES)]
