"""What reading episodes costs: cached image tokens, JPEGs at a reduced scale, a waiting loop."""

import json
import time
from pathlib import Path

import numpy as np
import torch

from mobile_vla_ros.bench.table import Figure, at_most, none_of, plain
from mobile_vla_ros.bench.train.encodes import WINDOW, counted, once
from mobile_vla_ros.bench.train.episodes import (
    FRAMES,
    busy_episodes,
    driven_episodes,
    network_and_batches,
)

WAITING = 0.05
PICTURES, SIDE = 18, 224


def tokens(folder: Path, episodes: int, turns: int) -> list[Figure]:
    """Train the text model alone, from image tokens that are kept and from images, by turns."""
    from mobile_vla_ros.data.augment import Augmentation
    from mobile_vla_ros.data.dataset import collate
    from mobile_vla_ros.data.image_tokens import ImageTokens
    from mobile_vla_ros.evaluation.predict import dataset

    driven_episodes(folder / 'takes', episodes)
    network, _, runs, spec, backbone = network_and_batches(folder / 'takes', scope='text')
    part = 'tokens'
    computed: list[int] = []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        computed[-1] += len(pixels) if pixels.any() else 0  # an image of the mean colour is none
        return network.image_tokens(pixels)

    def prepared() -> tuple[ImageTokens, float]:
        computed.append(0)
        kept = ImageTokens(
            encode, backbone.sha256, backbone.image, Augmentation(), folder / 'tokens'
        )
        started = time.perf_counter()
        kept.prepare(runs)
        return kept, time.perf_counter() - started

    _, first_s = prepared()
    kept, _ = prepared()
    ways = {
        'from kept image tokens': dataset(runs, spec, backbone.tokenizer, FRAMES, tokens=kept),
        'from images': dataset(runs, spec, backbone.tokenizer, FRAMES),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    images: dict[str, int] = {}
    for turn in range(turns + 1):
        for name, data in ways.items():
            with counted(network) as seen:
                started = time.perf_counter()
                for number in range(len(data)):
                    once(network, collate([data[number]]), WINDOW).backward()
                if turn:  # the first one finds cold memory
                    seconds[name].append(time.perf_counter() - started)
            images[name] = sum(seen)
    best = {name: min(times) for name, times in seconds.items()}
    with_tokens, without = ways
    return [
        plain(part, f'computing them once, for {computed[0]} frames', first_s, 's'),
        none_of(part, 'frames encoded by a second run', computed[1]),
        none_of(part, 'frames encoded in an epoch, from kept image tokens', images[with_tokens]),
        plain(part, 'frames encoded in an epoch, from images', images[without]),
        *(
            plain(part, f'an epoch over {episodes} episodes, {name}', best[name], 's')
            for name in ways
        ),
        plain(
            part,
            'time, from images against from kept tokens',
            best[without] / best[with_tokens],
            'times',
        ),
    ]


def decoding(turns: int) -> list[Figure]:
    """Decode 1280x720 to what the network sees, whole and at a reduced scale, by turns."""
    from mobile_vla_ros.bench.synthetic_camera import pictures
    from mobile_vla_ros.data.preprocess import resize
    from mobile_vla_ros.images.messages import decode
    from mobile_vla_ros.types import ImageSpec

    spec, part = ImageSpec(SIDE, (0, 0, 0), (1, 1, 1)), 'decode'
    jpegs = [_jpeg(picture) for picture in pictures(1280, 720, PICTURES)]
    ways = {
        'whole': lambda jpeg: resize(decode(jpeg), spec),
        'at a reduced scale': lambda jpeg: resize(decode(jpeg, SIDE), spec),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    seen: dict[str, np.ndarray] = {}
    for turn in range(turns + 1):
        for name, way in ways.items():
            started = time.process_time()
            images = [way(jpeg) for jpeg in jpegs]
            if turn:
                times[name].append((time.process_time() - started) / len(jpegs) * 1e3)
            seen[name] = np.stack(images).astype(np.int16)
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


def _jpeg(picture: np.ndarray) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, 'JPEG', quality=90)
    return buffer.getvalue()


def loader(folder: Path, episodes: int) -> list[Figure]:
    """Train for an epoch on JPEGs of 1280x720 that nothing has cached; how long did it wait?"""
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
            'share of the time that the network waited',
            row['waiting_share'],
            WAITING,
            digits=4,
        ),
    ]
