"""For driving: layers reordered once for the CPU or stored in int8, and pages of glibc's heap."""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mobile_vla_ros.model.weights import at_once

INT8_MAX = 127
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
HEAP_BYTES = 1 << 25
BLOCK_VALUES = 1 << 20  # that are converted to int8 at a time, and on a CPU from it


class PackedLinear(nn.Module):
    """
    A linear layer for inference on a CPU, with its weights in oneDNN's order.

    :param linear: bfloat16, with or without a bias; its weight is copied.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer(
            'weight', torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        )
        self.bias = linear.bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out)."""
        return torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, 'none', [], '')


def pack(model: nn.Module) -> int:
    """
    Pack the bfloat16 linear layers of a model for inference, where torch supports it.

    Outputs stay the same within rounding. A packed model can be neither trained nor moved.

    :returns: how many layers were packed: 0 on a GPU, in other precisions, and where torch has no
        oneDNN for bfloat16 on this CPU.
    """
    return _replace(model, PackedLinear, _fits) if can_pack() else 0


def _replace(
    model: nn.Module,
    new: Callable[[nn.Linear], nn.Module],
    fits: Callable[[torch.Tensor], bool],
) -> int:
    """Replace linear layers whose weight fits, and return how many."""
    places = [  # not the layers themselves, which would keep every weight that is replaced
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and fits(child.weight)
    ]

    def replace(place: tuple[nn.Module, str]) -> None:
        setattr(*place, new(getattr(*place)))

    at_once(replace, places)
    return len(places)


def _fits(weight: torch.Tensor) -> bool:
    return weight.dtype is torch.bfloat16 and weight.device.type == 'cpu'


def can_pack() -> bool:
    """Whether torch has oneDNN for bfloat16 on this CPU."""
    # The operators that torch.compile calls on a CPU; there is no public API for them.
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, '_linear_pointwise')
        and hasattr(torch.ops.mkldnn, '_reorder_linear_weight')
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


# No library for this: torchao has no compiled wheel for aarch64 (Jetson). torch's own product of
# int8 weights was slower on a CPU than converting them, for the rows of a frame.
class _Int8(nn.Module):
    """
    A matrix in int8, and a scale for each of its rows.

    A weight differs from the original by at most half a scale, 1/254 of its row's largest.

    :param layer: with a (rows, columns) weight in floating point, which is copied.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        weight = layer.get_parameter('weight').detach()
        tiny = torch.finfo(weight.dtype).tiny  # for rows of zeros
        self.weight: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer('weight', torch.empty_like(weight, dtype=torch.int8))
        self.register_buffer('scale', weight.new_empty(len(weight)))
        rows = max(1, BLOCK_VALUES // weight.shape[1])
        parts = (one.split(rows) for one in (weight, self.weight, self.scale))
        for values, stored, scale in zip(*parts, strict=True):
            scale.copy_((values.float().abs().amax(1) / INT8_MAX).clamp_min(tiny))
            stored.copy_((values.float() / scale[:, None]).round_())


class Int8Linear(_Int8):
    """A linear layer for inference that stores its weights in int8."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.bias = linear.bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out), both of the scale's dtype."""
        count = BLOCK_VALUES if self.weight.device.type == 'cpu' else self.weight.numel()
        blocks = self.weight.split(max(1, count // self.weight.shape[1]))
        parts = [nn.functional.linear(rows, block.to(rows.dtype)) for block in blocks]
        out = torch.cat(parts, -1).mul_(self.scale)
        return out if self.bias is None else out.add_(self.bias)


class Int8Embedding(_Int8):
    """A table of embeddings for inference in int8."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Map (...) ids to (..., columns)."""
        return self.weight[ids] * self.scale[ids][..., None]


def quantised(module: nn.Module, words: nn.Module) -> nn.Module:
    """Return what stores a linear layer, or the word embeddings, in int8; others as they are."""
    if module is words:
        return Int8Embedding(module)
    return Int8Linear(module) if type(module) is nn.Linear else module


def quantise(model: PreTrainedModel) -> None:
    """
    Store the weights of the linear layers and of the word embeddings in int8, layer by layer.

    A quantised model can be moved, not trained.
    """
    _replace(model, Int8Linear, lambda _: True)
    model.set_input_embeddings(Int8Embedding(model.get_input_embeddings()))


@contextlib.contextmanager
def pages_of_their_own() -> Iterator[None]:
    """
    Let each tensor of 1 MB have its own pages, which go back as soon as it is replaced.

    In one heap the holes between them would stay, up to a quarter of the weights. Afterwards
    images and the like, up to 32 MB, are in the heap again, which keeps as much when it is free:
    a page that goes back is zeroed when it is next used, many times in a step.
    """
    _glibc('mallopt', M_MMAP_THRESHOLD, 1 << 20)
    try:
        yield
    finally:
        _glibc('mallopt', M_MMAP_THRESHOLD, HEAP_BYTES)
        _glibc('mallopt', M_TRIM_THRESHOLD, HEAP_BYTES)


def give_back() -> None:
    """Give back every free page of the heap."""
    _glibc('malloc_trim', 0)


def _glibc(name: str, *values: int) -> Any:
    return getattr(ctypes.CDLL(None), name, lambda *_: None)(*values)
