"""Episodes of a base that turns as it drives, and a policy trained on them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.suites import scene
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.loop import train
from mobile_vla_ros.types import Command

PERIOD_NS = 100_000_000
START_NS = 1_760_000_000_000_000_000
AHEAD_MPS, TURN_RADPS = 0.15, 0.8
BOTH = [('linear_x', 'angular_z'), ('linear_x', 'linear_y', 'angular_z')]


def write_turning(folder: Path) -> Path:
    """Write four episodes of a base that turns left as it drives; return their folder."""
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


def train_policy(axes: tuple[str, ...], episodes: Path, backbone: str, out: Path) -> Path:
    """Train a policy with these axes; return its bundle."""
    return train(
        ModelConfig(backbone=backbone, lora_r=2, head_hidden=32, head_layers=1),
        DataConfig(data=str(episodes), axes=list(axes), accept_verdicts=['good', 'poor', 'bad']),
        TrainConfig(out=str(out), epochs=8, accumulate=1, device='cpu', learning_rate=2e-3),
        log=lambda _: None,
    ).best
