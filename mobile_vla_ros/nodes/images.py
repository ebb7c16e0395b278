"""Pictures to image messages, and compressed ones back as a policy sees them."""

from typing import TYPE_CHECKING

import numpy as np

from mobile_vla_ros.encoded import PNG_START, decode
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images import compressed_bytes

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image


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


def to_compressed(encoded: bytes, *, stamp=None, frame_id: str = '') -> 'CompressedImage':
    """Return a message around JPEG or PNG bytes."""
    from sensor_msgs.msg import CompressedImage

    message = CompressedImage(format='png' if encoded.startswith(PNG_START) else 'jpeg')
    message.data.frombytes(encoded)
    return _headed(message, stamp, frame_id)


def from_compressed(message: 'CompressedImage', side: int) -> np.ndarray:
    """
    Return the pixels of a compressed image that a policy is to see.

    Decoded as the training decodes the stored frame (`data.frame_cache`), at a reduced scale
    where the network sees no more; ``mobile_vla_ros.images`` gives the whole picture.

    :param side: of the square that the policy sees, pixels.
    :returns: (height, width, 3) uint8, RGB.
    :raises UserError: when it is neither JPEG nor PNG, or broken.
    """
    try:
        return decode(compressed_bytes(message), side)
    except OSError as error:
        raise UserError('a compressed camera image is broken', got=error,
                        expected='JPEG or PNG') from None


def _headed(message, stamp, frame_id: str):
    if stamp is not None:
        message.header.stamp = stamp
    message.header.frame_id = frame_id
    return message
