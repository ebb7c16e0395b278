"""Refuse a backbone that is not the network that its files describe."""

import contextlib
from collections.abc import Iterator

import torch
from transformers import Kosmos2Model

from mobile_vla_ros.errors import UserError

# Relative. Rounding in bfloat16 gives 1 %; the fault that this finds, over 50 %.
MAX_DIFFERENCE = 0.1


@torch.no_grad()
def check_attention(model: Kosmos2Model) -> None:
    """
    Check that attention as it is computed gives what its plain form gives, on a small input.

    :raises UserError: when it does not.
    """
    used = model.config._attn_implementation
    with _first_layers(model):
        found = _outputs(model)
        model.set_attn_implementation('eager')
        expected = _outputs(model)
        model.set_attn_implementation(used)
        later = _text_states(model, later=1.0)
    if not torch.equal(found['text states'][:, :-1], later[:, :-1]):
        raise _wrong('text states', f'with {used} a word sees the one after it')
    for part, plain in expected.items():
        difference = float((found[part] - plain).norm() / plain.norm())
        if not difference <= MAX_DIFFERENCE:
            raise _wrong(part, f'with {used} they differ by {difference:.0%} from the plain form')


def _wrong(part: str, got: str) -> UserError:
    return UserError(
        f'this transformers computes the {part} of Kosmos-2 wrongly',
        got=got,
        expected=f'at most {MAX_DIFFERENCE:.0%}, and no word that sees a later one',
        remedy='install the versions of requirements.lock',
    )


@contextlib.contextmanager
def _first_layers(model: Kosmos2Model) -> Iterator[None]:
    """Leave each tower its first layer; the others compute the same way, for seconds."""
    towers = model.vision_model.model.encoder, model.text_model.model
    whole = [tower.layers for tower in towers]
    for tower in towers:
        tower.layers = tower.layers[:1]
    try:
        yield
    finally:
        for tower, layers in zip(towers, whole, strict=True):
            tower.layers = layers


def _outputs(model: Kosmos2Model) -> dict[str, torch.Tensor]:
    """Return the image tokens of four patches, and the text model's states of four positions."""
    random = torch.Generator().manual_seed(0)
    vision = model.config.vision_config
    side = 2 * vision.patch_size
    pixels = torch.randn(1, vision.num_channels, side, side, generator=random)
    return {
        'image tokens': image_tokens(model, pixels, interpolate_pos_encoding=True).float(),
        'text states': _text_states(model),
    }


def _text_states(model: Kosmos2Model, later: float = 0.0) -> torch.Tensor:
    """Return the text model's states of four positions; later is added to the last one's input."""
    random = torch.Generator().manual_seed(0)
    words = torch.randn(1, 4, model.config.text_config.embed_dim, generator=random)
    words[:, -1] += later
    states = model.text_model(inputs_embeds=words.to(model.device, model.dtype), use_cache=False)
    found: torch.Tensor = states.last_hidden_state.float()
    return found


def image_tokens(model: Kosmos2Model, pixels: torch.Tensor, **options: bool) -> torch.Tensor:
    """
    Return the (N, K, D) tokens that the text model reads for (N, 3, S, S) pixels.

    :param options: of ``get_image_features``, which returned the tokens alone before
        transformers 5.
    """
    features = model.get_image_features(pixels.to(model.device, model.dtype), **options)
    tokens: torch.Tensor = getattr(features, 'pooler_output', features)
    return tokens
