"""Packed weights: the same output, stored once, and only on CPUs that benefit."""

import copy
import weakref
from unittest import mock

import pytest
import torch
from torch import nn
from transformers import Kosmos2Model

from mobile_vla_ros.model import packing
from mobile_vla_ros.model.backbone import load_backbone
from mobile_vla_ros.model.packing import PackedLinear, pack
from mobile_vla_ros.runtime.loading import PolicySettings, load_policy

packs = pytest.mark.skipif(not packing.can_pack(), reason='no oneDNN for bfloat16 on this CPU')


@pytest.fixture(scope='module')
def plain() -> Kosmos2Model:
    """Return the small backbone in bfloat16."""
    return load_backbone('builtin:tiny', offline=True, dtype=torch.bfloat16).model


def forward(model: Kosmos2Model, count: int) -> torch.Tensor:
    """Return the states of a batch of images and tokens, (count, L, D)."""
    side, images = model.config.vision_config.image_size, model.config.latent_query_num
    pixels = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(count))
    ids = torch.full((count, images + 6), 3)
    places = torch.zeros_like(ids)
    places[:, 1 : 1 + images] = 1
    with torch.no_grad():
        return model(
            pixel_values=pixels.bfloat16(), input_ids=ids, image_embeds_position_mask=places
        ).last_hidden_state


@packs
@pytest.mark.parametrize('count', [1, 4])
def test_a_packed_backbone_gives_the_same_output(plain, count):
    """For one frame and for a window, within the rounding of bfloat16."""
    packed = copy.deepcopy(plain)
    assert pack(packed) == sum(isinstance(part, torch.nn.Linear) for part in plain.modules())
    torch.testing.assert_close(forward(packed, count), forward(plain, count), atol=0.05, rtol=0.05)


@packs
def test_packed_weights_are_stored_once(plain):
    """As many bytes as before, and each weight is freed before the next but one is packed."""
    packed = copy.deepcopy(plain)
    size = sum(value.nbytes for value in packed.state_dict().values())
    old = [weakref.ref(layer.weight) for layer in packed.modules() if isinstance(layer, nn.Linear)]
    alive = []

    def watched(linear):
        alive.append(sum(one() is not None for one in old))
        return PackedLinear(linear)

    with mock.patch.object(packing, 'PackedLinear', watched):
        pack(packed)
    assert sum(value.nbytes for value in packed.state_dict().values()) == size
    assert alive[-1] <= 2 and not any(one() is not None for one in old)


def test_nothing_changes_where_torch_cannot_pack(plain, monkeypatch):
    """An older CPU uses the layers as they are."""
    monkeypatch.setattr(packing, 'can_pack', lambda: False)
    same = copy.deepcopy(plain)
    assert pack(same) == 0
    assert not any(isinstance(part, PackedLinear) for part in same.modules())


@pytest.mark.parametrize(
    ('precision', 'gains'), [('bf16', True), ('fp32', False), ('fp16', False)]
)
def test_a_loaded_policy_is_packed_only_in_bfloat16(small_run, precision, gains):
    """As the inference node loads it; its golden frames are reproduced."""
    ready = load_policy(str(small_run / 'best'), PolicySettings(device='cpu', precision=precision))
    assert any(isinstance(part, PackedLinear) for part in ready.policy.network.modules()) == (
        gains and packing.can_pack()
    )
    assert ready.golden_ok, ready.golden_sentence
