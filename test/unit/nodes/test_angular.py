"""angular_z as an axis, end to end: takes that turn, training, evaluation, driving, the guard."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.data.segments import Sampling, load_segments
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.suites import scene
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.loop import train
from mobile_vla_ros.types import Command

PERIOD_NS = 100_000_000
START_NS = 1_760_000_000_000_000_000
AHEAD_MPS, TURN_RADPS = 0.15, 0.8
BOTH = [('linear_x', 'angular_z'), ('linear_x', 'linear_y', 'angular_z')]


@pytest.fixture(scope='module')
def turning(tmp_path_factory):
    """Four takes of a base that turns to the left as it goes; return their folder."""
    folder = tmp_path_factory.mktemp('turning')
    arena = Arena(64, 64)
    for number in range(4):
        world = scene('train', number)
        arena.reset(world)
        start_ns = START_NS + number * 60_000_000_000
        writer = EpisodeWriter(folder, EpisodeInfo(world.instruction), start_ns)
        for row in range(24):
            now_ns = start_ns + row * PERIOD_NS
            twist = np.array([AHEAD_MPS, 0.05, 0, 0, 0, TURN_RADPS + 0.2 * np.sin(row)])
            buffer = io.BytesIO()
            Image.fromarray(arena.render()).save(buffer, 'JPEG')
            writer.add_command(Command(twist, now_ns, now_ns, 'teleop'))
            writer.add_frame(buffer.getvalue(), now_ns, now_ns)
            arena.step(twist, PERIOD_NS)
        writer.close('success')
    arena.close()
    return folder


@pytest.fixture(scope='module')
def policies(turning, small_backbone, tmp_path_factory):
    """A policy for each set of axes; return axes → its folder."""
    found = {}
    for axes in BOTH:
        out = tmp_path_factory.mktemp('run') / 'out'
        train(
            ModelConfig(backbone=small_backbone, lora_r=2, head_hidden=32, head_layers=1),
            DataConfig(
                data=str(turning), axes=list(axes), accept_verdicts=['good', 'poor', 'bad']
            ),
            TrainConfig(out=str(out), epochs=8, accumulate=1, device='cpu', learning_rate=2e-3),
            log=lambda _: None,
        )
        found[axes] = out / 'best'
    return found


@pytest.mark.parametrize('axes', BOTH, ids=len)
def test_the_bundle_evaluation_and_the_policy_turn(axes, policies, turning, capsys):
    """Axes, units and scale are in the bundle; it is measured in rad/s; its plan turns left."""
    spec = read_spec(policies[axes])
    assert spec.actions.axes == axes and spec.head.motion_dims == len(axes)
    assert spec.actions.units[-1] == 'rad/s'
    assert 0.8 < spec.actions.scale[-1] <= 1.0
    assert main(
        ['evaluate', '--data', str(turning), '--policy', str(policies[axes]), '--json']
    ) in (0, 1)
    measured = json.loads(capsys.readouterr().out)
    for row in (measured['policy'], measured['baselines']['zero']):
        assert row['angular_z']['unit'] == 'rad/s'
    assert measured['baselines']['zero']['angular_z']['mae'] == pytest.approx(TURN_RADPS, abs=0.1)
    assert measured['policy']['angular_z']['mae'] < 0.4
    runs, _ = load_segments(find_episodes(turning)[:1], Sampling(), ['good', 'poor', 'bad'])
    with Episode.open(runs[0].path) as episode:
        window = [episode.frame(int(row)) for row in runs[0].frames[:4]]
    twists = VlaPolicy.load(policies[axes]).infer(window, runs[0].instruction).twists
    assert twists[:, 5].mean() == pytest.approx(TURN_RADPS, abs=0.3)
    assert not twists[:, 2:5].any()
    assert twists[:, 1].any() == ('linear_y' in axes)
