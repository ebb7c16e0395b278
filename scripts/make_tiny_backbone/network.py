"""A small Kosmos-2: sizes, initialisation, and the forward pass over packed sentences."""

import math

import numpy as np
import torch
from torch import nn
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

from make_tiny_backbone.language import LATENTS
from make_tiny_backbone.scenes import SIZE
from make_tiny_backbone.tokens import GRID, patch

PATCH = 14
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def make_model(tokenizer) -> Kosmos2ForConditionalGeneration:
    """Return a Kosmos-2 of 1.3 M parameters, initialised to learn fast."""
    config = Kosmos2Config(
        latent_query_num=LATENTS,
        vision_config={
            'hidden_size': 128,
            'intermediate_size': 320,
            'num_hidden_layers': 4,
            'num_attention_heads': 4,
            'image_size': SIZE,
            'patch_size': PATCH,
        },
        text_config={
            'vocab_size': len(tokenizer),
            'max_position_embeddings': 256,
            'embed_dim': 128,
            'layers': 3,
            'ffn_dim': 320,
            'attention_heads': 4,
            'dropout': 0.0,
            'attention_dropout': 0.0,
        },
    )
    model = Kosmos2ForConditionalGeneration(config)
    initialise(model, tokenizer)
    return model


def initialise(model, tokenizer) -> None:
    """
    Start every branch at unit scale.

    The vision features have norm 1 before the projection, so with the library's own
    initialisation the image tokens are faint beside the text and go unused for a long time.
    """
    text, vision = model.text_model.model, model.vision_model.model
    width = model.config.text_config.embed_dim
    for layers in (text.layers, vision.encoder.layers):
        for name, module in layers.named_modules():
            if isinstance(module, nn.Linear):
                last = name.endswith(('out_proj', 'fc2'))
                scale = 1 / math.sqrt(2 * len(layers)) if last else 1.0
                nn.init.normal_(module.weight, std=scale / math.sqrt(module.in_features))
    nn.init.normal_(text.embed_tokens.weight, std=width**-0.5)
    # Neighbouring location tokens start alike.
    first = tokenizer.convert_tokens_to_ids(patch(0))
    locations = grid_encoding(GRID, width)
    text.embed_tokens.weight.data[first : first + GRID * GRID] = (
        locations / locations.std() * width**-0.5
    )
    nn.init.normal_(vision.embeddings.patch_embedding.weight, std=1 / math.sqrt(3 * PATCH * PATCH))
    positions = vision.embeddings.position_embedding.weight
    nn.init.normal_(positions, std=0.5)
    positions.data[1:] = grid_encoding(SIZE // PATCH, positions.shape[1])
    nn.init.normal_(vision.embeddings.class_embedding, std=0.5)
    projection = model.image_to_text_projection
    nn.init.normal_(projection.latent_query, std=1.0)
    nn.init.normal_(projection.dense.weight, std=1.0)
    # Sharp queries: each image token attends to a few patches from the start, not to their mean.
    for matrix, gain in (
        (projection.x_attn.q_proj, 2),
        (projection.x_attn.k_proj, 2),
        (projection.x_attn.v_proj, 1),
    ):
        nn.init.normal_(matrix.weight, std=gain * width**-0.5)
    # The text model multiplies its inputs by sqrt(width).
    nn.init.normal_(projection.x_attn.out_proj.weight, std=2 / width)


def grid_encoding(side: int, width: int) -> torch.Tensor:
    """Return (side², width): sines and cosines of column and row, similar for neighbours."""
    waves = torch.exp(torch.linspace(math.log(math.pi / side), math.log(math.pi), width // 4))
    angles = torch.arange(side)[:, None] * waves
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    grid = torch.cat([line[None].expand(side, -1, -1), line[:, None].expand(-1, side, -1)], dim=2)
    return grid.reshape(side * side, width)


def pixels(images: np.ndarray) -> torch.Tensor:
    """Return (N, 3, S, S) float32 of (N, S, S, 3) uint8, normalised as by CLIP."""
    scaled = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (scaled - mean) / std


def encode_images(model, images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vision tower's (N, patches, width) and the (N, latents, width) image tokens."""
    vision = model.vision_model.model
    features = vision.post_layernorm(vision(pixels(images)).last_hidden_state)
    normal = nn.functional.normalize(features, dim=-1)
    return features[:, 1:], model.image_to_text_projection(normal)[0]


def batch_packs(packs: list, prefix: tuple[list[int], int]) -> dict[str, torch.Tensor]:
    """
    Concatenate each image's sentences behind its image tokens, which are then encoded once.

    A sentence attends to the image and to itself, at the positions it would have alone.

    :param packs: (prompt, answer) tokens of each image's sentences.
    :param prefix: tokens up to the end of the image, and where the image tokens start in them.
    :returns: input_ids, labels, positions, image_mask (N, L), and attention (N, 1, L, L), which
        is added to the attention's logits.
    """
    start, image_at = prefix
    rows = []
    for pack in packs:
        ids, labels = list(start), [-100] * len(start)
        positions, groups = list(range(len(start))), [0] * len(start)
        for number, (prompt, answer) in enumerate(pack, 1):
            count = len(prompt) + len(answer)
            ids += prompt + answer
            labels += [-100] * len(prompt) + answer
            positions += range(len(start), len(start) + count)
            groups += [number] * count
        rows.append((ids, labels, positions, groups))
    length = max(len(ids) for ids, *_ in rows)
    ids, labels, positions, groups = (
        torch.tensor([row[k] + [padding] * (length - len(row[k])) for row in rows])
        for k, padding in enumerate((1, -100, 0, -1))
    )
    before = torch.ones(length, length, dtype=torch.bool).tril()
    visible = before & ((groups[:, None, :] == 0) | (groups[:, None, :] == groups[:, :, None]))
    attention = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    image_mask = torch.zeros(ids.shape, dtype=torch.bool)
    image_mask[:, image_at : image_at + LATENTS] = True
    return {
        'input_ids': ids,
        'labels': labels,
        'positions': positions + 2,  # Kosmos-2 counts positions from its padding id + 1
        'image_mask': image_mask,
        'attention': attention[:, None],
    }


def text_states(model, embeds: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the (N, L, width) states of the text model's last layer."""
    text = model.text_model.model
    states = text.forward_embedding(
        input_ids=batch['input_ids'],
        inputs_embeds=None,
        image_embeds=embeds,
        img_input_mask=batch['image_mask'],
        past_key_values_length=0,
        position_ids=batch['positions'],
    )
    for layer in text.layers:
        states = layer(states, batch['attention'])
    return text.layer_norm(states)


def decode(model, sentences, embeds: torch.Tensor, prompts: list, count: int, end: int) -> list:
    """Return at most ``count`` greedily decoded tokens a prompt, until all contain ``end``."""
    answers = [[] for _ in prompts]
    prefix = sentences.prefixes[0]
    for _ in range(count):
        so_far = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        states = text_states(model, embeds, batch_packs([[(ids, [])] for ids in so_far], prefix))
        last = torch.tensor([len(prefix[0]) + len(ids) - 1 for ids in so_far])
        logits = model.text_model.lm_head(states[torch.arange(len(prompts)), last])
        for answer, token in zip(answers, logits.argmax(-1).tolist(), strict=True):
            answer.append(token)
        if all(end in answer for answer in answers):
            break
    return answers
