"""One driving step at full size: time against a bare forward, and memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_vla_ros.bench.drive.step_bundle import write_policy
from mobile_vla_ros.bench.process import peak_bytes, resident_bytes
from mobile_vla_ros.bench.table import Figure, at_most, plain
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS

if TYPE_CHECKING:  # they import torch
    from mobile_vla_ros.model.policy_spec import PolicySpec
    from mobile_vla_ros.runtime.vla_policy import VlaPolicy
    from mobile_vla_ros.types import Frame

PART = 'step'
BARE_FACTOR, WINDOW_SHARE, MEMORY_FACTOR, INT8_SHARE = 1.1, 0.25, 1.1, 0.55
TURNS = 5
TEXT = 'go to the left'
CAMERA = (720, 1280, 3)


def measure(folder: Path, device: str = 'cpu', *, quiet: bool = False) -> list[Figure]:
    """
    Write a bundle with random weights, load it as the inference node does, and run steps.

    :param folder: empty, with 4 GB free; keeps weights and bundle.
    :param device: times and memory are those of its GPU, or CPU time and those of the process.
    :param quiet: print no progress.
    :raises UserError: if a child process fails.
    """

    def log(text: str):
        if not quiet:
            print(f'{PART}: {text}', file=sys.stderr, flush=True)

    from mobile_vla_ros.model.device import pick_device

    device = str(pick_device(device))
    log('writing the weights')
    child(__name__, 'bundle', folder)
    log(f'timing {TURNS} steps and the forwards to compare with')
    found = child(__name__, 'step', folder, device)
    log('the same steps in int8')
    int8 = child(__name__, 'step', folder, device, 'int8')
    unit = 'CPU time' if device == 'cpu' else f'time on {device}'
    bare, plain_window, own_window, step = (
        found[name] for name in ('bare_s', 'plain_window_s', 'own_window_s', 'step_s')
    )
    weights, held = found['weights'], found['held']
    return [
        plain(PART, 'the weights, backbone in bfloat16, adapters merged', weights / 1e9, 'GB'),
        plain(PART, 'torch threads, as torch_threads of the node', found['threads']),
        plain(PART, f'bare forward of the backbone, one frame, {unit}', bare, 's'),
        plain(PART, f'driving step, one new frame, {unit}', step, 's'),
        at_most(PART, 'step against the bare forward', step / bare, BARE_FACTOR, 'times'),
        plain(
            PART,
            f'bare forward of the window of {found["frames"]} in one batch, {unit}',
            plain_window,
            's',
        ),
        at_most(
            PART,
            'step against that forward of the window',
            step / plain_window,
            WINDOW_SHARE,
            digits=3,
        ),
        plain(
            PART,
            "step against the policy's own encoding of the whole window",
            step / own_window,
            digits=3,
        ),
        at_most(
            PART,
            'memory after load and a step, against the weights',
            held / weights,
            MEMORY_FACTOR,
            'times',
        ),
        plain(PART, 'memory beyond an interpreter with torch', held / 1e9, 'GB'),
        at_most(
            PART,
            'peak memory while loading, against the weights',
            found['peak'] / weights,
            MEMORY_FACTOR,
            'times',
        ),
        at_most(PART, 'int8: weights, against bfloat16', int8['weights'] / weights, INT8_SHARE),
        at_most(PART, 'int8: memory after a step, the same', int8['held'] / held, INT8_SHARE),
        plain(PART, 'int8: peak memory while loading', int8['peak'] / 1e9, 'GB'),
        plain(PART, 'int8: step against bfloat16', int8['step_s'] / step, 'times'),
    ]


def child(module: str, task: str, folder: Path, *arguments: str) -> dict:
    """Run a task of a module (`run_child`) in a process of its own; return what it found."""
    done = subprocess.run(
        [sys.executable, '-m', module, task, str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError('the benchmark stopped', got=done.stderr.strip()[-2000:])
    found: dict = json.loads(done.stdout.splitlines()[-1])
    return found


def run_child(tasks: Mapping[str, Callable[..., dict]]) -> None:
    """Run the task that the command line names, and print what it found."""
    os.environ.setdefault('HF_HUB_OFFLINE', '1')
    try:
        task, folder, *rest = sys.argv[1:]
        print(json.dumps(tasks[task](Path(folder), *rest)))
    except UserError as error:
        sys.exit(str(error))


def _threads() -> int:
    """Return the default number of torch threads of the inference node."""
    import yaml

    from mobile_vla_ros.bringup.share import config_file

    values = yaml.safe_load(config_file('drive.yaml').read_text())
    return values['/**']['ros__parameters']['torch_threads']


def frames(spec: 'PolicySpec') -> 'list[Frame]':
    """Return a window of random frames and one more."""
    import numpy as np

    from mobile_vla_ros.types import Frame

    rng, period_ns = np.random.default_rng(0), round(NANOSECONDS / spec.rate_hz)
    return [
        Frame(rng.integers(0, 256, CAMERA, dtype=np.uint8), row * period_ns, row * period_ns)
        for row in range(spec.window + 1)
    ]


def load(folder: Path, device: str, precision: str = 'bf16') -> 'VlaPolicy':
    """Load the policy as the inference node does."""
    import torch

    torch.set_num_threads(_threads())
    from mobile_vla_ros.runtime.loading import PolicySettings, load_policy
    from mobile_vla_ros.runtime.vla_policy import VlaPolicy

    name = 'policy_int8' if precision == 'int8' else 'policy'
    settings = PolicySettings(device=device, precision=precision)
    policy = load_policy(str(folder / name), settings).policy
    assert isinstance(policy, VlaPolicy), 'a bundle, not a built-in policy'
    return policy


def _step(folder: Path, device: str = 'cpu', precision: str = 'bf16') -> dict:
    """Step, and, unless in int8, alternate with the forwards to compare with."""
    import torch

    before = resident_bytes()
    policy = load(folder, device, precision)
    gpu = policy.device if device != 'cpu' else None
    peak = torch.cuda.max_memory_allocated(gpu) if gpu else peak_bytes() - before
    window, shots = policy.spec.window, frames(policy.spec)
    policy.infer(shots[:window], TEXT)  # warm-up: lazy allocations
    policy.infer(shots[1:], TEXT)
    found = {
        'weights': policy.weight_bytes,
        'threads': _threads(),
        'frames': window,
        'peak': peak,
        'held': torch.cuda.memory_allocated(gpu) if gpu else resident_bytes() - before,
    }

    def own_window():
        policy.reset()
        policy.infer(shots[:window], TEXT)

    # The step comes last: it needs the features of the window just encoded.
    variants = {'own_window_s': own_window, 'step_s': lambda: policy.infer(shots[1:], TEXT)}
    if precision == 'bf16':
        images = [frame.image for frame in shots[:window]]
        bare = _bare(folder, policy.spec, images, policy.device)
        bare(1)
        plain = {'bare_s': lambda: bare(1), 'plain_window_s': lambda: bare(window)}
        variants = {**plain, **variants}
    times: dict[str, list[float]] = {name: [] for name in variants}

    def clock() -> float:
        if not gpu:
            return time.process_time()  # other processes do not count
        torch.cuda.synchronize(gpu)
        return time.perf_counter()

    for _ in range(TURNS):
        for name, work in variants.items():
            started = clock()
            work()
            times[name].append(clock() - started)
    return found | {name: min(seconds) for name, seconds in times.items()}


def _bare(folder: Path, spec, images: list, device):
    """
    Load the backbone with transformers alone.

    :param images: (H, W, 3) uint8 each.
    :returns: a function that runs its forward on the first ``count`` images in one batch, with
        the policy's number of tokens a frame.
    """
    import torch

    from mobile_vla_ros.data.preprocess import preprocess
    from mobile_vla_ros.model.backbone import load_backbone, tokenize

    backbone = load_backbone(str(folder / 'backbone'), offline=True, dtype=torch.bfloat16)
    model = backbone.model.to(device)
    pixels = torch.stack([preprocess(image, spec.image) for image in images]).to(
        device, model.dtype
    )
    bos, images_end = model.config.text_config.bos_token_id, 1 + model.config.latent_query_num
    ids = torch.nn.functional.pad(
        tokenize(backbone.tokenizer, [spec.prompt(TEXT)])[0], (images_end, 1), value=bos
    ).to(device)
    places = torch.zeros_like(ids)
    places[:, 1:images_end] = 1

    @torch.no_grad()
    def forward(count: int):
        model(
            pixel_values=pixels[:count],
            input_ids=ids.expand(count, -1),
            image_embeds_position_mask=places.expand(count, -1),
        )

    return forward


if __name__ == '__main__':
    run_child({'bundle': write_policy, 'step': _step})
