"""
Relays the arena's images as a camera's driver would send them, or as a broken one does.

    python -m mobile_vla_ros.nodes.drill_camera --ros-args -p mode:=pass

Subscribes to its mode on `drill/camera`; reports each change and frame on `drill/frames`, as JSON
with the steady clock's time in nanoseconds, which all processes of a machine share.
"""

import json
import threading
import time
from array import array
from collections import deque

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from mobile_vla_ros.drill import catalog as drill
from mobile_vla_ros.images.compressed import compressed_to_rgb, encode
from mobile_vla_ros.nodes.shared.messages import LATCHED
from mobile_vla_ros.nodes.shared.run import run

PASS, SILENT, FROZEN, LATE, BLACK, STAMPS = 'pass', 'silent', 'frozen', 'late', 'black', 'stamps'
LATE_NS = 3_000_000_000
POLL_S = 0.005
BLACK_NOISE = 4
# No driver sets one of these: zero, and more nanoseconds than a second has.
INVALID_TIMES = (Time(), Time(sec=0, nanosec=2**32 - 1))


class DrillCamera(Node):
    """The relay; a thread sends late frames."""

    def __init__(self) -> None:
        super().__init__('drill_camera')
        self._mode = PASS
        self._frozen: array | None = None
        self._noise = np.random.default_rng(0)
        self._count = 0
        self._late: deque[tuple[int, CompressedImage]] = deque()
        self._closing = threading.Event()
        self._images = self.create_publisher(
            CompressedImage, 'camera/image_raw/compressed', qos_profile_sensor_data
        )
        self._reports = self.create_publisher(String, 'drill/frames', 50)
        self.create_subscription(
            CompressedImage, f'{drill.CAMERA}/compressed', self._on_image, qos_profile_sensor_data
        )
        self.create_subscription(String, 'drill/camera', self._on_mode, LATCHED)
        threading.Thread(target=self._send_late, daemon=True).start()

    def on_exit(self) -> None:
        """End the thread before the context is gone."""
        self._closing.set()

    def _on_mode(self, message: String) -> None:
        self._mode = message.data
        self._count = 0
        if self._mode == PASS:
            self._late.clear()
        self._report()

    def _on_image(self, message: CompressedImage) -> None:
        mode = self._mode
        if mode == PASS or self._frozen is None:
            self._frozen = message.data
        elif mode == FROZEN:
            message.data = self._frozen
        elif mode == BLACK:
            # As through a covered lens: no two images are the same.
            image = self._noise.integers(0, BLACK_NOISE, compressed_to_rgb(message).shape)
            message.data = array('B', encode(image.astype(np.uint8)))
        elif mode == STAMPS:
            message.header.stamp = INVALID_TIMES[self._count % len(INVALID_TIMES)]
        elif mode == LATE:
            self._late.append((time.monotonic_ns() + LATE_NS, message))
            return
        elif mode == SILENT:
            return
        self._send(message, mode)

    def _send_late(self) -> None:
        """Send the late frames when they are due."""
        while not self._closing.wait(POLL_S):
            while self._mode == LATE and self._late and self._late[0][0] <= time.monotonic_ns():
                self._send(self._late.popleft()[1], LATE)

    def _send(self, message: CompressedImage, mode: str) -> None:
        self._count += 1
        self._report(frame=True, mode=mode)
        self._images.publish(message)

    def _report(self, **values) -> None:
        self._reports.publish(
            String(
                data=json.dumps(
                    {'at': time.monotonic_ns(), 'frame': False, 'mode': self._mode, **values}
                )
            )
        )


def main(args: list[str] | None = None) -> int:
    """Run the relay."""
    return run('drill_camera', DrillCamera, args=args)
