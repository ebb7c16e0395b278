"""Refuse a backbone that is not the network that its files describe."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import Kosmos2Model

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone_files import FETCH

LM_HEAD = 'text_model.lm_head.weight'  # tied to the word embeddings, and never computed here
# Relative. Rounding in bfloat16 gives 1 %; the fault that this finds, over 50 %.
MAX_DIFFERENCE = 0.1
NAMED = 3


def check_weights(name: str, loading: Mapping[str, Any]) -> None:
    """
    Check that every weight came from the files: transformers fills the others with random ones.

    :param loading: its account of it (``output_loading_info``).
    :raises UserError: names three of the tensors that are missing, unknown or of another shape.
    """
    misshapen = {key for key, *_ in loading['mismatched_keys']}
    wrong = {
        'missing': set(loading['missing_keys']) - misshapen,
        'unknown': set(loading['unexpected_keys']) - {LM_HEAD},
        'of another shape': misshapen,
    }
    found = [
        f'{len(keys)} {what} ({", ".join(sorted(keys)[:NAMED])}{", …" * (len(keys) > NAMED)})'
        for what, keys in wrong.items()
        if keys
    ]
    if found:
        raise UserError(
            f'the weights of the backbone {name!r} are not those of its config.json',
            got='; '.join(found),
            expected='every tensor of the vision tower, the text model and the projection',
            remedy=f'fetch it again: {FETCH}',
        )


@torch.no_grad()
def check_attention(model: Kosmos2Model) -> None:
    """
    Check that attention as it is computed gives what its plain form gives, on a small input.

    :raises UserError: when it does not.
    """
    used = model.config._attn_implementation
    found = _outputs(model)
    model.set_attn_implementation('eager')
    expected = _outputs(model)
    model.set_attn_implementation(used)
    for part, plain in expected.items():
        difference = float((found[part] - plain).norm() / plain.norm())
        if not difference <= MAX_DIFFERENCE:
            raise UserError(
                f'this transformers computes the {part} of Kosmos-2 wrongly',
                got=f'with {used} it differs by {difference:.0%} from its plain form',
                expected=f'at most {MAX_DIFFERENCE:.0%}',
                remedy='install the versions of requirements.lock',
            )


def _outputs(model: Kosmos2Model) -> dict[str, torch.Tensor]:
    """Return the image tokens of four patches, and the text model's states of four positions."""
    random = torch.Generator().manual_seed(0)
    vision, text = model.config.vision_config, model.config.text_config
    side = 2 * vision.patch_size
    pixels = torch.randn(1, vision.num_channels, side, side, generator=random)
    words = torch.randn(1, 4, text.embed_dim, generator=random)
    states = model.text_model(inputs_embeds=words.to(model.dtype), use_cache=False)
    return {
        'image tokens': image_tokens(model, pixels, interpolate_pos_encoding=True).float(),
        'text states': states.last_hidden_state.float(),
    }


def image_tokens(model: Kosmos2Model, pixels: torch.Tensor, **options: bool) -> torch.Tensor:
    """
    Return the (N, K, D) tokens that the text model reads for (N, 3, S, S) pixels.

    :param options: of ``get_image_features``, which returned the tokens alone before
        transformers 5.
    """
    features = model.get_image_features(pixels.to(model.dtype), **options)
    tokens: torch.Tensor = getattr(features, 'pooler_output', features)
    return tokens
