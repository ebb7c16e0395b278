"""Memory of training: counted by hand, computed from shapes, and measured."""

import numpy as np
import pytest
import torch
from torch import nn

from made_segments import sliding
from mobile_vla_ros.bench.train.step_memory import Memory, count, saved_bytes, standing
from mobile_vla_ros.model.backbone import Backbone, LoraSettings, load_backbone
from mobile_vla_ros.model.network import build_network

FRAMES, WINDOW, TEXT, SIDE = 6, 4, 5, 56


def test_a_small_network_keeps_only_the_inputs_of_its_layers():
    """Two layers with a ReLU between: each input once, four bytes per number."""
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    pixels = torch.randn(2, 8)
    wanted = (2 * 8 + 2 * 16) * 4
    assert saved_bytes(lambda: network(pixels), network.parameters()) == wanted
    assert saved_bytes(lambda: network(pixels), [*network.parameters(), pixels]) == 2 * 16 * 4
    with torch.no_grad():
        assert saved_bytes(lambda: network(pixels), network.parameters()) == 0


def test_views_of_one_tensor_are_counted_once():
    """Tensors that share memory are counted once."""
    weight = torch.randn(10, requires_grad=True)
    row = torch.randn(4, 10)
    assert (
        saved_bytes(
            lambda: (weight * row).sum() + (weight * row.flip(0).flip(0)[1:]).sum(), [weight]
        )
        == 2 * 4 * 10 * 4
    )


def test_memory_beside_the_activations():
    """All weights, and a gradient and two float32 moments of each trained number."""
    network = nn.Sequential(nn.Linear(8, 16).half().requires_grad_(False), nn.Linear(16, 4))
    frozen, trained = 8 * 16 + 16, 16 * 4 + 4
    assert standing(network) == (frozen * 2 + trained * 4, trained * 4, trained * 8)
    assert Memory(1, 2, 3, 4, 5).total == 15


def built(small_backbone, *, meta: bool, checkpointing: bool = False):
    """Return the small network without dropout, on the meta device or with its weights."""
    backbone = load_backbone(small_backbone)
    if meta:
        model = backbone.model.to('meta')
        backbone = Backbone(model, backbone.tokenizer, backbone.image, '', None, '')
    with torch.device('meta' if meta else 'cpu'):
        return build_network(
            backbone,
            LoraSettings(4, 8, 0.0),
            motion_dims=2,
            chunk=5,
            hidden=16,
            layers=1,
            activation_checkpointing=checkpointing,
        ).train()


@pytest.mark.parametrize('checkpointing', [False, True])
@pytest.mark.parametrize('dtype', [None, torch.bfloat16])
def test_counting_shapes_agrees_with_a_real_pass(small_backbone, dtype, checkpointing):
    """Except for oneDNN's workspace of an LSTM."""
    network = built(small_backbone, meta=False, checkpointing=checkpointing)
    windows = torch.from_numpy(np.vstack([sliding(FRAMES, WINDOW, at) for at in (0, FRAMES)]))
    pixels, text = torch.randn(2 * FRAMES, 3, SIDE, SIDE), torch.zeros(2, TEXT, dtype=torch.long)

    def forward():
        autocast = torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None)
        with autocast, torch.backends.mkldnn.flags(enabled=False):
            return network(pixels, text, torch.full((2,), TEXT), [FRAMES] * 2, windows)

    real = saved_bytes(forward, [*network.parameters(), *network.buffers()])
    shapes = built(small_backbone, meta=True, checkpointing=checkpointing)
    found, layer = count(
        shapes, 2, frames=FRAMES, window=WINDOW, text=TEXT, side=SIDE, dtype=dtype
    )
    assert found.activations == pytest.approx(real, rel=0.01, abs=10_000)
    assert (found.weights, found.gradients, found.optimizer) == standing(network)
    assert {p.device.type for p in shapes.parameters()} == {'meta'}
    assert 0 < layer < found.activations


def test_checkpointing_keeps_only_the_inputs_of_layers(small_backbone):
    """Twice the pieces keep twice as much."""
    options = {'frames': 18, 'window': WINDOW, 'text': TEXT, 'side': SIDE, 'dtype': None}
    whole, layer = count(built(small_backbone, meta=True), 1, **options)
    kept, _ = count(built(small_backbone, meta=True, checkpointing=True), 1, **options)
    twice, _ = count(built(small_backbone, meta=True), 2, **options)
    assert kept.activations < 0.6 * whole.activations
    assert 0.1 * whole.activations < layer < 0.5 * whole.activations
    assert twice.activations == pytest.approx(2 * whole.activations, rel=0.02)
