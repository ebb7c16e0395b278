"""angular_z as an axis: episodes that turn, training, evaluation and the policy."""

import json

import pytest

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.data.segments import Sampling, load_segments
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from turning import BOTH, TURN_RADPS


@pytest.mark.parametrize('axes', BOTH, ids=len)
def test_the_bundle_evaluation_and_the_policy_turn(axes, turning_policy, turning_episodes, capsys):
    """Axes, units and scale are in the bundle; it is measured in rad/s; its plan turns left."""
    spec = read_spec(turning_policy(axes))
    assert spec.actions.axes == axes and spec.head.motion_dims == len(axes)
    assert spec.actions.units[-1] == 'rad/s'
    assert 0.8 < spec.actions.scale[-1] <= 1.0
    assert main(
        [
            'evaluate',
            '--data',
            str(turning_episodes),
            '--policy',
            str(turning_policy(axes)),
            '--json',
        ]
    ) in (0, 1)
    measured = json.loads(capsys.readouterr().out)
    for row in (measured['policy'], measured['baselines']['zero']):
        assert row['angular_z']['unit'] == 'rad/s'
    assert measured['baselines']['zero']['angular_z']['mae'] == pytest.approx(TURN_RADPS, abs=0.1)
    assert measured['policy']['angular_z']['mae'] < 0.4
    runs, _ = load_segments(
        find_episodes(turning_episodes)[:1], Sampling(), ['good', 'poor', 'bad']
    )
    with Episode.open(runs[0].path) as episode:
        window = [episode.frame(int(row)) for row in runs[0].frames[:4]]
    twists = VlaPolicy.load(turning_policy(axes)).infer(window, runs[0].instruction).twists
    assert twists[:, 5].mean() == pytest.approx(TURN_RADPS, abs=0.3)
    assert not twists[:, 2:5].any()
    assert twists[:, 1].any() == ('linear_y' in axes)
