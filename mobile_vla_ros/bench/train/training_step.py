"""
The loss of a training step, computed in the two ways that the benchmark compares.

Run as a process, it does one step and prints by how much the process has grown.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from mobile_vla_ros.bench.process import peak_bytes, reset_peak, resident_bytes
from mobile_vla_ros.bench.train.episodes import network_and_batches
from mobile_vla_ros.bench.train.step_memory import saved_bytes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.metrics import motion_loss
from mobile_vla_ros.model.network import VlaNetwork

WINDOW = 4
# Return freed memory to the system at once, so that the resident size is meaningful.
EXACT = {
    'MALLOC_MMAP_THRESHOLD_': '65536',
    'MALLOC_TRIM_THRESHOLD_': '65536',
    'MALLOC_ARENA_MAX': '1',
}


def once(network: VlaNetwork, batch: Mapping) -> torch.Tensor:
    """Return the loss as in training: each frame of the pieces encoded once."""
    motion, _ = network(
        batch['frames'],
        batch['text_ids'],
        batch['text_lengths'],
        batch['frame_counts'],
        batch['windows'],
    )
    return motion_loss(motion, batch['actions'], batch['real'])


def by_windows(network: VlaNetwork, batch: Mapping) -> torch.Tensor:
    """Return the same loss with the frames encoded anew for each window."""
    windows = batch['windows']
    counts = torch.tensor(batch['frame_counts'])
    owners = torch.repeat_interleave(counts)[windows[:, 0]]
    motion, _ = network(
        batch['frames'][windows.flatten()],
        batch['text_ids'][owners],
        batch['text_lengths'][owners],
        [windows.shape[1]] * len(windows),
        torch.arange(windows.numel()).view(windows.shape),
    )
    return motion_loss(motion, batch['actions'], batch['real'])


def grown(folder: Path, way: str, recipe: str = 'float32') -> dict | None:
    """
    Run a step on the first episode of a folder in a new process.

    :param way: ``once`` or ``by_windows``.
    :param recipe: ``float32``, or ``bfloat16`` with mixed precision and activation checkpointing.
    :returns: bytes: ``counted`` as saved for the backward pass, ``held`` by which the process grew
        after the forward pass, ``peak`` by which it grew at most; None if the system reports none.
    :raises UserError: if the process fails.
    """
    done = subprocess.run(
        [sys.executable, '-m', __name__, str(folder), way, recipe],
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, **EXACT},
    )
    if done.returncode:
        raise UserError('the benchmark stopped', got=done.stderr.strip()[-500:])
    return json.loads(done.stdout.splitlines()[-1])


def _step(folder: Path, way: str, recipe: str) -> dict | None:
    mixed, loss_of = recipe != 'float32', {'once': once, 'by_windows': by_windows}[way]
    network, (batch, *_), *_ = network_and_batches(folder, frozen=recipe, checkpointing=mixed)
    known = [*network.parameters(), *network.buffers(), batch['frames']]

    def forward():
        with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
            return loss_of(network, batch)

    forward().backward()  # warm-up: lazy allocations and gradients
    counted = saved_bytes(forward, known)
    gc.collect()
    try:
        reset_peak()
        before = resident_bytes()
        loss = forward()
        held = resident_bytes() - before
        loss.backward()
        return {'counted': counted, 'held': held, 'peak': peak_bytes() - before}
    except OSError:
        return None


if __name__ == '__main__':
    print(json.dumps(_step(Path(sys.argv[1]), *sys.argv[2:])))
