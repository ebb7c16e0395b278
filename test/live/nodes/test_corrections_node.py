"""A takeover during a drive with live guard and recorder: the source of each command."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist
from rclpy.qos import qos_profile_sensor_data

from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.timing.corrections import takeovers
from mobile_vla_ros.nodes.shared.image_messages import from_rgb
from mobile_vla_ros.types import SOURCE_NAMES
from node_rig import stamped_twist, twist_message
from ros_helpers import status_values, wait_until

REWORDED = Path(__file__).resolve().parents[2] / 'helpers' / 'reworded'
# Commands take effect within a tick, so the sign of a command shows its source.
GUARD = {
    'max_acceleration': [1000.0, 1000.0, 1000.0],
    'takeover_hold_s': 1.5,
    # A busy machine sends the test's own streams late.
    'teleop_timeout_s': 1.0,
    'proposal_timeout_s': 2.0,
    'observation_max_age_s': 4.0,
    'after_takeover': 'resume',
    'arm_at_start': True,
    'override': ['arm_at_start'],
}


@pytest.mark.parametrize('sentences', ['as they are', 'reworded'])
def test_labels_change_with_the_first_command_of_another_source(
    nodes, client, tmp_path, monkeypatch, sentences
):
    """
    Regression: the status of a tick follows its command, which had the previous label.

    And a takeover ended 300 ms late if the guard's sentence for silence was another one.
    """
    if sentences == 'reworded':
        path = os.pathsep.join(filter(None, (str(REWORDED), os.environ.get('PYTHONPATH'))))
        monkeypatch.setenv('PYTHONPATH', path)
    nodes.start('guard_node', params=GUARD)
    nodes.start('recorder_node', params={'data_dir': str(tmp_path), 'instruction': 'go'})
    driven = client.subscribe('cmd_vel', Twist)
    recorder = client.subscribe('recorder/status', DiagnosticStatus)

    def image():
        pixels = np.full((12, 16, 3), 100 + len(driven) % 100, np.uint8)
        return from_rgb(pixels, stamp=client.now())

    def until(x, count=8):
        seen = len(driven)
        wait_until(
            lambda: sum(one.linear.x == x for one in driven.messages[seen:]) >= count,
            what=f'{count} commands of {x} m/s',
        )

    with (
        client.stream('camera/image_raw', image, 10, qos_profile_sensor_data),
        client.stream('policy/cmd_vel', lambda: stamped_twist(client.now(), 0.3), 20),
    ):
        until(0.3)
        assert client.call('recorder/start').success
        wait_until(
            lambda: int(status_values(recorder.last)['commands']) > 5,
            what='the commands to be recorded',
        )  # the recorder may discover cmd_vel late
        for _ in range(2):
            until(0.3)
            with client.stream('teleop/cmd_vel', lambda: twist_message(-0.3), 20):
                until(-0.3)
            until(0.3)
        answer = client.call('recorder/stop')
    assert answer.success, answer.message
    with Episode.open(answer.message.partition(' (')[0]) as episode:
        x = episode.commands.twist[:, 0]
        sources = [SOURCE_NAMES[int(number)] for number in episode.commands.source]
        times = episode.commands.steady_ns
        found = takeovers(episode.commands, episode.events)
        proposed = episode.proposals
        events = [
            (event.steady_ns, event.text) for event in episode.events if event.name == 'takeover'
        ]
    # The episode also has the policy's proposals, including those during the takeover.
    assert len(proposed) > 20 and set(proposed.twist[:, 0]) == {0.3}
    assert all(
        proposed.steady_ns.min() < one.begin_ns < one.end_ns < proposed.steady_ns.max()
        for one in found
    )
    assert (proposed.stamp_ns <= proposed.received_ns).all()
    wanted = {0.3: 'policy', -0.3: 'takeover'}
    assert [source for source, speed in zip(sources, x, strict=True) if speed in wanted] == [
        wanted[speed] for speed in x.tolist() if speed in wanted
    ]
    edges = [
        int(after)
        for (before, after) in pairwise(range(len(x)))
        if (x[before] == -0.3) != (x[after] == -0.3)
    ]
    assert [time for time, _ in events] == times[edges].tolist()
    assert [text for _, text in events] == ['begin', 'end'] * 2
    assert [(one.begin_ns, one.end_ns) for one in found] == [
        tuple(pair) for pair in times[edges].reshape(2, 2).tolist()
    ]
