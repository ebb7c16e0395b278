"""The recorder with the arena's odometry: the verdict names a base that does not obey."""

import threading
import time

from nav_msgs.msg import Odometry

from mobile_vla_ros.episode.storage.reader import Episode
from node_rig import NodeRig, twist_message

SEGMENT_S = 1.0
FRAMES = 80
PATTERN = [(0.4, 0.0), (0.0, 0.4), (-0.4, 0.0), (0.0, -0.4)]
TIMEOUT_S = 60.0  # for start, discovery and driving on a busy machine


def test_a_swapped_axis_is_named_and_a_right_one_is_good(nodes, client, tmp_path):
    """The same drive twice; in the second one the base gets vx and vy the wrong way round."""
    swapped = threading.Event()

    def command():
        return PATTERN[int(time.monotonic() / SEGMENT_S) % len(PATTERN)]

    def driven():
        x, y = command()
        return twist_message(y, x) if swapped.is_set() else twist_message(x, y)

    def drive():
        before = set(tmp_path.glob('*.h5'))
        assert client.call('recorder/start', timeout_s=TIMEOUT_S).success
        rig.until('a drive', lambda _, values: int(values['frames']) >= FRAMES, TIMEOUT_S)
        assert client.call('recorder/success').success
        (path,) = set(tmp_path.glob('*.h5')) - before
        with Episode.open(path) as episode:
            assert len(episode.odometry) >= FRAMES
            return episode.health

    nodes.start(
        'sim_node', params={'width': 128, 'height': 128}, remappings={'cmd_vel': 'base/cmd_vel'}
    )
    params = {'data_dir': str(tmp_path), 'instruction': 'go', 'extra_topics': ['odom']}
    rig = NodeRig(client, nodes.start('recorder_node', params=params), 'recorder/status')
    odometry = client.subscribe('odom', Odometry)
    client.wait_for(lambda: len(odometry), TIMEOUT_S, 'the arena')
    rig.until('the recorder', lambda *_: True, TIMEOUT_S)
    with (
        client.stream('base/cmd_vel', driven, 20.0),
        client.stream('cmd_vel', lambda: twist_message(*command()), 20.0),
    ):
        right = drive()
        swapped.set()
        wrong = drive()
    assert (right['verdict'], right['reasons']) == ('good', [])
    assert right['odometry_scale']
    assert all(0.7 < scale < 1.3 for scale in right['odometry_scale'].values())
    assert wrong['verdict'] == 'poor'
    # A busy machine slows the arena down; then one of the axes may not be judged.
    assert any('linear_x' in one and 'linear_y' in one for one in wrong['reasons'])
