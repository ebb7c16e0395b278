"""Controls: the same segments with swapped instructions, or with shuffled frames."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mobile_vla_ros.data.segments import Segment


def swap_instructions(
    segments: Sequence[Segment], others: Sequence[Segment] = ()
) -> list[Segment] | None:
    """
    Return the segments, each with another instruction.

    :param others: further segments to draw instructions from.
    :returns: None when there is only one instruction.
    """
    known = sorted({segment.instruction for segment in [*segments, *others]})
    if len(known) < 2:
        return None
    other = dict(zip(known, known[1:] + known[:1], strict=True))
    return [replace(segment, instruction=other[segment.instruction]) for segment in segments]


def shuffle_frames(segments: Sequence[Segment], seed: int = 0) -> list[Segment]:
    """
    Return the segments, each with its frames in random order; the commands stay in place.

    Every frame moves, because the order is a single cycle; a segment of one frame is unchanged.

    :param seed: random seed.
    """
    rng = np.random.default_rng(seed)
    shuffled = []
    for segment in segments:
        cycle = rng.permutation(len(segment.frames))
        frames = segment.frames.copy()
        frames[cycle] = segment.frames[np.roll(cycle, 1)]
        shuffled.append(replace(segment, frames=frames))
    return shuffled
