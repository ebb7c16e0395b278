"""Train the full-size architecture, randomly initialised, on a segment in its own process."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from mobile_vla_ros.bench.process import peak_bytes, reset_peak, resident_bytes
from mobile_vla_ros.bench.table import Figure, at_most, plain
from mobile_vla_ros.bench.train.episodes import PERIOD_NS, driven_episodes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.builtin import bundle_folder

PEAK_GB, BUNDLE_MB = 10.0, 250.0
RECIPE = 'train_seed.yaml'
VAL_FRAMES = 4  # one window: validation is not measured
# Parameters of the reference run, in millions.
REFERENCE_COUNTS = {'lora': 43.09, 'head': 13.93, 'trainable': 57.0}


def measure(folder: Path, device: str = 'cpu') -> list[Figure]:
    """
    Write the weights, train one epoch on one segment, load the bundle for driving.

    :param folder: empty, with 4 GB free; keeps weights, episodes and the training run.
    :param device: the promise on peak memory is that of a CPU.
    :raises UserError: if a child process fails.
    """
    from mobile_vla_ros.bench.random_weights import write_random
    from mobile_vla_ros.model.device import pick_device

    part, device = 'full', str(pick_device(device))
    started = time.perf_counter()
    write_random(folder / 'backbone', ['go', 'to', 'the', 'left', 'right'])
    figures = [
        plain(part, 'weights written', _size(folder / 'backbone') / 1e9, 'GB'),
        plain(part, 'time to write the weights', time.perf_counter() - started, 's', 0),
    ]
    (long,) = driven_episodes(folder / 'takes', 1)
    (short,) = driven_episodes(folder / 'takes', 1, frames=VAL_FRAMES, first=1)
    trained = _child('train', folder, long.stem, short.stem, device)
    driven = _child('load', folder)
    bundle = bundle_folder(folder / 'run' / 'best').resolve()
    figures += [
        plain(
            part,
            f'trained parameters, {name} (reference run: {millions} M)',
            trained['counts'][name] / 1e6,
            'M',
        )
        for name, millions in REFERENCE_COUNTS.items()
    ]
    if device != 'cpu':
        figures.append(plain(part, f'peak memory of {device}', trained['gpu_gb'], 'GB'))
    figures += [
        at_most(part, 'peak memory of training', trained['peak_gb'], PEAK_GB, 'GB'),
        plain(part, 'peak memory of loading the backbone', trained['loading_gb'], 'GB'),
        # Weights are paged in when first used, and the count includes all of them.
        plain(part, 'growth from the first step to the saved bundle', trained['grown_gb'], 'GB'),
        plain(part, 'counted for a step, weights included', trained['counted_gb'], 'GB'),
        plain(part, 'forward and backward, a frame', trained['seconds'] / trained['frames'], 's'),
        plain(
            part, 'share of the time spent waiting for data', trained['waiting_share'], digits=4
        ),
        at_most(part, 'size of the bundle', _size(bundle) / 1e6, BUNDLE_MB, 'MB', 1),
        plain(part, 'time to load the bundle and merge its adapters', driven['seconds'], 's', 1),
        plain(part, 'peak memory of loading the bundle', driven['peak_gb'], 'GB'),
        plain(part, 'time to its first plan', driven['plan_s'], 's', 1),
    ]
    return figures


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())


def _child(task: str, folder: Path, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, '-m', __name__, task, str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError('the benchmark stopped', got=done.stderr.strip()[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def _train(folder: Path, long: str, short: str, device: str) -> dict:
    """Train on the long episode and validate on the short one, with the reference run's recipe."""
    import torch

    from mobile_vla_ros.bringup.share import config_file
    from mobile_vla_ros.data.segments import Sampling, load_segments
    from mobile_vla_ros.data.split import split_episodes
    from mobile_vla_ros.episode.storage.reader import find_episodes
    from mobile_vla_ros.training.config import configs_of
    from mobile_vla_ros.training.flags import read_config
    from mobile_vla_ros.training.loop import train

    segments, _ = load_segments(
        find_episodes(folder / 'takes'), Sampling(), ['good', 'poor', 'bad']
    )
    by_name = {one.path.stem: (one.episode_id, one.instruction) for one in segments}
    instructions = dict(by_name.values())
    seed = next(
        seed
        for seed in range(1000)
        if split_episodes(instructions, 0.5, seed)[1] == [by_name[short][0]]
    )
    values = {
        **read_config(config_file(RECIPE)),
        'backbone': str(folder / 'backbone'),
        'backbone_dtype': 'bfloat16',
        'activation_checkpointing': True,
        'precision': 'bf16',
        'data': str(folder / 'takes'),
        'out': str(folder / 'run'),
        'device': device,
        'epochs': 1,
        'val_share': 0.5,
        'split_seed': seed,
        'accept_verdicts': ['good', 'poor', 'bad'],
    }
    configs = configs_of(values)
    loading: dict[str, float] = {}

    def log(text: str):
        print(text, file=sys.stderr, flush=True)

    def loaded():
        loading.update(loading_gb=peak_bytes() / 1e9, before_gb=resident_bytes() / 1e9)
        reset_peak()

    train(*configs, log=log, loaded=loaded)
    (row,) = json.loads((folder / 'run' / 'history.json').read_text())
    peak_gb = peak_bytes() / 1e9
    return {
        'peak_gb': max(peak_gb, loading['loading_gb']),
        'gpu_gb': 0.0 if device == 'cpu' else torch.cuda.max_memory_allocated(device) / 1e9,
        'grown_gb': peak_gb - loading['before_gb'],
        **loading,
        'frames': row['frames_encoded'],
        'seconds': row['seconds'],
        'waiting_share': row['waiting_share'],
        **_counted(),
    }


def _counted() -> dict:
    """Return the counted memory of the same step, and the parameter counts."""
    import torch

    from mobile_vla_ros.bench.train.memory import full_size, needed

    networks = tuple(full_size(torch.bfloat16, checkpointing=on) for on in (False, True))
    _, memory = needed(1, torch.bfloat16, torch.bfloat16, networks)
    return {'counted_gb': memory.total / 1e9, 'counts': networks[0].parameter_counts()}


def _load(folder: Path) -> dict:
    """Load the bundle as the inference node does, in bfloat16, and infer once."""
    import numpy as np
    import torch

    from mobile_vla_ros.runtime.vla_policy import VlaPolicy
    from mobile_vla_ros.types import Frame

    started = time.perf_counter()
    policy = VlaPolicy.load(folder / 'run' / 'best', dtype=torch.bfloat16)
    seconds = time.perf_counter() - started
    frames = [
        Frame(np.full((240, 320, 3), 40 * row, np.uint8), row * PERIOD_NS, row * PERIOD_NS)
        for row in range(policy.spec.window)
    ]
    started = time.perf_counter()
    plan = policy.infer(frames, 'go to the left')
    if not np.isfinite(plan.twists).all():
        raise UserError('the policy returned NaN or inf', got=plan.twists)
    return {
        'seconds': seconds,
        'plan_s': time.perf_counter() - started,
        'peak_gb': peak_bytes() / 1e9,
    }


if __name__ == '__main__':
    os.environ.setdefault('HF_HUB_OFFLINE', '1')
    try:
        task, folder, *rest = sys.argv[1:]
        print(json.dumps(_load(Path(folder)) if task == 'load' else _train(Path(folder), *rest)))
    except UserError as error:
        sys.exit(str(error))
