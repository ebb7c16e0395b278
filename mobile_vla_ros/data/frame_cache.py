"""Frames of takes, decoded and resized once."""

import numpy as np

from mobile_vla_ros.data.preprocess import resize
from mobile_vla_ros.data.runs import Run
from mobile_vla_ros.episode.reader import Episode
from mobile_vla_ros.types import ImageSpec


class FrameCache:
    """Frames decoded and resized once, kept as uint8 while there is room."""

    def __init__(self, spec: ImageSpec, budget_bytes: int = 1 << 30):
        self.spec = spec
        self.room = budget_bytes
        self.kept: dict[tuple[str, int], np.ndarray] = {}

    def frames(self, run: Run, rows: slice) -> np.ndarray:
        """Return (T, S, S, 3) uint8 of some rows of a run."""
        wanted = [(str(run.path), int(index)) for index in run.frames[rows]]
        missing = [key for key in wanted if key not in self.kept]
        fresh = {}
        if missing:
            with Episode.open(run.path) as episode:
                for key in missing:
                    fresh[key] = resize(episode.frame(key[1]).image, self.spec)
        for key, image in fresh.items():
            if image.nbytes <= self.room:
                self.kept[key] = image
                self.room -= image.nbytes
        return np.stack([self.kept[key] if key in self.kept else fresh[key] for key in wanted])
