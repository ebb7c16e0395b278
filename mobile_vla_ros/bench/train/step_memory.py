"""Compute the memory of a training step from the tensors that autograd keeps."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mobile_vla_ros.model.network import VlaNetwork

ADAM_BYTES = 8  # two float32 moments of each trainable parameter


@dataclass(frozen=True)
class Memory:
    """
    Peak memory of one optimisation step, in bytes.

    :param weights: all weights, frozen and trainable.
    :param gradients: gradients of the trainable weights.
    :param optimizer: moments of AdamW.
    :param activations: tensors that the forward pass keeps for the backward pass.
    :param recomputed: tensors of one layer while it is recomputed (activation checkpointing).
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    recomputed: int = 0

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.recomputed


class _Kept:
    """Distinct storages that autograd keeps, besides parameters and buffers."""

    def __init__(self, known: Iterable[torch.Tensor]):
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self.sizes: dict[int, int] = {}

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self.sizes[storage._cdata] = storage.nbytes()
        return tensor

    @property
    def total(self) -> int:
        return sum(self.sizes.values())


def saved_bytes(forward: Callable[[], object], known: Iterable[torch.Tensor] = ()) -> int:
    """
    Return the bytes that a forward pass keeps for the backward pass, each storage counted once.

    :param forward: returns its output, which keeps the tensors alive.
    :param known: tensors not to count: parameters, buffers, inputs.
    """
    kept = _Kept(known)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        output = forward()
    total = kept.total
    del output
    return total


def standing(network: nn.Module) -> tuple[int, int, int]:
    """Return the bytes of a network's weights, gradients and AdamW moments."""
    trained = [p for p in network.parameters() if p.requires_grad]
    return (
        sum(p.numel() * p.element_size() for p in network.parameters()),
        sum(p.numel() * p.element_size() for p in trained),
        sum(p.numel() for p in trained) * ADAM_BYTES,
    )


def count(
    network: VlaNetwork,
    pieces: int,
    *,
    frames: int,
    window: int,
    text: int,
    side: int,
    dtype: torch.dtype | None,
) -> tuple[Memory, int]:
    """
    Compute the memory of a training step from shapes alone, without running it.

    The operators are those of a CPU under autocast.

    :param network: with its parameters on the meta device; left unchanged.
    :param pieces: batch size; each piece has ``frames`` frames of ``side`` pixels and ``text``
        tokens.
    :param dtype: dtype of the mixed precision; None: no mixed precision.
    :returns: the memory, and the bytes of the tower layer that keeps most, which activation
        checkpointing holds while it recomputes that layer (0 if it is on).
    """
    layers = [
        layer for stack in network.modules() if isinstance(stack, nn.ModuleList) for layer in stack
    ]
    with FakeTensorMode(), _filled(network):
        known = [*network.parameters(), *network.buffers()]
        kept, largest = _Kept(known), [0]
        hooks = [hook for layer in layers for hook in _watch(layer, kept, largest)]
        number = pieces * frames
        with (
            torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor),
            torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            features = network.encode(
                torch.empty(number, 3, side, side),
                torch.zeros(number, text, dtype=torch.long),
                torch.full((number,), text),
            )
            count = pieces * (frames - window + 1)
            output = network.act(features, torch.zeros(count, window, dtype=torch.long))
        for hook in hooks:
            hook.remove()
        del output
        return Memory(*standing(network), kept.total), largest[0]


def _watch(layer: nn.Module, kept: _Kept, largest: list[int]) -> tuple[Any, Any]:
    """Raise ``largest[0]`` to the bytes that a layer keeps; return the handles of the hooks."""
    before: list[int] = []
    return (
        layer.register_forward_pre_hook(lambda *_: before.append(kept.total)),
        layer.register_forward_hook(
            lambda *_: largest.append(max(largest.pop(), kept.total - before.pop()))
        ),
    )


@contextlib.contextmanager
def _filled(network: nn.Module) -> Iterator[None]:
    """Give a network on the meta device CPU tensors, which autocast needs; then undo it."""
    places = [
        (module, store, name)
        for module in network.modules()
        for store in (module._parameters, module._buffers)
        for name in store
        if store[name] is not None
    ]
    before = [store[name] for _, store, name in places]
    for _, store, name in places:
        old = store[name]
        new = torch.empty(old.shape, dtype=old.dtype)
        store[name] = (
            nn.Parameter(new, requires_grad=old.requires_grad)
            if isinstance(old, nn.Parameter)
            else new
        )
    _rebind(network)
    try:
        yield
    finally:
        for (_, store, name), old in zip(places, before, strict=True):
            store[name] = old
        _rebind(network)


def _rebind(network: nn.Module) -> None:
    """Refresh the flat weights of LSTMs, which they keep besides their parameters."""
    for module in network.modules():
        if isinstance(module, nn.LSTM):
            module._init_flat_weights()
