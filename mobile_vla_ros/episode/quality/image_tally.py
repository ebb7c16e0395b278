"""What the verdict needs to know of a take's images, gathered one by one as they pass."""

import contextlib

import numpy as np

from mobile_vla_ros.episode.quality import image_quality as picture
from mobile_vla_ros.errors import UserError


class Tally:
    """Tells which images are the same as the one before, and looks at about one a second."""

    def __init__(self):
        self._last_image, self._looked_ns = b'', None
        self._frozen: list[bool] = []
        self._looks: list[tuple[int, picture.Look]] = []

    def add(self, encoded: bytes, received_ns: int):
        """Count one image; one that cannot be decoded is not looked at."""
        if picture.is_due(received_ns, self._looked_ns):
            self._looked_ns = received_ns
            with contextlib.suppress(UserError):  # named when the take is checked
                self._looks.append((len(self._frozen), picture.look(encoded)))
        self._frozen.append(encoded == self._last_image)
        self._last_image = encoded

    def cut(self, frames: int):
        """Forget all but the first ``frames`` images."""
        del self._frozen[frames:]
        self._looks = [(row, look) for row, look in self._looks if row < frames]

    @property
    def frozen(self) -> np.ndarray:
        """(N,) bool: the image is the same, byte for byte, as the one before."""
        return np.array(self._frozen, dtype=bool)

    @property
    def looks(self) -> list[picture.Look]:
        """What the sampled images were like, in order."""
        return [look for _, look in self._looks]
