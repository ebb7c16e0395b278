"""Pieces of runs as training items, each frame of a piece present once."""

import math
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
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.preprocess import normalise
from mobile_vla_ros.data.runs import Run
from mobile_vla_ros.episode.timing.corrections import CORRECTED, PLAIN, WRONG
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ActionSpec, ImageSpec

STILL = 1e-6  # of a normalised action: what is smaller is no movement


@dataclass(frozen=True)
class Item:
    """
    A piece of a run.

    :param frames: (T, 3, S, S) float32 images, or their (T, K, D) image tokens.
    :param text_ids: (L,) int64 tokens of the instruction.
    :param actions: (M, window, chunk, axes) float32, normalised.
    :param real: (M, window, chunk) bool: what the loss counts.
    :param weight: (M, window, chunk) float32: how much each of these counts, 0 where it is not
        real; None: all of them the same.
    :param broken: '' when the piece is whole; else the sentence that says which frame of which
        file cannot be read. Its frames are blank then, and nothing of it is real.
    """

    frames: torch.Tensor
    text_ids: torch.Tensor
    actions: torch.Tensor
    real: torch.Tensor
    broken: str = ''
    weight: torch.Tensor | None = None


class RunDataset(Dataset):
    """
    Runs cut into pieces of at most `piece_frames` frames.

    Every window of every run that is not thinned away is in exactly one piece; neighbouring
    pieces of a run share window - 1 frames. Several threads may ask for items at once.

    :param text_ids: tokens of each instruction, and of its mirror image if there is to be one.
    :param blank_images: give the mean colour instead of every image.
    :param tokens: gives image tokens instead of images (`data.image_tokens`).
    :param idle_keep: of each stretch of windows in which nothing moves, the share that is kept,
        its beginning: what follows the stop is learned, and not for as long as it lasted.
    :param cache: frames that other datasets of the same takes have decoded; None: one of its own.
    :param corrections: how many times a person's command in a takeover weighs; what was wrong
        before it weighs nothing then. 0: everything weighs the same.
    :raises UserError: when no window is left.

    `windows` are in its pieces, `thinned` were left out.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        actions: ActionSpec,
        image: ImageSpec,
        window: int,
        piece_frames: int,
        text_ids: dict[str, torch.Tensor],
        augmentation: Augmentation | None = None,
        *,
        blank_images: bool = False,
        tokens: ImageTokens | None = None,
        idle_keep: float = 1.0,
        cache: FrameCache | None = None,
        corrections: float = 0.0,
    ):
        if not 0 <= idle_keep <= 1:
            raise UserError(
                'the share of idle windows to keep is out of range',
                got=idle_keep,
                expected='0 to 1',
            )
        self.runs = list(runs)
        self.actions = actions
        self.image = image
        self.window = window
        self.text_ids = text_ids
        self.augmentation = augmentation or Augmentation()
        self.blank_images = blank_images
        self.tokens = tokens
        self.cache = cache or FrameCache(image)
        self._weights = np.ones(3, np.float32)
        if corrections:
            self._weights[[PLAIN, CORRECTED, WRONG]] = 1, corrections, 0
        self.weighed = bool(corrections)
        if tokens is not None:
            tokens.blank(1)  # encoded here, and not by a thread beside the training network
        per_piece = max(1, piece_frames - window + 1)
        kept = [self._kept(run, idle_keep) for run in self.runs]
        self.pieces = [
            (number, start, min(start + per_piece, last) + window - 1)
            for number, of_run in enumerate(kept)
            for first, last in stretches(of_run)
            for start in range(first, last, per_piece)
        ]
        self.windows = sum(int(of_run.sum()) for of_run in kept)
        self.thinned = sum(map(len, kept)) - self.windows
        if self.thinned and not self.windows:
            raise UserError(
                'no window is left to learn from',
                got=f'{self.thinned} windows in which nothing moves',
                expected='takes in which the robot drives',
                remedy='give more than 0 for --idle_keep, or other --axes',
            )

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> Item:
        return self.item(index, None)

    @property
    def instructions(self) -> list[str]:
        """The instruction of each piece, as it was given."""
        return [self.runs[number].instruction for number, _, _ in self.pieces]

    def real_steps(self, index: int) -> int:
        """Count the True values in `real` of an item (of one that is whole); reads no image."""
        run, rows = self._windows(index)
        return int(run.real[rows].sum())

    def weight_of(self, index: int) -> float:
        """Return what a piece weighs in the loss: its real steps, or the sum of their weights."""
        if not self.weighed:
            return self.real_steps(index)
        run, rows = self._windows(index)
        return float(self._weigh(run, rows).sum(dtype=np.float64))

    def _weigh(self, run: Run, rows: np.ndarray) -> np.ndarray:
        """Return (M, window, chunk) float32: what each step of a piece's windows weighs."""
        real = run.real[rows]
        kinds = np.zeros(real.shape, np.uint8) if run.kinds is None else run.kinds[rows]
        return np.where(real, self._weights[kinds], np.float32(0))

    def item(self, index: int, generator: torch.Generator | None) -> Item:
        """
        Return a piece.

        :param generator: all that is random is drawn from it and from nothing else, so that the
            same index and seed give the same item; None: as it came, without augmentation.
        """
        _, start, stop = self.pieces[index]
        run, rows = self._windows(index)
        instruction, actions = run.instruction, self.actions.normalise(run.ahead[rows])
        real, broken = torch.from_numpy(run.real[rows]), ''
        mirrored = generator is not None and self.augmentation.draw_mirror(generator)
        if mirrored:
            instruction = mirror_instruction(instruction)
            actions = mirror_actions(actions, self.actions)
        try:
            frames = self._frames(run, slice(start, stop), mirrored, generator)
        except UserError as error:
            frames, real, broken = self._blank(stop - start), torch.zeros_like(real), str(error)
        weight = None
        if self.weighed:
            weight = torch.from_numpy(self._weigh(run, rows)) * real
        return Item(
            frames, self.text_ids[instruction], torch.from_numpy(actions), real, broken, weight
        )

    def _kept(self, run: Run, idle_keep: float) -> np.ndarray:
        """
        Return (M,) bool: the windows of a run that are learned from.

        A window is idle when nothing moves from its newest frame to the end of its chunk: one
        that stops or sets off within the chunk is not, so both are learned in full.
        """
        newest = slice(self.window - 1, None)
        moves = (np.abs(self.actions.normalise(run.ahead[newest])) >= STILL).any(-1)
        idle = ~(moves & run.real[newest]).any(-1)
        kept = ~idle
        for first, last in stretches(idle):
            kept[first : first + math.ceil(idle_keep * (last - first) - 1e-9)] = True
        return kept

    def _windows(self, index: int) -> tuple[Run, np.ndarray]:
        """Return a piece's run and the (M, window) rows of its windows."""
        number, start, stop = self.pieces[index]
        run = self.runs[number]
        return run, run.windows(self.window)[start : stop - self.window + 1]

    def _blank(self, count: int) -> torch.Tensor:
        side = self.image.size
        return self.tokens.blank(count) if self.tokens else torch.zeros(count, 3, side, side)

    def _frames(
        self, run: Run, rows: slice, mirrored: bool, generator: torch.Generator | None
    ) -> torch.Tensor:
        if self.blank_images:
            return self._blank(rows.stop - rows.start)
        changes = generator is not None and self.augmentation.changes_images
        if self.tokens is not None:
            draw = self.tokens.draw(generator) if changes else 0
            return self.tokens.frames(run, rows, mirrored, draw)
        images = self.cache.frames(run, rows)
        if changes:
            images = self.augmentation.draw(generator).apply(images)
        return normalise(mirror_images(images) if mirrored else images, self.image)


def stretches(kept: np.ndarray) -> list[tuple[int, int]]:
    """Return first and last + 1 of each stretch of True in (M,) bool."""
    edges = np.diff(np.concatenate([[0], kept.astype(np.int8), [0]]))
    return list(
        zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)
    )


def collate(items: Sequence[Item]) -> dict:
    """
    Join items into the arguments of `VlaNetwork.forward` and their targets.

    :returns: `frames` (sum T, 3, S, S) or (sum T, K, D), `text_ids` (N, L) padded on the right
        with 1, `text_lengths` (N,), `frame_counts` (N ints), `actions` (sum M, window, chunk,
        axes), `real` (sum M, window, chunk), `broken`: the sentences of the items that are, and
        `weight` (sum M, window, chunk) of items that have one.
    """
    batch = {
        'frames': torch.cat([item.frames for item in items]),
        'text_ids': torch.nn.utils.rnn.pad_sequence(
            [item.text_ids for item in items], batch_first=True, padding_value=1
        ),
        'text_lengths': torch.tensor([len(item.text_ids) for item in items]),
        'frame_counts': [len(item.frames) for item in items],
        'actions': torch.cat([item.actions for item in items]),
        'real': torch.cat([item.real for item in items]),
        'broken': [item.broken for item in items if item.broken],
    }
    if items[0].weight is not None:
        batch['weight'] = torch.cat([item.weight for item in items])
    return batch
