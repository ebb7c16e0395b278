"""Looks at a picture: is it dark, is it blurred; a few ms for one of 1280 x 720."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS

SAMPLE_PERIOD_S = 1.0

# A lens cap gives 0.00 to 0.03 and a room at night less than this; the arena's darkest is 0.2.
DARK_BRIGHTNESS = 0.05
# Sharp photographs were seen at 0.57 to 0.97, frames of the arena at 0.42 to 1.0; out of focus by
# a Gaussian of 2 pixels in 224, or smeared over 8, photographs had a median of 0.34 and 0.32.
BLURRED_SHARPNESS = 0.38

SIDE = 224  # the picture is looked at in the size that a network sees
SPAN = 8  # pixels that an edge may take
SCALES = 3  # the picture, half of it, a quarter of it
EDGE_LUMA, EDGE_NOISE = 8.0, 5.0  # a smaller step, of 255 or of the noise, is no edge
EDGE_SHARE = 0.4  # edges are the steps of at least this share of the picture's largest
EDGE_PLACES = 0.02  # a direction with edges in fewer places is not judged
BEST_EDGES = 90  # percentile: a picture is as sharp as its best edges, the rest may be too near


@dataclass(frozen=True)
class Look:
    """
    What one picture is like.

    :param brightness: mean luma, 0 (black) to 1 (white).
    :param sharpness: 0 to 1, see ``sharpness``; NaN where the picture has no edge to tell by.
    """

    brightness: float
    sharpness: float

    @property
    def dark(self) -> bool:
        """Whether next to nothing can be seen: a lens cap, or night."""
        return self.brightness < DARK_BRIGHTNESS

    @property
    def blurred(self) -> bool:
        """Whether no edge is sharp, be it out of focus or smeared; a dark picture is not."""
        return not self.dark and self.sharpness < BLURRED_SHARPNESS


def look(encoded: bytes) -> Look:
    """
    Look at an encoded picture, decoded at a reduced scale where its format allows it.

    :raises UserError: when it cannot be decoded.
    """
    try:
        luma = _small_luma(encoded)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise UserError(
            'a picture cannot be decoded', got=str(error), expected='a JPEG or PNG image'
        ) from None
    return Look(float(luma.mean() / 255), sharpness(luma))


def sharpness(luma: np.ndarray) -> float:
    """
    Return how much of an edge's whole step its steepest pixel makes; 1 is a perfect edge.

    Of each stretch of ``SPAN`` pixels with a step in it, the largest difference of neighbours is
    divided by the whole range, which leaves brightness and contrast out. A picture is as sharp
    as its best edges, and no sharper than across its worse direction: a smear leaves the edges
    along it. It is no sharper than at half and at a quarter of its size, where a heavy blur is
    not hidden by noise.

    :param luma: (H, W) float32, 0 to 255.
    :returns: 0 to 1; NaN where there is no edge.
    """
    found = []
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
    largest = max(float(np.percentile(whole, 98)) for *_, whole in steps)
    noise = min(usual for usual, *_ in steps)
    smallest = max(EDGE_LUMA, EDGE_NOISE * noise, EDGE_SHARE * largest)
    found = []
    for _, steepest, whole in steps:
        edges = whole >= smallest
        if edges.mean() >= EDGE_PLACES:
            found.append(float(np.percentile(steepest[edges] / whole[edges], BEST_EDGES)))
    return found


def is_due(received_ns: int, last_ns: int | None) -> bool:
    """
    Say whether a frame is looked at: about one a second is.

    The first, and then each that was received a second or more after the last one looked at; a
    clock that was set back starts anew.

    :param last_ns: receipt of the last one that was looked at, None before the first.
    """
    return last_ns is None or not 0 <= received_ns - last_ns < SAMPLE_PERIOD_S * NANOSECONDS


def _small_luma(encoded: bytes) -> np.ndarray:
    """Return (H, W) float32 luma, 0 to 255, its longer side at most ``SIDE``."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(encoded))
    scale = min(1.0, SIDE / max(image.size))
    size = tuple(max(1, round(side * scale)) for side in image.size)
    image.draft('L', size)
    if image.mode.startswith('I'):  # 16 bits a pixel
        image = Image.fromarray((np.asarray(image) / 257).astype(np.uint8))
    image = image.convert('L')
    if image.size != size:
        image = image.resize(size, Image.Resampling.HAMMING)
    return np.asarray(image, dtype=np.float32)


def _steps(luma: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """
    Return, for every stretch of ``SPAN`` pixels down a column, its steepest and its whole step.

    :returns: the median difference of neighbours; two (H - SPAN, W - 2) arrays.
    """
    # Averaged across, an edge loses nothing but its noise.
    luma = (luma[:, :-2] + 2 * luma[:, 1:-1] + luma[:, 2:]) / 4
    differences = np.abs(np.diff(luma, axis=0))
    whole = _slide(luma, np.maximum, SPAN + 1) - _slide(luma, np.minimum, SPAN + 1)
    return float(np.median(differences)), _slide(differences, np.maximum, SPAN), whole


def _slide(values: np.ndarray, extreme: np.ufunc, span: int) -> np.ndarray:
    """Return the extreme of every ``span`` rows that follow each other: (H - span + 1, W)."""
    reach = 1
    while reach < span:
        step = min(reach, span - reach)
        values = extreme(values[:-step], values[step:])
        reach += step
    return values
