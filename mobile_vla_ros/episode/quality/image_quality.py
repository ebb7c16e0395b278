"""Measure whether an image is dark or blurred; a few ms for 1280 x 720."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mobile_vla_ros.images.stored import BrokenImage, check_whole, has_end, load, read_header
from mobile_vla_ros.types import NANOSECONDS

SAMPLE_PERIOD_S = 1.0

# A lens cap measures 0.00 to 0.03, a room at night less than this; the arena's darkest is 0.2.
DARK_BRIGHTNESS = 0.05
# Sharp photographs measured 0.57 to 0.97, frames of the arena 0.42 to 1.0. Blurred by a Gaussian
# of 2 pixels in 224, or smeared over 8 pixels, photographs had a median of 0.34 and 0.32.
BLURRED_SHARPNESS = 0.38

SIDE = 224  # images are measured at the size that a network receives
SPAN = 8  # pixels that an edge may be wide
SCALES = 3  # full, half and quarter size
EDGE_LUMA, EDGE_NOISE = 8.0, 5.0  # minimum step of an edge, of 255 and in multiples of the noise
EDGE_SHARE = 0.4  # minimum step of an edge, as a fraction of the image's largest
EDGE_PLACES = 0.02  # a direction with edges in a smaller fraction of places is not judged
BEST_EDGES = 90  # percentile of edges that gives the sharpness: the rest may be too close


@dataclass(frozen=True)
class ImageQuality:
    """
    Brightness and sharpness of one image.

    :param brightness: mean luma, 0 (black) to 1 (white).
    :param sharpness: 0 to 1, see ``sharpness``; NaN for an image without edges.
    """

    brightness: float
    sharpness: float

    @property
    def dark(self) -> bool:
        """Whether the image shows next to nothing: a lens cap, or night."""
        return self.brightness < DARK_BRIGHTNESS

    @property
    def blurred(self) -> bool:
        """Whether no edge is sharp, be it out of focus or smeared; a dark image never is."""
        return not self.dark and self.sharpness < BLURRED_SHARPNESS


class ImageTally:
    """Collects, image by image, what the verdict needs: repeats, defects, and samples."""

    def __init__(self) -> None:
        self._last_image = b''
        self._sampled_ns: int | None = None
        self._frozen: list[bool] = []
        self._broken: list[int] = []
        self._samples: list[tuple[int, ImageQuality]] = []

    def add(self, encoded: bytes, received_ns: int) -> None:
        """
        Count one image.

        About one a second is decoded; the others are only checked for a complete ending.
        """
        row = len(self._frozen)
        try:
            if is_due(received_ns, self._sampled_ns):
                self._sampled_ns = received_ns
                self._samples.append((row, measure(encoded)))
            elif not has_end(encoded):
                check_whole(encoded)
        except BrokenImage:
            self._broken.append(row)
        self._frozen.append(encoded == self._last_image)
        self._last_image = encoded

    def cut(self, frames: int) -> None:
        """Forget all but the first ``frames`` images."""
        del self._frozen[frames:]
        self._broken = [row for row in self._broken if row < frames]
        self._samples = [(row, quality) for row, quality in self._samples if row < frames]

    @property
    def frozen(self) -> np.ndarray:
        """(N,) bool: the image equals the previous one, byte for byte."""
        return np.array(self._frozen, dtype=bool)

    @property
    def broken(self) -> int:
        """How many images are broken."""
        return len(self._broken)

    @property
    def samples(self) -> list[ImageQuality]:
        """Quality of the sampled images, in order."""
        return [quality for _, quality in self._samples]


def measure(encoded: bytes) -> ImageQuality:
    """
    Measure an encoded image, decoded at a reduced scale where its format allows it.

    :raises BrokenImage: when it cannot be decoded.
    """
    luma = _small_luma(encoded)
    return ImageQuality(float(luma.mean() / 255), sharpness(luma))


def sharpness(luma: np.ndarray) -> float:
    """
    Return the fraction of an edge's step that its steepest pixel makes; 1 is a perfect edge.

    In each window of ``SPAN`` pixels that contains a step, the largest difference between
    neighbours is divided by the whole range, which cancels brightness and contrast. An image is as
    sharp as its best edges, in its worse direction: a smear keeps the edges along it. It is also
    no sharper than at half and at a quarter of its size, where noise does not hide a heavy blur.

    :param luma: (H, W) float32, 0 to 255.
    :returns: 0 to 1; NaN without edges.
    """
    found: list[float] = []
    for _ in range(SCALES):
        if min(luma.shape) <= SPAN + 2:
            break
        found += _edges(luma)
        height, width = (side // 2 * 2 for side in luma.shape)
        luma = luma[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    return min(found, default=float('nan'))


def _edges(luma: np.ndarray) -> list[float]:
    """Return the sharpness down the columns and along the rows, where there are edges."""
    steps = [_steps(luma), _steps(luma.T)]
    largest = max(_percentile(whole, 98) for *_, whole in steps)
    noise = min(usual for usual, *_ in steps)
    smallest = max(EDGE_LUMA, EDGE_NOISE * noise, EDGE_SHARE * largest)
    found = []
    for _, steepest, whole in steps:
        edges = whole >= smallest
        if edges.mean() >= EDGE_PLACES:
            found.append(_percentile(steepest[edges] / whole[edges], BEST_EDGES))
    return found


def is_due(received_ns: int, last_ns: int | None) -> bool:
    """
    Whether to sample a frame: the first one, then each received a second or more after the last.

    After the clock was set back, the next frame is sampled.

    :param last_ns: receipt of the last sampled frame, None before the first.
    """
    return last_ns is None or not 0 <= received_ns - last_ns < SAMPLE_PERIOD_S * NANOSECONDS


def _small_luma(encoded: bytes) -> np.ndarray:
    """Return (H, W) float32 luma, 0 to 255, its longer side at most ``SIDE``."""
    sides = read_header(encoded)[:2]
    scale = min(1.0, SIDE / max(sides))
    width, height = (max(1, round(side * scale)) for side in sides)
    image = load(encoded, 'L', (width, height))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.HAMMING)
    return np.asarray(image, dtype=np.float32)


def _steps(luma: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """
    Return the steepest and the whole step of every window of ``SPAN`` pixels down a column.

    :returns: the median difference between neighbours; two (H - SPAN, W - 2) arrays.
    """
    # Averaging across an edge removes only noise.
    luma = (luma[:, :-2] + 2 * luma[:, 1:-1] + luma[:, 2:]) / 4
    differences = np.abs(np.diff(luma, axis=0))
    whole = _slide(luma, np.maximum, SPAN + 1) - _slide(luma, np.minimum, SPAN + 1)
    return _percentile(differences, 50), _slide(differences, np.maximum, SPAN), whole


def _percentile(values: np.ndarray, percent: float) -> float:
    """Return what ``np.percentile`` does, in a tenth of its time."""
    place = percent / 100 * (values.size - 1)
    row = int(place)
    parted = np.partition(values, row, axis=None)
    after = parted[row + 1 :].min(initial=np.inf) if place > row else parted[row]
    return float(parted[row] + (place - row) * (after - parted[row]))


def _slide(values: np.ndarray, extreme: np.ufunc, span: int) -> np.ndarray:
    """Return the extreme of every ``span`` consecutive rows: (H - span + 1, W)."""
    reach = 1
    while reach < span:
        step = min(reach, span - reach)
        values = extreme(values[:-step], values[step:])
        reach += step
    return values
