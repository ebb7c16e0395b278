"""A torch dataset of pieces of segments; each frame appears once in its piece."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

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
from mobile_vla_ros.data.segments import Segment
from mobile_vla_ros.episode.timing.corrections import CORRECTED, PLAIN, WRONG
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ActionSpec, ImageSpec

STILL = 1e-6  # normalised actions below this count as standing still


@dataclass(frozen=True)
class Item:
    """
    A piece of a segment.

    :param frames: (T, 3, S, S) float32 images, or their (T, K, D) image tokens.
    :param windows: (M, window) int64 rows in ``frames`` of the frames of each window.
    :param text_ids: (L,) int64 tokens of the instruction.
    :param actions: (M, window, chunk, axes) float32, normalised.
    :param real: (M, window, chunk) bool: the chunk steps that the loss counts.
    :param broken: '' for a readable piece; otherwise the error that names the file and the frame.
        The frames are blank then, and ``real`` is False throughout.
    :param weight: (M, window, chunk) float32: weight of each chunk step, 0 where it is not real;
        None if all real steps weigh the same.
    """

    frames: torch.Tensor
    windows: torch.Tensor
    text_ids: torch.Tensor
    actions: torch.Tensor
    real: torch.Tensor
    broken: str = ''
    weight: torch.Tensor | None = None


class _Batch(TypedDict):
    frames: torch.Tensor
    text_ids: torch.Tensor
    text_lengths: torch.Tensor
    frame_counts: list[int]
    windows: torch.Tensor
    actions: torch.Tensor
    real: torch.Tensor
    broken: list[str]


class Batch(_Batch, total=False):
    """
    Items joined by `collate`: the arguments of `VlaNetwork.forward` and their targets.

    `frames` (sum T, 3, S, S) or (sum T, K, D); `text_ids` (N, L), padded on the right with 1;
    `text_lengths` (N,); `frame_counts`: N ints; `windows` (sum M, window) rows in `frames`;
    `actions` (sum M, window, chunk, axes); `real` (sum M, window, chunk), and so is `weight`,
    which only weighted items have; `broken`: the errors of unreadable items.
    """

    weight: torch.Tensor


class SegmentDataset(Dataset):
    """
    Segments cut into pieces: consecutive windows with at most `piece_frames` frames.

    Every window that is not thinned out is in exactly one piece; neighbouring pieces of a segment
    share frames. Thread-safe.

    :param text_ids: tokens of each instruction, and of its mirror image if pieces are mirrored.
    :param blank_images: replace every image by the mean colour.
    :param tokens: source of image tokens, returned instead of images.
    :param idle_keep: share of each idle span of windows to keep, from its beginning, so that
        stopping is learned, but not in proportion to how long the robot waited.
    :param cache: decoded frames, shared with other datasets of the same episodes.
    :param corrections: weight of a person's commands in a takeover; the policy's errors before it
        weigh nothing then. 0: all steps weigh the same.
    :raises UserError: when no window is left.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        actions: ActionSpec,
        image: ImageSpec,
        piece_frames: int,
        text_ids: Mapping[str, torch.Tensor],
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
        self.segments = list(segments)
        self.actions = actions
        self.image = image
        self.text_ids = text_ids
        self.augmentation = augmentation or Augmentation()
        self.blank_images = blank_images
        self.tokens = tokens
        self.cache = cache or FrameCache(image)
        self._weights: np.ndarray | None = None  # by kind of command
        if corrections:
            self._weights = np.ones(3, np.float32)
            self._weights[[PLAIN, CORRECTED, WRONG]] = 1, corrections, 0
        if tokens is not None:
            tokens.blank(1)  # encode it now, not in a thread beside the network in training
        # Number of the segment, and its windows from a first one to before a last one.
        self.pieces = [
            (number, start, stop)
            for number, segment in enumerate(self.segments)
            for first, last in true_spans(self._kept(segment, idle_keep))
            for start, stop in _cut(segment.windows, first, last, piece_frames)
        ]
        if self.thinned and not self.windows:
            raise UserError(
                'no windows left to learn from',
                got=f'{self.thinned} windows in which nothing moves',
                expected='episodes in which the robot drives',
                remedy='set --idle_keep above 0, or choose other --axes',
            )

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> Item:
        return self.item(index, None)

    @property
    def windows(self) -> int:
        """Number of windows in the pieces."""
        return sum(stop - start for _, start, stop in self.pieces)

    @property
    def thinned(self) -> int:
        """Number of idle windows left out."""
        return sum(len(segment.windows) for segment in self.segments) - self.windows

    @property
    def instructions(self) -> list[str]:
        """Instruction of each piece, before mirroring."""
        return [self.segments[number].instruction for number, _, _ in self.pieces]

    def real_steps(self, index: int) -> int:
        """Count the True values in `real` of a readable item, without reading images."""
        segment, rows = self._windows(index)
        return int(segment.real[rows].sum())

    def weight_of(self, index: int) -> float:
        """Return a piece's weight in the loss: its real steps, or the sum of their weights."""
        segment, rows = self._windows(index)
        weights = self._step_weights(segment, rows)
        return self.real_steps(index) if weights is None else float(weights.sum(dtype=np.float64))

    def _step_weights(self, segment: Segment, rows: np.ndarray) -> np.ndarray | None:
        """Return the (M, window, chunk) float32 weights of windows, None if all are the same."""
        if self._weights is None:
            return None
        real = segment.real[rows]
        kinds = np.zeros(real.shape, np.uint8) if segment.kinds is None else segment.kinds[rows]
        return np.where(real, self._weights[kinds], np.float32(0))

    def item(self, index: int, generator: torch.Generator | None) -> Item:
        """
        Return a piece.

        :param generator: the only source of randomness, so that the same index and seed give the
            same item; None: no augmentation.
        """
        segment, rows = self._windows(index)
        own, windows = np.unique(rows, return_inverse=True)
        instruction, actions = segment.instruction, self.actions.normalise(segment.ahead[rows])
        real, broken = torch.from_numpy(segment.real[rows]), ''
        mirrored = generator is not None and self.augmentation.draw_mirror(generator)
        if mirrored:
            instruction = mirror_instruction(instruction)
            actions = mirror_actions(actions, self.actions)
        try:
            frames = self._frames(segment, own, mirrored, generator)
        except UserError as error:
            frames, real, broken = self._blank(len(own)), torch.zeros_like(real), str(error)
        weights = self._step_weights(segment, rows)
        return Item(
            frames,
            torch.from_numpy(windows.reshape(rows.shape)),
            self.text_ids[instruction],
            torch.from_numpy(actions),
            real,
            broken,
            None if weights is None else torch.from_numpy(weights) * real,
        )

    def _kept(self, segment: Segment, idle_keep: float) -> np.ndarray:
        """
        Return (M,) bool: the windows of a segment to learn from.

        A window is idle if nothing moves from its newest frame to the end of its chunk. Windows
        in which the robot stops or sets off are not idle, so both are learned in full.
        """
        newest = segment.windows[:, -1]
        moves = (np.abs(self.actions.normalise(segment.ahead[newest])) >= STILL).any(-1)
        idle = ~(moves & segment.real[newest]).any(-1)
        kept: np.ndarray = ~idle
        for first, last in true_spans(idle):
            kept[first : first + math.ceil(idle_keep * (last - first) - 1e-9)] = True
        return kept

    def _windows(self, index: int) -> tuple[Segment, np.ndarray]:
        """Return a piece's segment, and its (M, window) windows as places in the segment."""
        number, start, stop = self.pieces[index]
        segment = self.segments[number]
        return segment, segment.windows[start:stop]

    def _blank(self, count: int) -> torch.Tensor:
        side = self.image.size
        return self.tokens.blank(count) if self.tokens else torch.zeros(count, 3, side, side)

    def _frames(
        self, segment: Segment, rows: np.ndarray, mirrored: bool, generator: torch.Generator | None
    ) -> torch.Tensor:
        if self.blank_images:
            return self._blank(len(rows))
        changing = generator if self.augmentation.changes_images else None
        if self.tokens is not None:
            draw = 0 if changing is None else self.tokens.draw(changing)
            return self.tokens.frames(segment, rows, mirrored, draw)
        images = self.cache.frames(segment, rows)
        if changing is not None:
            images = self.augmentation.draw(changing).apply(images)
        return normalise(mirror_images(images) if mirrored else images, self.image)


def _cut(
    windows: np.ndarray, first: int, last: int, piece_frames: int
) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of consecutive windows that have at most so many frames together."""
    frames: set[int] = set()
    for number in range(first, last):
        own = windows[number].tolist()
        if frames and len(frames.union(own)) > piece_frames:
            yield first, number
            first, frames = number, set()
        frames.update(own)
    if frames:
        yield first, last


def true_spans(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, last + 1) of each contiguous span of True in (M,) bool."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    return list(
        zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True)
    )


def collate(items: Sequence[Item]) -> Batch:
    """Join items into a batch."""
    counts = [len(item.frames) for item in items]
    firsts = itertools.accumulate(counts, initial=0)
    batch: Batch = {
        'frames': torch.cat([item.frames for item in items]),
        'text_ids': torch.nn.utils.rnn.pad_sequence(
            [item.text_ids for item in items], batch_first=True, padding_value=1
        ),
        'text_lengths': torch.tensor([len(item.text_ids) for item in items]),
        'frame_counts': counts,
        'windows': torch.cat(
            [item.windows + first for item, first in zip(items, firsts, strict=False)]
        ),
        'actions': torch.cat([item.actions for item in items]),
        'real': torch.cat([item.real for item in items]),
        'broken': [item.broken for item in items if item.broken],
    }
    if items[0].weight is not None:
        batch['weight'] = torch.cat([item.weight for item in items])
    return batch
