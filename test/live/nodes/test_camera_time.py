"""A camera without a clock: refused by its stamps, driven by its receipt, unless it is late."""

import threading
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from noise_camera import INSTRUCTION, noise_image
from ros_helpers import status_values, wait_for_status, wait_until

TESTS = Path(__file__).parents[2]


class Robot:
    """A guard, an inference node and the wheels' topic."""

    def __init__(self, nodes, client, policy, max_age_s=0.3, **params):
        self.client = client
        self.status = client.subscribe('guard/status', DiagnosticStatus)
        self.diagnostics = client.subscribe('/diagnostics', DiagnosticArray)
        client.subscribe('cmd_vel', Twist)
        # The images are smaller than the policy's; a busy machine delays them and has less memory.
        self.guard = nodes.start(
            'guard_node',
            params={
                'override': ['camera_size', 'camera_rate', 'free_memory'],
                'observation_max_age_s': max_age_s,
                'proposal_timeout_s': max_age_s,
            },
        )
        self.inference = nodes.start(
            'inference_node',
            params={
                'policy': str(policy),
                'instruction': INSTRUCTION,
                'observation_max_age_s': max_age_s,
                **params,
            },
        )

    def images(self, make):
        """Publish images while the block runs, as soon as inference subscribes."""
        publisher = self.client.publisher('camera/image_raw', Image, qos_profile_sensor_data)
        self.client.wait_for(publisher.get_subscription_count, 60, 'inference')
        return self.client.stream('camera/image_raw', make, 10, qos_profile_sensor_data)

    def arm_after(self, line: str, word: str):
        """Ask to arm once the preflight has this line and word; return the answer."""

        def found():
            report = self.client.call('guard/preflight').message
            return word in report and any(one.startswith(line) for one in report.splitlines())

        wait_until(found, 60, line, lambda: self.client.call('guard/preflight').message)
        return self.client.call('guard/arm')

    def until(self, state: str, reason: str = '', older_than_s: float = 0.0) -> dict:
        """Wait for a new status of the guard, by an image of that age."""

        def found(now, values):
            old = not older_than_s or float(values['age_s'] or 0) > older_than_s
            return now == state and reason in (values['stop_reason'], '') and old

        what = f'{state} {reason}'
        return wait_for_status(self.status, found, what=what, detail=lambda: str(self.status.last))

    def reported(self, key: str) -> str:
        """Return the newest value of inference's diagnostics, which come once a second."""

        def found() -> list[str]:
            rows = [status_values(array.status[0]) for array in self.diagnostics.messages]
            return [values[key] for values in rows if key in values]

        wait_until(found, what=key)
        return found()[-1]


@pytest.fixture
def robot(nodes, client, small_run):
    """Start the robot: ``robot(camera_time='receipt')``."""
    return lambda **params: Robot(nodes, client, small_run / 'best', **params)


@pytest.fixture
def no_clock(client):
    """Return a function that makes images with stamps of zero."""
    import numpy as np

    rng = np.random.default_rng(0)

    def make():
        message = noise_image(client, rng)
        message.header.stamp.sec = message.header.stamp.nanosec = 0
        return message

    return make


@pytest.fixture
def slow_camera(nodes, tmp_path):
    """Return a function that starts the slow camera."""
    return lambda: nodes.start(
        'helpers.slow_camera',
        arguments=[str(tmp_path / 'slow.xml')],
        env={'PYTHONPATH': str(TESTS)},
    )


def test_without_a_clock_arming_is_refused_with_the_remedy(robot, no_clock):
    """By the stamps, which is the default."""
    one = robot()
    with one.images(no_clock):
        answer = one.arm_after('red clock_skew: no image has a valid stamp', 'invalid image stamp')
        assert not answer.success and 'set camera_time:=receipt if' in answer.message
        assert one.reported('camera_time') == 'stamp'


def test_by_receipt_it_drives_until_it_is_stuck(robot, no_clock):
    """A repeated image is a fault."""
    one, stuck = robot(camera_time='receipt', max_age_s=1.0), threading.Event()
    last = no_clock()

    def make():
        nonlocal last
        if not stuck.is_set():
            last = no_clock()
        return last

    with one.images(make):
        answer = one.arm_after(
            'green clock_skew: images arrive ', 's after they were sent; exposure and driver are'
        )
        assert answer.success, answer.message
        one.until('driving')
        assert one.reported('camera_time') == 'receipt'
        stuck.set()
        one.until('fault', 'camera_frozen')


def test_the_transport_is_part_of_the_age(robot, slow_camera):
    """0.3 to 0.4 s in the middleware, within an age limit of 1.0 s."""
    one = robot(camera_time='receipt', camera_latency_s=0.01, max_age_s=1.0)
    slow_camera()
    answer = one.arm_after(
        'green clock_skew: images arrive ', 's after they were sent; camera_latency_s 0.01 s is'
    )
    assert answer.success, answer.message
    one.until('driving', older_than_s=0.3)  # the middleware's queue fills in 2 s


def test_late_images_are_refused_by_receipt_too(robot, slow_camera):
    """0.3 to 0.4 s in the middleware, beyond the age limit of 0.3 s."""
    one = robot(camera_time='receipt')
    slow_camera()
    answer = one.arm_after(
        'red clock_skew: images arrive ', 's after they were sent; exposure and driver are not'
    )
    assert not answer.success and 'delays the images' in answer.message
    assert float(one.reported('camera_transport_max_s')) > 0.3
