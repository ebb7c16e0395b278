"""Weights in int8: how far they are from the original, and how much memory they need."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone import load_backbone
from mobile_vla_ros.model.bundle import copy_bundle, load_bundle, save_bundle
from mobile_vla_ros.model.golden import read_golden
from mobile_vla_ros.model.packing import Int8Embedding, Int8Linear, quantise
from mobile_vla_ros.model.policy_spec import PolicySpec, read_spec
from mobile_vla_ros.runtime.golden_check import check_golden
from mobile_vla_ros.runtime.loading import PolicySettings, load_policy
from mobile_vla_ros.runtime.vla_policy import VlaPolicy

PROOF = {'golden': 'reproduced', 'suite': 'seen', 'trials': 300, 'worse': 1, 'better': 2}


def linear(columns: int, rows: int, *, bias: bool = True) -> nn.Linear:
    """Return a layer in bfloat16; its second output has no weights, its third large ones."""
    torch.manual_seed(0)
    layer = nn.Linear(columns, rows, bias=bias, dtype=torch.bfloat16)
    with torch.no_grad():
        layer.weight[1] = 0
        layer.weight[2] *= 100
    return layer.requires_grad_(False)


@pytest.mark.parametrize('bias', [True, False])
def test_a_weight_is_off_by_at_most_half_a_scale(bias):
    """Of its own row: a row of large weights does not coarsen the others."""
    layer = linear(96, 40, bias=bias)
    stored = Int8Linear(layer)
    restored = stored.weight.float() * stored.scale.float()[:, None]
    bound = layer.weight.float().abs().amax(1) / 253
    assert ((restored - layer.weight.float()).abs() <= bound[:, None]).all()
    rows = torch.randn(2, 5, 96, dtype=torch.bfloat16)
    expected = rows.float() @ restored.T + (layer.bias.float() if bias else 0)
    torch.testing.assert_close(stored(rows).float(), expected, rtol=0.02, atol=0.02)


def test_a_matrix_that_is_converted_in_blocks_gives_the_same():
    """Layers of full size are, so that no second copy of one is needed."""
    layer = linear(2048, 2100)
    rows = torch.randn(3, 2048, dtype=torch.bfloat16)
    stored = Int8Linear(layer)
    whole = nn.functional.linear(rows, stored.weight.bfloat16()) * stored.scale + layer.bias
    torch.testing.assert_close(stored(rows), whole)


@pytest.mark.parametrize('shape', [(1024, 1024), (4096, 1024), (8192, 2048)])
def test_layers_of_full_size_need_half_the_memory(shape):
    """Kosmos-2's, with their scales."""
    with torch.device('meta'):
        layer = nn.Linear(shape[1], shape[0], dtype=torch.bfloat16)
        stored = Int8Linear(layer)

    def size(module: nn.Module) -> int:
        return sum(value.nbytes for value in module.state_dict().values())

    assert size(stored) <= 0.51 * size(layer)


def test_every_linear_layer_and_the_words_of_a_backbone_are_quantised():
    """The rest stays in bfloat16; word vectors are those of the table within the bound."""
    model = load_backbone('builtin:tiny', offline=True, dtype=torch.bfloat16).model
    table = model.get_input_embeddings().weight.float().clone()
    quantise(model)
    assert not any(type(part) is nn.Linear for part in model.modules())
    assert isinstance(model.get_input_embeddings(), Int8Embedding)
    assert model.dtype is torch.bfloat16
    vectors = model.get_input_embeddings()(torch.arange(len(table))).float()
    assert ((vectors - table).abs() <= table.abs().amax(1, keepdim=True) / 100).all()


def test_without_the_proof_a_bundle_does_not_drive_in_int8(policy_copy):
    """Refused before its weights are read, with the command that proves it."""
    with pytest.raises(UserError, match=r'mobile_vla quantise .* --out'):
        load_policy(str(policy_copy), PolicySettings(device='cpu', precision='int8'))


def test_a_bundle_with_the_proof_drives_in_int8(tmp_path):
    """As the inference node loads it; golden frames are reproduced within the tolerance."""
    folder = copy_bundle(
        'builtin:demo', tmp_path / 'policy', replace(read_spec('builtin:demo'), int8=PROOF)
    )
    assert read_spec(folder).int8 == PROOF
    ready = load_policy(str(folder), PolicySettings(device='cpu', precision='int8'))
    assert ready.golden_ok and 'in int8' in ready.golden_sentence
    merged = VlaPolicy.load('builtin:demo', dtype=torch.bfloat16).network
    quantise(merged.kosmos)  # layer by layer while they are read, or all at the end
    found = ready.policy.network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in merged.state_dict().items())
    assert any(isinstance(part, Int8Linear) for part in ready.policy.network.modules())


def test_wrong_colours_are_found_in_int8():
    """The tolerance is not so wide that the check finds nothing."""
    policy = VlaPolicy.load('builtin:demo', dtype=torch.bfloat16)
    quantise(policy.network.kosmos)
    golden = read_golden('builtin:demo')
    assert check_golden(policy, golden, 'int8')[0]
    swapped = replace(golden, frames=golden.frames[..., ::-1].copy())
    assert not check_golden(policy, swapped, 'int8')[0]


def test_training_writes_no_proof(small_run, tmp_path):
    """A spec without one has no such key, as in older bundles."""
    assert 'int8' not in json.loads((small_run / 'best' / 'policy.json').read_text())
    loaded = load_bundle(small_run / 'best', merge=False)
    copied = save_bundle(tmp_path / 'policy', loaded.network, loaded.spec)
    assert read_spec(copied).int8 == {}


@pytest.mark.parametrize(
    'proof', ['yes', {}, {**PROOF, 'worse': -1}, {**PROOF, 'trials': True}, {**PROOF, 'suite': 3}]
)
def test_a_broken_proof_is_refused(small_run, tmp_path, proof):
    """By the schema of policy.json."""
    text = (small_run / 'best' / 'policy.json').read_text()
    with pytest.raises(UserError, match='int8 is'):
        PolicySpec.from_json(json.dumps({**json.loads(text), 'int8': proof}), tmp_path)
