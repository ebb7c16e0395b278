"""
Publish images and measure the time from each to its proposal.

    python -m mobile_vla_ros.nodes.bench_eye --ros-args -p rate_hz:=30.0 -p seconds:=10.0

Prints one line of JSON at the end: `frames` (sent); `answered` (frames with a proposal of the same
stamp); for these `sent_ms`, from just before publishing the image to receiving the proposal, on
this process's steady clock (median, 99th percentile, largest); and `own_ms` (median, 99th
percentile), from the camera callback of inference, as it reports.
"""

import json
import threading
import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

from mobile_vla_ros.bench import synthetic_camera
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.messages import LATCHED, time_ns
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.run import run, work_to_end

IMAGES = 10
TIMEOUT_S, WARM_UP_S, LAST_S = 90.0, 2.0, 1.0
OWN = ('callback_to_proposal_p50_ms', 'callback_to_proposal_p99_ms')


class BenchCamera(Node):
    """Publish at a camera's rate in a thread; store when the proposal of each stamp arrives."""

    def __init__(self) -> None:
        super().__init__('bench_eye')
        self.exit_status: int | None = None
        self._rate_hz = declare(self, 'rate_hz', 30.0, 'images per second', limits=(0.5, 240.0))
        width = declare(self, 'width', 1280, 'width of an image, pixels', limits=(64, 7680))
        height = declare(self, 'height', 720, 'height of an image, pixels', limits=(64, 4320))
        self._seconds = declare(
            self, 'seconds', 10.0, 'duration of the measurement', limits=(1.0, 3600.0)
        )
        self._messages = [
            self._message(image) for image in synthetic_camera.images(width, height, IMAGES)
        ]
        self._images = self.create_publisher(Image, 'camera/image_raw', qos_profile_sensor_data)
        instruction = self.create_publisher(String, 'instruction', LATCHED)
        instruction.publish(String(data='measure'))
        self._sent_s: dict[int, float] = {}
        self._back_s: dict[int, float] = {}
        self._own: dict[str, str] = {}
        self._closing = threading.Event()
        self.create_subscription(TwistStamped, 'policy/cmd_vel', self._on_proposal, 10)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        threading.Thread(
            target=lambda: work_to_end(self, 'bench_eye', self._measure, self._closing),
            daemon=True,
        ).start()

    def on_exit(self) -> None:
        """Stop the thread from publishing."""
        self._closing.set()

    @staticmethod
    def _message(image: np.ndarray) -> Image:
        """Return a bgr8 message, as OpenCV's camera drivers send it."""
        height, width, _ = image.shape
        message = Image(height=height, width=width, encoding='bgr8', step=width * 3)
        message.data.frombytes(np.ascontiguousarray(image[:, :, ::-1]).data)
        return message

    def _on_proposal(self, message: TwistStamped) -> None:
        self._back_s.setdefault(time_ns(message.header.stamp), time.monotonic())

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            values = {pair.key: pair.value for pair in status.values}
            if values.get(OWN[0]):
                self._own = values

    def _measure(self) -> None:
        self._send(TIMEOUT_S, lambda: bool(self._back_s))
        if not self._back_s and not self._closing.is_set():
            raise UserError('no proposal arrived', got=f'{len(self._sent_s)} images sent')
        self._send(WARM_UP_S)
        before = set(self._sent_s)
        self._send(self._seconds)
        stamps = [stamp for stamp in self._sent_s if stamp not in before]
        self._send(LAST_S)  # wait for the last proposals and a report that covers them
        delays_ms = [
            1e3 * (self._back_s[stamp] - self._sent_s[stamp])
            for stamp in stamps
            if stamp in self._back_s
        ]
        print(
            json.dumps(
                {
                    'frames': len(stamps),
                    'answered': len(delays_ms),
                    'sent_ms': [*np.percentile(delays_ms, (50, 99, 100)).tolist()],
                    'own_ms': [float(self._own.get(key) or 'nan') for key in OWN],
                }
            ),
            flush=True,
        )
        self.exit_status = 0

    def _send(self, seconds: float, done=lambda: False) -> None:
        """Publish at the camera's rate for some seconds, or until ``done``."""
        period_s = 1 / self._rate_hz
        due = time.monotonic()
        end = due + seconds
        while (
            due < end and not done() and not self._closing.wait(max(due - time.monotonic(), 0.0))
        ):
            message = self._messages[len(self._sent_s) % IMAGES]
            message.header.stamp = self.get_clock().now().to_msg()
            self._sent_s[time_ns(message.header.stamp)] = time.monotonic()
            self._images.publish(message)
            due = max(due, time.monotonic() - period_s) + period_s


def main(args: list[str] | None = None) -> int:
    """Run the camera."""
    return run('bench_eye', BenchCamera, args=args)
