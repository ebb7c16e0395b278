"""Each frame encoded once a pass, beside training window by window: the same numbers for less."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from mobile_vla_ros.bench.table import Figure, at_least, at_most, plain
from mobile_vla_ros.bench.train.child_process import grown
from mobile_vla_ros.bench.train.episodes import driven_episodes, network_and_batches
from mobile_vla_ros.bench.train.losses import WINDOW, by_windows, once
from mobile_vla_ros.model.network import VlaNetwork
from mobile_vla_ros.training.memory import saved_bytes

FEWER, EQUAL = 3.0, 1e-5


@dataclass(frozen=True)
class Difference:
    """Largest relative differences: of the loss, and of any trained tensor's gradient (norms)."""

    loss: float
    gradient: float
    tensor: str


def difference(network: VlaNetwork, batch: dict, window: int) -> Difference:
    """Compare the two ways on one batch; the gradients are cleared afterwards."""
    found = []
    for way in (once, by_windows):
        network.zero_grad()
        loss = way(network, batch, window)
        loss.backward()
        found.append(
            (
                loss.item(),
                {
                    name: p.grad.clone()
                    for name, p in network.named_parameters()
                    if p.grad is not None
                },
            )
        )
    network.zero_grad()
    (loss, ours), (other, theirs) = found
    apart = {name: _apart(ours[name], theirs[name]) for name in theirs}
    worst = max(apart, key=lambda name: apart[name])
    if ours.keys() != theirs.keys():
        raise AssertionError(f'other tensors are trained: {ours.keys() ^ theirs.keys()}')
    return Difference(abs(loss - other) / abs(other), apart[worst], worst)


def exactly(network: VlaNetwork, batch: dict, window: int) -> Difference:
    """Compare the two ways in float64, where rounding hides nothing; the network stays in it."""
    batch = {**batch, 'frames': batch['frames'].double(), 'actions': batch['actions'].double()}
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # Kosmos-2 makes its causal mask in the default one
    try:
        return difference(network.double(), batch, window)
    finally:
        torch.set_default_dtype(usual)


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    norm = float(other.norm())
    distance = float((one - other).norm())
    return distance / norm if norm else (0.0 if not distance else float('inf'))


@contextlib.contextmanager
def counted(network: VlaNetwork) -> Iterator[list[int]]:
    """Give a list to which every pass through the vision tower adds its number of images."""
    images: list[int] = []
    hook = network.kosmos.vision_model.register_forward_pre_hook(
        lambda _, args, kwargs: images.append(
            len(kwargs.get('pixel_values', args[:1] and args[0]))
        ),
        with_kwargs=True,
    )
    try:
        yield images
    finally:
        hook.remove()


def measure(folder: Path, episodes: int, turns: int, *, quiet: bool = False) -> list[Figure]:
    """Train the same episodes both ways, by turns; nothing is changed by a step between."""
    from tqdm import tqdm

    driven_episodes(folder, episodes)
    network, batches, *_ = network_and_batches(folder, window=WINDOW)
    ways, part = {'each frame once': once, 'window by window': by_windows}, 'encodes'
    seconds: dict[str, list[float]] = {}
    images: dict[str, int] = {}
    for name, way in ways.items():  # a first pass finds cold memory
        with counted(network) as seen:
            for batch in batches:
                way(network, batch, WINDOW).backward()
        images[name], seconds[name] = sum(seen), []
    for _ in tqdm(range(turns), desc=part, unit='turn', disable=quiet, leave=False):
        for name, way in ways.items():
            started = time.perf_counter()
            for batch in batches:
                way(network, batch, WINDOW).backward()
            seconds[name].append(time.perf_counter() - started)
    memory = {name: grown(folder, way.__name__) for name, way in ways.items()}
    alone = saved_bytes(
        lambda: network(
            batches[0]['frames'][:WINDOW],
            batches[0]['text_ids'],
            batches[0]['text_lengths'],
            [WINDOW],
            WINDOW,
        ),
        [*network.parameters(), *network.buffers()],
    )
    single = difference(network, batches[0], WINDOW)
    exact = exactly(network, batches[0], WINDOW)
    ours, theirs = ways
    best = {name: min(times) for name, times in seconds.items()}
    figures = [plain(part, f'frames encoded, {name}', images[name]) for name in ways]
    figures.append(
        at_least(part, 'fewer frames encoded', images[theirs] / images[ours], FEWER, 'times')
    )
    figures += [
        at_most(part, f'{what}, largest relative difference ({kind})', value, EQUAL, digits=None)
        for kind, found in (('float32', single), ('float64', exact))
        for what, value in (('loss', found.loss), ('gradients', found.gradient))
    ]
    figures += [
        plain(part, f'a pass over {len(batches)} episodes, {name}', best[name], 's')
        for name in ways
    ]
    figures.append(
        plain(part, 'time, window by window against once', best[theirs] / best[ours], 'times')
    )
    for what, key in (
        ('kept for the way back', 'counted'),
        ('process grew meanwhile by', 'held'),
        ('process grew at its highest by', 'peak'),
    ):
        figures += [
            plain(part, f'{what}, {name}', found[key] / 1e6, 'MB', 1)
            for name, found in memory.items()
            if found
        ]
    figures.append(plain(part, 'kept for the way back, a window at a time', alone / 1e6, 'MB', 1))
    return figures
