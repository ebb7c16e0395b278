"""What a network says of every window of some runs, and the dataset that it is asked with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader

from mobile_vla_ros.data.augment import Augmentation, mirror_instruction
from mobile_vla_ros.data.dataset import RunDataset, collate
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.runs import Run
from mobile_vla_ros.model.backbone import tokenize
from mobile_vla_ros.model.bundle import PolicySpec
from mobile_vla_ros.model.network import VlaNetwork

BATCH_PIECES = 4
PIECE_FRAMES = 18


@dataclass(frozen=True)
class Predictions:
    """
    Predictions for M windows, in the order of the runs.

    :param motion: (M, window, chunk, dims) float32, normalised.
    :param gripper: (M, window, chunk) float32 logits of the seed's gripper dummy.
    :param real: (M, window, chunk) bool: steps inside the take whose frames could be read.
    """

    motion: np.ndarray
    gripper: np.ndarray
    real: np.ndarray


def dataset(runs: Sequence[Run], spec: PolicySpec, tokenizer, piece_frames: int,
            augmentation: Augmentation | None = None, *, blank_images: bool = False,
            tokens: ImageTokens | None = None) -> RunDataset:
    """
    Return runs as a dataset of what a policy's network takes.

    :param blank_images: show the mean colour instead of every image; a control's dataset always
        does.
    :param tokens: image tokens of these runs, computed before.
    """
    said = {run.instruction for run in runs}
    instructions = sorted(said | {mirror_instruction(text) for text in said})
    ids, lengths = tokenize(tokenizer, [spec.prompt(text) for text in instructions])
    words = {text: row[:length] for text, row, length in zip(instructions, ids, lengths,
                                                               strict=True)}
    return RunDataset(runs, spec.actions, spec.image, spec.window, piece_frames, words,
                      augmentation, blank_images=blank_images or spec.blank == 'image',
                      tokens=tokens)


@torch.no_grad()
def predict(network: VlaNetwork, data: RunDataset) -> Predictions:
    """Return a network's predictions for every window of a dataset."""
    was_training = network.training
    network.eval()
    device = network.action_token.device
    motions, grippers, real = [], [], []
    for batch in DataLoader(data, batch_size=BATCH_PIECES, collate_fn=collate):
        motion, gripper = network(batch['frames'].to(device), batch['text_ids'].to(device),
                                  batch['text_lengths'].to(device), batch['frame_counts'],
                                  data.window)
        motions.append(motion.float().cpu().numpy())
        grippers.append(gripper.float().cpu().numpy())
        real.append(batch['real'].numpy())
    network.train(was_training)
    return Predictions(np.concatenate(motions), np.concatenate(grippers), np.concatenate(real))
