"""
JPEG and PNG bytes of pixels, and the images of sensor_msgs/CompressedImage.

It needs no ROS: a message is any object with the fields of sensor_msgs/CompressedImage.
"""

import re
import threading
from functools import cache

import cv2
import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.stored import (
    JPEG_START,
    PNG_START,
    Header,
    check_size,
    check_whole,
    decode,
    load,
)

FORMATS = ('jpeg', 'png')

# image_transport compresses a Bayer image as it is, in grey: only the message's format names the
# pattern. After "compressed" it names the colours that it converted to.
MOSAIC = re.compile(r'\bbayer_(rggb|bggr|gbrg|grbg)')
CONVERTED = re.compile(r'compressed\s+(bgr|rgb)')
# OpenCV names a pattern by its second row, from the second column on.
MOSAIC_TO_RGB = {
    'rggb': cv2.COLOR_BayerBG2RGB,
    'bggr': cv2.COLOR_BayerRG2RGB,
    'gbrg': cv2.COLOR_BayerGR2RGB,
    'grbg': cv2.COLOR_BayerGB2RGB,
}

_scratch = threading.local()


def encode(image: np.ndarray, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """
    Return the stored bytes of an image.

    :param image: (height, width, 3) uint8, RGB.
    :param image_format: ``jpeg``, or ``png`` (lossless).
    :param quality: JPEG quality, 1 to 100.
    :raises UserError: for any other format, or when the image is too large.
    """
    return encode_bgr(swapped(image), image_format, quality)


def encode_bgr(image: np.ndarray, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """Return the stored bytes of a (height, width, 3) uint8 image in BGR; see ``encode``."""
    if image_format not in FORMATS:
        raise UserError(
            'unknown image format', got=repr(image_format), expected=' or '.join(FORMATS)
        )
    check_size(image.shape[1], image.shape[0])  # OpenCV would print every failure
    limit_threads()
    if image_format == 'jpeg':
        return cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()
    return cv2.imencode('.png', image, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes()


def check_compressed(message) -> Header:
    """
    Check a compressed image without decoding it.

    :raises UserError: when it is neither JPEG nor PNG, or is cut short.
    """
    return check_whole(_bytes_of(message))


def stored_compressed(message, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """
    Return the bytes to store of a compressed image: its own, unless it is a Bayer mosaic.

    :raises UserError: as ``check_compressed``; of a mosaic, as ``compressed_to_rgb``.
    """
    if _pattern(message):
        return encode(compressed_to_rgb(message), image_format, quality)
    data = _bytes_of(message)
    check_whole(data)
    return data


def compressed_to_rgb(message, min_side: int | None = None) -> np.ndarray:
    """
    Return the pixels of a compressed image; those of a Bayer mosaic are interpolated.

    :param min_side: as for ``stored.decode``; a mosaic is decoded at full scale.
    :returns: (height, width, 3) uint8, RGB.
    :raises UserError: when the image is neither JPEG nor PNG, or is broken.
    """
    pattern = _pattern(message)
    if not pattern:
        return decode(_bytes_of(message), min_side)
    limit_threads()
    return cv2.cvtColor(np.asarray(load(_bytes_of(message), 'L')), MOSAIC_TO_RGB[pattern])


def _bytes_of(message) -> bytes:
    data = bytes(message.data)
    if not data.startswith((JPEG_START, PNG_START)):
        raise UserError(
            'a compressed camera image has an unknown format',
            got=repr(message.format),
            expected='JPEG or PNG',
        )
    return data


def _pattern(message) -> str:
    """Return the Bayer pattern of a compressed image, '' if it is none."""
    found = MOSAIC.search(message.format)
    return found[1] if found and not CONVERTED.search(message.format) else ''


@cache
def limit_threads() -> None:
    """Make OpenCV use one thread: for a single frame, threads cost more than they gain."""
    cv2.setNumThreads(1)


def swapped(rgb: np.ndarray) -> np.ndarray:
    """Return (height, width, 3) uint8 in BGR, in memory that this thread's next call reuses."""
    limit_threads()
    # Fresh memory for every frame would cost more than the swap: the kernel zeroes it first.
    if getattr(_scratch, 'bgr', np.empty(0)).shape != rgb.shape:
        _scratch.bgr = np.empty(rgb.shape, np.uint8)
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR, dst=_scratch.bgr)
