"""mobile_vla replay: an episode through the live node."""

import json

import pytest
from geometry_msgs.msg import TwistStamped

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.replay import live as replay_live


@pytest.fixture(scope='module')
def one(episode_folder):
    """The first of the expert's episodes."""
    return min(episode_folder.glob('*.h5'))


def test_the_live_node_gives_the_same_plans_and_nothing_drives(
    small_run, one, client, monkeypatch, tmp_path, capsys
):
    """Processes over DDS in lockstep: equal to 1e-5 at every plan, and no publisher of cmd_vel."""
    monkeypatch.setattr(replay_live, 'isolated', dict)  # in the test's own domain
    publishers = []
    client.subscribe(
        'policy/cmd_vel',
        TwistStamped,
        100,
        callback=lambda _: publishers.append(
            client.node.count_publishers('cmd_vel')
            + client.node.count_publishers('teleop/cmd_vel')
        ),
    )
    real, given = replay_live._answers, []

    def kept(*arguments):
        given.append(real(*arguments))
        return given[0]

    monkeypatch.setattr(replay_live, '_answers', kept)
    status = main(['replay', str(one), '--policy', str(small_run / 'best'), '--ros', '--json'])
    result = json.loads(capsys.readouterr().out)
    assert result['live']['equal'], result['live']['sentence']
    assert status == 0 and result['live']['worst'] <= 1e-5
    assert result['live']['frames'] == result['plans'] and not result['live']['withheld']
    assert publishers and not any(publishers)
    # Compared with another policy's answers: status 1 and the sentence.
    spoilt = given[0]
    spoilt[7]['twist'][0] += 0.5
    monkeypatch.setattr(replay_live, '_answers', lambda *_: spoilt)
    assert main(['replay', str(one), '--policy', str(small_run / 'best'), '--ros']) == 1
    assert 'the live node differs by 0.5' in capsys.readouterr().out
