"""Live episodes that follow the guard."""

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist
from rclpy.qos import qos_profile_sensor_data
from std_msgs.msg import String

from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.nodes.recorder.current_episode import IDLE, RECORDING
from mobile_vla_ros.nodes.shared.image_messages import from_rgb
from mobile_vla_ros.safety.preflight import GUARD_CHECKS
from ros_helpers import status_values, wait_until


def test_a_drive_is_recorded_episode_by_episode_without_a_service_call(nodes, client, tmp_path):
    """Armed before the camera starts, another instruction, disarmed: two episodes."""
    nodes.start('guard_node', params={'override': list(GUARD_CHECKS)})
    nodes.start(
        'recorder_node',
        params={
            'data_dir': str(tmp_path),
            'instruction': 'go left',
            'follow_guard': True,
            'disk_floor_mb': 1,
            'camera_wait_s': 0.2,
        },
    )
    client.subscribe('cmd_vel', Twist)
    recorder = client.subscribe('recorder/status', DiagnosticStatus)

    def image():
        return from_rgb(np.full((12, 16, 3), 100, np.uint8), stamp=client.now())

    def until(what: str, **wanted):
        def reached():
            report = {'state': recorder.last.message, **status_values(recorder.last)}
            return all(report[name] == value for name, value in wanted.items())

        wait_until(lambda: recorder.messages and reached(), what=what)

    assert client.call('guard/arm').success
    wait_until(
        lambda: (
            recorder.messages and 'nothing in 0.2 s' in status_values(recorder.last)['problem']
        ),
        what='the refusal in the status',
    )
    with client.stream('camera/image_raw', image, 10, qos_profile_sensor_data):
        until('an episode', state=RECORDING)
        wait_until(lambda: int(status_values(recorder.last)['commands']) > 5, what='commands')
        first = status_values(recorder.last)['episode']
        client.publish('instruction', String(data='go right'))
        wait_until(lambda: list(tmp_path.glob('*.h5')), what='the first episode on the disk')
        wait_until(
            lambda: (
                (values := status_values(recorder.last))['episode'] not in ('', first)
                and int(values['commands']) > 5
            ),
            what='commands of the second episode',
        )
        assert client.call('guard/disarm').success
        until('the end', state=IDLE)
    # Names do not order two episodes of the same second.
    episodes = [Episode.open(path) for path in tmp_path.glob('*.h5')]
    episodes.sort(key=lambda episode: episode.frame_received_ns[0])
    assert [episode.instruction for episode in episodes] == ['go left', 'go right']
    assert min(len(episode.commands.twist) for episode in episodes) > 5
    for episode in episodes:
        episode.close()
