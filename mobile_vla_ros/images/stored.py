"""
Stored images: JPEG and PNG bytes, and their pixels.

No other module opens an image (``test_laws.py``): episodes and cameras are strangers, and Pillow
would open any of its formats, some with programs of their own, and raise nearly any exception.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from mobile_vla_ros.errors import UserError, first_line

JPEG_START, PNG_START = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
JPEG_END = b'\xff\xd9'
MARKER, START_OF_SCAN = 0xFF, 0xDA  # of a JPEG's segments, and of the one before the pixels
FORMATS = ('JPEG', 'PNG')
# What an image may claim, checked before it is decoded: 64 megapixels need 192 MB as RGB. OpenCV
# encodes no longer side. Pillow limits the text chunks of a PNG, to 1 MB each and 64 MB together.
MAX_BYTES = 64_000_000
MAX_PIXELS, MAX_SIDE = 64_000_000, 65_500

# Decode a JPEG at 1/2, 1/4 or 1/8 scale only while both sides stay at least this many times the
# requested side. After resizing to 224 px, a 1280 x 720 frame then differs from one decoded at
# full scale by 0.3 of 255 grey levels on average and by 10 at most; at 1.0 times it was 0.6 and
# 24, at 0.8 times 0.8 and 27. Changing this changes pixels: increment
# PIPELINE_VERSION in data/image_tokens.py with it.
MIN_REDUCED_RATIO = 1.5

# A size that Pillow only warns of is above our limit.
warnings.filterwarnings('error', category=Image.DecompressionBombWarning)


class BrokenImage(UserError):
    """
    Bytes that are no whole JPEG or PNG within the limits, or pixels beyond them.

    :ivar reason: what was found.
    """

    def __init__(self, reason: str, expected: str = 'a whole JPEG or PNG') -> None:
        super().__init__('an image is broken', got=reason, expected=expected)
        self.reason = reason


class Header(NamedTuple):
    """Size in pixels, and ``JPEG`` or ``PNG``."""

    width: int
    height: int
    format: str


def read_header(encoded: bytes) -> Header:
    """
    Return the header of stored bytes, in microseconds; the rest may be broken.

    :raises BrokenImage: when it is no header of a JPEG or PNG within the limits.
    """
    with _broken():
        return _header(_open(encoded))


def mode_of(encoded: bytes) -> str:
    """
    Return the mode of stored pixels by Pillow's names: ``RGB``, ``L`` (grey), ``RGBA``, ….

    :raises BrokenImage: as ``read_header``.
    """
    with _broken():
        return str(_open(encoded).mode)


def check_whole(encoded: bytes) -> Header:
    """
    Check stored bytes without decoding: the limits, and that nothing is cut off.

    A JPEG must have its end marker, a PNG the checksums of all chunks up to the last.

    :raises BrokenImage: when the bytes are broken; ``decode`` then raises it as well.
    """
    with _broken():
        return _header(_open_whole(encoded))


def has_end(encoded: bytes) -> bool:
    """
    Whether a JPEG plainly has its end, in a tenth of the time of ``check_whole``.

    False only means that ``check_whole`` has to tell: for a PNG, or an unusual header.
    """
    at = 2
    while at + 4 <= len(encoded) and encoded[at] == MARKER:
        if encoded[at + 1] == START_OF_SCAN:
            return encoded.startswith(JPEG_START) and encoded.rfind(JPEG_END, at) >= 0
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4], 'big')
    return False


def load(
    encoded: bytes, mode: str = 'RGB', min_size: tuple[int, int] | None = None
) -> Image.Image:
    """
    Return the image of stored bytes; handles grey, transparent and 16-bit images as well.

    :param mode: ``RGB`` or ``L``.
    :param min_size: a larger JPEG is decoded at the lowest scale, down to 1/8, at which it still
        has this width and height. None: full scale.
    :raises BrokenImage: when the bytes are broken.
    """
    with _broken():
        image: Image.Image = _open_whole(encoded)
        if min_size:
            image.draft(mode if mode == 'L' else None, min_size)
        if image.mode.startswith('I'):  # 16-bit grey: Pillow would clip it instead of scaling it
            image = Image.fromarray((np.asarray(image) * (255.0 / 65535.0)).astype(np.uint8))
        return image.convert(mode)


def decode(encoded: bytes, min_side: int | None = None) -> np.ndarray:
    """
    Return the pixels of stored bytes; training and driving share this decoder.

    :param min_side: side of the square that the image will be resized to, pixels: a much larger
        JPEG is decoded at a reduced scale, in less than half the time. None: full scale.
    :returns: (height, width, 3) uint8, RGB; for a JPEG with ``min_side``, possibly (height / n,
        width / n, 3) rounded up, with n = 2, 4 or 8.
    :raises BrokenImage: when the bytes are broken.
    """
    side = int(np.ceil((min_side or 0) * MIN_REDUCED_RATIO))
    return np.asarray(load(encoded, min_size=(side, side) if side else None))


def check_size(width: int, height: int) -> None:
    """
    Check the size of an image against the limits.

    :raises BrokenImage: when it is too large.
    """
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise BrokenImage(
            f'{width}x{height} pixels',
            f'at most {MAX_PIXELS // 1_000_000} megapixels and {MAX_SIDE} pixels a side',
        )


@contextmanager
def _broken() -> Iterator[None]:
    """Raise any exception as ``BrokenImage``: those of Pillow depend on the bytes."""
    try:
        yield
    except BrokenImage:
        raise
    except UnidentifiedImageError:  # Pillow's message contains a memory address
        raise BrokenImage('unknown image format') from None
    except Exception as error:
        raise BrokenImage(first_line(error)) from None


def _open(encoded: bytes) -> ImageFile.ImageFile:
    if len(encoded) > MAX_BYTES:
        raise BrokenImage(
            f'{len(encoded)} bytes', f'at most {MAX_BYTES // 1_000_000} MB in a JPEG or PNG'
        )
    image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    check_size(image.width, image.height)
    return image


def _open_whole(encoded: bytes) -> ImageFile.ImageFile:
    image = _open(encoded)
    if encoded.startswith(PNG_START):
        image.verify()  # which uses it up
        return _open(encoded)
    assert image.fp is not None
    # Pillow has read up to the pixels: a thumbnail's end marker lies before them.
    if encoded.rfind(JPEG_END, image.fp.tell()) < 0:
        raise BrokenImage('a JPEG without its end')
    return image


def _header(image: ImageFile.ImageFile) -> Header:
    return Header(image.width, image.height, image.format or '')
