"""Pretraining: the losses, the auxiliary heads for the vision tower, and the loop."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from make_tiny_backbone.language import LATENT_SIDE, Sentences
from make_tiny_backbone.network import PATCH, batch_packs, encode_images, text_states
from make_tiny_backbone.scenes import CELLS, MAX_OBJECTS, SIZE, augment
from mobile_vla_ros.sim.scene import COLOURS, SHAPES

BATCH = 32
DENSE_WEIGHT = 1.0
DENSE_OUTPUTS = (len(COLOURS) + 1, len(SHAPES) + 1, 4)  # colour, shape (0: none), box


def sentence_loss(model, embeds: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean cross-entropy of the answers' tokens."""
    states = text_states(model, embeds, batch)
    is_answer = batch['labels'][:, 1:] >= 0
    logits = model.text_model.lm_head(states[:, :-1][is_answer])
    return functional.cross_entropy(logits, batch['labels'][:, 1:][is_answer])


def make_dense_head(width: int) -> nn.Linear:
    """Return a head that predicts colour, shape and box of the object in each part of an image."""
    return nn.Linear(width, sum(DENSE_OUTPUTS))


def dense_loss(
    predicted: torch.Tensor, names: np.ndarray, boxes: np.ndarray, cells: np.ndarray, side: int
) -> torch.Tensor:
    """
    Return the loss of a dense head.

    :param predicted: (N, side², outputs).
    :param names, boxes, cells: as from `scenes.render`.
    """
    which = objects_by_part(cells, side).reshape(len(cells), -1)
    rows = np.arange(len(cells))[:, None]
    shown = np.where(which >= 0, names[rows, which], -1)
    colour = torch.from_numpy(np.where(shown >= 0, shown // len(SHAPES) + 1, 0)).long()
    shape = torch.from_numpy(np.where(shown >= 0, shown % len(SHAPES) + 1, 0)).long()
    box = torch.from_numpy(boxes[rows, which])
    colours, shapes, at = predicted.split(DENSE_OUTPUTS, dim=-1)
    # Nine of ten parts show no object.
    weights = torch.ones(len(COLOURS) + 1)
    weights[0] = 0.2
    loss = functional.cross_entropy(colours.flatten(0, 1), colour.flatten(), weights)
    loss = loss + functional.cross_entropy(
        shapes.flatten(0, 1), shape.flatten(), weights[: len(SHAPES) + 1]
    )
    on = colour > 0
    return loss + 2 * functional.smooth_l1_loss(at[on], box[on], beta=0.05)


def objects_by_part(cells: np.ndarray, side: int) -> np.ndarray:
    """
    Return (N, side, side): the object that covers most cells of each part of an image.

    -1 where none covers a quarter of the part.
    """
    edges = np.linspace(0, CELLS, side + 1).round().astype(int)
    sizes = np.diff(edges)[:, None] * np.diff(edges)[None]
    starts = edges[:-1]
    counts = np.stack(
        [
            np.add.reduceat(np.add.reduceat((cells == i).astype(int), starts, 1), starts, 2)
            for i in range(MAX_OBJECTS)
        ],
        axis=-1,
    )
    return np.where(counts.max(-1) >= 0.25 * sizes, counts.argmax(-1), -1)


def train(
    model,
    sentences: Sentences,
    data: dict[str, np.ndarray],
    *,
    steps: int,
    seed: int,
    checkpoint_every: int,
    save_checkpoint: Callable[[], None],
) -> None:
    """
    Train with dense heads on patches and image tokens, which are discarded afterwards.

    :param data: as from `scenes.render`.
    """
    width = model.config.text_config.embed_dim
    heads = nn.ModuleList([make_dense_head(width), make_dense_head(width)])
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(
        [
            {'params': [p for p in parameters if p.ndim > 1], 'weight_decay': 0.05},
            {'params': [p for p in parameters if p.ndim <= 1], 'weight_decay': 0.0},
        ],
        lr=1.5e-3,
        betas=(0.9, 0.98),
    )
    warm_up = min(200, steps // 5 + 1)

    def rate(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        return min((step + 1) / warm_up, 0.02 + 0.98 * cosine)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    rng = np.random.default_rng(seed)
    order = np.empty(0, int)
    average = np.full(3, np.nan)
    model.train()
    with tqdm(range(1, steps + 1), desc='training', unit='step', mininterval=5) as bar:
        for step in bar:
            if len(order) < BATCH:
                order = rng.permutation(len(data['images']))
            batch, order = order[:BATCH], order[BATCH:]
            images, names, boxes, cells = augment(data, batch, rng)
            patches, embeds = encode_images(model, images)
            packs = [sentences.pack(names[i], boxes[i], rng) for i in range(len(batch))]
            prefix = sentences.prefixes[int(rng.uniform() < 0.15)]
            losses = [
                sentence_loss(model, embeds, batch_packs(packs, prefix)),
                dense_loss(heads[0](patches), names, boxes, cells, SIZE // PATCH),
                dense_loss(heads[1](embeds), names, boxes, cells, LATENT_SIDE),
            ]
            # The dense losses fade out before the end.
            weight = DENSE_WEIGHT * max(0.0, 1 - step / (0.9 * steps))
            optimiser.zero_grad()
            (2 * losses[0] + weight * (losses[1] + losses[2])).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            now = np.array([loss.item() for loss in losses])
            average = now if np.isnan(average).any() else 0.99 * average + 0.01 * now
            shown = zip(('sentences', 'patches', 'tokens'), average, strict=True)
            bar.set_postfix({name: f'{loss:.3f}' for name, loss in shown}, refresh=False)
            if step % checkpoint_every == 0 and step < steps:
                save_checkpoint()
