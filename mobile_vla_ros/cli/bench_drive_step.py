"""One step of driving at full size: what it costs beside a bare forward, and what it holds."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from mobile_vla_ros.cli.bench_drive_step_bundle import write_policy
from mobile_vla_ros.cli.bench_table import Figure, at_most, plain
from mobile_vla_ros.cli.bench_train_process import status_bytes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS

PART = 'step'
BARE_FACTOR, WINDOW_SHARE, MEMORY_FACTOR = 1.1, 0.25, 1.1
TURNS = 5
TEXT = 'go to the left'
CAMERA = (720, 1280, 3)


def measure(folder: Path, *, quiet: bool = False) -> list[Figure]:
    """
    Write random weights and a bundle on them, load it as the inference node does, and step.

    :param folder: empty, with room for 4 GB; what is made stays in it.
    :param quiet: say nothing on the way.
    :raises UserError: when a process ends before its time.
    """
    def say(text: str):
        if not quiet:
            print(f'{PART}: {text}', file=sys.stderr, flush=True)
    say('writing the weights')
    _child('bundle', folder)
    say(f'{TURNS} turns of a bare forward, a step and a window')
    found = _child('step', folder)
    bare, step, window = (found[name] for name in ('bare_s', 'step_s', 'window_s'))
    weights = found['weights']
    held, peak = (found[name] - found['torch'] for name in ('held', 'peak'))
    return [
        plain(PART, 'the weights, backbone in bfloat16, adapters merged', weights / 1e9, 'GB'),
        plain(PART, 'cores that torch used, as torch_threads of the node', found['threads']),
        plain(PART, 'a bare forward of the backbone, one frame, of the processor', bare, 's'),
        plain(PART, 'a step of driving, one new frame, of the processor', step, 's'),
        at_most(PART, 'a step against the bare forward', step / bare, BARE_FACTOR, 'times'),
        plain(PART, f'encoding the window of {found["frames"]} anew, in one batch', window, 's'),
        at_most(PART, 'a step against the window', step / window, WINDOW_SHARE, digits=3),
        at_most(PART, 'held after load and a step, beside the weights', held / weights,
                MEMORY_FACTOR, 'times'),
        plain(PART, 'held, in all but an interpreter with torch', held / 1e9, 'GB'),
        plain(PART, 'at its highest while loading, beside the weights', peak / weights, 'times'),
        plain(PART, 'loaded, backbone checked and adapters merged, in', found['load_s'], 's', 1)]


def _child(what: str, folder: Path) -> dict:
    done = subprocess.run([sys.executable, '-m', __name__, what, str(folder)],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError('the benchmark stopped', got=done.stderr.strip()[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def _threads() -> int:
    """Return how many cores torch has in the inference node unless it is told otherwise."""
    import yaml

    from mobile_vla_ros.bringup.share import config_file
    values = yaml.safe_load(config_file('drive.yaml').read_text())
    return values['/**']['ros__parameters']['torch_threads']


def _step(folder: Path) -> dict:
    """Load and step as the inference node does, by turns with what it is held against."""
    import torch
    found = {'torch': status_bytes('VmRSS:'), 'threads': _threads()}
    torch.set_num_threads(found['threads'])
    import numpy as np

    from mobile_vla_ros.runtime.policy import VlaPolicy
    from mobile_vla_ros.types import Frame
    started = time.perf_counter()
    policy = VlaPolicy.load(folder / 'policy', dtype=torch.bfloat16)
    found |= {'load_s': time.perf_counter() - started, 'peak': status_bytes('VmHWM:')}
    rng = np.random.default_rng(0)
    window, period_ns = policy.spec.window, round(NANOSECONDS / policy.spec.rate_hz)
    shots = [Frame(rng.integers(0, 256, CAMERA, dtype=np.uint8), row * period_ns, row * period_ns)
             for row in range(window + 1)]
    policy.infer(shots[:window], TEXT)  # what is made at the first call only
    policy.infer(shots[1:], TEXT)
    found |= {'held': status_bytes('VmRSS:'), 'frames': window,
              'weights': sum(value.nbytes for value in policy.network.state_dict().values())}
    bare = _bare(policy, shots[-1])
    times: dict[str, list[float]] = {'bare_s': [], 'window_s': [], 'step_s': []}

    def anew():
        policy.reset()
        policy.infer(shots[:window], TEXT)
    bare()
    for _ in range(TURNS):
        # The step last: it needs the features of the window that was just encoded.
        for name, work in (('bare_s', bare), ('window_s', anew),
                           ('step_s', lambda: policy.infer(shots[1:], TEXT))):
            # Of the processor: what else runs on this machine does not count.
            started = time.process_time()
            work()
            times[name].append(time.process_time() - started)
    return found | {name: min(taken) for name, taken in times.items()}


def _bare(policy, shot):
    """Return a forward of the plain backbone over as many tokens as a frame has."""
    import torch

    from mobile_vla_ros.data.preprocess import preprocess
    network = policy.network
    model = network.kosmos
    pixels = preprocess(shot.image, policy.spec.image)[None].to(model.dtype)
    text = policy._tokens[0]
    ids = torch.cat([torch.full((1, 1 + model.config.latent_query_num), network.bos_token_id),
                     text, torch.full((1, 1), network.bos_token_id)], dim=1)
    places = torch.zeros_like(ids)
    places[:, 1:1 + model.config.latent_query_num] = 1

    @torch.no_grad()
    def forward():
        model(pixel_values=pixels, input_ids=ids, image_embeds_position_mask=places)
    return forward


if __name__ == '__main__':
    os.environ.setdefault('HF_HUB_OFFLINE', '1')
    try:
        print(json.dumps({'bundle': write_policy, 'step': _step}[sys.argv[1]](
            Path(sys.argv[2]))))
    except UserError as error:
        sys.exit(str(error))
