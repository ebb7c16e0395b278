"""What is wrong with a camera beside the main one: by its times, and by a few of its images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.cameras import image_of
from mobile_vla_ros.episode.quality.image_quality import measure
from mobile_vla_ros.episode.timing import camera_clock
from mobile_vla_ros.episode.timing.command_rule import CommandLog
from mobile_vla_ros.images.stored import BrokenImage
from mobile_vla_ros.types import NANOSECONDS

CAMERA = 'camera '  # begins every sentence
PLACES = 20  # images that are looked at, each with the one before it
POOR_SHARE = 0.1  # of them
GAP_S, GAP_PERIODS = 0.5, 3.0  # as of the main camera
MIN_RATE_HZ = 4.0


@dataclass(frozen=True)
class FurtherCamera:
    """
    A camera beside the main one.

    :param stamp_ns: (N,) int64 header stamps; likewise both receipts.
    :param messages: returns the messages (CDR) of some rows, b'' for one that cannot be read.
    """

    name: str
    stamp_ns: np.ndarray
    received_ns: np.ndarray
    steady_ns: np.ndarray
    messages: Callable[[np.ndarray], list[bytes]]

    def faults(self, span_ns: tuple[int, int], log: CommandLog) -> list[str]:
        """
        Return what is wrong with it, a sentence each; decodes at most ``PLACES`` images.

        :param span_ns: steady times of the episode's first and last frame.
        :param log: of the commands.
        """
        times_ns = self.steady_ns
        if len(times_ns) < 2:
            return [f'{CAMERA}{self.name}: {len(times_ns)} images']
        found = []
        gaps_s = np.diff(times_ns, prepend=span_ns[0], append=span_ns[1]) / NANOSECONDS
        period_s = float(np.median(gaps_s[1:-1]))
        if period_s * MIN_RATE_HZ > 1:
            found.append(f'{1 / period_s:.1f} images a second')
        if gaps_s.max() > max(GAP_S, GAP_PERIODS * period_s):
            found.append(f'{gaps_s.max():.2f} s without an image')
        clock = camera_clock.check(self.stamp_ns, self.received_ns, times_ns)
        found += [clock.sentence] if not clock.sane else []
        found += self._images(log)
        return [f'{CAMERA}{self.name}: {one}' for one in found]

    def _images(self, log: CommandLog) -> list[str]:
        rows = np.unique(np.linspace(1, len(self.steady_ns) - 1, PLACES).round().astype(int))
        moving = [(log.at(self.steady_ns[rows - back])[0] != 0).any(axis=1) for back in (0, 1)]
        images = [image_of(one) for one in self.messages(np.ravel([rows - 1, rows], 'F'))]
        dark = broken = 0
        for image in images[1::2]:
            try:
                dark += measure(image).dark
            except BrokenImage:
                broken += 1
        pairs = zip(images[::2], images[1::2], strict=True)
        same = np.array([one == other != b'' for one, other in pairs])
        watched = moving[0] & moving[1]
        frozen = int(same[watched].sum())
        found = (
            [f'{broken} of {len(rows)} images that were looked at are broken'] if broken else []
        )
        if frozen > POOR_SHARE * watched.sum():
            found.append(f'its image stood still in {frozen} of {watched.sum()} places')
        if dark > POOR_SHARE * len(rows):
            found.append(f'its image is dark in {dark} of {len(rows)} places')
        return found
