"""Batches made ahead of the network."""

from types import SimpleNamespace

import torch

from mobile_vla_ros.data.dataset import Item
from mobile_vla_ros.data.feed import Feed

PIECE = Item(
    frames=torch.zeros(4, 3, 2, 2),
    text_ids=torch.tensor([1, 2]),
    windows=torch.arange(4)[None],
    actions=torch.zeros(1, 4, 3, 2),
    real=torch.ones(1, 4, 3, dtype=torch.bool),
)


def test_every_tensor_for_a_gpu_is_in_pinned_memory(monkeypatch):
    """From there it is copied while the GPU computes; without a GPU nothing is pinned."""
    pinned = []

    def pin(tensor):
        pinned.append(tensor.shape)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, 'pin_memory', pin)
    data = SimpleNamespace(item=lambda index, seed: PIECE)
    for on, expected in ((False, 0), (True, 6)):
        (batch,) = Feed(data, 0, lambda: 0.0, pin=on).batches([[0, 1]])
        assert len(pinned) == expected
        assert batch['frame_counts'] == [4, 4] and batch['windows'].tolist()[1] == [4, 5, 6, 7]
