"""Kosmos-2 at full size with random weights or none, to measure time and memory."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Kosmos2Config, Kosmos2Model, PreTrainedTokenizerFast

from mobile_vla_ros.model.backbone import Backbone
from mobile_vla_ros.types import ImageSpec

# From preprocessor_config.json of `microsoft/kosmos-2-patch14-224` (the values are CLIP's).
IMAGE = ImageSpec(224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SPECIAL = ('<s>', '<pad>', '</s>', '<unk>')
SPREAD = 0.03  # weights are uniform in ±SPREAD, which keeps activations within bfloat16
BLOCK = 1 << 22


def shapes(dtype: torch.dtype = torch.bfloat16) -> Backbone:
    """Return the backbone on the meta device, frozen; its tokenizer knows special tokens only."""
    with torch.device('meta'):
        model = Kosmos2Model(Kosmos2Config()).to(dtype)
    return Backbone(model.requires_grad_(False), word_tokenizer([]), IMAGE, 'full size', None, '')


def write_random(folder: Path, words: list[str], *, config: Kosmos2Config | None = None) -> None:
    """
    Write a backbone of random bfloat16 weights in transformers' format (3.3 GB at full size).

    :param words: vocabulary of its tokenizer, besides the special tokens.
    :param config: of a smaller model; None: full size.
    """
    config = config or Kosmos2Config()
    with torch.device('meta'):
        model = Kosmos2Model(config).to(torch.bfloat16)
    model.to_empty(device='cpu')
    generator = torch.Generator().manual_seed(0)
    block = torch.empty(BLOCK).uniform_(-SPREAD, SPREAD, generator=generator).bfloat16()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0 if 'norm' in name and name.endswith('weight') else 0.0)
                continue
            # Copying one random block is much faster than drawing 10^9 random numbers.
            for part in parameter.view(-1).split(BLOCK):
                part.copy_(block[: len(part)])
    model.save_pretrained(folder, max_shard_size='2GB')
    word_tokenizer(words).save_pretrained(folder)
    side = config.vision_config.image_size
    (folder / 'preprocessor_config.json').write_text(
        json.dumps(
            {
                'size': {'height': side, 'width': side},
                'image_mean': IMAGE.mean,
                'image_std': IMAGE.std,
            }
        )
    )


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of these words; its special tokens are Kosmos-2's, which come first."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, '<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token='<s>',
        pad_token='<pad>',
        eos_token='</s>',
        unk_token='<unk>',
    )
