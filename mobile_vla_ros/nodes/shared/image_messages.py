"""Images as ROS messages."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mobile_vla_ros.images.stored import PNG_START

if TYPE_CHECKING:
    from builtin_interfaces.msg import Time
    from sensor_msgs.msg import CompressedImage, Image


def from_rgb(image: np.ndarray, *, stamp: 'Time | None' = None, frame_id: str = '') -> 'Image':
    """
    Return an rgb8 message.

    :param image: (height, width, 3) uint8, RGB.
    :param stamp: time of the exposure.
    """
    from sensor_msgs.msg import Image

    height, width, _ = image.shape
    message = Image(height=height, width=width, encoding='rgb8', step=width * 3)
    message.data.frombytes(np.ascontiguousarray(image, dtype=np.uint8).data)
    return _headed(message, stamp, frame_id)


def to_compressed(
    encoded: bytes, *, stamp: 'Time | None' = None, frame_id: str = ''
) -> 'CompressedImage':
    """Return a message around JPEG or PNG bytes."""
    from sensor_msgs.msg import CompressedImage

    message = CompressedImage(format='png' if encoded.startswith(PNG_START) else 'jpeg')
    message.data.frombytes(encoded)
    return _headed(message, stamp, frame_id)


def _headed(message: Any, stamp: 'Time | None', frame_id: str) -> Any:
    if stamp is not None:
        message.header.stamp = stamp
    message.header.frame_id = frame_id
    return message
