"""Cost of reading episodes: cached image tokens, JPEG scale, time spent waiting for data."""

import json
import time
from pathlib import Path

import numpy as np
import torch

from mobile_vla_ros.bench.table import Figure, at_most, none_of, plain
from mobile_vla_ros.bench.train.encodes import counted, once
from mobile_vla_ros.bench.train.episodes import (
    FRAMES,
    busy_episodes,
    driven_episodes,
    network_and_batches,
)

WAITING = 0.05
IMAGES, SIDE = 18, 224


def tokens(folder: Path, episodes: int, turns: int) -> list[Figure]:
    """Train the text model alone, alternately from cached image tokens and from images."""
    from mobile_vla_ros.data.augment import Augmentation
    from mobile_vla_ros.data.dataset import collate
    from mobile_vla_ros.data.image_tokens import ImageTokens
    from mobile_vla_ros.evaluation.predict import policy_dataset

    driven_episodes(folder / 'takes', episodes)
    network, _, segments, spec, backbone = network_and_batches(folder / 'takes', scope='text')
    part = 'tokens'
    computed: list[int] = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        computed[-1] += len(pixels) if pixels.any() else 0  # a blank image is not a frame
        return network.image_tokens(pixels)

    def prepared() -> tuple[ImageTokens, float]:
        computed.append(0)
        cache = ImageTokens(
            encode, backbone.sha256, backbone.image, Augmentation(), folder / 'tokens'
        )
        started = time.perf_counter()
        cache.prepare(segments)
        return cache, time.perf_counter() - started

    _, first_s = prepared()
    cache, _ = prepared()
    ways = {
        'from cached image tokens': policy_dataset(
            segments, spec, backbone.tokenizer, FRAMES, tokens=cache
        ),
        'from images': policy_dataset(segments, spec, backbone.tokenizer, FRAMES),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    images: dict[str, int] = {}
    for turn in range(turns + 1):
        for name, data in ways.items():
            with counted(network) as seen:
                started = time.perf_counter()
                for number in range(len(data)):
                    once(network, collate([data[number]])).backward()
                if turn:  # the first one is a warm-up
                    seconds[name].append(time.perf_counter() - started)
            images[name] = sum(seen)
    best = {name: min(times) for name, times in seconds.items()}
    with_tokens, without = ways
    return [
        plain(part, f'computing the tokens of {computed[0]} frames once', first_s, 's'),
        none_of(part, 'frames encoded by a second run', computed[1]),
        none_of(part, 'frames encoded in an epoch, from cached image tokens', images[with_tokens]),
        plain(part, 'frames encoded in an epoch, from images', images[without]),
        *(
            plain(part, f'an epoch over {episodes} episodes, {name}', best[name], 's')
            for name in ways
        ),
        plain(
            part,
            'time, from images against from cached tokens',
            best[without] / best[with_tokens],
            'times',
        ),
    ]


def decoding(turns: int) -> list[Figure]:
    """Decode 1280x720 to the network's input size, alternately whole and at a reduced scale."""
    from mobile_vla_ros.bench.synthetic_camera import images
    from mobile_vla_ros.data.preprocess import resize
    from mobile_vla_ros.images.stored import decode
    from mobile_vla_ros.types import ImageSpec

    spec, part = ImageSpec(SIDE, (0, 0, 0), (1, 1, 1)), 'decode'
    jpegs = [_jpeg(image) for image in images(1280, 720, IMAGES)]
    ways = {
        'whole': lambda jpeg: resize(decode(jpeg), spec),
        'at a reduced scale': lambda jpeg: resize(decode(jpeg, SIDE), spec),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    seen: dict[str, np.ndarray] = {}
    for turn in range(turns + 1):
        for name, way in ways.items():
            started = time.process_time()
            decoded = [way(jpeg) for jpeg in jpegs]
            if turn:
                times[name].append((time.process_time() - started) / len(jpegs) * 1e3)
            seen[name] = np.stack(decoded).astype(np.int16)
    whole, reduced = ways
    apart = np.abs(seen[whole] - seen[reduced])
    return [
        *(
            plain(part, f'1280x720 to {SIDE} px, {name}', min(times[name]), 'ms/frame')
            for name in ways
        ),
        plain(
            part, 'time, whole against reduced', min(times[whole]) / min(times[reduced]), 'times'
        ),
        plain(part, f'difference at {SIDE} px, mean', float(apart.mean()), 'of 255'),
        plain(part, f'difference at {SIDE} px, largest', int(apart.max()), 'of 255'),
    ]


def _jpeg(image: np.ndarray) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=90)
    return buffer.getvalue()


def loader(folder: Path, episodes: int) -> list[Figure]:
    """Train for an epoch on uncached JPEGs of 1280x720; measure the share of waiting."""
    from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
    from mobile_vla_ros.training.loop import train

    busy_episodes(folder / 'takes', episodes)
    config = TrainConfig(out=str(folder / 'run'), epochs=1, device='cpu')
    train(ModelConfig(), DataConfig(data=str(folder / 'takes')), config, log=lambda _: None)
    (row,) = json.loads((folder / 'run' / 'history.json').read_text())
    part = 'loader'
    return [
        plain(part, 'frames of 1280x720 decoded and encoded', row['frames_encoded']),
        plain(
            part,
            f'an epoch, {config.workers} threads reading, {torch.get_num_threads()} computing',
            row['seconds'],
            's',
        ),
        at_most(
            part,
            'share of the time spent waiting for data',
            row['waiting_share'],
            WAITING,
            digits=4,
        ),
    ]
