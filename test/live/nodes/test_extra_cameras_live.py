"""Further cameras, recorded beside the main one and read by their names."""

import signal

import numpy as np
import pytest
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.images.stored import decode
from mobile_vla_ros.nodes.shared.image_messages import from_rgb, to_compressed
from mobile_vla_ros.nodes.shared.messages import time_ns
from node_rig import NodeRig, twist_message
from small_episodes import encoded

WRIST, REAR = '/wrist/image_raw', '/rear/image_raw/compressed'


class Camera:
    """A numbered camera: raw, or compressed as PNG; every tenth image cannot be read."""

    def __init__(self, client, topic, rate_hz, *, faulty=False):
        self.client, self.topic, self.rate_hz, self.faulty = client, topic, rate_hz, faulty
        self.stamps_ns = []

    def __call__(self):
        number, stamp = len(self.stamps_ns), self.client.now()
        self.stamps_ns.append(time_ns(stamp))
        if self.topic == REAR:
            image = encoded(number)
            broken = self.faulty and number % 10 == 9
            return to_compressed(image[:20] if broken else image, stamp=stamp, frame_id='rear')
        pixels = np.full((12, 16, 3), [number % 256, number // 256, 99], np.uint8)
        return from_rgb(pixels, stamp=stamp, frame_id='wrist')

    def stream(self):
        """Publish while the block runs."""
        kind = CompressedImage if self.topic == REAR else Image
        return self.client.stream(self.topic, self, self.rate_hz, qos_profile_sensor_data, kind)


@pytest.fixture
def rig(nodes, client, tmp_path):
    """A recorder with cameras of which some cannot be recorded."""
    params = {
        'data_dir': str(tmp_path),
        'instruction': 'go',
        'image_format': 'png',
        'extra_cameras': [
            'wrist/image_raw',
            REAR,
            '/words',
            '/camera/image_raw',
            '/rear/image_raw',
        ],
        'extra_topics': ['/wrist/image_raw/compressed'],
    }
    return NodeRig(client, nodes.start('recorder_node', params=params), 'recorder/status')


def lost(episode, topic: str) -> int:
    """Return how many images of a topic the events of an episode count as lost."""
    texts = [event.text for event in episode.events if f'messages of {topic}:' in event.text]
    return sum(int(text.split()[0]) for text in texts)


def test_two_more_cameras_are_recorded_and_read_by_name(rig, client, tmp_path):
    """One raw, one compressed, each at its own rate; what cannot be recorded is named."""
    wrist, rear = Camera(client, WRIST, 40.0), Camera(client, REAR, 10.0, faulty=True)
    client.publisher('/words', String)
    problems = (
        'extra camera /words is not recorded: its type is std_msgs/msg/String, not',
        "extra camera '/camera/image_raw' is not recorded: /camera/image_raw/compressed is",
        "extra camera '/rear/image_raw' is not recorded: /rear/image_raw/compressed is",
        "extra topic '/wrist/image_raw/compressed' is not recorded",
    )
    drive = client.stream('cmd_vel', lambda: twist_message(0.1), 20.0)
    with rig.camera(20.0), drive:
        with rear.stream():
            with wrist.stream():
                assert client.call('recorder/start').success
                rig.until('messages', lambda _, values: int(values['messages']) >= 100)
            rig.until(
                'every problem',
                lambda _, values: all(
                    one in values['problem']
                    for one in (*problems, 'no message arrives on the extra camera /wrist')
                ),
            )
        assert client.call('recorder/success').success
    (path,) = find_episodes(tmp_path)
    for name, sent in (('wrist', wrist), ('rear', rear)):
        with Episode.open(path, camera=name) as episode:
            topic = episode.cameras[episode.camera]
            assert topic == f'/{name}/image_raw/compressed'
            numbers = []
            for row in range(len(episode)):
                red, green, _ = decode(episode.encoded(row))[0, 0]
                numbers.append(int(red) + 256 * int(green))
            assert episode.frame_stamp_ns.tolist() == [sent.stamps_ns[one] for one in numbers]
            assert len(numbers) > 20 and np.all(np.diff(numbers) > 0)
            assert (np.diff(numbers) - 1).sum() <= lost(episode, topic)
            assert 0 <= np.median(episode.frame_received_ns - episode.frame_stamp_ns) < 10**9
            assert np.all(np.diff(episode.frame_steady_ns) > 0)
            channel = episode.topics[topic]
            assert (
                channel.type == 'sensor_msgs/msg/CompressedImage' and 'data' in channel.definition
            )
            if sent.faulty:  # unreadable ones are counted, the others stay as they were sent
                broken = {one for one in numbers if one % 10 == 9}
                assert not broken and lost(episode, topic) >= len(numbers) // 10
                assert episode.encoded(3) == encoded(numbers[3])
                assert any('an image is broken' in event.text for event in episode.events)
    with Episode.open(path) as episode:
        assert episode.health['drops'] == 0 and len(episode) > 20
        assert [*episode.cameras] == ['/camera/image_raw', WRIST, '/rear/image_raw']
        texts = [event.text for event in episode.events if event.name == 'problem']
        assert sum('any more' in text for text in texts) == 1
        kept = {topic: [*episode.messages(topic)] for topic in episode.topics}
    # Out to MCAP and in again, each image keeps its bytes.
    bags, again = tmp_path / 'bags', tmp_path / 'again'
    assert main(['episodes', 'export', str(path), '--out', str(bags), '--format', 'rosbag2']) == 0
    wanted = '/wrist/image_raw/compressed,/rear/image_raw/compressed'
    flags = ['--out', str(again), '--extra_topics', wanted, '--instruction', 'go']
    flags += ['--image-topic', '/camera/image_raw/compressed']
    assert main(['episodes', 'import', str(bags / path.stem), *flags]) == 0
    (copy,) = find_episodes(again)
    with Episode.open(copy, camera='wrist') as episode:
        assert {topic: [*episode.messages(topic)] for topic in episode.topics} == kept
        assert len(episode) == len(kept[WRIST + '/compressed'])


def test_a_kill_costs_a_second_camera_no_more_than_the_first(nodes, client, tmp_path):
    """Both are flushed together, and recovered together."""
    params = {'data_dir': str(tmp_path), 'instruction': 'go', 'extra_cameras': [WRIST]}
    rig = NodeRig(client, nodes.start('recorder_node', params=params), 'recorder/status')
    wrist = Camera(client, WRIST, 20.0)
    with rig.camera(20.0), wrist.stream():
        assert client.call('recorder/start').success
        rig.until('messages', lambda _, values: int(values['messages']) >= 40)
        rig.process.signal(signal.SIGKILL)
        assert rig.process.wait() == -signal.SIGKILL
    assert main(['episodes', 'recover', str(tmp_path)]) == 0
    (path,) = find_episodes(tmp_path)
    with Episode.open(path) as episode:
        last_ns, recovered = int(episode.frame_steady_ns[-1]), episode.recovered
    with Episode.open(path, camera='wrist') as episode:
        assert recovered and len(episode) >= 20
        assert abs(int(episode.frame_steady_ns[-1]) - last_ns) < 1_000_000_000
        assert episode.frame(len(episode) - 1).image.shape == (12, 16, 3)


def test_cameras_of_a_compressed_transport_and_by_receipt_in_the_black_box(
    nodes, client, tmp_path
):
    """The transport and what times the frames hold for every camera, also before a trigger."""
    params = {
        'data_dir': str(tmp_path),
        'image_transport': 'compressed',
        'camera_time': 'receipt',
        'ring_s': 5.0,
        'extra_cameras': ['/rear/image_raw'],
    }
    rig = NodeRig(client, nodes.start('recorder_node', params=params), 'recorder/status')
    rear = Camera(client, REAR, 20.0)

    def image():
        return to_compressed(encoded(1), stamp=client.now())

    topic = 'camera/image_raw/compressed'
    with (
        client.stream(topic, image, 20.0, qos_profile_sensor_data, CompressedImage),
        rear.stream(),
    ):
        rig.until('images', lambda _, values: float(values['black_box_s']) > 1.5)
        assert client.call('recorder/black_box').success
        assert client.call('recorder/start').success is False  # no instruction; the box goes on
        rig.until('its end', lambda _, values: bool(values['last_black_box']), 15.0)
    (path,) = find_episodes(tmp_path / 'black_box')
    with Episode.open(path, camera='rear') as episode:
        assert len(episode) > 20
        assert not set(episode.frame_stamp_ns.tolist()) & set(rear.stamps_ns)  # of the sending
        late_ns = episode.frame_received_ns - episode.frame_stamp_ns
        assert (late_ns >= 0).all() and np.median(late_ns) < 100_000_000
