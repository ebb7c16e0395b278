"""Takes that follow the guard: one while it is armed, one an instruction; a person comes first."""

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist
from rclpy.qos import qos_profile_sensor_data
from ros_helpers import status_values, wait_until
from std_msgs.msg import String

from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.nodes.recorder.auto_record import START, STOP, DriveTakes
from mobile_vla_ros.nodes.recorder.current_episode import CLOSING, IDLE, RECORDING, STARTING
from mobile_vla_ros.nodes.shared.image_messages import from_rgb
from mobile_vla_ros.safety.preflight import GUARD_CHECKS


def dues(*steps: tuple) -> list[str]:
    """Return what is due at each step: (armed, instruction, state of the recorder)."""
    takes = DriveTakes()
    return [takes.due(*step) for step in steps]


def test_a_take_lasts_as_long_as_the_guard_is_armed():
    """Not before, and none after it."""
    assert dues(
        (False, 'a', IDLE),
        (True, 'a', IDLE),
        (True, 'a', STARTING),
        (True, 'a', RECORDING),
        (False, 'a', RECORDING),
        (False, 'a', IDLE),
    ) == ['', START, '', '', STOP, '']


def test_another_instruction_is_another_take():
    """What is shown is what was asked for; told again it is no news."""
    assert dues(
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'b', RECORDING),
        (True, 'b', IDLE),
        (True, 'b', RECORDING),
    ) == [START, '', STOP, START, '']


def test_armed_again_while_the_last_take_is_closed_is_not_lost():
    """A slow disk: the next take begins when the recorder is ready."""
    assert dues(
        (True, 'a', IDLE), (False, 'a', RECORDING), (True, 'a', CLOSING), (True, 'a', IDLE)
    ) == [START, STOP, '', START]


def test_disarmed_while_the_take_is_opened_it_ends_as_soon_as_it_can():
    """It waited for the camera, for one."""
    assert dues((True, 'a', IDLE), (False, 'a', STARTING), (False, 'a', RECORDING)) == [
        START,
        '',
        STOP,
    ]


def test_a_take_that_could_not_begin_is_tried_again():
    """The guard was armed before the first image came; a person's end of a take is no failure."""
    assert dues(
        (True, 'a', IDLE),
        (True, 'a', STARTING),
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'a', IDLE),
        (True, 'a', IDLE),
    ) == [START, '', START, '', '', '']


def test_a_drive_without_an_instruction_yet_is_recorded_from_the_first_one_on():
    """Armed before anything was asked for, and asked for nothing in mid-drive."""
    assert dues(
        (True, '', IDLE),
        (True, ' ', IDLE),
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, '', RECORDING),
        (True, '', IDLE),
        (True, 'b', IDLE),
    ) == ['', '', START, '', STOP, '', START]


def test_disarmed_before_a_failed_take_could_be_tried_again_there_is_none():
    """Nothing is recorded that nobody drives."""
    assert dues((True, 'a', IDLE), (False, 'a', STARTING), (False, 'a', IDLE)) == [START, '', '']


def test_a_take_that_a_person_started_is_left_to_them():
    """Neither ended by a disarming nor by an instruction, nor followed by one of ours."""
    assert (
        dues(
            (False, 'a', RECORDING),
            (True, 'a', RECORDING),
            (True, 'b', RECORDING),
            (False, 'b', RECORDING),
            (True, 'b', RECORDING),
            (True, 'b', IDLE),
        )
        == [''] * 6
    )


def test_a_take_that_a_person_ended_is_not_followed_by_another():
    """Nor one that the recorder ended itself: only when the guard is armed anew."""
    assert dues(
        (True, 'a', IDLE),
        (True, 'a', RECORDING),
        (True, 'a', IDLE),
        (True, 'b', IDLE),
        (False, 'b', IDLE),
        (True, 'b', IDLE),
    ) == [START, '', '', '', '', START]


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
