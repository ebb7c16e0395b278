"""Loading a policy at full size, against reading its file once, both from the disk."""

import cProfile
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from mobile_vla_ros.bench.drive.step import TEXT, child, frames, load, run_child
from mobile_vla_ros.bench.drive.step_bundle import write_policy
from mobile_vla_ros.bench.process import peak_bytes, resident_bytes
from mobile_vla_ros.bench.table import Figure, at_most, plain

PART = 'load'
PEAK_FACTOR = 1.1
# Functions of a load, with what they do.
PHASES = {
    'find_backbone': 'finding the backbone, its hash remembered',
    'read_model': 'reading and converting the weights, merging adapters',
    'check_attention': 'comparing attention',
    'pack': 'packing for the CPU',
    'check_golden': 'golden frames',
}
BLOCK_BYTES = 1 << 24


def measure(folder: Path, device: str = 'cpu', *, quiet: bool = False) -> list[Figure]:
    """
    Time from the start of a process to its first proposal, beside reading the weights' file once.

    Before each, the file is evicted from the page cache, the libraries are not. The hash is
    remembered, as after a first load.

    :param folder: empty, with 10 GB free; keeps weights and bundle.
    :param quiet: print no progress.
    """
    figures = []
    for kind in ('bfloat16', 'float32'):
        if not quiet:
            print(f'{PART}: writing and loading weights in {kind}', file=sys.stderr, flush=True)
        child(__name__, 'write', folder, kind)
        child(__name__, 'load', folder, device)  # remembers the hash
        read_s, size = _cold_read(folder)
        _evict(folder)
        began = time.perf_counter()
        found = child(__name__, 'load', folder, device)
        whole_s = time.perf_counter() - began
        load_s = found['load_s']
        phases = {
            'importing torch, transformers and this package': found['imports_s'],
            'loading the policy': load_s,
            **{f'of which {words}': found['phases'][name] for name, words in PHASES.items()},
            'the first proposal, from a whole window': found['first_s'],
        }
        file = f'{kind} file of {size / 1e9:.1f} GB'
        figures += [
            plain(PART, f'{file}: reading it once', read_s, 's'),
            plain(PART, 'a process until it has proposed and ended', whole_s, 's'),
            *(plain(PART, f'in it: {words}', seconds, 's') for words, seconds in phases.items()),
            plain(PART, 'loading against reading', load_s / read_s, 'times'),
            plain(PART, 'the whole process against reading', whole_s / read_s, 'times'),
            at_most(
                PART,
                'peak memory while loading, against the weights that drive',
                found['peak'] / found['weights'],
                PEAK_FACTOR,
                'times',
            ),
        ]
    return figures


def _files(folder: Path) -> list[Path]:
    return sorted((folder / 'backbone').glob('*.safetensors'))


def _evict(folder: Path) -> None:
    """Drop the weights from the page cache."""
    for path in _files(folder):
        with path.open('rb') as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _cold_read(folder: Path) -> tuple[float, int]:
    """Return how long it takes to read the weights once from the disk, and their bytes."""
    _evict(folder)
    block, size, began = bytearray(BLOCK_BYTES), 0, time.perf_counter()
    for path in _files(folder):
        with path.open('rb', buffering=0) as file:
            while count := file.readinto(block):
                size += count
    return time.perf_counter() - began, size


def _write(folder: Path, kind: str) -> dict:
    """Write the policy in bfloat16, or convert what was written to float32, a file at a time."""
    if kind == 'bfloat16':
        return write_policy(folder)
    from safetensors.torch import load_file, save_file

    from mobile_vla_ros.model.backbone_files import weights_hash
    from mobile_vla_ros.model.bundle import rewrite_spec
    from mobile_vla_ros.model.policy_spec import hashed_id, read_spec

    for path in _files(folder):
        tensors = {name: value.float() for name, value in load_file(path).items()}
        path.unlink()
        save_file(tensors, path, metadata={'format': 'pt'})
    sha = weights_hash(_files(folder))
    spec = read_spec(folder / 'policy')
    backbone = replace(spec.backbone, id=hashed_id(sha), sha256=sha)
    rewrite_spec(folder / 'policy', replace(spec, backbone=backbone))
    return {}


def _load(folder: Path, device: str = 'cpu') -> dict:
    """Load the policy and propose once, as the inference node does after its start."""
    began = time.perf_counter()
    from mobile_vla_ros.runtime.policy import read_ahead

    read_ahead(str(folder / 'policy'))
    import torch

    before = resident_bytes()
    import mobile_vla_ros.runtime.loading  # noqa: F401

    imports_s = time.perf_counter() - began
    profile, began = cProfile.Profile(), time.perf_counter()
    policy = profile.runcall(load, folder, device)
    load_s, began = time.perf_counter() - began, time.perf_counter()
    gpu = policy.device if device != 'cpu' else None
    peak = torch.cuda.max_memory_allocated(gpu) if gpu else peak_bytes() - before
    policy.infer(frames(policy.spec)[: policy.spec.window], TEXT)
    taken = {getattr(one.code, 'co_name', ''): one.totaltime for one in profile.getstats()}
    return {
        'imports_s': imports_s,
        'load_s': load_s,
        'first_s': time.perf_counter() - began,
        'peak': peak,
        'weights': policy.weight_bytes,
        'phases': {name: taken.get(name, 0.0) for name in PHASES},
    }


if __name__ == '__main__':
    run_child({'write': _write, 'load': _load})
