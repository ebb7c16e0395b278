"""Pieces of runs as training items, each frame of a piece present once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from mobile_vla_ros.data.augment import (
    Augmentation,
    mirror_actions,
    mirror_images,
    mirror_instruction,
)
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.preprocess import normalise
from mobile_vla_ros.data.runs import Run
from mobile_vla_ros.types import ActionSpec, ImageSpec


@dataclass(frozen=True)
class Item:
    """
    A piece of a run.

    :param frames: (T, 3, S, S) float32 images, or their (T, K, D) image tokens.
    :param text_ids: (L,) int64 tokens of the instruction.
    :param actions: (M, window, chunk, axes) float32, normalised.
    :param real: (M, window, chunk) bool.
    """

    frames: torch.Tensor
    text_ids: torch.Tensor
    actions: torch.Tensor
    real: torch.Tensor


class RunDataset(Dataset):
    """
    Runs cut into pieces of at most `piece_frames` frames.

    Every window of every run is in exactly one piece; neighbouring pieces of a run share
    window - 1 frames.

    :param text_ids: tokens of each instruction, and of its mirror image if there is to be one.
    :param blank_images: give the mean colour instead of every image.
    :param tokens: gives image tokens instead of images (`data.image_tokens`).
    """

    def __init__(self, runs: Sequence[Run], actions: ActionSpec, image: ImageSpec, window: int,
                 piece_frames: int, text_ids: dict[str, torch.Tensor],
                 augmentation: Augmentation | None = None, *, blank_images: bool = False,
                 tokens: ImageTokens | None = None):
        self.runs = list(runs)
        self.actions = actions
        self.image = image
        self.window = window
        self.text_ids = text_ids
        self.augmentation = augmentation or Augmentation()
        self.blank_images = blank_images
        self.tokens = tokens
        self.cache = FrameCache(image)
        per_piece = max(1, piece_frames - window + 1)
        self.pieces = [
            (number, start, min(start + per_piece, windows) + window - 1)
            for number, run in enumerate(self.runs)
            for windows in [len(run.frames) - window + 1]
            for start in range(0, windows, per_piece)]

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> Item:
        number, start, stop = self.pieces[index]
        run = self.runs[number]
        rows = run.windows(self.window)[start:stop - self.window + 1]
        instruction, actions = run.instruction, self.actions.normalise(run.ahead[rows])
        mirrored = self.augmentation.draw_mirror()
        if mirrored:
            instruction = mirror_instruction(instruction)
            actions = mirror_actions(actions, self.actions)
        return Item(self._frames(run, slice(start, stop), mirrored), self.text_ids[instruction],
                    torch.from_numpy(actions), torch.from_numpy(run.real[rows]))

    def _frames(self, run: Run, rows: slice, mirrored: bool) -> torch.Tensor:
        if self.blank_images:
            count, side = rows.stop - rows.start, self.image.size
            return self.tokens.blank(count) if self.tokens else torch.zeros(count, 3, side, side)
        if self.tokens is not None:
            return self.tokens.frames(run, rows, mirrored, self.augmentation)
        images = self.augmentation.change_light(self.cache.frames(run, rows))
        return normalise(mirror_images(images) if mirrored else images, self.image)


def collate(items: Sequence[Item]) -> dict:
    """
    Join items into the arguments of `VlaNetwork.forward` and their targets.

    :returns: `frames` (sum T, 3, S, S) or (sum T, K, D), `text_ids` (N, L) padded on the right
        with 1, `text_lengths` (N,), `frame_counts` (N ints), `actions` (sum M, window, chunk,
        axes) and `real` (sum M, window, chunk).
    """
    return {
        'frames': torch.cat([item.frames for item in items]),
        'text_ids': torch.nn.utils.rnn.pad_sequence(
            [item.text_ids for item in items], batch_first=True, padding_value=1),
        'text_lengths': torch.tensor([len(item.text_ids) for item in items]),
        'frame_counts': [len(item.frames) for item in items],
        'actions': torch.cat([item.actions for item in items]),
        'real': torch.cat([item.real for item in items]),
    }
