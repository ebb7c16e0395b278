"""The arena as a live process: a robot with a camera that subscribes to cmd_vel."""

import io
import json
from itertools import count

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from PIL import Image as PILImage
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mobile_vla_ros.nodes.shared.messages import LATCHED
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import Arena, Judge
from mobile_vla_ros.sim.scene import STOP
from node_rig import twist_message
from ros_helpers import TIMEOUT_S, assert_refused, status_values

TO_STOP = next(i for i in count() if suites.scene('unseen_layouts', i).task.kind == STOP)


def stamp_ns(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def set_parameters(client, **values):
    kinds = {
        str: (ParameterType.PARAMETER_STRING, 'string_value'),
        bool: (ParameterType.PARAMETER_BOOL, 'bool_value'),
        int: (ParameterType.PARAMETER_INTEGER, 'integer_value'),
    }
    parameters = []
    for name, value in values.items():
        kind, key = kinds[type(value)]
        parameters.append(Parameter(name=name, value=ParameterValue(type=kind, **{key: value})))
    return client.call(
        'sim/set_parameters', SetParameters, SetParameters.Request(parameters=parameters)
    ).results


def test_images_have_their_rate_and_show_the_scene(nodes, client):
    """10 Hz of raw images, equal to the arena's own except for the noise."""
    images = client.subscribe('camera/image_raw', Image, qos_profile_sensor_data)
    nodes.start(
        'sim_node', params={'suite': 'unseen_layouts', 'trial': 3, 'width': 96, 'height': 64}
    )
    client.wait_for(lambda: len(images) >= 12, TIMEOUT_S, 'images')
    stamps = np.array([stamp_ns(message) for message in images.messages])
    assert np.median(np.diff(stamps)) == pytest.approx(1e8, rel=0.3)

    message = images.last
    assert (message.width, message.height, message.encoding) == (96, 64, 'rgb8')
    image = np.frombuffer(message.data, np.uint8).reshape(64, 96, 3)
    arena = Arena(96, 64)
    arena.reset(suites.scene('unseen_layouts', 3))
    difference = image.astype(float) - arena.render()
    arena.close()
    assert abs(difference).mean() < 6


def test_compressed_images_are_jpeg_of_the_same_scene(nodes, client):
    """For a bag recorder or a phone; they equal the raw images."""
    raw = client.subscribe('camera/image_raw', Image, qos_profile_sensor_data)
    jpeg = client.subscribe(
        'camera/image_raw/compressed', CompressedImage, qos_profile_sensor_data
    )
    nodes.start('sim_node', params={'width': 96, 'height': 96})
    client.wait_for(lambda: len(raw) and len(jpeg), TIMEOUT_S, 'both kinds of images')
    assert 'jpeg' in jpeg.last.format
    decoded = np.asarray(PILImage.open(io.BytesIO(bytes(jpeg.last.data)))).astype(float)
    plain = np.frombuffer(raw.last.data, np.uint8).reshape(96, 96, 3)
    assert abs(decoded - plain).mean() < 8


def test_the_base_drives_under_commands_and_stops_when_they_end(nodes, client):
    """cmd_vel moves it; silence for command_timeout_s stops it."""
    odom = client.subscribe('odom', Odometry)
    nodes.start('sim_node')
    client.wait_for(lambda: len(odom), TIMEOUT_S, 'odometry')
    with client.stream('cmd_vel', lambda: twist_message(0.3), rate_hz=20):
        client.wait_for(lambda: odom.last.twist.twist.linear.x > 0.25, what='the base to drive')
    began = odom.last.pose.pose.position.x
    client.wait_for(lambda: abs(odom.last.twist.twist.linear.x) < 0.01, what='the base to stop')
    rolled = odom.last.pose.pose.position.x - began
    # The distance during the timeout of 0.5 s, and at most two seconds for news of it and braking.
    assert 0 < rolled < 0.3 * (0.5 + 2.0)


def test_a_command_that_is_not_finite_stops_the_base(nodes, client):
    """NaN stops the base; the node continues."""
    odom = client.subscribe('odom', Odometry)
    process = nodes.start('sim_node')
    client.wait_for(lambda: len(odom), TIMEOUT_S, 'odometry')
    with client.stream('cmd_vel', lambda: twist_message(0.3), rate_hz=20):
        client.wait_for(lambda: odom.last.twist.twist.linear.x > 0.2, what='the base to drive')
    with client.stream('cmd_vel', lambda: twist_message(float('nan')), rate_hz=20):
        client.wait_for(lambda: abs(odom.last.twist.twist.linear.x) < 0.01, what='the stop')
        process.wait_for_output('not finite')
    assert process.running


def test_stamped_commands_are_accepted_if_configured(nodes, client):
    """Navigation of Jazzy and later publishes TwistStamped."""
    odom = client.subscribe('odom', Odometry)
    nodes.start('sim_node', params={'stamped': True})
    client.wait_for(lambda: len(odom), TIMEOUT_S, 'odometry')
    with client.stream('cmd_vel', lambda: TwistStamped(twist=twist_message(0.3)), rate_hz=20):
        client.wait_for(lambda: odom.last.twist.twist.linear.x > 0.25, what='the base to drive')


def test_reset_loads_the_trial_and_then_the_next_ones(nodes, client):
    """The first scene is loaded at start; resets load trial, trial + 1, … and report them."""
    status = client.subscribe('sim/status', DiagnosticStatus)
    instructions = client.subscribe('instruction', String, LATCHED)
    nodes.start('sim_node', params={'suite': 'unseen_layouts', 'trial': 5})
    client.wait_for(lambda: len(status) and len(instructions), TIMEOUT_S, 'the first status')
    assert status.last.message == 'running'
    assert status_values(status.last)['trial'] == '5'
    assert instructions.last.data == suites.scene('unseen_layouts', 5).instruction

    for trial in (5, 6):
        answer = client.call('sim/reset')
        scene = suites.scene('unseen_layouts', trial)
        assert answer.success
        answered = json.loads(answer.message)
        assert (answered['suite'], answered['trial'], answered['instruction']) == (
            'unseen_layouts',
            trial,
            scene.instruction,
        )
        client.wait_for(
            lambda answered=answered: status_values(status.last)['load'] == str(answered['load']),
            what='the status of the new scene',
        )
        assert status_values(status.last)['instruction'] == scene.instruction
        client.wait_for(
            lambda scene=scene: instructions.last.data == scene.instruction, what='the instruction'
        )
        reports = [status_values(message) for message in status.messages]
        first = next(one for one in reports if one['load'] == str(answered['load']))
        assert float(first['elapsed_s']) < 1.0


def test_the_next_scene_can_be_chosen_while_it_runs(nodes, client):
    """suite and trial are parameters of the running node; an unknown suite is refused."""
    nodes.start('sim_node')
    assert all(
        result.successful for result in set_parameters(client, suite='unseen_layouts', trial=41)
    )
    answered = json.loads(client.call('sim/reset').message)
    assert (answered['suite'], answered['trial']) == ('unseen_layouts', 41)
    refused = set_parameters(client, suite='nowhere')[0]
    assert not refused.successful
    assert 'train, ' in refused.reason


def test_a_trial_without_a_driver_times_out(nodes, client):
    """The status reports the end of a trial, with its duration."""
    status = client.subscribe('sim/status', DiagnosticStatus)
    nodes.start('sim_node', params={'trial_timeout_s': 1.0})
    client.wait_for(lambda: len(status) and status.last.message == 'timeout', TIMEOUT_S)
    assert float(status_values(status.last)['elapsed_s']) == pytest.approx(1.0, abs=0.03)


def test_rolling_on_instead_of_stopping_is_wrong_and_a_warning(nodes, client):
    """A scene without a target has none in its status."""
    status = client.subscribe('sim/status', DiagnosticStatus)
    nodes.start('sim_node', params={'suite': 'unseen_layouts', 'trial': TO_STOP})
    client.wait_for(lambda: len(status), TIMEOUT_S, 'the status')
    assert status_values(status.last)['target'] == ''
    with client.stream('cmd_vel', lambda: twist_message(0.3), rate_hz=20):
        client.call('sim/reset')
        client.wait_for(lambda: status.last.message == 'wrong', TIMEOUT_S, 'the outcome')
    assert status.last.level == DiagnosticStatus.WARN
    assert float(status_values(status.last)['elapsed_s']) == pytest.approx(Judge().stop_s, abs=0.1)


def test_a_paused_scene_has_images_and_does_not_move(nodes, client):
    """Time continues for other nodes; an initially rolling base waits for the resume."""
    odom = client.subscribe('odom', Odometry)
    images = client.subscribe('camera/image_raw', Image, qos_profile_sensor_data)
    status = client.subscribe('sim/status', DiagnosticStatus)
    scene = suites.scene('unseen_layouts', TO_STOP)
    nodes.start(
        'sim_node',
        params={
            'suite': 'unseen_layouts',
            'trial': TO_STOP,
            'paused': True,
            'width': 64,
            'height': 64,
        },
    )
    client.wait_for(lambda: len(odom) >= 20 and len(images) >= 10, TIMEOUT_S, 'news')
    assert stamp_ns(odom.last) - stamp_ns(odom.messages[0]) > 5e8

    def place(message):
        return message.pose.pose.position.x, message.pose.pose.position.y

    assert {place(message) for message in odom.messages} == {scene.start[:2]}
    assert float(status_values(status.last)['elapsed_s']) == 0
    assert set_parameters(client, paused=False)[0].successful
    client.wait_for(lambda: status.last.message == 'success', TIMEOUT_S, 'the base at rest')
    assert np.hypot(*np.subtract(place(odom.last), scene.start[:2])) > 0.01


def test_a_disturbed_scene_loses_frames_and_publishes_some_late(nodes, client):
    """Its seed selects them; late ones follow the next frame, with their own stamp."""
    qos = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
    images = client.subscribe('camera/image_raw', Image, qos)
    nodes.start(
        'sim_node',
        params={
            'suite': 'disturbed',
            'trial': 2,
            'width': 32,
            'height': 32,
            'real_time_factor': 4.0,
            'publish_clock': True,
        },
    )
    client.wait_for(lambda: len(images) >= 160, TIMEOUT_S, 'images')
    scene = suites.scene('disturbed', 2)
    arrived = [stamp_ns(message) for message in images.messages]

    def delay(stamp):  # the arena's clock starts at 1 s
        return scene.disturbance.delay_of(scene.seed, stamp - 10**9)

    stamps = range(min(arrived), max(arrived) + 1, 100_000_000)
    sent = [stamp for stamp in stamps if delay(stamp) is not None]
    sent.sort(key=lambda stamp: stamp + delay(stamp))
    # At the ends, a neighbouring frame may have been under way.
    between = sent[sent.index(arrived[3]) : sent.index(arrived[-4]) + 1]
    received = set(arrived)
    assert arrived[3:-3] == [stamp for stamp in between if stamp in received]
    # Images travel best effort: on a busy machine a few are lost on the way.
    assert len(between) - len(arrived[3:-3]) <= 0.05 * len(between)
    assert any(delay(stamp) for stamp in arrived[3:-3])
    assert arrived != sorted(arrived)
    assert len(sent) < (max(arrived) - min(arrived)) / 1e8 + 1


def test_the_next_scene_loads_by_itself_if_configured(nodes, client):
    """As for the arena that is launched with a policy."""
    status = client.subscribe('sim/status', DiagnosticStatus)
    nodes.start('sim_node', params={'trial': 5, 'trial_timeout_s': 1.0, 'next_scene_after_s': 0.5})

    def trials():
        return [int(status_values(message)['trial']) for message in status.messages]

    client.wait_for(lambda: len(set(trials())) >= 3, TIMEOUT_S, 'three scenes')
    # The first ones may have been published before this test subscribed.
    seen = sorted(set(trials()))
    assert seen == list(range(seen[0], seen[-1] + 1))
    assert trials() == sorted(trials())


def test_its_own_time_runs_faster_and_stamps_everything(nodes, client):
    """At factor 4, /clock, images and odometry agree, and images stay 0.1 s of that time apart."""
    clock = client.subscribe('/clock', Clock)
    images = client.subscribe('camera/image_raw', Image, qos_profile_sensor_data)
    nodes.start('sim_node', params={'real_time_factor': 4.0, 'publish_clock': True})
    client.wait_for(lambda: len(images) >= 20, TIMEOUT_S, 'images')
    spent = clock.times[-1] - clock.times[0]
    passed = [
        m.clock.sec + m.clock.nanosec * 1e-9 for m in (clock.messages[0], clock.messages[-1])
    ]
    assert 1.1 < (passed[1] - passed[0]) / spent < 5.0  # a busy machine may not reach 4
    gaps = np.diff([stamp_ns(message) for message in images.messages])
    assert set(np.unique(gaps) % 100_000_000) == {0}
    assert np.median(gaps) == 100_000_000
    assert stamp_ns(images.last) < 60 * 10**9


@pytest.mark.parametrize(
    ('params', 'words'),
    [
        ({'suite': 'nowhere'}, ["'nowhere'", 'train', 'unseen_layouts']),
        ({'real_time_factor': 4.0}, ['publish_clock']),
        ({'width': 4}, ['width', '16']),
        ({'trial': -1}, ['trial']),
    ],
)
def test_bad_parameters_end_the_node_with_a_sentence(nodes, params, words):
    """Exit status 2 and one line with the remedy, no traceback."""
    assert_refused(nodes.start('sim_node', params=params), words, TIMEOUT_S)


def test_without_gl_the_node_ends_with_a_sentence(nodes):
    """At the start, not at the first image; the error names the packages."""
    process = nodes.start('sim_node', env={'MUJOCO_GL': 'disable'})
    assert process.wait(TIMEOUT_S) == 2
    assert 'apt-get install libosmesa6' in process.output
    assert 'Traceback' not in process.output


def test_it_ends_without_output_on_ctrl_c(nodes, client):
    """Exit status 0, and GL prints nothing."""
    odom = client.subscribe('odom', Odometry)
    process = nodes.start('sim_node')
    client.wait_for(lambda: len(odom), TIMEOUT_S, 'odometry')
    assert process.stop() == 0
    assert 'Error' not in process.output
    assert 'Exception' not in process.output


def test_a_differential_base_turns_but_never_strafes(nodes, client):
    """Its scenes are those for its kind; of a command with linear_y it does the turn alone."""
    status = client.subscribe('sim/status', DiagnosticStatus)
    odometry = client.subscribe('odom', Odometry)
    params = {'suite': 'unseen_layouts', 'base': 'diff', 'width': 96, 'height': 96}
    nodes.start('sim_node', params=params)
    client.wait_for(lambda: len(status) and len(odometry), TIMEOUT_S, 'the arena')
    assert status_values(status.last)['suite'] == 'diff_unseen_layouts'
    first = odometry.last.pose.pose
    with client.stream('cmd_vel', lambda: twist_message(0.0, 0.4, 0.5), rate_hz=20):
        client.wait_for(
            lambda: abs(odometry.last.pose.pose.orientation.z - first.orientation.z) > 0.1,
            TIMEOUT_S,
            'a turn',
        )
    last = odometry.last.pose.pose.position
    assert (last.x, last.y) == (first.position.x, first.position.y)
    assert set_parameters(client, suite='swap', trial=2)[0].successful
    client.call('sim/reset', Trigger, Trigger.Request())
    client.wait_for(lambda: status_values(status.last)['suite'] == 'diff_swap', what='the scene')
