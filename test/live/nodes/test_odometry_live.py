"""The recorder with the arena's odometry: the verdict names a base that does not obey."""

import time

from mobile_vla_ros.episode.storage.reader import Episode
from node_rig import NodeRig, twist_message

SEGMENT_S = 0.8
PATTERN = [(0.4, 0.0), (0.0, 0.4), (-0.4, 0.0), (0.0, -0.4)]
TIMEOUT_S = 60.0  # for start, discovery and driving on a busy machine


def test_a_swapped_axis_is_named_and_a_right_one_is_good(nodes, client, tmp_path):
    """The same drive twice; in the second one the base gets vx and vy the wrong way round."""
    swapped = False

    def command():
        return PATTERN[int(time.monotonic() / SEGMENT_S) % len(PATTERN)]

    def driven():
        x, y = command()
        return twist_message(y, x) if swapped else twist_message(x, y)

    nodes.start(
        'sim_node', params={'width': 128, 'height': 128}, remappings={'cmd_vel': 'base/cmd_vel'}
    )
    params = {'data_dir': str(tmp_path), 'instruction': 'go', 'extra_topics': ['odom']}
    rig = NodeRig(client, nodes.start('recorder_node', params=params), 'recorder/status')
    found = []
    with (
        client.stream('base/cmd_vel', driven, 20.0),
        client.stream('cmd_vel', lambda: twist_message(*command()), 20.0),
    ):
        for swapped in (False, True):  # noqa: B007 - read by driven
            client.call('recorder/start', timeout_s=TIMEOUT_S)
            rig.until('a drive', lambda _, values: int(values['frames']) >= 65, TIMEOUT_S)
            assert client.call('recorder/success').success
            (path,) = set(tmp_path.glob('*.h5')) - {path for path, _ in found}
            with Episode.open(path) as episode:
                assert len(episode.odometry) >= 100
                found.append((path, episode.health))
    (_, right), (_, wrong) = found
    assert (right['verdict'], right['reasons']) == ('good', [])
    assert all(0.8 < scale < 1.25 for scale in right['odometry_scale'].values())
    assert right['odometry_scale'].keys() == {'linear_x', 'linear_y'}
    assert wrong['verdict'] == 'poor'
    assert 'linear_x and linear_y are swapped (by its odometry)' in wrong['reasons']
