"""Pieces of runs as training items, each frame of a piece present once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from mobile_vla_ros.data.augment import (
    Augmentation,
    mirror_actions,
    mirror_images,
    mirror_instruction,
)
from mobile_vla_ros.data.preprocess import normalise, resize
from mobile_vla_ros.data.runs import Run
from mobile_vla_ros.episode.reader import Episode
from mobile_vla_ros.types import ActionSpec, ImageSpec


@dataclass(frozen=True)
class Item:
    """
    A piece of a run.

    :param pixels: (T, 3, S, S) float32.
    :param text_ids: (L,) int64 tokens of the instruction.
    :param actions: (M, window, chunk, axes) float32, normalised.
    :param real: (M, window, chunk) bool.
    """

    pixels: torch.Tensor
    text_ids: torch.Tensor
    actions: torch.Tensor
    real: torch.Tensor


class FrameCache:
    """Frames decoded and resized once, kept as uint8 while there is room."""

    def __init__(self, spec: ImageSpec, budget_bytes: int = 1 << 30):
        self.spec = spec
        self.room = budget_bytes
        self.kept: dict[tuple[str, int], np.ndarray] = {}

    def frames(self, run: Run, rows: slice) -> np.ndarray:
        """Return (T, S, S, 3) uint8 of some rows of a run."""
        wanted = [(str(run.path), int(index)) for index in run.frames[rows]]
        missing = [key for key in wanted if key not in self.kept]
        fresh = {}
        if missing:
            with Episode.open(run.path) as episode:
                for key in missing:
                    fresh[key] = resize(episode.frame(key[1]).image, self.spec)
        for key, image in fresh.items():
            if image.nbytes <= self.room:
                self.kept[key] = image
                self.room -= image.nbytes
        return np.stack([self.kept[key] if key in self.kept else fresh[key] for key in wanted])


class RunDataset(Dataset):
    """
    Runs cut into pieces of at most `piece_frames` frames.

    Every window of every run is in exactly one piece; neighbouring pieces of a run share
    window - 1 frames.

    :param text_ids: tokens of each instruction, and of its mirror image if there is to be one.
    """

    def __init__(self, runs: Sequence[Run], actions: ActionSpec, image: ImageSpec, window: int,
                 piece_frames: int, text_ids: dict[str, torch.Tensor],
                 augmentation: Augmentation | None = None):
        self.runs = list(runs)
        self.actions = actions
        self.image = image
        self.window = window
        self.text_ids = text_ids
        self.augmentation = augmentation or Augmentation()
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
        images = self.augmentation.change_light(self.cache.frames(run, slice(start, stop)))
        instruction, actions = run.instruction, self.actions.normalise(run.ahead[rows])
        if self.augmentation.draw_mirror():
            images = mirror_images(images)
            instruction = mirror_instruction(instruction)
            actions = mirror_actions(actions, self.actions)
        return Item(normalise(images, self.image), self.text_ids[instruction],
                    torch.from_numpy(actions), torch.from_numpy(run.real[rows]))


def collate(items: Sequence[Item]) -> dict:
    """
    Join items into the arguments of `VlaNetwork.forward` and their targets.

    :returns: `pixels` (sum T, 3, S, S), `text_ids` (N, L) padded on the right with 1,
        `text_lengths` (N,), `frame_counts` (N ints), `actions` (sum M, window, chunk, axes) and
        `real` (sum M, window, chunk).
    """
    return {
        'pixels': torch.cat([item.pixels for item in items]),
        'text_ids': torch.nn.utils.rnn.pad_sequence(
            [item.text_ids for item in items], batch_first=True, padding_value=1),
        'text_lengths': torch.tensor([len(item.text_ids) for item in items]),
        'frame_counts': [len(item.pixels) for item in items],
        'actions': torch.cat([item.actions for item in items]),
        'real': torch.cat([item.real for item in items]),
    }
