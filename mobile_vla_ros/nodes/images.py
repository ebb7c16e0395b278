"""Image messages to RGB arrays and to stored bytes, and back: the only place that knows how."""

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from mobile_vla_ros.errors import UserError

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image

# encoding -> (bytes a pixel, Pillow's mode, the order of the bytes in Pillow's words)
ENCODINGS = {'rgb8': (3, 'RGB', 'RGB'), 'bgr8': (3, 'RGB', 'BGR'), 'rgba8': (4, 'RGB', 'RGBX'),
             'bgra8': (4, 'RGB', 'BGRX'), 'mono8': (1, 'L', 'L')}
FORMATS = ('jpeg', 'png')


def to_rgb(message: 'Image') -> np.ndarray:
    """
    Return the pixels of a raw image.

    :param message: a sensor_msgs/Image, or anything with its fields.
    :returns: (height, width, 3) uint8, RGB, contiguous.
    :raises UserError: for an unknown encoding, or a size that does not fit the data.
    """
    if message.encoding not in ENCODINGS:
        raise UserError('a camera image has an unknown encoding', got=repr(message.encoding),
                        expected=', '.join(ENCODINGS),
                        remedy='set the camera driver to one of these, or record its compressed '
                               'topic with image_transport:=compressed')
    channels, mode, order = ENCODINGS[message.encoding]
    height, width, step = message.height, message.width, message.step
    if not height or not width or step < width * channels or len(message.data) < height * step:
        raise UserError('a camera image has a size that does not fit its data',
                        got=f'{width}x{height} {message.encoding} with rows of {step} bytes in '
                            f'{len(message.data)} bytes',
                        expected=f'rows of at least {width * channels} bytes')
    # Pillow reorders and skips the padding several times faster than numpy's indexing.
    image = PillowImage.frombuffer(mode, (width, height), message.data, 'raw', order, step, 1)
    return np.asarray(image.convert('RGB'))


def from_rgb(image: np.ndarray, *, stamp=None, frame_id: str = '') -> 'Image':
    """
    Return an rgb8 message.

    :param image: (height, width, 3) uint8, RGB.
    :param stamp: builtin_interfaces/Time of the exposure.
    """
    from sensor_msgs.msg import Image

    height, width, _ = image.shape
    message = Image(height=height, width=width, encoding='rgb8', step=width * 3)
    message.data.frombytes(np.ascontiguousarray(image, dtype=np.uint8).data)
    return _headed(message, stamp, frame_id)


def encode(image: np.ndarray, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """
    Return the stored bytes of an image.

    :param image: (height, width, 3) uint8, RGB.
    :param image_format: ``jpeg``, or ``png`` for no loss.
    :param quality: of a JPEG, 1 to 100.
    :raises UserError: for another format.
    """
    if image_format not in FORMATS:
        raise UserError('unknown image format', got=repr(image_format),
                        expected=' or '.join(FORMATS))
    buffer = io.BytesIO()
    options = {'quality': quality} if image_format == 'jpeg' else {'compress_level': 1}
    PillowImage.fromarray(image).save(buffer, image_format, **options)
    return buffer.getvalue()


def encode_message(message: 'Image', image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """Return the stored bytes of a raw image; raises as ``to_rgb`` and ``encode`` do."""
    return encode(to_rgb(message), image_format, quality)


def compressed_bytes(message: 'CompressedImage') -> bytes:
    """
    Return a compressed image as it came, to be stored without a second encoding.

    :raises UserError: when it is neither JPEG nor PNG.
    """
    data = bytes(message.data)
    if not data.startswith((b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n')):
        raise UserError('a compressed camera image is of an unknown kind',
                        got=repr(message.format), expected='JPEG or PNG')
    return data


def compressed_to_rgb(message: 'CompressedImage') -> np.ndarray:
    """
    Return the pixels of a compressed image.

    :returns: (height, width, 3) uint8, RGB.
    :raises UserError: when it is neither JPEG nor PNG, or broken.
    """
    try:
        return np.asarray(PillowImage.open(io.BytesIO(compressed_bytes(message))).convert('RGB'))
    except (UnidentifiedImageError, OSError) as error:
        raise UserError('a compressed camera image is broken', got=error,
                        expected='JPEG or PNG') from None


def to_compressed(encoded: bytes, *, stamp=None, frame_id: str = '') -> 'CompressedImage':
    """Return a message around JPEG or PNG bytes."""
    from sensor_msgs.msg import CompressedImage

    message = CompressedImage(format='png' if encoded.startswith(b'\x89PNG') else 'jpeg')
    message.data.frombytes(encoded)
    return _headed(message, stamp, frame_id)


def _headed(message, stamp, frame_id: str):
    if stamp is not None:
        message.header.stamp = stamp
    message.header.frame_id = frame_id
    return message
