"""Episodes for the training benchmark, written as the recorder writes them."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

RATE_HZ, FRAMES = 10.0, 18  # as in the reference run
CHUNK = 10
PERIOD_NS = 100_000_000
START_NS = 1_760_000_000_000_000_000
MINUTE_NS = 60_000_000_000
QUALITY = 90


def driven_episodes(folder: Path, count: int, frames: int = FRAMES, first: int = 0) -> list[Path]:
    """Record the first frames of the expert's drives in scenes of the suite `train`."""
    from mobile_vla_ros.sim.arena import Arena
    from mobile_vla_ros.sim.expert import Expert
    from mobile_vla_ros.sim.suites import scene

    arena, paths = Arena(320, 240), []
    for number in range(first, first + count):
        world = scene('train', number)
        arena.reset(world)
        expert = Expert(world, world.seed)
        images, twists = [], []
        for _ in range(frames):
            images.append(arena.render())
            twists.append(expert.command(arena.pose, arena.velocity, arena.time_ns))
            arena.step(twists[-1], PERIOD_NS)
        paths.append(write(folder, world.instruction, images, twists, number))
    arena.close()
    return paths


def busy_episodes(folder: Path, count: int) -> list[Path]:
    """Write episodes of a synthetic camera, whose images are as detailed as photographs."""
    from mobile_vla_ros.bench.synthetic_camera import images

    turn = np.linspace(0, 2 * np.pi, FRAMES, endpoint=False)
    twists = np.zeros((FRAMES, 6))
    twists[:, 0], twists[:, 1] = 0.2 + 0.1 * np.cos(turn), 0.2 * np.sin(turn)
    return [
        write(
            folder,
            f'go to the {("left", "right")[number % 2]}',
            images(1280, 720, FRAMES, seed=number),
            twists,
            number,
        )
        for number in range(count)
    ]


def write(folder: Path, instruction: str, images, twists, number: int) -> Path:
    """Write one episode: a frame and a command at each step, 10 Hz."""
    from mobile_vla_ros.episode.storage.schema import EpisodeInfo
    from mobile_vla_ros.episode.storage.writer import EpisodeWriter
    from mobile_vla_ros.types import Command

    start_ns = START_NS + number * MINUTE_NS
    writer = EpisodeWriter(folder, EpisodeInfo(instruction), start_ns)
    for row, (image, twist) in enumerate(zip(images, twists, strict=True)):
        now_ns = start_ns + row * PERIOD_NS
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, 'JPEG', quality=QUALITY)
        writer.add_command(Command(np.asarray(twist), now_ns, now_ns, 'teleop'))
        writer.add_frame(buffer.getvalue(), now_ns, now_ns)
    return writer.close('success')


def network_and_batches(
    folder: Path,
    *,
    scope: str = 'all',
    window: int = 4,
    frozen: str = 'float32',
    checkpointing: bool = False,
):
    """
    Return a network on builtin:tiny, and each episode of a folder as a batch of one piece.

    Dropout is off. The adapters are random, as after training: fresh ones give no gradient.

    :param frozen: dtype of the frozen weights.
    :returns: network, batches, segments, the policy's spec, the backbone.
    """
    import torch

    from mobile_vla_ros.data.dataset import collate
    from mobile_vla_ros.data.segments import Sampling, load_segments
    from mobile_vla_ros.episode.storage.reader import find_episodes
    from mobile_vla_ros.evaluation.predict import policy_dataset
    from mobile_vla_ros.model.backbone import LoraSettings, load_backbone
    from mobile_vla_ros.model.network import build_network
    from mobile_vla_ros.model.policy_spec import PolicySpec
    from mobile_vla_ros.types import ActionSpec

    torch.manual_seed(0)
    backbone = load_backbone('builtin:tiny', dtype=getattr(torch, frozen))
    actions = ActionSpec(('linear_x', 'linear_y'), (0.5, 0.5))
    network = build_network(
        backbone,
        LoraSettings(8, 16, 0.0, scope),
        motion_dims=2,
        chunk=CHUNK,
        hidden=128,
        layers=2,
        activation_checkpointing=checkpointing,
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if 'lora_B' in name:
                parameter.normal_(0, 0.02)
    spec = PolicySpec(
        backbone.ref,
        network.head.settings,
        backbone.image,
        actions,
        RATE_HZ,
        window,
        CHUNK,
    )
    segments, _ = load_segments(
        find_episodes(folder), Sampling(RATE_HZ, window, CHUNK), ['good', 'poor', 'bad']
    )
    data = policy_dataset(segments, spec, backbone.tokenizer, FRAMES)
    batches = [collate([data[number]]) for number in range(len(data))]
    return network.train(), batches, segments, spec, backbone
