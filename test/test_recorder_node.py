"""The recorder as a live process on the loopback: what its takes hold, and what it answers."""

import signal

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from ros_helpers import status_values, wait_until
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mobile_vla_ros.episode.reader import Episode, find_episodes
from mobile_vla_ros.nodes import images
from mobile_vla_ros.nodes.common import status_message

CAMERA, COMPRESSED = 'camera/image_raw', 'camera/image_raw/compressed'
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Rig:
    """A recorder process, a camera that counts, and what the recorder says."""

    def __init__(self, nodes, client, folder, **params):
        self.client, self.folder, self.count = client, folder, 0
        self.status = client.subscribe('recorder/status', DiagnosticStatus)
        self.process = nodes.start('recorder_node', params={
            'data_dir': str(folder), 'instruction': 'go to the red box', 'image_format': 'png',
            **params})

    def image(self):
        """The next image of the camera; its pixels and its stamp hold its number."""
        self.count += 1
        pixels = np.full((12, 16, 3), (self.count % 256, self.count // 256, 9), np.uint8)
        return images.from_rgb(pixels, stamp=self.client.now(), frame_id='eye')

    def camera(self, rate_hz=20.0):
        """A stream of images."""
        return self.client.stream(CAMERA, self.image, rate_hz, qos_profile_sensor_data)

    def commands(self, make=None, rate_hz=20.0):
        """A stream of commands."""
        return self.client.stream('cmd_vel', make or (lambda: twist(0.4)), rate_hz)

    def call(self, name, success=True):
        """Call a service of the recorder; return its sentence."""
        answer = self.client.call(f'recorder/{name}')
        assert answer.success == success, answer.message
        return answer.message

    def until(self, what, predicate, timeout_s=15.0):
        """Wait for a new status of which ``predicate(state, values)`` is true; return values."""
        seen = len(self.status)

        def look():
            return next((values for status in self.status.messages[seen:]
                         if (values := status_values(status))
                         and predicate(status.message, values)), None)
        return wait_until(look, timeout_s, what, lambda: self.process.output)

    def until_frames(self, frames, commands=0):
        """Wait until that many frames and commands are written."""
        return self.until(f'{frames} frames', lambda _, values: int(values['frames']) >= frames
                          and int(values['commands']) >= commands)


@pytest.fixture
def rig(nodes, client, tmp_path):
    """Start the recorder: ``rig(jpeg_quality=50)``."""
    return lambda **params: Rig(nodes, client, tmp_path / 'takes', **params)


def twist(x=0.0, y=0.0, z=0.0) -> Twist:
    message = Twist()
    message.linear.x, message.linear.y, message.angular.z = x, y, z
    return message


def numbers(episode) -> list[int]:
    """The numbers that the camera painted into the frames."""
    pixels = (episode.frame(i).image[0, 0].astype(int) for i in range(len(episode)))
    return [int(p[0] + 256 * p[1]) for p in pixels]


def test_take_holds_every_frame_and_command_with_both_times(rig):
    """Start, drive, success: one whole file with all that was sent, in order, none twice."""
    one = rig(operator='ada', robot='mini')
    with one.camera(), one.commands():
        assert 'recording' in one.call('start')
        one.until_frames(20, commands=20)
        said = one.call('success')
    (path,) = find_episodes(one.folder)
    assert said.startswith(str(path)) and '(good)' in said
    with Episode.open(path) as episode:
        seen = numbers(episode)
        assert seen == list(range(seen[0], seen[0] + len(seen))) and len(seen) >= 20
        assert np.all(np.diff(episode.frame_stamp_ns) > 0)
        late = (episode.frame_received_ns - episode.frame_stamp_ns) / 1e9
        assert late.min() >= 0 and np.median(late) < 0.1
        assert len(episode.commands) >= 20
        assert np.all(episode.commands.twist[:, 0] == 0.4)
        assert (episode.outcome, episode.complete) == ('success', True)
        assert episode.health['verdict'] == 'good'
        assert [event.name for event in episode.events] == ['start', 'outcome', 'stop']
        attributes = episode.attributes
        assert attributes['command_type'] == 'geometry_msgs/msg/Twist'
        assert attributes['image_topic'] == '/camera/image_raw'
        assert (attributes['operator'], attributes['robot']) == ('ada', 'mini')
        assert attributes['frame_id'] == 'eye'
    assert list(one.folder.iterdir()) == [path]


def test_takes_follow_each_other_with_the_instruction_of_their_start(rig):
    """The topic instruction replaces the parameter for takes that start later."""
    one = rig()
    with one.camera(), one.commands():
        one.call('start')
        one.client.publish('instruction', String(data='go to the blue ball'), LATCHED)
        one.until('the instruction', lambda _, v: v['instruction'] == 'go to the blue ball')
        one.until_frames(2)
        one.call('failure')
        one.call('start')
        one.until_frames(2)
        one.call('stop')
    takes = []
    for path in find_episodes(one.folder):
        with Episode.open(path) as episode:
            takes.append((episode.instruction, episode.outcome))
    assert sorted(takes) == [('go to the blue ball', 'unknown'), ('go to the red box', 'failure')]


def test_discard_leaves_nothing(rig):
    """A discarded take is gone, and the recorder is ready for the next."""
    one = rig()
    with one.camera():
        one.call('start')
        one.until_frames(2)
        assert 'discarded' in one.call('discard')
        assert list(one.folder.iterdir()) == []
        one.call('start')


def test_refusals_are_sentences_and_the_node_stays(rig):
    """Start twice, stop with nothing running, empty instruction, no camera: said, survived."""
    one = rig(camera_wait_s=0.2, instruction='')
    assert 'no take is being recorded' in one.call('stop', success=False)
    assert 'no take is being recorded' in one.call('success', success=False)
    assert 'no take is being recorded' in one.call('discard', success=False)
    assert 'instruction is empty' in one.call('start', success=False)
    one.client.publish('instruction', String(data='go'), LATCHED)
    one.until('the instruction', lambda _, v: v['instruction'] == 'go')
    assert 'nobody publishes /camera/image_raw' in one.call('start', success=False)
    with one.camera():
        one.call('start')
        assert 'recording already' in one.call('start', success=False)
        one.until_frames(2)
        one.call('stop')
    assert len(find_episodes(one.folder)) == 1


def test_unwritable_folder_is_a_sentence(rig, tmp_path):
    """A data folder that cannot be made: refused with its name; the node stays up."""
    (tmp_path / 'file').write_text('')
    one = rig(data_dir=str(tmp_path / 'file' / 'takes'))
    with one.camera():
        assert 'cannot write episodes to' in one.call('start', success=False)
        assert 'cannot write episodes to' in one.call('start', success=False)


def test_start_waits_for_a_camera_that_is_about_to_come(rig):
    """A start before the first image is answered when the image is there."""
    one = rig(camera_wait_s=20.0)
    one.until('the recorder', lambda state, _: state == 'idle')
    service = one.client.node.create_client(Trigger, 'recorder/start')
    wait_until(service.service_is_ready, 10)
    answer = service.call_async(Trigger.Request())
    one.until('the wait', lambda state, _: state == 'starting')
    with one.camera():
        wait_until(answer.done, 10)
        assert answer.result().success
        one.call('stop')


def test_wrong_camera_type_is_named(rig):
    """Compressed images where raw ones are expected: both types named in status and answer."""
    one = rig(camera_wait_s=1.0)
    one.client.publisher(CAMERA, CompressedImage)
    values = one.until('the problem', lambda _, v: 'camera topic' in v['problem'])
    assert 'got sensor_msgs/msg/CompressedImage' in values['problem']
    said = one.call('start', success=False)
    assert 'got sensor_msgs/msg/CompressedImage; expected sensor_msgs/msg/Image' in said


def test_wrong_command_type_is_named(rig):
    """A cmd_vel of another type is told of in the status and in the start's answer."""
    one = rig()
    one.client.publisher('cmd_vel', String)
    with one.camera():
        values = one.until('the problem', lambda _, v: 'command topic' in v['problem'])
        assert 'got std_msgs/msg/String' in values['problem']
        assert 'std_msgs/msg/String; expected geometry_msgs/msg/Twist' in one.call('start')


def test_stamped_commands_are_found_when_they_come_later(rig):
    """TwistStamped is told apart from the graph, also when its publisher comes in mid-take."""
    one = rig()

    def make():
        message = TwistStamped(twist=twist(0.2))
        message.header.stamp.sec = 7
        return message
    with one.camera():
        one.call('start')
        one.until_frames(2)
        with one.client.stream('cmd_vel', make, 20):
            one.until_frames(5, commands=5)
            one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert episode.attributes['command_type'] == 'geometry_msgs/msg/TwistStamped'
        assert set(episode.commands.stamp_ns) == {7_000_000_000}
        assert episode.commands.received_ns.min() > 1e18


def test_source_of_the_guard_is_kept_beside_each_command(rig):
    """What the guard says of its source is stored; without a guard it is unknown."""
    one = rig()
    with one.camera(), one.commands():
        one.call('start')
        one.until_frames(3, commands=3)
        with one.client.stream('guard/status', lambda: status_message(
                'guard', 'takeover', {'source': 'takeover'}), 10):
            values = one.until('the source', lambda _, v: v['source'] == 'takeover')
            one.until_frames(3, commands=int(values['commands']) + 5)
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert episode.commands.source[0] == 0
        assert 3 in episode.commands.source


def test_receipts_follow_the_simulated_clock(rig):
    """With use_sim_time, times of receipt are those of /clock, for frames and commands."""
    one = rig(use_sim_time=True)
    clock = Clock()
    clock.clock.sec = 42
    with one.client.stream('/clock', lambda: clock, 20), one.camera(), one.commands():
        one.call('start')
        one.until_frames(5, commands=5)
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert set(episode.frame_received_ns) == {42 * 10**9}
        assert set(episode.commands.received_ns) == {42 * 10**9}
        assert episode.attributes['created_utc'] > '2020'


def test_compressed_images_are_stored_as_they_came(rig):
    """With image_transport compressed, the camera's own bytes are in the file."""
    one = rig(image_transport='compressed')
    encoded = images.encode(np.zeros((12, 16, 3), np.uint8), 'jpeg', 33)
    with one.client.stream(COMPRESSED, lambda: images.to_compressed(
            encoded, stamp=one.client.now()), 20, qos_profile_sensor_data):
        one.call('start')
        one.until_frames(3)
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert {episode.encoded(i) for i in range(len(episode))} == {encoded}
        assert episode.attributes['image_topic'] == '/camera/image_raw/compressed'


def test_unknown_encoding_is_refused_at_the_start(rig):
    """A camera of unknown encoding: the start names it and the known ones; nothing is written."""
    one = rig()

    def make():
        return Image(height=2, width=2, step=4, encoding='16UC1', data=bytes(8))
    with one.client.stream(CAMERA, make, 20, qos_profile_sensor_data):
        assert "'16UC1'; expected rgb8" in one.call('start', success=False)
    assert not one.folder.exists()


def test_command_that_is_not_finite_is_left_out_and_told(rig):
    """NaN never reaches a training set; the take says that it came."""
    one = rig()
    with one.camera():
        one.call('start')
        with one.commands(lambda: twist(float('nan'))):
            one.until('the problem', lambda _, v: 'not finite' in v['problem'])
        with one.commands():
            one.until_frames(2, commands=2)
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert np.isfinite(episode.commands.twist).all()
        assert 'not finite' in next(e.text for e in episode.events if e.name == 'problem')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signal_closes_the_take_whole(rig, number):
    """Ctrl-C and SIGTERM in mid-take leave a finished episode and status 0."""
    one = rig()
    with one.camera(), one.commands():
        one.call('start')
        one.until_frames(5)
        one.process.signal(number)
        assert one.process.wait() == 0
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert episode.complete and len(episode) >= 5
        assert episode.events[-1].text == 'the recorder was shut down'


def test_sigkill_costs_at_most_a_second_and_no_other_take(rig):
    """SIGKILL in mid-take: the take before is as it was, the part reads up to the last second."""
    one = rig()
    with one.camera(), one.commands():
        one.call('start')
        one.until_frames(3)
        one.call('success')
        (finished,) = find_episodes(one.folder)
        before = finished.read_bytes()
        one.call('start')
        one.until_frames(30)
        one.process.signal(signal.SIGKILL)
        assert one.process.wait() == -signal.SIGKILL
        sent = one.count
    assert finished.read_bytes() == before
    (part,) = one.folder.glob('*.part')
    with Episode.open(part) as episode:
        seen = numbers(episode)
        assert seen == list(range(seen[0], seen[0] + len(seen)))
        assert sent - seen[-1] <= 20
        assert not episode.complete


def test_slow_writer_drops_whole_frames_and_counts_them(rig):
    """A queue of one under a flood: drops are in the status, the episode and the verdict."""
    one = rig(queue_frames=1)
    big = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    message = images.from_rgb(big)

    def make():
        message.header.stamp = one.client.now()
        return message
    with one.client.stream(CAMERA, make, 60, qos_profile_sensor_data), one.commands():
        one.call('start')
        one.until('drops', lambda _, v: int(v['drops']) > 3 and int(v['frames']) > 3)
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        told = sum(int(e.text.split()[0]) for e in episode.events if e.name == 'drop')
        assert told == episode.health['drops'] > 3
        assert any('dropped' in reason for reason in episode.health['reasons'])
        assert episode.frame(len(episode) - 1).image.shape == (600, 800, 3)


def test_bad_parameter_ends_with_a_sentence_and_status_2(nodes):
    """An unknown transport or a quality out of range: one sentence, status 2."""
    for params, words in (({'image_transport': 'theora'}, 'expected raw or compressed'),
                          ({'jpeg_quality': 101}, 'from 1 to 100')):
        process = nodes.start('recorder_node', params=params)
        assert process.wait() == 2
        assert words in process.output and 'Traceback' not in process.output
