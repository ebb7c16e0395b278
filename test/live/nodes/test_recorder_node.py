"""The recorder as a live process on the loopback: its episodes and its responses."""

import json
import os
import shutil
import signal
import textwrap
import time
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from hostile_episodes import good_episode, slow_commands, spoil
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.nodes.shared.image_messages import from_rgb, to_compressed
from mobile_vla_ros.nodes.shared.messages import LATCHED, status_message
from mobile_vla_ros.safety.status import GuardStatus, State
from node_rig import CAMERA, NodeRig, twist_message
from ros_helpers import Client, status_values, wait_until

COMPRESSED = 'camera/image_raw/compressed'


class Rig(NodeRig):
    """A recorder process, a camera that numbers its images, and the recorder's status."""

    def __init__(self, nodes, client, folder, *, module='recorder_node', env=None, **params):
        process = nodes.start(
            module,
            env=env,
            params={
                'data_dir': str(folder),
                'instruction': 'go to the red box',
                'image_format': 'png',
                **params,
            },
        )
        super().__init__(client, process, 'recorder/status')
        self.folder = folder

    def visible(self):
        """Return the names in the folder without hidden files, such as the index."""
        return sorted(path.name for path in self.folder.iterdir() if path.name[0] != '.')

    def commands(self, make=None, rate_hz=20.0):
        """Publish commands while the block runs."""
        return self.client.stream('cmd_vel', make or (lambda: twist_message(0.4)), rate_hz)

    def call(self, name, success=True):
        """Call a service of the recorder; return its sentence."""
        answer = self.client.call(f'recorder/{name}')
        assert answer.success == success, answer.message
        return answer.message

    def until_frames(self, frames, commands=0):
        """Wait until that many frames and commands are written."""
        return self.until(
            f'{frames} frames',
            lambda _, values: (
                int(values['frames']) >= frames and int(values['commands']) >= commands
            ),
        )


@pytest.fixture
def rig(nodes, client, tmp_path):
    """Start the recorder: ``rig(jpeg_quality=50)``."""
    return lambda **params: Rig(nodes, client, tmp_path / 'episodes', **params)


def numbers(episode) -> list[int]:
    """Return the numbers in the pixels of the frames."""
    pixels = (episode.frame(i).image[0, 0].astype(int) for i in range(len(episode)))
    return [int(p[0] + 256 * p[1]) for p in pixels]


def missing(episode) -> int:
    """Return how many images were lost between the first and the last frame; checks the order."""
    steps = np.diff(numbers(episode))
    assert steps.min() > 0
    return int((steps - 1).sum())


def test_an_episode_holds_every_frame_and_command_with_both_times(rig):
    """Start, drive, success: one whole file, with frames and commands in order, none twice."""
    one = rig(operator='ada', robot='mini')
    with one.camera(), one.commands():
        assert 'recording' in one.call('start')
        one.until_frames(20, commands=20)
        answer = one.call('success')
    (path,) = find_episodes(one.folder)
    assert answer.startswith(str(path))
    with Episode.open(path) as episode:
        assert missing(episode) <= episode.health['drops'] and len(episode) >= 20
        assert np.all(np.diff(episode.frame_stamp_ns) > 0)
        late = (episode.frame_received_ns - episode.frame_stamp_ns) / 1e9
        assert late.min() >= 0 and np.median(late) < 0.5
        assert len(episode.commands) >= 20
        assert np.all(episode.commands.twist[:, 0] == 0.4)
        assert (episode.outcome, episode.complete) == ('success', True)
        assert f'({episode.health["verdict"]}' in answer
        assert [event.name for event in episode.events] == ['start', 'outcome', 'stop']
        attributes = episode.attributes
        assert attributes['command_type'] == 'geometry_msgs/msg/Twist'
        assert attributes['image_topic'] == '/camera/image_raw'
        assert (attributes['operator'], attributes['robot']) == ('ada', 'mini')
        assert attributes['frame_id'] == 'eye'
    assert one.visible() == [path.name]


def test_each_episode_has_the_instruction_of_its_start(rig):
    """The topic instruction replaces the parameter for episodes that start later."""
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
    episodes = []
    for path in find_episodes(one.folder):
        with Episode.open(path) as episode:
            episodes.append((episode.instruction, episode.outcome))
    assert sorted(episodes) == [
        ('go to the blue ball', 'unknown'),
        ('go to the red box', 'failure'),
    ]
    values = one.until('both episodes counted', lambda _, v: len(json.loads(v['takes'])) == 2)
    assert json.loads(values['takes']) == {'go to the blue ball': 1, 'go to the red box': 1}


def test_the_last_episode_is_edited_by_services(rig):
    """In a list beside its file, which stays; not while another one is recorded."""
    one = rig()
    assert 'no episode has just ended' in one.call('last_outcome', success=False)
    with one.camera(), one.commands():
        one.call('start')
        one.until_frames(5)
        one.call('success')
        (path,) = find_episodes(one.folder)
        recorded = path.read_bytes()
        assert 'outcome: success -> failure' in one.call('last_outcome')
        assert f'{path.name} has no 5 s to drop' in one.call('last_shorten', success=False)
        one.client.publish('instruction', String(data='go to the door'), LATCHED)
        one.until('the instruction', lambda _, v: v['instruction'] == 'go to the door')
        assert '-> go to the door' in one.call('last_instruction')
        one.until('the count', lambda _, v: json.loads(v['takes']) == {'go to the door': 1})
        one.call('start')
        assert 'the recorder is recording' in one.call('last_undo', success=False)
    with Episode.open(path) as episode:
        assert (episode.instruction, episode.outcome) == ('go to the door', 'failure')
    assert path.read_bytes() == recorded


def test_an_instruction_that_is_not_latched_is_received(rig):
    """As `ros2 topic pub` publishes it by default; the newest one counts, latched or not."""
    one = rig()
    for text, qos in (('go to the blue ball', 10), ('go to the cone', LATCHED), ('go', 10)):
        one.client.node.create_publisher(String, 'instruction', qos)
        one.client.publish('instruction', String(data=text), qos)
        one.until('the instruction', lambda _, v, text=text: v['instruction'] == text)
        one.client._publishers.clear()


def test_discard_leaves_nothing(rig):
    """A discarded episode is gone, and the recorder is ready for the next."""
    one = rig()
    with one.camera():
        one.call('start')
        one.until_frames(2)
        assert 'discarded' in one.call('discard')
        assert one.visible() == []
        one.call('start')


def test_refusals_have_a_sentence_and_the_node_continues(rig):
    """Start twice, stop without an episode, empty instruction, no camera."""
    one = rig(camera_wait_s=0.2, instruction='')
    assert 'no episode is being recorded' in one.call('stop', success=False)
    assert 'no episode is being recorded' in one.call('success', success=False)
    assert 'no episode is being recorded' in one.call('discard', success=False)
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


@pytest.mark.parametrize('name', ['file', 'x' * 300])
def test_an_unwritable_folder_is_named(rig, tmp_path, name):
    """A data folder that cannot be created or read is named; the node continues."""
    (tmp_path / 'file').write_text('')
    one = rig(data_dir=str(tmp_path / name / 'episodes'))
    with one.camera():
        one.until('the disk checked', lambda _, v: float(v['expected_hz']))
        assert 'cannot write episodes to' in one.call('start', success=False)
        assert 'cannot write episodes to' in one.call('start', success=False)
    assert 'Traceback' not in one.process.output


def test_the_home_of_an_unknown_user_ends_with_status_2(nodes):
    """In data_dir, with a sentence."""
    process = nodes.start('recorder_node', params={'data_dir': '~nobody_at_all/episodes'})
    assert process.wait() == 2
    assert 'nobody_at_all' in process.output and 'Traceback' not in process.output


def test_a_folder_removed_while_recording_is_reported_at_once(rig):
    """Otherwise a person would drive for hours without a file; the next episode is whole."""
    one = rig()
    with one.camera(), one.commands():
        one.call('start')
        one.until_frames(2)
        shutil.rmtree(one.folder)
        one.until(
            'the loss',
            lambda state, v: state == 'recording' and '.part was removed' in v['problem'],
        )
        one.call('stop', success=False)
        one.call('start')
        one.until(
            'no loss',
            lambda state, v: (
                state == 'recording' and int(v['frames']) > 2 and 'removed' not in v['problem']
            ),
        )
        one.call('stop')
    assert len(find_episodes(one.folder)) == 1


def test_start_waits_for_a_camera_that_is_about_to_start(rig):
    """A start before the first image responds when the image arrives."""
    one = rig(camera_wait_s=20.0)
    one.until('the recorder', lambda state, _: state == 'idle')
    service = one.client.node.create_client(Trigger, 'recorder/start')
    wait_until(service.service_is_ready)
    answer = service.call_async(Trigger.Request())
    one.until('the wait', lambda state, _: state == 'starting')
    with one.camera():
        wait_until(answer.done)
        assert answer.result().success
        one.call('stop')


def test_a_wrong_camera_type_is_named(rig):
    """Compressed images instead of raw ones: status and response name both types."""
    one = rig(camera_wait_s=1.0)
    one.client.publisher(CAMERA, CompressedImage)
    values = one.until('the problem', lambda _, v: 'camera topic' in v['problem'])
    assert 'got sensor_msgs/msg/CompressedImage' in values['problem']
    answer = one.call('start', success=False)
    assert 'got sensor_msgs/msg/CompressedImage; expected sensor_msgs/msg/Image' in answer


def test_a_wrong_command_type_is_named(rig):
    """The status and the response of start report a cmd_vel of another type."""
    one = rig()
    one.client.publisher('cmd_vel', String)
    with one.camera():
        values = one.until('the problem', lambda _, v: 'command topic' in v['problem'])
        assert 'got std_msgs/msg/String' in values['problem']
        assert 'std_msgs/msg/String; expected geometry_msgs/msg/Twist' in one.call('start')


def test_stamped_commands_that_start_later_are_found(rig):
    """The graph shows TwistStamped, also when its publisher starts while recording."""
    one = rig()

    def make():
        message = TwistStamped(twist=twist_message(0.2))
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


def test_commands_of_a_best_effort_publisher_are_recorded(rig):
    """The recorder subscribes to every publisher of cmd_vel, also without reliability."""
    one = rig()
    with one.camera(), one.client.stream('cmd_vel', twist_message, 20, qos_profile_sensor_data):
        one.call('start')
        one.until_frames(2, commands=3)


def test_the_guard_s_source_is_stored_with_each_command(rig):
    """It is the source that the guard reports; without a guard it is unknown."""
    one = rig()
    with one.camera(), one.commands():
        one.call('start')
        one.until_frames(3, commands=3)
        with one.client.stream(
            'guard/status',
            lambda: status_message(
                'guard',
                'teleop',
                GuardStatus(State.TELEOP, armed=True, source='takeover').values(),
            ),
            10,
        ):
            values = one.until('the source', lambda _, v: v['source'] == 'takeover')
            one.until_frames(3, commands=int(values['commands']) + 5)
        one.call('stop')
        one.until('the guard gone', lambda _, v: v['source'] == 'unknown')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert episode.commands.source[0] == 0
        assert 3 in episode.commands.source


def test_receipt_times_follow_the_simulated_clock(rig):
    """With use_sim_time, receipts are those of /clock; steady ones go on while it stands still."""
    one = rig(use_sim_time=True)
    clock = Clock()
    clock.clock.sec = 42
    with one.camera():
        assert 'no time comes on /clock' in one.call('start', success=False)
    with one.client.stream('/clock', lambda: clock, 20), one.camera(), one.commands():
        wait_until(lambda: one.client.call('recorder/start').success, what='the clock')
        one.until_frames(5, commands=5)
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert set(episode.frame_received_ns) == {42 * 10**9}
        assert set(episode.commands.received_ns) == {42 * 10**9}
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        events_ns = [event.steady_ns for event in episode.events]
        for steady_ns in (episode.frame_steady_ns, episode.commands.steady_ns, events_ns):
            assert np.all(np.diff(steady_ns) > 0) and 0 < now_ns - steady_ns[0] < 60 * 10**9
        assert episode.attributes['created_utc'] > '2020'


def test_an_episode_of_a_fast_simulation_is_as_long_as_it_was_in_it(rig, nodes):
    """At four times real time a camera of 10 Hz has 10 frames a second, as for a drive."""
    nodes.start('sim_node', params={'real_time_factor': 4.0, 'publish_clock': True})
    one = rig(use_sim_time=True)
    with one.client.stream('cmd_vel', lambda: twist_message(0.1, 0.1), 40.0):
        wait_until(lambda: one.client.call('recorder/start').success, what='a camera and a clock')
        one.until_frames(60, commands=60)
        one.call('success')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert episode.health['frame_rate_hz'] == pytest.approx(10.0, rel=0.05)
        assert episode.health['command_rate_hz'] < 15  # 10 in the simulation
        assert episode.health['clock_steps'] == 0
        streams = episode.frame_steady_ns, episode.commands.steady_ns
        assert all(np.all(np.diff(one) > 0) for one in streams)


def test_compressed_images_are_stored_unchanged(rig):
    """With image_transport compressed, the file has the camera's bytes."""
    one = rig(image_transport='compressed')
    encoded = encode(np.zeros((12, 16, 3), np.uint8), 'jpeg', 33)
    with one.client.stream(
        COMPRESSED,
        lambda: to_compressed(encoded, stamp=one.client.now()),
        20,
        qos_profile_sensor_data,
    ):
        one.call('start')
        one.until_frames(3)
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert {episode.encoded(i) for i in range(len(episode))} == {encoded}
        assert episode.attributes['image_topic'] == '/camera/image_raw/compressed'


def test_only_broken_compressed_images_are_dropped(rig):
    """A broken image cannot start an episode; later ones are counted and reported."""
    one = rig(image_transport='compressed')
    good = encode(np.full((12, 16, 3), 150, np.uint8), 'jpeg', 90)
    size = good.index(b'\xff\xc0') + 5
    absurd = good[:size] + b'\xff' * 4 + good[size + 4 :]
    sent = good[:40]
    with one.client.stream(
        COMPRESSED,
        lambda: to_compressed(sent, stamp=one.client.now()),
        20,
        qos_profile_sensor_data,
    ):
        assert 'newest camera image is broken' in one.call('start', success=False)
        sent = good
        wait_until(lambda: one.client.call('recorder/start').success)
        one.until_frames(2)
        sent = absurd
        one.until('drops', lambda _, v: int(v['drops']) > 1 and 'broken image' in v['problem'])
        sent = good
        one.until('the end of it', lambda _, v: 'broken image' not in v['problem'])
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert {episode.encoded(i) for i in range(len(episode))} == {good}
        assert episode.health['drops'] > 1


def test_an_unknown_encoding_is_refused_at_the_start(rig):
    """The response of start names it and the known ones; with its colours named, it records."""
    one = rig()

    def make():
        return Image(height=2, width=2, step=4, encoding='16UC1', data=bytes(8))

    with one.client.stream(CAMERA, make, 20, qos_profile_sensor_data):
        assert "'16UC1'; expected rgb8" in one.call('start', success=False)
        assert not one.folder.exists()
        one.process.stop()
        named = rig(encoding='mono16')
        named.call('start')
        named.until_frames(5)
        named.call('success')
    with Episode.open(find_episodes(named.folder)[0]) as episode:
        assert episode.frame(0).image.shape == (2, 2, 3) and not episode.health['drops']


def test_a_command_that_is_not_finite_is_left_out_and_reported(rig):
    """NaN is never recorded; an event reports it."""
    one = rig()
    with one.camera():
        one.call('start')
        with one.commands(lambda: twist_message(float('nan'))):
            one.until('the problem', lambda _, v: 'not finite' in v['problem'])
        with one.commands():
            one.until_frames(2, commands=2)
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert np.isfinite(episode.commands.twist).all()
        assert 'not finite' in next(e.text for e in episode.events if e.name == 'problem')


@pytest.mark.parametrize('timeout_s', [0.0, None])
def test_a_teleop_that_publishes_on_a_change_is_recorded_for_what_it_is(rig, timeout_s):
    """A base that holds: the robot drives all the time; unknown: told once, with the remedy."""
    one = rig(**({} if timeout_s is None else {'base_command_timeout_s': timeout_s}))
    with one.camera(), one.commands(rate_hz=0.4):
        one.call('start')
        one.until('old commands', lambda _, v: float(v['stale_commands_s']) > 1.2)
        values = one.until('another status', lambda _, v: float(v['stale_commands_s']) > 1.4)
        answer = one.call('success')
    assert ('base_command_timeout_s' in values['problem']) == (timeout_s is None)
    (path,) = find_episodes(one.folder)
    with Episode.open(path) as episode:
        told = [event for event in episode.events if event.name == 'problem']
        assert len(told) == (timeout_s is None)
        health = episode.health
        assert episode.attributes.get('base_command_timeout_s') == timeout_s
    if timeout_s is None:
        assert health['verdict'] == 'poor' and 'base_command_timeout_s' in answer
        return
    assert 'holds the last command (as recorded)' in answer and not told
    assert health['held_share'] > 0.5 and health['expired_share'] == 0


def patched(tmp_path, code: str) -> dict:
    """Write a recorder with a replaced part; return the arguments of ``Rig`` for it."""
    package = tmp_path / 'patched'
    package.mkdir()
    (package / 'recorder.py').write_text(
        'import sys, time\nfrom mobile_vla_ros.nodes import recorder_node\n'
        'from mobile_vla_ros.nodes.recorder import current_episode, open_episode\n'
        f'{textwrap.dedent(code)}\nsys.exit(recorder_node.main())\n'
    )
    return {'module': 'patched.recorder', 'env': {'PYTHONPATH': str(tmp_path)}}


def test_a_signal_while_an_episode_is_opened_leaves_nothing(nodes, client, tmp_path):
    """Ctrl-C before the response of start leaves no empty file to recover."""
    one = Rig(
        nodes,
        client,
        tmp_path / 'episodes',
        **patched(
            tmp_path,
            """
        class SlowWriter(current_episode.EpisodeWriter):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                print('opened', flush=True)
                time.sleep(0.5)
        current_episode.EpisodeWriter = SlowWriter
        """,
        ),
    )
    service = client.node.create_client(Trigger, 'recorder/start')
    with one.camera():
        wait_until(service.service_is_ready)
        service.call_async(Trigger.Request())
        one.process.wait_for_output('opened')
        one.process.signal(signal.SIGINT)
        assert one.process.wait() == 0
    assert one.visible() == []


def test_discard_of_an_episode_that_just_ended_reports_that_it_is_kept(nodes, client, tmp_path):
    """If the disk filled before the operator acted, the response names the kept file."""
    one = Rig(
        nodes,
        client,
        tmp_path / 'episodes',
        **patched(
            tmp_path,
            """
        class Ending(open_episode.Recording):
            def discard(self, on_done=None):
                with self._news:
                    self._stop('the disk is full')
                super().discard(on_done)
        open_episode.Recording = Ending
        """,
        ),
    )
    with one.camera():
        one.call('start')
        one.until_frames(2)
        answer = one.call('discard', success=False)
    (path,) = find_episodes(one.folder)
    assert str(path) in answer and 'the disk is full' in answer


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_episode_whole(rig, number):
    """Ctrl-C and SIGTERM while recording leave a finished episode and status 0."""
    one = rig()
    with one.camera(), one.commands():
        one.call('start')
        one.until_frames(5)
        one.process.signal(number)
        assert one.process.wait() == 0
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert episode.complete and len(episode) >= 5
        assert episode.events[-1].text == 'the recorder was shut down'


def test_sigkill_costs_at_most_the_last_second(rig):
    """The previous episode is unchanged, and the .part is readable up to the last second."""
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
        # A busy machine may lose a frame on the way, and write the last ones late.
        assert missing(episode) <= 2
        assert sent - numbers(episode)[-1] <= 60
        assert not episode.complete


@pytest.mark.parametrize('limit', [{'queue_frames': 1}, {'queue_mb': 1}])
def test_a_slow_writer_drops_whole_frames_and_counts_them(rig, limit):
    """Status, episode and verdict report a full queue of one frame or megabyte."""
    one = rig(**limit)
    # Slow to compress, and small enough for DDS's default shared memory.
    big = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    message = from_rgb(big)

    def make():
        message.header.stamp = one.client.now()
        return message

    with one.client.stream(CAMERA, make, 120, qos_profile_sensor_data), one.commands():
        one.call('start')
        one.until('drops', lambda _, v: int(v['drops']) > 3 and int(v['frames']) > 3)
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        drops = sum(int(e.text.split()[0]) for e in episode.events if e.name == 'drop')
        assert drops == episode.health['drops'] > 3
        assert any('the writer was too slow' in event.text for event in episode.events)
        assert any('dropped' in reason for reason in episode.health['reasons'])
        assert episode.frame(len(episode) - 1).image.shape == (300, 400, 3)


def test_abandoned_episodes_are_recovered_at_the_next_start(rig):
    """A killed recorder's file becomes whole; one beyond recovery is reported and kept."""
    one = rig()
    with one.camera(), one.commands():
        one.call('start')
        one.until_frames(20)
        one.process.signal(signal.SIGKILL)
        one.process.wait()
        (part,) = one.folder.glob('*.part')
        with Episode.open(part) as episode:
            left = numbers(episode)
        broken = one.folder / '20260101T000000Z_00000000.h5.part'
        broken.write_bytes(b'no HDF5 at all')
        two = rig()
        values = two.until(
            'the recovery',
            lambda _, v: part.name[:-8] in v['recovered'] and broken.name in v['recovered'],
        )
        assert f'{broken.name} could not be recovered' in values['recovered']
        two.process.wait_for_output(part.name[:-8])
        two.call('start')
        two.until_frames(2)
        two.call('stop')
    assert broken.read_bytes() == b'no HDF5 at all' and not part.exists()
    with Episode.open(part.with_suffix('')) as episode:
        assert numbers(episode) == left
        assert episode.complete and episode.attributes['recovered']
        assert 'recovered' in [event.name for event in episode.events]
    assert len(find_episodes(one.folder)) == 2


def test_minutes_and_rate_are_reported_before_and_during_an_episode(rig):
    """The remaining minutes follow from the image's size and the learned rate."""
    one = rig(disk_floor_mb=1)
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    frame_bytes = len(encode(noise, 'png'))
    message = from_rgb(noise)

    def make():
        message.header.stamp = one.client.now()
        return message

    def minutes(values):
        room = shutil.disk_usage(one.folder.parent).free - 1e6
        rate_hz = float(values['camera_hz'])  # at most 20: a busy machine publishes fewer
        return float(values['disk_minutes'] or 0) * 60 * rate_hz * frame_bytes / room

    with one.camera(make=make), one.commands():
        one.until(
            'the rate', lambda _, v: 5 < float(v['expected_hz']) < 25 and 0.7 < minutes(v) < 1.4
        )
        one.call('start')
        one.until(
            'the minutes of the episode',
            lambda state, v: (
                state == 'recording' and float(v['seconds']) > 2.5 and 0.7 < minutes(v) < 1.4
            ),
        )
        one.call('stop')
        one.call('start')  # at once, so that it has fewer bytes than the previous episode
        seen = len(one.status)
        one.until(
            'the next episode',
            lambda state, v: (
                state == 'recording' and float(v['seconds']) > 2.5 and 0.7 < minutes(v) < 1.4
            ),
        )
        assert all(status_values(report)['disk_minutes'] for report in one.status.messages[seen:])
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert 5 < episode.health['expected_rate_hz'] < 25


def test_start_below_the_floor_is_refused(rig):
    """With less than disk_floor_mb free the response names both; nothing is created."""
    one = rig(disk_floor_mb=1_000_000_000)
    with one.camera():
        answer = one.call('start', success=False)
    assert 'is full' in answer and 'disk_floor_mb' in answer
    assert not one.folder.exists()


def test_an_episode_that_reaches_the_floor_is_closed_whole(rig, tmp_path):
    """Another process fills the disk: the episode ends whole, and the status names it."""
    floor_mb = shutil.disk_usage(tmp_path).free // 1_000_000 - 300
    one = rig(disk_floor_mb=floor_mb)
    with one.camera(), one.commands():
        one.call('start')
        one.until_frames(5)
        with open(tmp_path / 'filler', 'wb') as filler:

            def ended(state, values):
                # What other programs free meanwhile is filled as well.
                over = shutil.disk_usage(tmp_path).free - floor_mb * 1_000_000
                if over > -50_000_000:
                    size = os.fstat(filler.fileno()).st_size
                    os.posix_fallocate(filler.fileno(), 0, size + over + 200_000_000)
                return state == 'idle' and values['last_episode']

            values = one.until('the end', ended)
        (path,) = find_episodes(one.folder)
        assert values['last_episode'] == str(path) and path.name in values['problem']
        assert 'disk' in values['problem']
        assert 'no episode is being recorded' in one.call('stop', success=False)
        assert 'disk_floor_mb' in one.call('start', success=False)
        (tmp_path / 'filler').unlink()
        one.call('start')
    with Episode.open(path) as episode:
        assert episode.complete and len(episode) >= 5
        assert [event.name for event in episode.events][-2:] == ['problem', 'stop']


def test_frames_lost_before_the_recorder_are_counted(rig):
    """A recorder that was stopped for a while counts the frames that it missed."""
    one = rig()
    with one.commands():
        with one.camera(rate_hz=10):
            one.call('start')
            one.until_frames(5)
        # A busy machine may lose frames before the first stored one, and the file cannot show
        # those. So count from here, where the camera is silent and its last frame is written.
        before = one.until('the queue written', lambda _, v: v['queue'] == '0')
        one.process.signal(signal.SIGSTOP)
        publisher = one.client.publisher(CAMERA, Image, qos_profile_sensor_data)
        for _ in range(300):
            publisher.publish(one.image())
        one.process.signal(signal.SIGCONT)
        with one.camera(rate_hz=10):
            values = one.until('losses', lambda _, v: int(v['drops']) > int(before['drops']))
            one.until_frames(int(values['frames']) + 10)
            one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        first = int(before['frames']) - 1
        gaps = sum(b - a - 1 for a, b in pairwise(numbers(episode)[first:]))
        assert episode.health['drops'] - int(before['drops']) == gaps > 100
        assert any('between camera and recorder' in event.text for event in episode.events)


def test_images_of_another_kind_are_dropped_whole(rig):
    """Another size or encoding while recording is counted and reported; no other frame is lost."""
    one = rig()

    def other_encoding():
        message = one.image()
        message.encoding = 'bgr8'
        return message

    make = one.image
    with one.camera(make=lambda: make()), one.commands():
        one.call('start')
        one.until_frames(5)
        make = partial(one.image, 24, 32)
        values = one.until('the size', lambda _, v: int(v['drops']) >= 3)
        assert '32x24 rgb8, and the episode began with 16x12 rgb8' in values['problem']
        make = other_encoding
        one.until('the encoding', lambda _, v: '16x12 bgr8' in v['problem'])
        make = one.image
        one.until_frames(int(values['frames']) + 5)
        one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert {episode.frame(i).image.shape for i in range(len(episode))} == {(12, 16, 3)}
        assert 3 <= missing(episode) <= episode.health['drops']
        problems = [event.text for event in episode.events if event.name == 'problem']
        assert len(problems) == 2 and '32x24 rgb8' in problems[0] and '16x12 bgr8' in problems[1]


def test_commands_that_change_their_type_while_recording_are_all_kept(rig, ros_domain):
    """Twist first, then TwistStamped from another node: both are recorded and named."""
    one = rig()

    def stamped():
        message = TwistStamped(twist=twist_message(0.2))
        message.header.stamp.sec = 7
        return message

    first = Client('first_driver')
    try:
        with one.camera():
            with first.stream('cmd_vel', lambda: twist_message(0.1), 20):
                one.call('start')
                one.until_frames(2, commands=5)
                one.client.publisher('cmd_vel', TwistStamped)
                values = one.until('both named', lambda _, v: '2 publishers' in v['problem'])
                assert (
                    '/first_driver (Twist), /test_client (TwistStamped); only Twist'
                    in (values['problem'])
                )
            first.close()
            first = None
            with one.client.stream('cmd_vel', stamped, 20):
                values = one.until('the type', lambda _, v: 'Stamped' in v['command_type'])
                one.until_frames(2, commands=int(values['commands']) + 5)
            one.call('stop')
    finally:
        if first is not None:
            first.close()
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert episode.attributes['command_type'] == 'geometry_msgs/msg/TwistStamped'
        speeds = episode.commands.twist[:, 0]
        assert np.all(np.diff(speeds) >= 0) and {0.1, 0.2} == set(speeds)
        assert set(episode.commands.stamp_ns[speeds == 0.2]) == {7_000_000_000}
        (text,) = [event.text for event in episode.events if event.name == 'problem']
        assert '/first_driver' in text and '/test_client' in text


def test_a_second_camera_while_recording_is_named_in_the_episode(rig, ros_domain):
    """Frames of two cameras of one size cannot be distinguished: the episode reports both."""
    one, other = rig(), Client('second_camera')
    try:
        with one.camera():
            one.call('start')
            one.until_frames(2)
            with other.stream(CAMERA, one.image, 20, qos_profile_sensor_data):
                one.until('both named', lambda _, v: '/second_camera' in v['problem'])
            one.call('stop')
    finally:
        other.close()
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        (text,) = [event.text for event in episode.events if event.name == 'problem']
        # Discovery knows an endpoint before the name of its node.
        assert text.startswith('2 publishers on /camera/image_raw: ') and '/test_client' in text


def without_clock(rig):
    """Return a function that makes a rig's images with stamps of zero."""

    def make():
        message = rig.image()
        message.header.stamp.sec = message.header.stamp.nanosec = 0
        return message

    return make


def test_a_camera_without_a_clock_is_recorded_by_receipt(rig):
    """By the operator's choice it is no reason for the verdict; the episode keeps the choice."""
    one = rig(camera_time='receipt', camera_latency_s=0.05)
    with one.camera(make=without_clock(one)), one.commands():
        one.call('start')
        values = one.until('frames', lambda _, v: int(v['frames']) >= 20)
        assert (values['camera_time'], values['camera_clock']) == ('receipt', 'sane')
        assert values['problem'] == ''
        path, _, verdict = one.call('success').partition(' (')
        assert path and 'clock' not in verdict
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert episode.health['clock'] == 'sane'
        assert episode.attributes['camera_time'] == 'receipt'
        late_s = (episode.frame_received_ns - episode.frame_stamp_ns) / 1e9
        assert late_s.min() >= 0.05 and np.median(late_s) < 0.5


def test_a_stopped_camera_clock_is_reported_at_once(rig):
    """Stamps of zero are reported while recording, in the episode and in the verdict."""
    one = rig(expected_rate_hz=60.0)
    with one.camera(make=without_clock(one)), one.commands():
        one.call('start')
        values = one.until(
            'the clock', lambda state, v: state == 'recording' and 'clock' in v['problem']
        )
        assert values['expected_hz'] == '60.0'
        assert (values['camera_time'], values['camera_clock']) == ('stamp', 'zero')
        assert 'timed by their receipt; ' in values['problem']
        assert 'camera_time:=receipt' in values['problem']
        one.until_frames(20)
        one.call('stop')
        values = one.until('the verdict', lambda _, v: v['last_verdict'])
        assert values['last_verdict'] in ('poor', 'bad') and 'clock' in values['last_reasons']
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert episode.health['clock'] == 'zero'
        assert episode.health['expected_rate_hz'] == 60
        assert 'clock' in next(e.text for e in episode.events if e.name == 'problem')


def test_a_silent_camera_is_reported(rig):
    """A second without images is reported at once, and an event of the episode."""
    one = rig()
    with one.camera():
        one.call('start')
        one.until_frames(2)
    one.until('the silence', lambda _, v: 'no image arrives' in v['problem'])
    one.call('stop')
    with Episode.open(find_episodes(one.folder)[0]) as episode:
        assert 'no image arrives' in [e.text for e in episode.events if e.name == 'problem']


def test_a_bad_parameter_ends_with_a_sentence_and_status_2(nodes):
    """An unknown transport or a quality out of range: one sentence, status 2."""
    for params, words in (
        ({'image_transport': 'theora'}, 'expected raw or compressed'),
        ({'jpeg_quality': 101}, 'from 1 to 100'),
        ({'camera_time': 'receit'}, "expected stamp or receipt. Did you mean 'receipt'?"),
        ({'camera_time': 'receipt', 'use_sim_time': True}, 'in simulated time'),
        ({'base_command_timeout_s': -0.5}, 'got -0.5; expected 0 to 60, or -1 for unknown'),
    ):
        process = nodes.start('recorder_node', params=params)
        assert process.wait() == 2
        assert words in process.output and 'Traceback' not in process.output


def test_a_slow_file_in_the_folder_does_not_delay_the_recording(rig, tmp_path):
    """Files that take long to read lie in data_dir: rows are written meanwhile."""
    folder = tmp_path / 'episodes'
    folder.mkdir()
    good = good_episode(tmp_path / 'good')
    for index in range(3):
        spoil(good, folder / f'20270115T08000{index}Z_00000000.h5', slow_commands, '')
    (folder / '20270115T080005Z_00000000.h5').write_bytes(b'no HDF5')
    one = rig(queue_frames=30)  # 1.5 s of images
    with one.camera(), one.commands():
        one.call('start')
        one.until_frames(80, commands=80)
        one.call('success')
    path = max(folder.glob('*.h5'), key=lambda path: path.stat().st_mtime)
    with Episode.open(path) as episode:
        assert missing(episode) <= 2 and len(episode) >= 80
        assert not any('the writer was too slow' in event.text for event in episode.events)
    wait_until(
        lambda: '20270115T080005Z_00000000.h5 cannot be read' in one.process.output,
        90,
        'the name of the broken file',
    )
