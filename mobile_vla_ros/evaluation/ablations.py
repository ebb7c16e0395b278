"""What a policy is asked besides: another instruction, and a take's frames in another order."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

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
