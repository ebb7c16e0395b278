"""
Camera messages to RGB arrays and to stored bytes: the only place that knows how.

Colours are converted by cv_bridge where a ROS installation has it, else by rosbags-image, which
does the same without ROS. Padded rows and the other byte order, which the two of them treat
differently or not at all, are put right here first. No ROS is imported: a message is anything
with the fields of sensor_msgs/Image or sensor_msgs/CompressedImage.
"""

import sys
import threading
from functools import cache
from types import SimpleNamespace

import cv2
import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.stored import JPEG_START, PNG_START, decode

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
# Newer names of the same bytes; every cv_bridge knows the older ones.
SAME_BYTES = {'uyvy': 'yuv422', 'yuyv': 'yuv422_yuy2'}
# A plane of brightness, then half as many rows of colour; cv_bridge knows neither of them.
TWO_PLANES = ('nv12', 'nv21')

FORMATS = ('jpeg', 'png')

# One frame is small work: threads would cost the recorder more than they bring.
cv2.setNumThreads(1)
_scratch = threading.local()


def to_rgb(message) -> np.ndarray:
    """
    Return the pixels of a raw image.

    16 bits become 8 by ``255 / 65535``; brightness and colour of a YUV image are taken for
    ITU-R BT.601 with limited range; Bayer patterns are interpolated bilinearly.

    :param message: a sensor_msgs/Image, or anything with its fields.
    :returns: (height, width, 3) uint8, RGB, contiguous, not to be written to: it may be the
        message's own memory.
    :raises UserError: for an unknown encoding, or a size that does not fit the data.
    """
    image = np.ascontiguousarray(_convert(message, 'rgb8')).view()
    image.flags.writeable = False
    return image


def encode(image: np.ndarray, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """
    Return the stored bytes of an image.

    :param image: (height, width, 3) uint8, RGB.
    :param image_format: ``jpeg``, or ``png`` for no loss.
    :param quality: of a JPEG, 1 to 100.
    :raises UserError: for another format.
    """
    return encode_bgr(_swapped(image), image_format, quality)


def encode_bgr(image: np.ndarray, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """Return the stored bytes of a (height, width, 3) uint8 image in BGR; see ``encode``."""
    if image_format not in FORMATS:
        raise UserError(
            'unknown image format', got=repr(image_format), expected=' or '.join(FORMATS)
        )
    if image_format == 'jpeg':
        return cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()
    return cv2.imencode('.png', image, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes()


def encode_message(message, image_format: str = 'jpeg', quality: int = 90) -> bytes:
    """Return the stored bytes of a raw image; raises as ``to_rgb`` and ``encode`` do."""
    # The encoder wants BGR: a camera that sends it is encoded from its own memory.
    if message.encoding == 'rgb8':
        return encode_bgr(_swapped(_pixels(message)), image_format, quality)
    return encode_bgr(_convert(message, 'bgr8'), image_format, quality)


def compressed_bytes(message) -> bytes:
    """
    Return a compressed image as it came, to be stored without a second encoding.

    :raises UserError: when it is neither JPEG nor PNG.
    """
    data = bytes(message.data)
    if not data.startswith((JPEG_START, PNG_START)):
        raise UserError(
            'a compressed camera image is of an unknown kind',
            got=repr(message.format),
            expected='JPEG or PNG',
        )
    return data


def compressed_to_rgb(message, least: int | None = None) -> np.ndarray:
    """
    Return the pixels of a compressed image.

    :param least: side of the square that a policy sees, pixels: a large JPEG is then decoded at a
        reduced scale, as the training decodes the stored frame. None: whole.
    :returns: (height, width, 3) uint8, RGB; reduced as `encoded.decode` says.
    :raises UserError: when it is neither JPEG nor PNG, or broken.
    """
    try:
        return decode(compressed_bytes(message), least)
    except OSError as error:
        raise UserError(
            'a compressed camera image is broken', got=error, expected='JPEG or PNG'
        ) from None


def _swapped(rgb: np.ndarray) -> np.ndarray:
    """Return (height, width, 3) uint8 in BGR, in memory that this thread's next call reuses."""
    # Fresh memory for every frame would cost more than the swap: the kernel zeroes it first.
    if getattr(_scratch, 'bgr', np.empty(0)).shape != rgb.shape:
        _scratch.bgr = np.empty(rgb.shape, np.uint8)
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR, dst=_scratch.bgr)


def _convert(message, wanted: str) -> np.ndarray:
    """Return (height, width, 3) uint8 in ``rgb8`` or ``bgr8``; rows may be padded."""
    pixels = _pixels(message)
    if message.encoding == wanted:
        return pixels
    encoding = SAME_BYTES.get(message.encoding, message.encoding)
    tidy = SimpleNamespace(
        encoding=encoding,
        height=pixels.shape[0],
        width=message.width,
        step=pixels.nbytes // pixels.shape[0],
        is_bigendian=sys.byteorder == 'big',
        data=np.ascontiguousarray(pixels),
    )
    convert = _rosbags_image() if encoding in TWO_PLANES else converter()
    try:
        return convert(tidy, wanted)
    except Exception as error:  # both libraries let OpenCV's own exceptions through
        text = ' '.join(str(error).split())
        raise UserError(
            f'a camera image cannot be converted from {message.encoding}',
            got=f'{message.width}x{message.height}: {text}',
        ) from None


def _pixels(message) -> np.ndarray:
    """
    Return the values of an image in this machine's byte order: a view where that is possible.

    :returns: (rows, width) or (rows, width, values a pixel) uint8 or uint16.
    :raises UserError: as ``to_rgb``.
    """
    encoding, height, width, step = (message.encoding, message.height, message.width, message.step)
    if encoding not in ENCODINGS:
        raise UserError(
            'a camera image has an unknown encoding',
            got=repr(encoding),
            expected=', '.join(ENCODINGS),
            remedy='set the camera driver to one of these, or record its compressed '
            'topic with image_transport:=compressed',
        )
    channels, size = ENCODINGS[encoding]
    rows = height * 3 // 2 if encoding in TWO_PLANES else height
    row_bytes = width * channels * size
    if not height or not width or step < row_bytes or len(message.data) < rows * step:
        raise UserError(
            'a camera image has a size that does not fit its data',
            got=f'{width}x{height} {encoding} with rows of {step} bytes in '
            f'{len(message.data)} bytes',
            expected=f'{rows} rows of at least {row_bytes} bytes',
        )
    halved = width if channels == 2 else width | height if encoding in TWO_PLANES else 0
    if halved % 2:
        raise UserError(
            f'a camera image of encoding {encoding} has an odd size',
            got=f'{width}x{height}',
            expected='an even one: pixels share their colour',
        )
    data = np.frombuffer(message.data, np.uint8, rows * step).reshape(rows, step)[:, :row_bytes]
    if size == 2:
        order = '>u2' if message.is_bigendian else '<u2'
        data = np.ascontiguousarray(data).view(order).astype(np.uint16, copy=False)
    return data if channels == 1 else data.reshape(rows, width, channels)


@cache
def converter():
    """
    Return what converts colours here: ``convert(message, wanted encoding) -> array``.

    cv_bridge where it can be imported (one that was built for another numpy cannot), else
    rosbags-image.
    """
    try:
        from cv_bridge import CvBridge
        from cv_bridge.boost import cv_bridge_boost  # noqa: F401
    except (ImportError, AttributeError):
        return _rosbags_image()
    return CvBridge().imgmsg_to_cv2


@cache
def _rosbags_image():
    from rosbags.image import image_to_cvimage

    return image_to_cvimage
