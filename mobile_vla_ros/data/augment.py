"""Augmentation: what may change in a take without changing what was meant."""

import re
from dataclasses import dataclass

import numpy as np
import torch

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ActionSpec

# The axes that change their sign when the world is seen in a mirror (REP 103: y is left).
MIRRORED_AXES = ('linear_y', 'angular_x', 'angular_z')
MIRRORED_WORDS = {f'left{end}': f'right{end}' for end in ('', 'most', 'ward', 'wards')}
MIRRORED_WORDS |= {right: left for left, right in MIRRORED_WORDS.items()}
MIRRORED_WORDS |= {
    'clockwise': 'counterclockwise',
    'counterclockwise': 'clockwise',
    'counter-clockwise': 'clockwise',
    'anticlockwise': 'clockwise',
    'anti-clockwise': 'clockwise',
}
# The largest share that each of the others may be given.
MOST = {'light': 0.9, 'colour': 0.9, 'shift': 0.45}
HUE_SHARE = 0.1
LUMA = (0.299, 0.587, 0.114)
# The longest first; an underscore parts words as a space does.
_WORDS = re.compile(
    r'(?<![^\W_])(' + '|'.join(sorted(MIRRORED_WORDS, key=len, reverse=True)) + r')(?![^\W_])',
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Augmentation:
    """
    What is drawn anew each time a piece of a take is used, once for all of its frames.

    :param mirror: every other time left and right change places: in the images, in the sign of
        the axes, and in the words of the instruction.
    :param light: brightness and contrast change by up to this share, 0 to 0.9.
    :param colour: saturation changes by up to this share, 0 to 0.9, and the hue by up to a tenth
        of it, as a share of the whole circle.
    :param shift: the image moves up to this share of its side in both directions, 0 to 0.45; the
        pixels of its edge fill the room that is left.
    :raises UserError: for shares out of range, all of them in one sentence.
    """

    mirror: bool = False
    light: float = 0.0
    colour: float = 0.0
    shift: float = 0.0

    def __post_init__(self):
        wrong = [
            f'{name} is {getattr(self, name)}, not from 0 to {most}'
            for name, most in MOST.items()
            if not 0 <= getattr(self, name) <= most
        ]
        if wrong:
            raise UserError('the augmentation is refused', got=', '.join(wrong))

    @property
    def changes_images(self) -> bool:
        """Whether images change in more than their sides."""
        return any(getattr(self, name) for name in MOST)

    def draw_mirror(self, generator: torch.Generator) -> bool:
        """Decide whether this piece is mirrored."""
        return self.mirror and bool(torch.rand((), generator=generator) < 0.5)

    def draw(self, generator: torch.Generator) -> 'Change':
        """Draw how the images of a piece change, besides being mirrored."""
        spans = [
            self.light,
            self.light,
            self.colour,
            self.colour * HUE_SHARE,
            self.shift,
            self.shift,
        ]
        drawn = (torch.rand(len(spans), generator=generator, dtype=torch.float64) * 2 - 1).tolist()
        return Change(*(span * value for span, value in zip(spans, drawn, strict=True)))


@dataclass(frozen=True)
class Change:
    """
    One draw of an augmentation's light, colour and shift.

    :param brightness: that share of half the range is added.
    :param contrast: the distance from the middle grows by that share.
    :param saturation: the distance from grey grows by that share.
    :param hue: colours go round by that share of a circle.
    :param right: the image moves right by that share of its side.
    :param down: and down by this one.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    right: float = 0.0
    down: float = 0.0

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Return (N, S, S, 3) uint8 images, all changed alike; the given ones stay as they are."""
        if any((self.brightness, self.contrast, self.saturation, self.hue)):
            images = self._coloured(images)
        side = images.shape[1]
        return _moved(_moved(images, round(self.right * side), 2), round(self.down * side), 1)

    def _coloured(self, images: np.ndarray) -> np.ndarray:
        gain = np.float32(1 + self.contrast)
        middle = images.mean()
        # The 0.5 rounds: what follows cuts.
        offset = np.float32(middle - gain * middle + 255 * self.brightness / 2 + 0.5)
        mix = self._mix()
        changed = np.empty_like(images)
        for image, target in zip(images, changed, strict=True):  # one at a time stays in cache
            planes = [image[..., channel].astype(np.float32) for channel in range(3)]
            red, blue = planes[0] - planes[1], planes[2] - planes[1]
            for channel, plane in enumerate(planes):
                # Grey has no difference of colours, so it stays grey to the last bit.
                plane = plane + mix[channel, 0] * red + mix[channel, 2] * blue
                plane *= gain
                plane += offset
                target[..., channel] = np.clip(plane, 0, 255, out=plane)
        return changed

    def _mix(self) -> np.ndarray:
        """
        Return (3, 3) float32 that is added to each colour when it is multiplied by it.

        Saturation pulls away from the luma of ITU-R BT.601; hue turns about the axis of the
        greys (Rodrigues' formula). Rows sum to zero.
        """
        angle = 2 * np.pi * self.hue
        across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
        turned = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) / 3 + np.sin(angle) * across
        grey = np.tile(LUMA, (3, 1))
        wanted = (grey + (1 + self.saturation) * (np.eye(3) - grey)) @ turned
        return (wanted - np.eye(3)).astype(np.float32)


def _moved(images: np.ndarray, by: int, axis: int) -> np.ndarray:
    """Return images moved by some pixels along an axis, the edge repeated behind them."""
    if not by:
        return images
    keep, edge = [slice(None)] * 4, [(0, 0)] * 4
    keep[axis] = slice(max(0, -by), images.shape[axis] - max(0, by))
    edge[axis] = (max(0, by), max(0, -by))
    return np.pad(images[tuple(keep)], edge, mode='edge')


def mirror_instruction(text: str) -> str:
    """Return an instruction with left and right exchanged; a capital stays one."""

    def other(match: re.Match) -> str:
        word = MIRRORED_WORDS[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    return _WORDS.sub(other, text)


def mirror_images(images: np.ndarray) -> np.ndarray:
    """Return (N, S, S, 3) images with left and right exchanged."""
    return np.ascontiguousarray(images[:, :, ::-1])


def mirror_actions(actions: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """Return (…, axes) actions as they are in a mirrored world."""
    return actions * np.array(
        [-1 if axis in MIRRORED_AXES else 1 for axis in spec.axes], dtype=actions.dtype
    )
