"""What a live inference node needs to drive: a camera with faults and the guard's status."""

import threading

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image

from mobile_vla_ros.nodes.shared.messages import LATCHED, status_message
from mobile_vla_ros.safety.status import GuardStatus, State
from ros_helpers import TIMEOUT_S, status_values, wait_until

OK, HOLD, FAULT = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
PERIOD_S = 0.1


class FaultyCamera:
    """A camera of noise with faults on demand, and a guard that reports a driven base."""

    def __init__(self, client):
        self.client = client
        self.mode = 'well'
        self.state, self.speed = 'driving', 0.5
        self.rng = np.random.default_rng(0)
        self.pixels = self.noise()
        self.images = client.publisher('camera/image_raw', Image, qos_profile_sensor_data)
        self.guard = client.publisher('guard/status', DiagnosticStatus)
        self.closing = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def noise(self):
        """Return an image of noise."""
        return self.rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)

    def turn(self, mode: str):
        """Publish with this fault from the next image on; ``well`` is none."""
        self.mode = mode

    def _work(self):
        while not self.closing.wait(PERIOD_S):
            self.guard.publish(
                status_message(
                    'guard',
                    self.state,
                    GuardStatus(
                        State(self.state), armed=True, twist=np.eye(6)[0] * self.speed
                    ).values(),
                )
            )
            mode = self.mode
            if mode != 'silent':
                self.images.publish(self._message(mode))

    def _message(self, mode: str):
        pixels = self.noise() if mode != 'frozen' else self.pixels
        self.pixels = pixels
        if mode == 'black':
            pixels = np.zeros_like(pixels)
        elif mode == 'small':
            pixels = pixels[:, :32]
        elif mode == 'grey':
            pixels = pixels[..., :1]
        stamp = self.client.now()
        stamp.sec += {'late': -3, 'future': 1, 'jumped': -10}.get(mode, 0)
        if mode == 'zero':
            stamp.sec = stamp.nanosec = 0
        height, width, channels = pixels.shape
        message = Image(
            height=height,
            width=width,
            step=width * channels,
            encoding='mono8' if channels == 1 else 'rgb8',
            data=pixels.tobytes(),
        )
        message.header.stamp = stamp
        return message

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.thread.join()


class Drive:
    """The health, proposals and diagnostics of an inference node."""

    def __init__(self, client):
        self.healths = client.subscribe(
            'policy/health', DiagnosticArray, QoSProfile(depth=100, durability=LATCHED.durability)
        )
        self.proposals = client.subscribe('policy/cmd_vel', TwistStamped)
        self.reports = client.subscribe('/diagnostics', DiagnosticArray)

    def until(self, level, text: str = '', timeout_s: float = TIMEOUT_S) -> float:
        """Wait for a new health with this level and text; return when it was received."""
        seen = len(self.healths)

        def find():
            return next(
                (
                    at
                    for at, array in zip(
                        self.healths.times[seen:], self.healths.messages[seen:], strict=False
                    )
                    if array.status[0].level == level and text in array.status[0].message
                ),
                None,
            )

        return wait_until(
            find,
            timeout_s,
            f'{level} {text!r}',
            lambda: str(
                [(a.status[0].level, a.status[0].message) for a in self.healths.messages[-5:]]
            ),
        )

    def reported(self, timeout_s: float = TIMEOUT_S, **wanted: str) -> dict[str, str]:
        """Wait until values in /diagnostics contain these texts; return all values."""

        def find():
            last = self.reports.last
            values = status_values(last.status[0]) if last else {}
            return all(text in values.get(key, '') for key, text in wanted.items()) and values

        return wait_until(
            find,
            timeout_s,
            str(wanted),
            lambda: str(self.reports.last and self.reports.last.status[0]),
        )
