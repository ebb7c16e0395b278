"""Stored images: JPEG and PNG bytes, and their pixels."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

JPEG_START, PNG_START = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'

# Decode a JPEG at 1/2, 1/4 or 1/8 scale only while both sides stay at least this many times the
# requested side. After resizing to 224 px, a 1280 x 720 frame then differs from one decoded at
# full scale by 0.3 of 255 grey levels on average and by 10 at most; at 1.0 times it was 0.6 and
# 24, at 0.8 times 0.8 and 27. Changing this changes pixels: increment
# PIPELINE_VERSION in data/image_tokens.py with it.
MIN_REDUCED_RATIO = 1.5


def decode(encoded: bytes, min_side: int | None = None) -> np.ndarray:
    """
    Return the pixels of stored bytes; training and driving share this decoder.

    Handles grey, transparent and 16-bit images as well, which cv_bridge and rosbags-image reject.

    :param min_side: side of the square that the image will be resized to, pixels: a much larger
        JPEG is decoded at a reduced scale, in less than half the time. None: full scale.
    :returns: (height, width, 3) uint8, RGB; for a JPEG with ``min_side``, possibly (height / n,
        width / n, 3) rounded up, with n = 2, 4 or 8.
    :raises OSError: when the bytes are broken.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        if min_side:
            side = int(np.ceil(min_side * MIN_REDUCED_RATIO))
            image.draft(None, (side, side))  # no effect on formats other than JPEG
        if image.mode.startswith('I'):  # 16-bit grey: Pillow would clip it instead of scaling it
            grey = (np.asarray(image) * (255.0 / 65535.0)).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.asarray(image.convert('RGB'))
    except UnidentifiedImageError:  # Pillow's message contains a memory address
        raise OSError('unknown image format') from None
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from None
