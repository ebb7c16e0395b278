"""Images as they are stored: JPEG and PNG bytes, and their pixels."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

JPEG_START, PNG_START = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'


def decode(encoded: bytes) -> np.ndarray:
    """
    Return the pixels of stored bytes: what is trained on and what is driven by is decoded here.

    Grey, transparent and 16-bit pictures as well, which cv_bridge and rosbags-image refuse.

    :returns: (height, width, 3) uint8, RGB.
    :raises OSError: when the bytes are broken.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        if image.mode.startswith('I'):  # 16 bits of grey: Pillow would cut, not scale
            grey = (np.asarray(image) * (255.0 / 65535.0)).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.asarray(image.convert('RGB'))
    except (UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from None
