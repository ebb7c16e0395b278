"""A node process with its status and a camera, for tests that drive it step by step."""

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.qos import qos_profile_sensor_data

from mobile_vla_ros.nodes.shared.image_messages import from_rgb
from ros_helpers import TIMEOUT_S, wait_for_status

CAMERA = 'camera/image_raw'


def twist_message(x: float = 0.0, y: float = 0.0, turn: float = 0.0) -> Twist:
    """Return a command for a base on the ground."""
    message = Twist()
    message.linear.x, message.linear.y, message.angular.z = x, y, turn
    return message


def stamped_twist(stamp, x: float) -> TwistStamped:
    """Return a stamped command straight ahead."""
    message = TwistStamped(twist=twist_message(x))
    message.header.stamp = stamp
    return message


class NodeRig:
    """
    A node process, its status, and a camera that numbers its images.

    :param process: what ``nodes.start`` returned.
    :ivar count: how many images the camera has made.
    """

    def __init__(self, client, process, status_topic: str):
        self.client, self.process, self.count = client, process, 0
        self.status = client.subscribe(status_topic, DiagnosticStatus)

    def image(self, height=12, width=16):
        """Return the camera's next image, in daylight; its first pixel holds its number."""
        self.count += 1
        pixels = np.full((height, width, 3), 150, np.uint8)
        pixels[0, 0, :2] = self.count % 256, self.count // 256
        return from_rgb(pixels, stamp=self.client.now(), frame_id='eye')

    def camera(self, rate_hz=20.0, make=None):
        """Publish images while the block runs."""
        return self.client.stream(CAMERA, make or self.image, rate_hz, qos_profile_sensor_data)

    def until(self, what, predicate, timeout_s=TIMEOUT_S):
        """Wait for a new status for which ``predicate(state, values)`` is true; return values."""
        return wait_for_status(
            self.status, predicate, timeout_s, what, lambda: self.process.output
        )
