"""
Convert camera messages to RGB arrays and to stored bytes.

rosbags-image converts the colours, of rows without padding and values in native byte order. It
needs no ROS, nor does this module: a message is any object with the fields of sensor_msgs/Image
or sensor_msgs/CompressedImage.
"""

import re
import sys
import threading
from functools import cache
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from rosbags.image import image_to_cvimage

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

FORMATS = ('jpeg', 'png')

# image_transport compresses a Bayer image as it is, in grey: only the message's format names the
# pattern. After "compressed" it names the colours that it converted to.
MOSAIC = re.compile(r'\bbayer_(rggb|bggr|gbrg|grbg)')
CONVERTED = re.compile(r'compressed\s+(bgr|rgb)')

_scratch = threading.local()


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


def encode(image: np.ndarray, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """
    Return the stored bytes of an image.

    :param image: (height, width, 3) uint8, RGB.
    :param image_format: ``jpeg``, or ``png`` (lossless).
    :param quality: JPEG quality, 1 to 100.
    :raises UserError: for any other format, or when the image is too large.
    """
    return encode_bgr(_swapped(image), image_format, quality)


def encode_bgr(image: np.ndarray, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """Return the stored bytes of a (height, width, 3) uint8 image in BGR; see ``encode``."""
    if image_format not in FORMATS:
        raise UserError(
            'unknown image format', got=repr(image_format), expected=' or '.join(FORMATS)
        )
    check_size(image.shape[1], image.shape[0])  # OpenCV would print every failure
    _limit_threads()
    if image_format == 'jpeg':
        return cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()
    return cv2.imencode('.png', image, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes()


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

    A compressed image is stored unchanged, unless it is a Bayer mosaic.

    :raises UserError: as ``to_rgb`` and ``encode`` do, or ``compressed_bytes``.
    """
    if hasattr(message, 'encoding'):
        return encode_message(message, image_format, quality)
    if _mosaic(message):
        return encode(compressed_to_rgb(message), image_format, quality)
    return compressed_bytes(message)


def encode_message(message, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """Return the stored bytes of a raw image; raises as ``to_rgb`` and ``encode`` do."""
    # The encoder takes BGR, so a BGR message is encoded without a copy.
    if message.encoding == 'rgb8':
        return encode_bgr(_swapped(_pixels(message)), image_format, quality)
    return encode_bgr(_convert(message, 'bgr8'), image_format, quality)


def check(message) -> Header:
    """
    Check an image message of either type without decoding it.

    :returns: its size, and for a raw image its encoding as the format.
    :raises UserError: when ``to_rgb`` or ``compressed_to_rgb`` could not begin: the size does not
        fit the data, the encoding is unknown, the image is cut short or no JPEG or PNG.
    """
    if not hasattr(message, 'encoding'):
        return check_whole(_compressed(message))
    _check_raw(message)
    return Header(message.width, message.height, message.encoding)


def compressed_bytes(message) -> bytes:
    """
    Return the bytes of a compressed image unchanged, to be stored without re-encoding.

    :raises UserError: when they are neither JPEG nor PNG, or are cut short.
    """
    data = _compressed(message)
    check_whole(data)
    return data


def _compressed(message) -> bytes:
    data = bytes(message.data)
    if not data.startswith((JPEG_START, PNG_START)):
        raise UserError(
            'a compressed camera image has an unknown format',
            got=repr(message.format),
            expected='JPEG or PNG',
        )
    return data


def compressed_to_rgb(message, min_side: int | None = None) -> np.ndarray:
    """
    Return the pixels of a compressed image; those of a Bayer mosaic are interpolated.

    :param min_side: as for ``stored.decode``; a mosaic is decoded at full scale.
    :returns: (height, width, 3) uint8, RGB.
    :raises UserError: when the image is neither JPEG nor PNG, or is broken.
    """
    pattern = _mosaic(message)
    if not pattern:
        return decode(_compressed(message), min_side)
    grey = np.asarray(load(_compressed(message), 'L'))
    height, width = grey.shape
    return to_rgb(
        SimpleNamespace(
            encoding=f'bayer_{pattern}8',
            height=height,
            width=width,
            step=width,
            is_bigendian=0,
            data=grey.tobytes(),
        )
    )


def _mosaic(message) -> str:
    """Return the Bayer pattern of a compressed image, '' if it is none."""
    found = MOSAIC.search(message.format)
    return found[1] if found and not CONVERTED.search(message.format) else ''


@cache
def _limit_threads() -> None:
    """Make OpenCV use one thread: for a single frame, threads cost more than they gain."""
    cv2.setNumThreads(1)


def _swapped(rgb: np.ndarray) -> np.ndarray:
    """Return (height, width, 3) uint8 in BGR, in memory that this thread's next call reuses."""
    _limit_threads()
    # Fresh memory for every frame would cost more than the swap: the kernel zeroes it first.
    if getattr(_scratch, 'bgr', np.empty(0)).shape != rgb.shape:
        _scratch.bgr = np.empty(rgb.shape, np.uint8)
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR, dst=_scratch.bgr)


def _convert(message, wanted: str) -> np.ndarray:
    """Return (height, width, 3) uint8 in ``rgb8`` or ``bgr8``; rows may be padded."""
    _limit_threads()
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
