"""What training needs in memory, counted from the tensors that autograd keeps; nothing guessed."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mobile_vla_ros.model.network import VlaNetwork

ADAM_BYTES = 8  # two float32 moments of each trained number


@dataclass(frozen=True)
class Memory:
    """
    Bytes that one optimisation step needs at its highest.

    :param weights: all of them, frozen and trained.
    :param gradients: of the trained ones.
    :param optimizer: AdamW's moments.
    :param activations: what the forward pass keeps for the way back.
    :param recomputed: what one layer keeps while it is computed again (activation checkpointing).
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    recomputed: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.recomputed


class _Kept:
    """Distinct storages that autograd keeps, parameters and buffers apart."""

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
    Return the bytes that a forward pass keeps for the way back, each storage counted once.

    :param forward: returns its output, which keeps all of it alive.
    :param known: tensors that are there anyway: parameters, buffers, inputs.
    """
    kept = _Kept(known)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        output = forward()
    total = kept.total
    del output
    return total


def standing(network: nn.Module) -> tuple[int, int, int]:
    """Return bytes of the weights, of the gradients and of AdamW's moments of a network."""
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
    Count a training step without computing it: shapes alone go through the network.

    The operators are those of a CPU under autocast.

    :param network: with its parameters on the meta device, as it is left.
    :param pieces: batch size; each of ``frames`` frames of ``side`` pixels and ``text`` tokens.
    :param dtype: of the mixed precision; None for none.
    :returns: the memory, and the bytes of the tower layer that keeps most: what activation
        checkpointing has to hold while it computes that layer again (nought if it is on).
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
            windows = [
                run.unfold(0, window, 1).transpose(1, 2)
                for run in features.split([frames] * pieces)
            ]
            output = network.head(torch.cat(windows).to(network.action_token.dtype))
        for hook in hooks:
            hook.remove()
        del output
        return Memory(*standing(network), kept.total), largest[0]


def _watch(layer: nn.Module, kept: _Kept, largest: list[int]) -> tuple:
    before = []
    return (
        layer.register_forward_pre_hook(lambda *_: before.append(kept.total)),
        layer.register_forward_hook(
            lambda *_: largest.append(max(largest.pop(), kept.total - before.pop()))
        ),
    )


@contextlib.contextmanager
def _filled(network: nn.Module) -> Iterator[None]:
    """Give a network on the meta device tensors that autocast takes for a CPU's; then undo it."""
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


def _rebind(network: nn.Module):
    """An LSTM keeps a list of its weights beside the ones that it is known to have."""
    for module in network.modules():
        if isinstance(module, nn.LSTM):
            module._init_flat_weights()
