"""Counted GPU memory of training at full size, and a check of the count on a real process."""

from pathlib import Path

import torch

from mobile_vla_ros.bench.table import Figure, at_most, plain
from mobile_vla_ros.bench.train.encodes import WINDOW
from mobile_vla_ros.bench.train.episodes import FRAMES, driven_episodes
from mobile_vla_ros.bench.train.step_memory import Memory, count
from mobile_vla_ros.bench.train.training_step import grown

CARDS_GB = (8, 16, 24, 48, 80)
# What a GPU needs beyond the count: temporary gradients, allocator fragmentation, libraries.
MARGIN_SHARE, MARGIN_GB = 0.15, 1.0
BATCHES = (1, 2, 4, 8)
TEXT_TOKENS, SIDE, CHUNK, MOTION_DIMS = 16, 224, 10, 6
NEAR = 0.1  # largest relative error of the count


def full_size(dtype: torch.dtype, *, checkpointing: bool):
    """Return the network of config/train_seed.yaml on the meta device."""
    from mobile_vla_ros.bench.random_weights import shapes
    from mobile_vla_ros.model.backbone import LoraSettings
    from mobile_vla_ros.model.network import build_network

    backbone = shapes(dtype)
    with torch.device('meta'):
        return build_network(
            backbone,
            LoraSettings(),
            motion_dims=MOTION_DIMS,
            chunk=CHUNK,
            activation_checkpointing=checkpointing,
        ).train()


def needed(pieces: int, frozen: torch.dtype, mixed: torch.dtype, networks: tuple) -> tuple:
    """Return the memory of a step on whole 18-frame pieces, without and with checkpointing."""
    plain_network, checkpointed = networks
    options = {
        'frames': FRAMES,
        'window': WINDOW,
        'text': TEXT_TOKENS,
        'side': SIDE,
        'dtype': mixed,
    }
    without, layer = count(plain_network, pieces, **options)
    found, _ = count(checkpointed, pieces, **options)
    return without, Memory(
        found.weights, found.gradients, found.optimizer, found.activations, layer
    )


def cards(total_bytes: int) -> str:
    """Return the smallest common GPU that fits this and the margin, in words."""
    wanted = total_bytes / 1e9 * (1 + MARGIN_SHARE) + MARGIN_GB
    fitting = [size for size in CARDS_GB if size >= wanted]
    return f'fits {fitting[0]} GB' if fitting else f'does not fit {CARDS_GB[-1]} GB'


def measure(folder: Path, batches: tuple[int, ...] = BATCHES) -> list[Figure]:
    """Count the full-size architecture, then check the count on a small one."""
    part, figures = 'memory', []
    networks = tuple(full_size(torch.bfloat16, checkpointing=on) for on in (False, True))
    for pieces in batches:
        found = needed(pieces, torch.bfloat16, torch.bfloat16, networks)
        for name, one in zip(('', ', activation checkpointing'), found, strict=True):
            figures.append(
                Figure(
                    part,
                    f'bf16, batch {pieces}{name}',
                    one.total / 1e9,
                    f'{one.total / 1e9:.1f} GB: {cards(one.total)}',
                )
            )
        if pieces == batches[0]:
            figures += [
                plain(part, f'of batch {pieces}: {item}', value / 1e9, 'GB')
                for item, value in (
                    ('weights', one.weights),
                    ('gradients', one.gradients),
                    ('AdamW', one.optimizer),
                    ('activations', found[0].activations),
                    ('activations, checkpointing', one.activations),
                    ('largest recomputed layer', one.recomputed),
                )
            ]
    for frozen, mixed, name in (
        (torch.float16, torch.float16, 'fp16'),
        (torch.float32, torch.float16, 'fp16 over float32 weights'),
    ):
        networks = tuple(full_size(frozen, checkpointing=on) for on in (False, True))
        found = needed(1, frozen, mixed, networks)
        for rest, one in zip(('', ', activation checkpointing'), found, strict=True):
            figures.append(
                Figure(
                    part,
                    f'{name}, batch 1{rest}',
                    one.total / 1e9,
                    f'{one.total / 1e9:.1f} GB: {cards(one.total)}',
                )
            )
    return figures + beside_a_process(folder)


def beside_a_process(folder: Path) -> list[Figure]:
    """Compare the count for a small network with the growth of a process."""
    driven_episodes(folder, 1)
    found = grown(folder, 'by_windows', 'bfloat16')
    if not found:
        return []
    part, name = 'memory', 'builtin:tiny, bf16, activation checkpointing'
    figures = [
        plain(part, f'{name}: {quantity}', found[key] / 1e6, 'MB', 1)
        for quantity, key in (
            ('counted', 'counted'),
            ('growth of the process', 'held'),
            ('peak growth of the process', 'peak'),
        )
    ]
    return [
        *figures,
        at_most(
            part,
            f'{name}: relative error of the count',
            abs(found['counted'] / found['held'] - 1),
            NEAR,
            digits=3,
        ),
    ]
