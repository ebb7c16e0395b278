"""Turn camera images into the network's input, in training and in driving alike."""

import numpy as np
import torch
from PIL import Image

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ImageSpec


def resize(image: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """
    Resize an image to the network's square; the whole field of view is kept.

    :param image: (height, width, 3) uint8, RGB.
    :returns: (size, size, 3) uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(
            'an image has the wrong layout',
            got=f'{image.dtype} {image.shape}',
            expected='uint8 (height, width, 3), RGB',
        )
    if image.shape[:2] == (spec.size, spec.size):
        return image
    return np.asarray(
        Image.fromarray(image).resize((spec.size, spec.size), Image.Resampling.BICUBIC)
    )


def normalise(images: np.ndarray, spec: ImageSpec) -> torch.Tensor:
    """
    Normalise resized images with the backbone's mean and standard deviation.

    :param images: (N, size, size, 3) uint8.
    :returns: (N, 3, size, size) float32.
    """
    pixels = torch.tensor(images).permute(0, 3, 1, 2).contiguous().float()
    # An explicit dtype: loading a policy changes torch's default dtype in all threads.
    mean, std = (
        torch.tensor(three, dtype=torch.float32).view(3, 1, 1) for three in (spec.mean, spec.std)
    )
    return pixels.div_(255).sub_(mean).div_(std)


def preprocess(image: np.ndarray, spec: ImageSpec) -> torch.Tensor:
    """
    Turn a camera image into the network's input.

    :param image: (height, width, 3) uint8, RGB.
    :returns: (3, size, size) float32.
    """
    return normalise(resize(image, spec)[None], spec)[0]
