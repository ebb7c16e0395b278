"""A live camera of noise for an inference node that needs no guard."""

import numpy as np
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

INSTRUCTION = 'go to the red box'


def noise_image(client, rng: np.random.Generator) -> Image:
    """Return an image of noise, stamped now."""
    message = Image(height=48, width=64, encoding='rgb8', step=64 * 3)
    message.header.stamp = client.now()
    message.data = rng.integers(0, 256, 48 * 64 * 3, dtype=np.uint8).tobytes()
    return message


class NoiseCamera:
    """
    A camera of noise, so that no two images are the same.

    :ivar stamps: (sec, nanosec) of every image so far.
    """

    def __init__(self, client):
        self.client = client
        self.rng = np.random.default_rng(0)
        self.stamps = []

    def image(self) -> Image:
        """Return the next image, stamped now."""
        message = noise_image(self.client, self.rng)
        self.stamps.append((message.header.stamp.sec, message.header.stamp.nanosec))
        return message

    def stream(self, rate_hz=10.0):
        """Publish images while the block runs, as soon as the node subscribes."""
        publisher = self.client.publisher('camera/image_raw', Image, qos_profile_sensor_data)
        self.client.wait_for(publisher.get_subscription_count, 60, 'the node')
        return self.client.stream('camera/image_raw', self.image, rate_hz, qos_profile_sensor_data)
