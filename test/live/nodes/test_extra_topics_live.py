"""Topics of any type, recorded by the recorder as they arrive."""

import json

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import Imu
from std_msgs.msg import Float32, Int32, String

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.nodes.recorder import extra_topics
from mobile_vla_ros.nodes.recorder.message_types import definition
from mobile_vla_ros.nodes.shared.messages import LATCHED, time_ns
from node_rig import NodeRig

TOPICS = ['/odom', 'imu', '/robot_description', '/late', '/silent', '/two', '/no name']


def as_sent(message) -> bytes:
    """Return a message as DDS delivers it: a multiple of four bytes."""
    data = serialize_message(message)
    return data + bytes(-len(data) % 4)


class Sent:
    """Makes the bytes of numbered messages, and keeps them and their stamps."""

    def __init__(self, client, kind):
        self.data, self.stamps_ns = [], []
        self._client, self.kind = client, kind

    def __call__(self):
        message = self.kind()
        message.header.stamp = self._client.now()
        message.header.frame_id = f'frame {len(self.data)}'
        self.data.append(as_sent(message))
        self.stamps_ns.append(time_ns(message.header.stamp))
        return self.data[-1]  # serialised anew, it may have other bytes between its fields

    def stream(self, topic, rate_hz, qos=10):
        """Publish while the block runs."""
        return self._client.stream(topic, self, rate_hz, qos, self.kind)


@pytest.fixture
def rig(nodes, client, tmp_path):
    """A recorder with extra topics, of which one cannot be recorded."""
    params = {'data_dir': str(tmp_path), 'instruction': 'go', 'extra_topics': TOPICS}
    return NodeRig(client, nodes.start('recorder_node', params=params), 'recorder/status')


def counted(episode, topic: str) -> int:
    """Return how many messages of a topic the events of an episode count as lost."""
    texts = [event.text for event in episode.events if f'messages of {topic}:' in event.text]
    return sum(int(text.split()[0]) for text in texts)


def test_an_episode_holds_every_topic_as_it_arrived(rig, client, others, tmp_path, capsys):
    """Reliable, best effort, latched and late ones; what cannot be recorded is said once."""
    odom, imu, late = Sent(client, Odometry), Sent(client, Imu), Sent(client, PoseStamped)
    words = String(data='<robot/>')
    client.publisher('/robot_description', String, LATCHED).publish(words)
    client.publisher('/two', Int32)
    others('other').publisher('/two', Float32)
    client.publisher('/silent', String)
    problems = '/two has the type', "'/no name' is not recorded", 'extra topic /silent since'
    with (
        rig.camera(),
        odom.stream('/odom', 50.0),
        imu.stream('/imu', 200.0, qos_profile_sensor_data),
    ):
        assert client.call('recorder/start').success
        rig.until('messages', lambda _, values: int(values['messages']) >= 100)
        with late.stream('/late', 50.0):
            rig.until(
                'every problem',
                lambda _, values: all(one in values['problem'] for one in problems),
            )
        answer = client.call('recorder/success')
    assert answer.success
    (path,) = find_episodes(tmp_path)
    with Episode.open(path) as episode:
        assert set(episode.topics) == {'/odom', '/imu', '/robot_description', '/late'}
        for topic, sent in (('/odom', odom), ('/imu', imu), ('/late', late)):
            kept = episode.messages(topic)
            numbers = [sent.data.index(data) for data in kept]
            assert kept.stamp_ns.tolist() == [sent.stamps_ns[number] for number in numbers]
            # On a busy machine, best effort loses some: they are counted.
            assert (np.diff(numbers) - 1).sum() == counted(episode, topic)
            assert np.all(np.diff(numbers) > 0)
            assert np.all(np.diff(kept.steady_ns) > 0) and np.all(np.diff(kept.received_ns) > 0)
            assert 0 <= np.median(kept.received_ns - kept.stamp_ns) < 10**9
            start_ns = episode.frame_steady_ns[0] - 500_000_000
            assert start_ns < kept.steady_ns[0] < episode.frame_steady_ns[-1] + 500_000_000
        assert len(episode.messages('/odom')) > 20 < len(episode.messages('/imu'))
        robot = episode.messages('/robot_description')
        assert [*robot] == [as_sent(words)] and episode.topics[robot.topic].latched
        assert abs(int(robot.steady_ns[0]) - int(episode.frame_steady_ns[0])) < 500_000_000
        assert episode.topics['/odom'].type == 'nav_msgs/msg/Odometry'
        assert episode.topics['/odom'].definition == definition(Odometry)
        assert episode.topics['/odom'].type_hash.startswith('RIHS01_')
        texts = [event.text for event in episode.events if event.name == 'problem']
        for problem in problems:
            assert sum(problem in text for text in texts) == 1, texts
        topics = {topic: [*episode.messages(topic)] for topic in episode.topics}
    assert main(['episodes', 'show', str(path), '--json']) == 0
    shown = json.loads(capsys.readouterr().out)['topics']['/imu']
    assert shown['count'] == len(topics['/imu']) and shown['rate_hz'] > 20
    bags = tmp_path / 'bags'
    assert main(['episodes', 'export', str(path), '--out', str(bags), '--format', 'rosbag2']) == 0
    with Reader(bags / path.stem) as bag:
        for topic, data in topics.items():
            (connection,) = [one for one in bag.connections if one.topic == topic]
            assert [data for _, _, data in bag.messages([connection])] == data


def test_a_latched_topic_is_in_every_episode(rig, client, tmp_path):
    """Also in the second one, long after it was published."""
    client.publisher('/robot_description', String, LATCHED).publish(String(data='<robot/>'))
    with rig.camera():
        for _ in range(2):
            assert client.call('recorder/start').success
            rig.until('the message', lambda _, values: int(values['messages']) == 1)
            assert client.call('recorder/stop').success
    for path in find_episodes(tmp_path):
        with Episode.open(path) as episode:
            assert [*episode.messages('/robot_description')] == [as_sent(String(data='<robot/>'))]


def test_with_a_black_box_an_episode_has_the_type_that_is_published(
    nodes, client, others, tmp_path
):
    """Also if the box still holds another one; bytes that are no message are kept as they are."""
    params = {'data_dir': str(tmp_path), 'instruction': 'go', 'extra_topics': ['/thing']}
    one = nodes.start('recorder_node', params={**params, 'ring_s': 5.0})
    rig = NodeRig(client, one, 'recorder/status')
    with rig.camera():
        words = client.publisher('/thing', String)
        with client.stream('/thing', lambda: String(data='word'), 20.0):
            rig.until('images', lambda _, values: float(values['black_box_s']) > 1.0)
        client.node.destroy_publisher(words)
        garbled, other = bytes([0, 1, 0, 0]), others('other')
        other.publisher('/thing', PoseStamped)
        rig.until('one type', lambda _, v: 'PoseStamped, only' in v['problem'])
        assert client.call('recorder/start').success
        with other.stream('/thing', lambda: garbled, 20.0, 10, PoseStamped):
            rig.until('messages', lambda _, values: int(values['messages']) >= 5)
        assert client.call('recorder/stop').success
    (path,) = find_episodes(tmp_path)
    with Episode.open(path) as episode:
        assert episode.topics['/thing'].type == 'geometry_msgs/msg/PoseStamped'
        kept = episode.messages('/thing')
        assert {*kept} == {garbled} and kept.stamp_ns.tolist() == kept.received_ns.tolist()


def test_an_unknown_type_is_a_sentence():
    """It names topic, type and remedy."""
    topic = extra_topics._Topic('/odd')
    publisher = extra_topics.TopicEndpointInfo(topic_type='robot_msgs/msg/Odd')
    problem = extra_topics._identify(topic, publisher, latched=False)
    assert 'extra topic /odd is not recorded: its type robot_msgs/msg/Odd' in problem
    assert 'install its package' in problem and topic.channel is None
