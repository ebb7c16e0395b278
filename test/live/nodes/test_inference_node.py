"""The inference node as a live process: its proposals, and the reasons for none."""

import signal
from pathlib import Path as FilePath

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Path
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from mobile_vla_ros.images.stored import decode
from mobile_vla_ros.nodes.shared.messages import LATCHED
from noise_camera import INSTRUCTION, NoiseCamera
from ros_helpers import wait_until


@pytest.fixture
def start(nodes, client, small_run):
    """Return a function that starts the node; it has the proposals and reasons as attributes."""
    proposals = client.subscribe('policy/cmd_vel', TwistStamped)
    reports = client.subscribe('/diagnostics', DiagnosticArray)

    def begin(*, env=None, **params):
        return nodes.start(
            'inference_node',
            params={'policy': str(small_run / 'best'), 'instruction': INSTRUCTION, **params},
            env=env,
        )

    begin.proposals = proposals
    begin.reasons = lambda: [array.status[0].message for array in reports.messages]
    return begin


def test_proposals_carry_the_stamp_of_the_newest_image(start, client):
    """The guard checks the age of the observation, so the stamp must be the image's."""
    camera = NoiseCamera(client)
    start()
    with camera.stream():
        client.wait_for(lambda: len(start.proposals) >= 20, 60, 'proposals')
    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in start.proposals.messages]
    assert set(stamps) <= set(camera.stamps)
    assert stamps == sorted(stamps)
    assert len(set(stamps)) > 3
    twist = start.proposals.last.twist
    assert (twist.linear.x, twist.linear.y) != (0, 0)
    assert (twist.linear.z, twist.angular.x, twist.angular.y, twist.angular.z) == (0, 0, 0, 0)


def test_without_images_there_is_no_proposal(start, client):
    """The reason is reported; and with a silent camera the plan is exhausted."""
    camera = NoiseCamera(client)
    start()
    client.wait_for(lambda: 'no image yet' in start.reasons(), 60, 'a report')
    assert not len(start.proposals)
    with camera.stream():
        client.wait_for(lambda: len(start.proposals), 60, 'a proposal')
    client.wait_for(
        lambda: any('silent' in reason for reason in start.reasons()), what='the end of the plan'
    )
    newest = camera.stamps[-1][0] + camera.stamps[-1][1] / 1e9
    last = start.proposals.times[-1]
    assert len(start.proposals.messages) == len(start.proposals)
    # The chunk is one second long, and nothing is proposed for later.
    now = client.now()
    assert now.sec + now.nanosec / 1e9 > newest
    seen = len(start.proposals)
    client.wait_for(lambda: len(start.reasons()) > 3, what='more reports')
    assert len(start.proposals) == seen
    assert last == start.proposals.times[-1]


def test_a_faster_camera_is_sampled(start, client):
    """A 30 Hz camera and a 10 Hz policy: about ten plans a second, not thirty."""
    camera = NoiseCamera(client)
    paths = client.subscribe('inference/plan', Path)
    start()
    with camera.stream(30.0):
        client.wait_for(lambda: len(paths) >= 12, 60, 'plans')
    stamps = [p.header.stamp.sec + p.header.stamp.nanosec / 1e9 for p in paths.messages]
    assert np.median(np.diff(stamps)) > 0.07
    assert len(paths.last.poses) == 11
    assert paths.last.header.frame_id == 'base_link'


def test_a_new_instruction_replaces_the_plan(start, client):
    """The proposals that follow come from another plan; unknown words are named."""
    camera = NoiseCamera(client)
    process = start(instruction='')
    with camera.stream():
        client.wait_for(
            lambda: any('no instruction' in reason for reason in start.reasons()), 60, 'the reason'
        )
        assert not len(start.proposals)
        client.publish('instruction', String(data=INSTRUCTION), LATCHED)
        client.wait_for(lambda: len(start.proposals) >= 3, what='proposals')
        old = start.proposals.last.twist
        client.publish('instruction', String(data='go to the blue ball'), LATCHED)
        process.wait_for_output('blue ball')
        seen = len(start.proposals)
        client.wait_for(lambda: len(start.proposals) > seen + 2, what='new proposals')
        client.publish('instruction', String(data='go to the crimson ball'), LATCHED)
        process.wait_for_output('the policy does not know crimson')
    assert start.proposals.last.twist != old


def test_an_unlatched_instruction_is_received_and_may_be_repeated(start, client):
    """As `ros2 topic pub` publishes it by default, every second; the drive continues."""
    camera = NoiseCamera(client)
    healths = client.subscribe(
        'policy/health', DiagnosticArray, QoSProfile(depth=100, durability=LATCHED.durability)
    )
    process = start(instruction='')
    with camera.stream():
        client.wait_for(
            lambda: any('no instruction' in reason for reason in start.reasons()), 60, 'the reason'
        )
        client.publish('instruction', String(data=INSTRUCTION))
        client.wait_for(lambda: len(start.proposals) >= 3, what='proposals')
        before = len(healths)
        for _ in range(3):
            client.publish('instruction', String(data=INSTRUCTION))
            client.publish('instruction', String(data=INSTRUCTION), LATCHED)
        seen = len(start.proposals)
        client.wait_for(lambda: len(start.proposals) > seen + 20, what='more proposals')
    assert {array.status[0].message for array in healths.messages[before:]} == {''}
    assert process.output.count('instruction: ') == 1
    assert 'incompatible' not in process.output


def test_the_overlay_is_drawn_for_subscribers_also_when_the_camera_is_silent(start, client):
    """~/overlay/compressed is a JPEG that viewers open; it goes on with the reason."""
    camera = NoiseCamera(client)
    overlays = client.subscribe(
        'inference/overlay/compressed', CompressedImage, qos_profile_sensor_data
    )
    start()
    client.wait_for(lambda: len(overlays) >= 2, 60, 'an overlay before the first image')
    with camera.stream():
        client.wait_for(lambda: len(start.proposals), 60, 'a proposal')
    client.wait_for(lambda: any('silent' in reason for reason in start.reasons()), what='silence')
    seen = len(overlays)
    client.wait_for(lambda: len(overlays) > seen + 2, what='overlays')
    assert overlays.last.format == 'jpeg'
    image = decode(bytes(overlays.last.data))
    assert image.shape == (612, 640, 3)
    times = overlays.times
    assert len(times) / (times[-1] - times[0]) < 15  # ten a second, and some that arrive late


@pytest.mark.parametrize(
    ('params', 'expected'),
    [
        ({'policy': ''}, 'no policy is given'),
        ({'policy': '/no/such/policy'}, 'no such folder at /no/such/policy'),
        ({'device': 'cuda'}, '--device cpu|device'),
        ({'precision': 'fp12'}, "unknown precision; got 'fp12'"),
        ({'image_transport': 'smoke'}, 'unknown image_transport'),
        ({'camera_time': 'receipt', 'camera_latency_s': 0.3}, 'every image would be too old'),
        ({'blank': 'sound'}, "unknown part of a policy's input; got 'sound'"),
        ({'rate_hz': 0.0}, 'rate_hz'),
        ({'playback': 'newst'}, "unknown playback; got 'newst'"),
        (
            {'playback': 'receding', 'receding_steps': 3},
            'than their image may be old; got receding',
        ),
        ({'max_velocity': [1.0, 0.0, 1.0]}, 'the base has no linear_y'),
    ],
)
def test_bad_input_ends_with_a_sentence_and_status_2(start, params, expected):
    """The operator gets a sentence, not a traceback."""
    process = start(**params)
    assert process.wait(60) == 2
    process.wait_for_output(expected, 1)
    assert 'Traceback' not in process.output
    assert 'inference_node: error:' in process.output


def test_a_camera_topic_of_the_wrong_type_is_refused(start, client):
    """At once, since it would never be received."""
    client.publisher('camera/image_raw', CompressedImage, qos_profile_sensor_data)
    process = start()
    assert process.wait(60) == 2
    process.wait_for_output('image_raw has the wrong type: got sensor_msgs/msg/Compressed', 1)
    assert 'Traceback' not in process.output


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_it_ends_quickly_and_cleanly(start, client, number):
    """Ctrl-C and a supervisor's SIGTERM end the process with status 0, no traceback."""
    camera = NoiseCamera(client)
    process = start(env={})  # not forked, since a fork's end is another
    with camera.stream():
        client.wait_for(lambda: len(start.proposals), 60, 'a proposal')
        process.signal(number)
        wait_until(lambda: not process.running, what='the end', detail=lambda: process.output)
    assert process.wait() == 0
    assert 'Traceback' not in process.output


@pytest.mark.quiet_machine
def test_a_policy_with_steps_of_a_second_proposes_at_10_hz(nodes, client):
    """The timer waits neither for the worker nor for the interpreter's lock."""
    proposals = client.subscribe('policy/cmd_vel', TwistStamped, QoSProfile(depth=100))
    camera = NoiseCamera(client)
    nodes.start(
        'made_policies.slow',
        params={'instruction': INSTRUCTION},
        env={'PYTHONPATH': str(FilePath(__file__).parents[2] / 'helpers')},
    )
    with camera.stream(30.0):
        client.wait_for(lambda: len(proposals), 60, 'the first proposal')
        seen, began = len(proposals), proposals.times[-1]
        client.wait_for(
            lambda: len({m.header.stamp.nanosec for m in proposals.messages}) >= 4,
            what='three more steps',
        )
    elapsed = proposals.times[-1] - began
    assert elapsed > 2.5
    assert (len(proposals) - seen) / elapsed >= 10
    assert np.diff(proposals.times[seen:]).max() < 0.5
