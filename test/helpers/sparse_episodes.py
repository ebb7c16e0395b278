"""Episodes of a teleop that publishes only on a change, driven by bases that hold or stop."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.types import Command
from small_episodes import CREATED_NS, START_NS

SECOND = 1_000_000_000
RATE_HZ = 10
SIDE = 96


def floor(seed: int = 0) -> np.ndarray:
    """Return a (96, 3000) texture with details of all sizes, to drive over."""
    rng = np.random.default_rng(seed)
    layers = [
        np.kron(rng.uniform(-1, 1, (SIDE // cell, 3000 // cell)), np.ones((cell, cell))) * cell
        for cell in (4, 12)
    ]
    return 128 + 5 * sum(layers)


def image(texture: np.ndarray, place: float, noise: np.random.Generator) -> bytes:
    """Return the JPEG of what a camera at a place sees, with its noise."""
    column = round(place) % 2800
    seen = texture[:, column : column + SIDE] + noise.normal(0, 2, (SIDE, SIDE))
    buffer = io.BytesIO()
    Image.fromarray(seen.clip(0, 255).astype(np.uint8)).save(buffer, 'JPEG', quality=85)
    return buffer.getvalue()


def sparse_episode(
    folder,
    presses: Sequence[tuple[float, float]],
    *,
    stops_after_s: float = np.inf,
    seconds: float = 16.0,
    pixels_per_m: float = 60.0,
    **info,
):
    """
    Write an episode of a camera at 10 Hz and one command at each press; return its path.

    :param presses: (second, vx in m/s) of each command.
    :param stops_after_s: how the base really behaves; infinite: it holds the last command.
    :param pixels_per_m: 0: the camera sees no motion.
    """
    writer = EpisodeWriter(folder, EpisodeInfo('go', **info), CREATED_NS, hidden=True)
    texture, noise, place = floor(), np.random.default_rng(1), 0.0
    for at_s, speed in presses:
        at_ns = START_NS + round(at_s * SECOND)
        writer.add_command(Command(np.array([speed, 0, 0, 0, 0, 0.0]), at_ns, at_ns, 'teleop'))
    for index in range(round(seconds * RATE_HZ)):
        now_s = index / RATE_HZ
        past = [press for press in presses if press[0] <= now_s]
        if past and now_s - past[-1][0] <= stops_after_s:
            place += past[-1][1] / RATE_HZ * pixels_per_m
        now_ns = START_NS + round(now_s * SECOND)
        writer.add_frame(image(texture, place, noise), now_ns, now_ns)
    return writer.close('success')


# Two seconds standing, then a key every two seconds, and a stop.
PRESSES = [
    (0.0, 0.0),
    (2.01, 0.3),
    (4.01, 0.3),
    (6.01, 0.4),
    (8.01, 0.3),
    (10.01, 0.3),
    (14.01, 0),
]
# The same without a stop: nothing shows how standing looks.
ALWAYS = [(second + 0.01, 0.3) for second in range(0, 16, 2)]
