"""A process of its own that takes one step, and says by how much it grew."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

from mobile_vla_ros.bench.process import peak_bytes, reset_peak, resident_bytes
from mobile_vla_ros.errors import UserError

# Memory that is given back goes back to the system at once, so that its size means something.
EXACT = {
    'MALLOC_MMAP_THRESHOLD_': '65536',
    'MALLOC_TRIM_THRESHOLD_': '65536',
    'MALLOC_ARENA_MAX': '1',
}


def grown(folder: Path, way: str, recipe: str = 'float32') -> dict | None:
    """
    Take a step on the first of some episodes in a new process.

    :param way: ``once`` or ``by_windows``.
    :param recipe: ``float32``, or ``bfloat16``: with mixed precision and activation checkpointing.
    :returns: bytes: ``counted`` as kept for the way back, ``held`` by which the process grew while
        it kept them, ``peak`` by which it grew at its highest; None where the system does not say.
    :raises UserError: when the process ends before its time.
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

    forward().backward()  # what is made at the first call only, gradients among it
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
