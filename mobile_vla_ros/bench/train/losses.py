"""The loss, computed in the two ways that the benchmark compares."""

from collections.abc import Mapping

import torch

from mobile_vla_ros.evaluation.metrics import motion_loss
from mobile_vla_ros.model.network import VlaNetwork

WINDOW = 4


def once(network: VlaNetwork, batch: Mapping, window: int) -> torch.Tensor:
    """Return the loss as in training: each frame of the pieces encoded once."""
    motion, _ = network(
        batch['frames'], batch['text_ids'], batch['text_lengths'], batch['frame_counts'], window
    )
    return motion_loss(motion, batch['actions'], batch['real'])


def by_windows(network: VlaNetwork, batch: Mapping, window: int) -> torch.Tensor:
    """Return the same loss with the frames encoded anew for each window."""
    rows: list[int] = []
    owners: list[int] = []
    first = 0
    for piece, count in enumerate(batch['frame_counts']):
        for start in range(first, first + count - window + 1):
            rows += range(start, start + window)
            owners.append(piece)
        first += count
    motion, _ = network(
        batch['frames'][rows],
        batch['text_ids'][owners],
        batch['text_lengths'][owners],
        [window] * len(owners),
        window,
    )
    return motion_loss(motion, batch['actions'], batch['real'])
