"""Encoding each frame once a pass, against window by window: the same loss for less work."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from mobile_vla_ros.bench.table import Figure, at_least, at_most, plain
from mobile_vla_ros.bench.train.episodes import driven_episodes, network_and_batches
from mobile_vla_ros.bench.train.step_memory import saved_bytes
from mobile_vla_ros.bench.train.training_step import WINDOW, by_windows, grown, once
from mobile_vla_ros.model.network import VlaNetwork

FEWER, EQUAL = 3.0, 1e-5


@dataclass(frozen=True)
class Difference:
    """Largest relative differences: of the loss, and of any trained tensor's gradient (norms)."""

    loss: float
    gradient: float
    tensor: str


def difference(network: VlaNetwork, batch: dict) -> Difference:
    """Compare the two ways on one batch; clear the gradients afterwards."""
    found = []
    for way in (once, by_windows):
        network.zero_grad()
        loss = way(network, batch)
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
    (loss, gradients), (other_loss, other) = found
    apart = {name: _apart(gradients[name], other[name]) for name in other}
    worst = max(apart, key=lambda name: apart[name])
    if gradients.keys() != other.keys():
        raise AssertionError(
            f'the two ways train different tensors: {gradients.keys() ^ other.keys()}'
        )
    return Difference(abs(loss - other_loss) / abs(other_loss), apart[worst], worst)


def exactly(network: VlaNetwork, batch: dict) -> Difference:
    """Compare the two ways in float64, without rounding noise; the network stays in float64."""
    batch = {**batch, 'frames': batch['frames'].double(), 'actions': batch['actions'].double()}
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # Kosmos-2 builds its causal mask in the default dtype
    try:
        return difference(network.double(), batch)
    finally:
        torch.set_default_dtype(usual)


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    norm = float(other.norm())
    distance = float((one - other).norm())
    return distance / norm if norm else (0.0 if not distance else float('inf'))


@contextlib.contextmanager
def counted(network: VlaNetwork) -> Iterator[list[int]]:
    """Yield a list to which each pass through the vision tower appends its number of images."""
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
    """Compute the gradients of the same episodes both ways, alternately, without updates."""
    from tqdm import tqdm

    driven_episodes(folder, episodes)
    network, batches, *_ = network_and_batches(folder, window=WINDOW)
    ways, part = {'each frame once': once, 'window by window': by_windows}, 'encodes'
    seconds: dict[str, list[float]] = {}
    images: dict[str, int] = {}
    for name, way in ways.items():  # a warm-up pass
        with counted(network) as seen:
            for batch in batches:
                way(network, batch).backward()
        images[name], seconds[name] = sum(seen), []
    for _ in tqdm(range(turns), desc=part, unit='turn', disable=quiet, leave=False):
        for name, way in ways.items():
            started = time.perf_counter()
            for batch in batches:
                way(network, batch).backward()
            seconds[name].append(time.perf_counter() - started)
    memory = {name: grown(folder, way.__name__) for name, way in ways.items()}
    alone = saved_bytes(
        lambda: network(
            batches[0]['frames'][:WINDOW],
            batches[0]['text_ids'],
            batches[0]['text_lengths'],
            [WINDOW],
            torch.arange(WINDOW)[None],
        ),
        [*network.parameters(), *network.buffers()],
    )
    single = difference(network, batches[0])
    exact = exactly(network, batches[0])
    each_once, windowed = ways
    best = {name: min(times) for name, times in seconds.items()}
    figures = [plain(part, f'frames encoded, {name}', images[name]) for name in ways]
    figures.append(
        at_least(
            part, 'fewer frames encoded', images[windowed] / images[each_once], FEWER, 'times'
        )
    )
    figures += [
        at_most(part, f'{name}, largest relative difference ({kind})', value, EQUAL, digits=None)
        for kind, found in (('float32', single), ('float64', exact))
        for name, value in (('loss', found.loss), ('gradients', found.gradient))
    ]
    figures += [
        plain(part, f'a pass over {len(batches)} episodes, {name}', best[name], 's')
        for name in ways
    ]
    figures.append(
        plain(
            part, 'time, window by window against once', best[windowed] / best[each_once], 'times'
        )
    )
    for quantity, key in (
        ('saved for the backward pass', 'counted'),
        ('process growth after the forward pass', 'held'),
        ('peak growth of the process', 'peak'),
    ):
        figures += [
            plain(part, f'{quantity}, {name}', found[key] / 1e6, 'MB', 1)
            for name, found in memory.items()
            if found
        ]
    figures.append(
        plain(part, 'saved for the backward pass, a window at a time', alone / 1e6, 'MB', 1)
    )
    return figures
