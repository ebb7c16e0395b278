"""
Plan an epoch as a pure function of the random seed: which pieces, in which order and steps.

There is no state, so a training run that is resumed in the middle of an epoch, or spread over
more processes, does the same steps.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import torch

# Number of a piece, and the random seed of its augmentation.
Draw = tuple[int, int]


def mixed(*parts: object) -> int:
    """Return a random seed (0 to 2^63 - 1) that depends on every part."""
    digest = hashlib.sha256('/'.join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], 'big') >> 1


def epoch_draws(
    instructions: Sequence[str], seed: int, epoch: int, *, balance: bool = False
) -> list[Draw]:
    """
    Return the pieces of an epoch in order.

    :param instructions: instruction of each piece.
    :param balance: draw as many pieces as there are, with replacement, so that all instructions
        are equally frequent in expectation; otherwise each piece occurs once.
    """
    generator = torch.Generator().manual_seed(mixed('order', seed, epoch))
    if balance:
        counts = Counter(instructions)
        weights = torch.tensor([1 / counts[text] for text in instructions], dtype=torch.float64)
        order = torch.multinomial(
            weights, len(instructions), replacement=True, generator=generator
        )
    else:
        order = torch.randperm(len(instructions), generator=generator)
    return [
        (index, mixed('item', seed, epoch, place)) for place, index in enumerate(order.tolist())
    ]


def steps(draws: Sequence[Draw], pieces: int) -> list[Sequence[Draw]]:
    """Return the pieces of each optimiser step; the last step has the remainder."""
    return [draws[start : start + pieces] for start in range(0, len(draws), pieces)]


def share(
    step: Sequence[Draw], process: int, processes: int, batch_size: int
) -> list[Sequence[Draw]]:
    """
    Return one process's batches of a step, of at most `batch_size` pieces each.

    Together the processes do every piece once, in nearly equal numbers; some may get no batch.
    """
    first, last = (len(step) * number // processes for number in (process, process + 1))
    return steps(step[first:last], batch_size)
