"""What a policy is asked besides: another instruction, and a take's frames in another order."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.runs import Run


def swap_instructions(runs: Sequence[Run], others: Sequence[Run] = ()) -> list[Run] | None:
    """
    Return the runs, each with another instruction.

    :param others: runs whose instructions may be taken as well.
    :returns: None when there is but one instruction.
    """
    known = sorted({run.instruction for run in [*runs, *others]})
    if len(known) < 2:
        return None
    other = dict(zip(known, known[1:] + known[:1], strict=True))
    return [replace(run, instruction=other[run.instruction]) for run in runs]


def shuffle_frames(runs: Sequence[Run], seed: int = 0) -> list[Run]:
    """
    Return the runs, each with its own frames in random order; its commands stay where they are.

    Every frame moves: the order is one ring through all of them. A run of one frame stays.
    """
    rng = np.random.default_rng(seed)
    shuffled = []
    for run in runs:
        ring = rng.permutation(len(run.frames))
        frames = run.frames.copy()
        frames[ring] = run.frames[np.roll(ring, 1)]
        shuffled.append(replace(run, frames=frames))
    return shuffled


class ShuffledTokens:
    """The image tokens of runs whose frames are in another order than they were taken in."""

    def __init__(self, tokens: ImageTokens):
        self._tokens = tokens

    def __getattr__(self, name: str):
        return getattr(self._tokens, name)

    def frames(self, run: Run, rows: slice, *variant) -> torch.Tensor:
        """Return (T, K, D) float32 tokens of some rows of a run, as `ImageTokens.frames` does."""
        place = np.argsort(np.argsort(run.frames))
        taken = replace(run, frames=np.sort(run.frames))
        return self._tokens.frames(taken, slice(0, len(place)), *variant)[place[rows]]
