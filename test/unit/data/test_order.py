"""The order of an epoch is a function of the seed; its batches are made ahead of the network."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from mobile_vla_ros.data import order
from mobile_vla_ros.data.dataset import Item

PIECE = Item(
    frames=torch.zeros(4, 3, 2, 2),
    text_ids=torch.tensor([1, 2]),
    windows=torch.arange(4)[None],
    actions=torch.zeros(1, 4, 3, 2),
    real=torch.ones(1, 4, 3, dtype=torch.bool),
)


def test_an_epoch_uses_every_piece_once_in_its_own_order():
    """All pieces occur; epochs and seeds differ; the same epoch is reproducible."""
    instructions = ['go'] * 20
    draws = order.epoch_draws(instructions, seed=1, epoch=0)
    assert sorted(index for index, _ in draws) == list(range(20))
    assert draws == order.epoch_draws(instructions, seed=1, epoch=0)
    orders = [
        [index for index, _ in order.epoch_draws(instructions, seed, epoch)]
        for seed, epoch in ((1, 0), (1, 1), (2, 0))
    ]
    assert len({tuple(one) for one in orders}) == 3
    assert len({seed for _, seed in draws}) == 20


def test_balance_draws_all_instructions_equally_often():
    """90 episodes of one instruction and 10 of another: each is drawn about half of the time."""
    instructions = ['left'] * 90 + ['right'] * 10
    seen = Counter(
        instructions[index]
        for epoch in range(20)
        for index, _ in order.epoch_draws(instructions, 0, epoch, balance=True)
    )
    assert sum(seen.values()) == 2000
    assert 850 < seen['right'] < 1150


@pytest.mark.parametrize(
    ('pieces', 'batch_size', 'accumulate'),
    [(45, 1, 8), (1, 1, 8), (7, 3, 2), (16, 4, 4), (24, 6, 1)],
)
@pytest.mark.parametrize('processes', [1, 2, 3, 5])
def test_the_work_of_a_step_is_the_same_for_any_number_of_processes(
    pieces, batch_size, accumulate, processes
):
    """Exactly one process computes each piece of a step, and the shares are about equal."""
    draws = order.epoch_draws(['go'] * pieces, 0, 0)
    steps = order.steps(draws, batch_size * accumulate)
    assert [draw for step in steps for draw in step] == draws
    assert len(steps) == math.ceil(pieces / (batch_size * accumulate))
    for step in steps:
        shares = [
            order.share(step, process, processes, batch_size) for process in range(processes)
        ]
        assert [draw for share in shares for batch in share for draw in batch] == step
        assert all(0 < len(batch) <= batch_size for share in shares for batch in share)
        sizes = [sum(map(len, share)) for share in shares]
        assert max(sizes) - min(sizes) <= 1


def test_every_tensor_for_a_gpu_is_in_pinned_memory(monkeypatch):
    """From there it is copied while the GPU computes; without a GPU nothing is pinned."""
    pinned = []

    def pin(tensor):
        pinned.append(tensor.shape)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, 'pin_memory', pin)
    data = SimpleNamespace(item=lambda index, seed: PIECE)
    for on, expected in ((False, 0), (True, 6)):
        (batch,) = order.Feed(data, 0, lambda: 0.0, pin=on).batches([[0, 1]])
        assert len(pinned) == expected
        assert batch['frame_counts'] == [4, 4] and batch['windows'].tolist()[1] == [4, 5, 6, 7]
