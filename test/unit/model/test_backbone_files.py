"""A backbone is the network that its files describe, or it is refused with the remedy."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone import load_backbone
from mobile_vla_ros.model.backbone_check import check_attention, image_tokens
from mobile_vla_ros.model.weights import LM_HEAD

WEIGHTS = 'model.safetensors'
QUERY = 'image_to_text_projection.latent_query'
POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:1f\nsize 6658052736\n'


@pytest.fixture
def folder(small_backbone, tmp_path):
    """A copy of a small Kosmos-2, to spoil."""
    return Path(shutil.copytree(small_backbone, tmp_path / 'backbone'))


def rewrite(folder: Path, change):
    """Replace the weights by what ``change`` makes of them."""
    tensors = change(load_file(folder / WEIGHTS))
    save_file(tensors, folder / WEIGHTS, metadata={'format': 'pt'})


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_backbone(str(folder))
    return str(caught.value)


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        (
            lambda t: {k: v for k, v in t.items() if not k.startswith('vision_model')},
            r'missing (vision_model.model.embeddings.class_embedding, ',
        ),
        (lambda t: {f'kosmos.{k}': v for k, v in t.items()}, 'unknown (kosmos.'),
        (lambda t: {**t, 'extra': torch.zeros(1)}, '1 unknown (extra)'),
        (lambda t: {**t, QUERY: t[QUERY][:-1].clone()}, f'1 of another shape ({QUERY})'),
    ],
    ids=['without a tower', 'prefixed', 'with another tensor', 'of another shape'],
)
def test_no_weight_is_made_up(folder, change, found):
    """Tensors that are not there would be random, and train."""
    rewrite(folder, change)
    said = refusal(folder)
    assert found in said and '--exclude "*.bin"' in said


def test_the_language_model_s_head_may_be_there(folder):
    """The hub's file for the whole model has it; this package predicts no words."""
    embeddings = 'text_model.model.embed_tokens.weight'
    rewrite(folder, lambda tensors: {**tensors, LM_HEAD: tensors[embeddings].clone()})
    load_backbone(str(folder))


def cut(folder):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def pointer(folder):
    (folder / WEIGHTS).write_text(POINTER)


def pickled(folder):
    (folder / WEIGHTS).rename(folder / 'pytorch_model.bin')


def shards(folder):
    names = {
        key: f'model-0000{1 + (key == QUERY)}-of-00002.safetensors'
        for key in load_file(folder / WEIGHTS)
    }
    (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': names}))
    (folder / WEIGHTS).rename(folder / 'model-00001-of-00002.safetensors')


@pytest.mark.parametrize(
    ('spoil', 'found'),
    [
        (cut, 'cannot be loaded'),
        (pointer, 'pointer of git-lfs'),
        (pickled, 'pytorch_model.bin alone'),
        (shards, 'model-00002-of-00002.safetensors'),
    ],
)
def test_weights_that_did_not_arrive_are_refused_with_the_command(folder, spoil, found):
    """It fetches the safetensors alone; nothing is unpickled."""
    spoil(folder)
    said = refusal(folder)
    assert found in said and '--exclude "*.bin"' in said


def test_a_causal_resampler_is_refused(small_backbone):
    """As transformers 4.53 to 5.22 compute it: image tokens see only those before them."""
    model = load_backbone(small_backbone).model
    pixels = torch.randn(1, 3, *[model.config.vision_config.image_size] * 2)
    with torch.no_grad():
        right = image_tokens(model, pixels)
        check_attention(model)
        model.image_to_text_projection.x_attn.is_causal = True
        assert not torch.allclose(right, image_tokens(model, pixels), rtol=0.1)
    with pytest.raises(UserError, match='image tokens of Kosmos-2 wrongly'):
        check_attention(model)
    assert model.config._attn_implementation == 'sdpa'


def test_a_text_model_that_sees_later_words_is_refused(monkeypatch):
    """In one layer that is a small difference, and still it is found."""
    model = load_backbone('builtin:tiny').model
    check_attention(model)
    theirs = torch.nn.functional.scaled_dot_product_attention

    def unmasked(*tensors, attn_mask=None, is_causal=False, **more):
        return theirs(*tensors, attn_mask=None, is_causal=False, **more)

    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', unmasked)
    with pytest.raises(UserError, match='text states of Kosmos-2 wrongly'):
        check_attention(model)
