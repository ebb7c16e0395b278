"""Run one training step in its own process, and measure by how much the process grows."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

from mobile_vla_ros.bench.process import peak_bytes, reset_peak, resident_bytes
from mobile_vla_ros.errors import UserError

# Return freed memory to the system at once, so that the resident size is meaningful.
EXACT = {
    'MALLOC_MMAP_THRESHOLD_': '65536',
    'MALLOC_TRIM_THRESHOLD_': '65536',
    'MALLOC_ARENA_MAX': '1',
}


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
    import torch

    from mobile_vla_ros.bench.train import losses
    from mobile_vla_ros.bench.train.episodes import network_and_batches
    from mobile_vla_ros.training.memory import saved_bytes

    mixed = recipe != 'float32'
    network, (batch, *_), *_ = network_and_batches(folder, frozen=recipe, checkpointing=mixed)
    known = [*network.parameters(), *network.buffers(), batch['frames']]

    def forward():
        with torch.autocast('cpu', torch.bfloat16, enabled=mixed):
            return getattr(losses, way)(network, batch, losses.WINDOW)

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
