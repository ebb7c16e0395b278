"""Augmentation: what may change in a take without changing what was meant."""

import re
from dataclasses import dataclass

import numpy as np
import torch

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ActionSpec

# The axes that change their sign when the world is seen in a mirror (REP 103: y is left).
MIRRORED_AXES = ('linear_y', 'angular_x', 'angular_z')
MIRRORED_WORDS = {'left': 'right', 'right': 'left', 'leftmost': 'rightmost',
                  'rightmost': 'leftmost'}
_WORDS = re.compile(r'\b(' + '|'.join(MIRRORED_WORDS) + r')\b', re.IGNORECASE)


@dataclass(frozen=True)
class Augmentation:
    """
    What is drawn anew each time a piece of a take is used.

    :param mirror: every other time left and right change places: in the images, in the sign of
        the axes, and in the words of the instruction.
    :param light: brightness and contrast change by up to this share.
    """

    mirror: bool = False
    light: float = 0.0

    def __post_init__(self):
        if not 0 <= self.light < 1:
            raise UserError('the share of light to change is out of range', got=self.light,
                            expected='0 or more and less than 1')

    def draw_mirror(self) -> bool:
        """Decide whether this piece is mirrored (torch's generator)."""
        return self.mirror and bool(torch.rand(()) < 0.5)

    def change_light(self, images: np.ndarray) -> np.ndarray:
        """Return (N, S, S, 3) uint8 with one brightness and one contrast for all of them."""
        if not self.light:
            return images
        brightness, contrast = (torch.rand(2).numpy() * 2 - 1) * self.light
        middle = images.mean()
        changed = (images - middle) * (1 + contrast) + middle + 255 * brightness / 2
        return np.clip(changed, 0, 255).astype(np.uint8)


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
    return actions * np.array([-1 if axis in MIRRORED_AXES else 1 for axis in spec.axes],
                              dtype=actions.dtype)
