"""The shadow as a live process: the difference of driver and policy, and the worst window."""

import signal

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray

from mobile_vla_ros.episode.storage.reader import Episode
from node_rig import NodeRig, stamped_twist, twist_message


class Rig(NodeRig):
    """A shadow process with a person, a camera and a policy."""

    def __init__(self, nodes, client, folder, **params):
        process = nodes.start(
            'shadow_node',
            params={'data_dir': str(folder), 'instruction': 'go to the red box', **params},
        )
        super().__init__(client, process, 'shadow/status')
        self.folder = folder / 'shadow'
        self.driven, self.proposed = 0.4, 0.4

    def person(self, stamped=False):
        """Drive with the person's command while the block runs."""

        def command():
            if stamped:
                return stamped_twist(self.client.now(), self.driven)
            return twist_message(self.driven)

        return self.client.stream('cmd_vel', command, 20)

    def policy(self):
        """Publish the policy's proposal while the block runs."""
        return self.client.stream(
            'shadow/cmd_vel', lambda: stamped_twist(self.client.now(), self.proposed), 20
        )

    def episodes(self):
        return sorted(self.folder.glob('*.h5')) if self.folder.is_dir() else []


@pytest.mark.parametrize(
    ('number', 'stamped', 'camera_time'),
    [(signal.SIGINT, False, 'stamp'), (signal.SIGTERM, True, 'receipt')],
)
def test_the_worst_seconds_are_stored_with_both_commands(
    nodes, client, tmp_path, number, stamped, camera_time
):
    """Reported live in m/s, written at the end; the shadow publishes no command."""
    one = Rig(nodes, client, tmp_path, camera_time=camera_time)
    diagnostics = client.subscribe('/diagnostics', DiagnosticArray)
    one.proposed = 0.1
    with one.camera(10), one.person(stamped), one.policy():
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
        assert episode.attributes['camera_time'] == camera_time
        assert (episode.frame_stamp_ns < episode.frame_received_ns).all()
        assert set(episode.commands.source) == {1}
        assert np.allclose(episode.commands.twist[:, 0], 0.4)
        assert np.allclose(episode.proposals.twist[:, 0], 0.1)
        # They have the image's stamp, which is earlier than their receipt.
        assert (episode.proposals.stamp_ns < episode.proposals.received_ns).all()


def test_a_worse_window_replaces_the_previous_one(nodes, client, tmp_path):
    """It is written once complete, so that a kill loses only later data."""
    one = Rig(nodes, client, tmp_path, window_s=1.0)
    with one.camera(10), one.person(), one.policy():
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
