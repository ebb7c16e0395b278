"""Images as they are stored: JPEG and PNG bytes, and their pixels."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

JPEG_START, PNG_START = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'

# A JPEG may come out at a half, a quarter or an eighth of its size as long as both sides stay this
# many times the side that is wanted. Resized to 224 px then, a frame of 1280 x 720 differs from
# one that was decoded whole by 0.3 of 255 grey levels on average and by 10 at most; at 1.0 times
# it was 0.6 and 24, at 0.8 times 0.8 and 27. Another number makes other pixels: count up WAY in
# data/image_tokens.py with it.
REDUCED_LEAST = 1.5


def decode(encoded: bytes, least: int | None = None) -> np.ndarray:
    """
    Return the pixels of stored bytes: what is trained on and what is driven by is decoded here.

    Grey, transparent and 16-bit pictures as well, which cv_bridge and rosbags-image refuse.

    :param least: side of the square that the picture will be resized to: a JPEG that is much
        larger is decoded at a reduced scale, in less than half the time. None: whole.
    :returns: (height, width, 3) uint8, RGB; with ``least``, of a JPEG, perhaps (height / n,
        width / n, 3) rounded up, n being 2, 4 or 8.
    :raises OSError: when the bytes are broken.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        if least:
            side = int(np.ceil(least * REDUCED_LEAST))
            image.draft(None, (side, side))  # what is no JPEG has none, and stays as it is
        if image.mode.startswith('I'):  # 16 bits of grey: Pillow would cut, not scale
            grey = (np.asarray(image) * (255.0 / 65535.0)).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=2)
        return np.asarray(image.convert('RGB'))
    except UnidentifiedImageError:  # its own sentence holds an address in memory
        raise OSError('no image of a known kind') from None
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise OSError(str(error)) from None
