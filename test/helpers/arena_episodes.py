"""Episodes for tests, driven by the expert in the arena and written by `EpisodeWriter`."""

import io
import sys
from pathlib import Path

from PIL import Image

from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.expert import Expert
from mobile_vla_ros.sim.suites import scene
from mobile_vla_ros.types import Command

TICK_NS = 50_000_000
START_NS = 1_760_000_000_000_000_000


def write_episodes(
    folder: Path,
    count: int,
    *,
    first: int = 0,
    suite: str = 'train',
    size: int = 224,
    wobble: float = 0.0,
    frames: int = sys.maxsize,
) -> list[Path]:
    """
    Drive and write episodes with frames at 10 Hz and commands at 20 Hz; return their paths.

    :param frames: of each episode at the most; the rest of the drive is left out.
    """
    arena = Arena(size, size)
    paths = []
    for index in range(first, first + count):
        paths.append(_write_episode(folder, arena, suite, index, wobble, frames))
    arena.close()
    return paths


def _write_episode(
    folder: Path, arena: Arena, suite: str, index: int, wobble: float, frames: int
) -> Path:
    world = scene(suite, index)
    arena.reset(world)
    expert = Expert(world, world.seed, wobble=wobble)
    offset = START_NS + index * 60_000_000_000
    writer = EpisodeWriter(folder, EpisodeInfo(instruction=world.instruction), offset)
    tick = 0
    while arena.state == 'running' and tick < 2 * frames:
        now = offset + arena.time_ns
        if tick % 2 == 0:
            buffer = io.BytesIO()
            Image.fromarray(arena.render()).save(buffer, 'JPEG', quality=90)
            writer.add_frame(buffer.getvalue(), now, now)
        twist = expert.command(arena.pose, arena.velocity, arena.time_ns)
        writer.add_command(Command(twist, now, now, 'teleop'))
        arena.step(twist, TICK_NS)
        tick += 1
    return writer.close('success' if arena.state in ('running', 'success') else 'failure')
