"""Linear layers whose weights are reordered once for the CPU, not at every step."""

import torch
from torch import nn


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
    if not can_pack():
        return 0
    packed = 0
    # No list of the layers themselves, which would keep every weight that is replaced.
    for parent in [one for one in model.modules() if not isinstance(one, nn.Linear)]:
        for name in [name for name, _ in parent.named_children()]:
            child = getattr(parent, name)
            if type(child) is nn.Linear and _fits(child.weight):
                setattr(parent, name, PackedLinear(child))
                packed += 1
    return packed


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
