"""
Convert camera messages to RGB arrays and to stored bytes.

rosbags-image converts the colours, of rows without padding and values in native byte order. It
needs no ROS, nor does this module: a message is any object with the fields of sensor_msgs/Image
or sensor_msgs/CompressedImage.
"""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
from rosbags.image import image_to_cvimage

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.compressed import (
    check_compressed,
    encode_bgr,
    limit_threads,
    stored_compressed,
    swapped,
)
from mobile_vla_ros.images.stored import Header, check_size

# encoding -> (values a pixel, bytes a value)
ENCODINGS = {
    'rgb8': (3, 1),
    'bgr8': (3, 1),
    'rgba8': (4, 1),
    'bgra8': (4, 1),
    'mono8': (1, 1),
    'mono16': (1, 2),
    'yuv422': (2, 1),
    'uyvy': (2, 1),
    'yuv422_yuy2': (2, 1),
    'yuyv': (2, 1),
    'nv12': (1, 1),
    'nv21': (1, 1),
    'bayer_rggb8': (1, 1),
    'bayer_bggr8': (1, 1),
    'bayer_gbrg8': (1, 1),
    'bayer_grbg8': (1, 1),
    'bayer_rggb16': (1, 2),
    'bayer_bggr16': (1, 2),
    'bayer_gbrg16': (1, 2),
    'bayer_grbg16': (1, 2),
}
# OpenCV's names for values whose colours are not named.
NAMELESS = {'8UC1': (1, 1), '8UC2': (2, 1), '8UC3': (3, 1), '8UC4': (4, 1), '16UC1': (1, 2)}
# A luma plane, then half as many rows of chroma.
TWO_PLANES = ('nv12', 'nv21')


def to_rgb(message) -> np.ndarray:
    """
    Return the pixels of a raw image.

    16-bit values are scaled to 8 bits by ``255 / 65535``; YUV is interpreted as ITU-R BT.601 with
    limited range; Bayer patterns are interpolated bilinearly.

    :param message: a sensor_msgs/Image, or any object with its fields.
    :returns: (height, width, 3) uint8, RGB, contiguous, read-only: it may share the message's
        memory.
    :raises UserError: for an unknown encoding, or a size that does not match the data.
    """
    image = np.ascontiguousarray(_convert(message, 'rgb8')).view()
    image.flags.writeable = False
    return image


def with_encoding(message, encoding: str):
    """
    Return an image message with its colours named, if its own encoding does not (8UC3).

    :param encoding: a key of ``ENCODINGS`` to name them by, which needs as many values; '': none.
    """
    own = getattr(message, 'encoding', '')
    if encoding and NAMELESS.get(own) == ENCODINGS[encoding]:
        message.encoding = encoding
    return message


def check_encoding(encoding: str) -> str:
    """Return an encoding to name colours by, or ''; raise UserError for an unknown one."""
    if encoding and encoding not in ENCODINGS:
        raise UserError('unknown encoding', got=repr(encoding), expected=', '.join(ENCODINGS))
    return encoding


def stored_bytes(message, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """
    Return the bytes to store of an image message of either type.

    :raises UserError: as ``to_rgb`` and ``encode_bgr`` do, or ``stored_compressed``.
    """
    if hasattr(message, 'encoding'):
        return encode_message(message, image_format, quality)
    return stored_compressed(message, image_format, quality)


def encode_message(message, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """Return the stored bytes of a raw image; raises as ``to_rgb`` and ``encode_bgr`` do."""
    # The encoder takes BGR, so a BGR message is encoded without a copy.
    if message.encoding == 'rgb8':
        return encode_bgr(swapped(_pixels(message)), image_format, quality)
    return encode_bgr(_convert(message, 'bgr8'), image_format, quality)


def check(message) -> Header:
    """
    Check an image message of either type without decoding it.

    :returns: its size, and for a raw image its encoding as the format.
    :raises UserError: when ``to_rgb`` or ``compressed_to_rgb`` could not begin: the size does not
        fit the data, the encoding is unknown, the image is cut short or no JPEG or PNG.
    """
    if not hasattr(message, 'encoding'):
        return check_compressed(message)
    _check_raw(message)
    return Header(message.width, message.height, message.encoding)


def _convert(message, wanted: str) -> np.ndarray:
    """Return (height, width, 3) uint8 in ``rgb8`` or ``bgr8``; rows may be padded."""
    limit_threads()
    pixels = _pixels(message)
    if message.encoding == wanted:
        return pixels
    tidy: Any = SimpleNamespace(
        encoding=message.encoding,
        height=pixels.shape[0],
        width=message.width,
        step=pixels.nbytes // pixels.shape[0],
        is_bigendian=sys.byteorder == 'big',
        data=np.ascontiguousarray(pixels),
    )
    try:
        return image_to_cvimage(tidy, wanted)
    except Exception as error:  # it passes OpenCV's exceptions through
        text = ' '.join(str(error).split())
        raise UserError(
            f'a camera image cannot be converted from {message.encoding}',
            got=f'{message.width}x{message.height}: {text}',
        ) from None


def _pixels(message) -> np.ndarray:
    """
    Return the values of an image in native byte order, as a view where possible.

    :returns: (rows, width) or (rows, width, values a pixel) uint8 or uint16.
    :raises UserError: as ``to_rgb``.
    """
    rows, row_bytes = _check_raw(message)
    channels, size = ENCODINGS[message.encoding]
    step = message.step
    data = np.frombuffer(message.data, np.uint8, rows * step).reshape(rows, step)[:, :row_bytes]
    if size == 2:
        order = '>u2' if message.is_bigendian else '<u2'
        data = np.ascontiguousarray(data).view(order).astype(np.uint16, copy=False)
    return data if channels == 1 else data.reshape(rows, message.width, channels)


def _check_raw(message) -> tuple[int, int]:
    """
    Return the rows of a raw image, and the bytes of each before its padding.

    :raises UserError: as ``to_rgb``.
    """
    encoding, height, width, step = (message.encoding, message.height, message.width, message.step)
    if encoding not in ENCODINGS:
        raise UserError(
            'a camera image has an unknown encoding',
            got=repr(encoding),
            expected=', '.join(ENCODINGS),
            remedy='name its colours, such as bgr8: --encoding (import), encoding (parameter)'
            if encoding in NAMELESS
            else 'set the camera driver to one of these, or record its compressed '
            'topic with image_transport:=compressed',
        )
    channels, size = ENCODINGS[encoding]
    check_size(width, height)
    rows = height * 3 // 2 if encoding in TWO_PLANES else height
    row_bytes = width * channels * size
    if not height or not width or step < row_bytes or len(message.data) < rows * step:
        raise UserError(
            'the size of a camera image does not fit its data',
            got=f'{width}x{height} {encoding} with rows of {step} bytes in '
            f'{len(message.data)} bytes',
            expected=f'{rows} rows of at least {row_bytes} bytes',
        )
    halved = width if channels == 2 else width | height if encoding in TWO_PLANES else 0
    if halved % 2:
        raise UserError(
            f'a camera image of encoding {encoding} has an odd size',
            got=f'{width}x{height}',
            expected='an even size: neighbouring pixels share their colour',
        )
    return rows, row_bytes
