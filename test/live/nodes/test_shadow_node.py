"""The shadow as a live process: how driver and policy differ, and the worst window saved."""

import signal

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.qos import qos_profile_sensor_data

from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.nodes.shared.image_messages import from_rgb
from ros_helpers import wait_for_status

CAMERA = 'camera/image_raw'


class Rig:
    """A shadow process; a person, a camera and a policy beside it."""

    def __init__(self, nodes, client, folder, **params):
        self.client, self.folder, self.count = client, folder / 'shadow', 0
        self.driven, self.proposed = 0.4, 0.4
        self.status = client.subscribe('shadow/status', DiagnosticStatus)
        self.process = nodes.start(
            'shadow_node',
            params={'data_dir': str(folder), 'instruction': 'go to the red box', **params},
        )

    def image(self):
        self.count += 1
        pixels = np.full((12, 16, 3), 150, np.uint8)
        pixels[0, 0, 0] = self.count % 256
        return from_rgb(pixels, stamp=self.client.now(), frame_id='eye')

    def stamped(self, speed):
        message = TwistStamped()
        message.header.stamp = self.client.now()
        message.twist.linear.x = speed
        return message

    def twist(self):
        message = Twist()
        message.linear.x = self.driven
        return message

    def camera(self):
        return self.client.stream(CAMERA, self.image, 10, qos_profile_sensor_data)

    def person(self, stamped=False):
        return self.client.stream(
            'cmd_vel', (lambda: self.stamped(self.driven)) if stamped else self.twist, 20
        )

    def policy(self):
        return self.client.stream('shadow/cmd_vel', lambda: self.stamped(self.proposed), 20)

    def until(self, what, predicate, timeout_s=15.0):
        """Wait for a new status of which ``predicate(state, values)`` is true; return values."""
        return wait_for_status(
            self.status, predicate, timeout_s, what, lambda: self.process.output
        )

    def episodes(self):
        return sorted(self.folder.glob('*.h5')) if self.folder.is_dir() else []


@pytest.mark.parametrize(('number', 'stamped'), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_the_worst_seconds_are_kept_with_both_commands(nodes, client, tmp_path, number, stamped):
    """Reported live in m/s, written at the end; the shadow publishes nothing that drives."""
    one = Rig(nodes, client, tmp_path)
    diagnostics = client.subscribe('/diagnostics', DiagnosticArray)
    one.proposed = 0.1
    with one.camera(), one.person(stamped), one.policy():
        values = one.until(
            'the difference',
            lambda state, values: state == 'comparing' and int(values['pairs']) > 40,
        )
        assert float(values['linear_x_live_mps']) == pytest.approx(0.3, abs=0.001)
        assert float(values['linear_x_mean_mps']) == pytest.approx(0.3, abs=0.001)
        assert float(values['linear_x_flips']) == 0.0
        assert one.episodes() == []
        names = [info.node_name for info in client.node.get_publishers_info_by_topic('/cmd_vel')]
        assert 'shadow' not in names
        one.process.signal(number)
        assert one.process.wait() == 0, one.process.output
    assert any(
        status.name == 'shadow' for array in diagnostics.messages for status in array.status
    )
    (path,) = one.episodes()
    with Episode.open(path) as episode:
        assert episode.instruction == 'go to the red box' and len(episode) > 10
        assert set(episode.commands.source) == {1}
        assert np.allclose(episode.commands.twist[:, 0], 0.4)
        assert np.allclose(episode.proposals.twist[:, 0], 0.1)
        # Stamped with the image's time, which is earlier than their receipt.
        assert (episode.proposals.stamp_ns < episode.proposals.received_ns).all()


def test_a_worse_window_takes_the_place_of_the_one_before(nodes, client, tmp_path):
    """It is written once it has passed, so that a kill loses only the time since."""
    one = Rig(nodes, client, tmp_path, window_s=1.0)
    with one.camera(), one.person(), one.policy():
        one.until('agreement', lambda state, values: int(values['pairs']) > 5)
        one.proposed = 0.2
        one.until('the first', lambda _, values: float(values['linear_x_live_mps'] or 0) > 0.1)
        one.proposed = 0.4
        first = one.until('the first saved', lambda _, values: values['worst_episode'])
        one.proposed = -0.4
        one.until('flips', lambda _, values: float(values['linear_x_flips'] or 0) > 0)
        one.until('the second', lambda _, values: float(values['linear_x_live_mps'] or 0) > 0.6)
        one.proposed = 0.4
        second = one.until(
            'the second saved',
            lambda _, values: values['worst_episode'] not in ('', first['worst_episode']),
        )
        one.process.signal(signal.SIGKILL)
        one.process.wait()
    assert [str(path) for path in one.episodes()] == [second['worst_episode']]
    with Episode.open(one.episodes()[0]) as episode:
        assert episode.complete and (episode.proposals.twist[:, 0] == -0.4).any()


def test_missing_inputs_are_reported(nodes, client, tmp_path):
    """Without camera, driver or policy there is nothing to compare, and nothing is written."""
    one = Rig(nodes, client, tmp_path)
    values = one.until(
        'the wait', lambda state, _: state == ('waiting for images and commands and proposals')
    )
    assert 'nobody publishes' in values['problem'] and values['linear_x_live_mps'] == ''
    assert one.process.stop() == 0
    assert 'nothing to compare' in one.process.output and not one.folder.exists()
