"""angular_z as an axis, end to end: takes that turn, training, evaluation, driving, the guard."""

import io

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from PIL import Image
from test_inference_node import RED, Camera

from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.suites import scene
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.loop import train
from mobile_vla_ros.types import Command
from ros_helpers import status_values

PERIOD_NS = 100_000_000
START_NS = 1_760_000_000_000_000_000
AHEAD_MPS, TURN_RADPS = 0.15, 0.8
LIMIT_RADPS = 0.3  # of the guard: less than what the policy learned
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
def test_a_turn_reaches_the_base_within_the_guard_s_limit(axes, policies, nodes, client):
    """Camera, inference, guard, cmd_vel over DDS: angular.z is proposed, and passed limited."""
    proposals = client.subscribe('policy/cmd_vel', TwistStamped)
    commands = client.subscribe('cmd_vel', Twist)
    status = client.subscribe('guard/status', DiagnosticStatus)
    camera = Camera(client)
    nodes.start(
        'guard_node',
        params={
            'arm_at_start': True,
            'override': ['arm_at_start'],
            'max_velocity': [1.0, 1.0, LIMIT_RADPS],
            'observation_max_age_s': 1.0,
        },
    )
    nodes.start('inference_node', params={'policy': str(policies[axes]), 'instruction': RED})
    with camera.stream():
        client.wait_for(lambda: len(proposals) >= 10, 90, 'proposals')
        client.wait_for(
            lambda: any(m.angular.z > 0.9 * LIMIT_RADPS for m in commands.messages),
            30,
            'a turn on cmd_vel',
        )
    proposed = [m.twist.angular.z for m in proposals.messages]
    assert np.mean(proposed) > 1.2 * LIMIT_RADPS
    assert all(0 <= m.angular.z <= LIMIT_RADPS + 1e-9 for m in commands.messages)
    assert any(m.linear.x > 0 for m in commands.messages)
    assert any(status_values(one)['source'] == 'policy' for one in status.messages)
