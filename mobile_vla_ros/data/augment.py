"""Augment images, actions and instructions without changing what an episode teaches."""

import re
from dataclasses import dataclass

import numpy as np
import torch

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ActionSpec

# Axes whose sign flips under a left-right mirror (REP 103: y points left).
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
MAX_SHARES = {'light': 0.9, 'colour': 0.9, 'shift': 0.45}
HUE_SHARE = 0.1
LUMA = (0.299, 0.587, 0.114)
# Longest first; an underscore separates words as a space does.
_WORDS = re.compile(
    r'(?<![^\W_])(' + '|'.join(sorted(MIRRORED_WORDS, key=len, reverse=True)) + r')(?![^\W_])',
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Augmentation:
    """
    Random changes, drawn anew for each use of a piece of an episode and shared by its frames.

    :param mirror: swap left and right with probability 0.5: in the images, in the sign of the
        axes, and in the words of the instruction.
    :param light: largest relative change of brightness and contrast, 0 to 0.9.
    :param colour: largest relative change of saturation, 0 to 0.9; the hue turns by up to a tenth
        of it, as a share of the full circle.
    :param shift: largest shift in both directions, as a share of the image side, 0 to 0.45; edge
        pixels are repeated.
    :raises UserError: for shares out of range, listing all of them.
    """

    mirror: bool = False
    light: float = 0.0
    colour: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        invalid = [
            f'{name} is {getattr(self, name)}, not from 0 to {maximum}'
            for name, maximum in MAX_SHARES.items()
            if not 0 <= getattr(self, name) <= maximum
        ]
        if invalid:
            raise UserError('invalid augmentation', got=', '.join(invalid))

    @property
    def changes_images(self) -> bool:
        """Whether images may change apart from being mirrored."""
        return any(getattr(self, name) for name in MAX_SHARES)

    def draw_mirror(self, generator: torch.Generator) -> bool:
        """Decide whether to mirror a piece."""
        return self.mirror and bool(torch.rand((), generator=generator) < 0.5)

    def draw(self, generator: torch.Generator) -> 'Change':
        """Draw the change of a piece's images, mirroring aside."""
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

    :param brightness: offset, as a share of half the value range.
    :param contrast: relative change of the distance from the mean.
    :param saturation: relative change of the distance from grey.
    :param hue: rotation, as a share of the full circle.
    :param right: shift to the right, as a share of the image side.
    :param down: shift downwards, likewise.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    right: float = 0.0
    down: float = 0.0

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Return (N, S, S, 3) uint8 images, all changed alike; the input is not modified."""
        if any((self.brightness, self.contrast, self.saturation, self.hue)):
            images = self._coloured(images)
        side = images.shape[1]
        return _moved(_moved(images, round(self.right * side), 2), round(self.down * side), 1)

    def _coloured(self, images: np.ndarray) -> np.ndarray:
        gain = np.float32(1 + self.contrast)
        middle = images.mean()
        # The 0.5 rounds, because the conversion to uint8 truncates.
        offset = np.float32(middle - gain * middle + 255 * self.brightness / 2 + 0.5)
        mix = self._mix()
        changed = np.empty_like(images)
        for image, target in zip(images, changed, strict=True):  # one image fits into the cache
            planes = [image[..., channel].astype(np.float32) for channel in range(3)]
            red, blue = planes[0] - planes[1], planes[2] - planes[1]
            for channel, plane in enumerate(planes):
                # The differences of a grey pixel are zero, so it stays grey exactly.
                plane = plane + mix[channel, 0] * red + mix[channel, 2] * blue
                plane *= gain
                plane += offset
                target[..., channel] = np.clip(plane, 0, 255, out=plane)
        return changed

    def _mix(self) -> np.ndarray:
        """
        Return the (3, 3) float32 colour matrix minus the identity; its rows sum to zero.

        Saturation scales the distance from the luma of ITU-R BT.601; hue rotates about the grey
        axis (Rodrigues' formula).
        """
        angle = 2 * np.pi * self.hue
        across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
        turned = np.cos(angle) * np.eye(3) + (1 - np.cos(angle)) / 3 + np.sin(angle) * across
        grey = np.tile(LUMA, (3, 1))
        wanted = (grey + (1 + self.saturation) * (np.eye(3) - grey)) @ turned
        added: np.ndarray = (wanted - np.eye(3)).astype(np.float32)
        return added


def _moved(images: np.ndarray, by: int, axis: int) -> np.ndarray:
    """Return images shifted by some pixels along an axis, with the edge repeated."""
    if not by:
        return images
    keep, edge = [slice(None)] * 4, [(0, 0)] * 4
    keep[axis] = slice(max(0, -by), images.shape[axis] - max(0, by))
    edge[axis] = (max(0, by), max(0, -by))
    return np.pad(images[tuple(keep)], edge, mode='edge')


def mirror_instruction(text: str) -> str:
    """Return an instruction with left and right swapped; capitals are kept."""

    def other(match: re.Match[str]) -> str:
        word = MIRRORED_WORDS[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    return _WORDS.sub(other, text)


def mirror_images(images: np.ndarray) -> np.ndarray:
    """Return (N, S, S, 3) images with left and right swapped."""
    return np.ascontiguousarray(images[:, :, ::-1])


def mirror_actions(actions: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """Return (…, axes) actions of the mirrored scene."""
    signs = [-1 if axis in MIRRORED_AXES else 1 for axis in spec.axes]
    mirrored: np.ndarray = actions * np.array(signs, dtype=actions.dtype)
    return mirrored
