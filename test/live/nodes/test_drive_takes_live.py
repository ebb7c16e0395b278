"""Takes that follow the guard: one while it is armed, one an instruction; a person comes first."""

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


def test_a_drive_is_recorded_take_by_take_with_nobody_at_the_recorder(nodes, client, tmp_path):
    """Armed before the camera is there, told something else, disarmed: two takes, each its own."""
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
        def so():
            said = {'state': recorder.last.message, **status_values(recorder.last)}
            return all(said[name] == value for name, value in wanted.items())

        wait_until(lambda: recorder.messages and so(), 20, what)

    assert client.call('guard/arm').success
    wait_until(
        lambda: (
            recorder.messages and 'nothing in 0.2 s' in status_values(recorder.last)['problem']
        ),
        20,
        'the refusal to be told',
    )
    with client.stream('camera/image_raw', image, 10, qos_profile_sensor_data):
        until('a take', state=RECORDING)
        wait_until(lambda: int(status_values(recorder.last)['commands']) > 5, 20, 'commands')
        client.publish('instruction', String(data='go right'))
        wait_until(lambda: list(tmp_path.glob('*.h5')), 20, 'the first take on the disk')
        until('the second take', state=RECORDING, instruction='go right')
        wait_until(lambda: int(status_values(recorder.last)['commands']) > 5, 20, 'commands')
        assert client.call('guard/disarm').success
        until('the end', state=IDLE)
    # Two takes of one second are not in order by their names.
    takes = [Episode.open(path) for path in tmp_path.glob('*.h5')]
    takes.sort(key=lambda take: take.frame_received_ns[0])
    assert [take.instruction for take in takes] == ['go left', 'go right']
    assert min(len(take.commands.twist) for take in takes) > 5
    for take in takes:
        take.close()
