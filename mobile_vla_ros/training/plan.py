"""
What an epoch does, as a pure function of the seed: which pieces, in which order, how they meet.

Nothing here remembers anything, so a run that is resumed in the middle of an epoch, or spread over
more processes, does what it would have done.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence

import torch

# A piece and the seed of all that is random about it.
Draw = tuple[int, int]


def mixed(*parts: object) -> int:
    """Return a seed (0 to 2^63 - 1) that depends on every part."""
    digest = hashlib.sha256('/'.join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], 'big') >> 1


def epoch_draws(instructions: Sequence[str], seed: int, epoch: int, *,
                balance: bool = False) -> list[Draw]:
    """
    Return the pieces of an epoch in their order.

    :param instructions: of each piece.
    :param balance: draw as many pieces as there are, with replacement, so that every instruction
        is expected as often as any other; without it each piece comes once.
    """
    generator = torch.Generator().manual_seed(mixed('order', seed, epoch))
    if balance:
        counts = Counter(instructions)
        weights = torch.tensor([1 / counts[text] for text in instructions], dtype=torch.float64)
        order = torch.multinomial(weights, len(instructions), replacement=True,
                                  generator=generator)
    else:
        order = torch.randperm(len(instructions), generator=generator)
    return [(index, mixed('item', seed, epoch, place))
            for place, index in enumerate(order.tolist())]


def steps(draws: Sequence[Draw], batch_size: int, accumulate: int) -> list[list[list[Draw]]]:
    """
    Return the optimiser's steps, each a list of at most `accumulate` batches.

    The last step of an epoch takes what is left.
    """
    batches = [list(draws[start:start + batch_size])
               for start in range(0, len(draws), batch_size)]
    return [batches[start:start + accumulate] for start in range(0, len(batches), accumulate)]


def share(batches: Sequence[list[Draw]], process: int, processes: int) -> list[int]:
    """
    Return which batches of a step (their numbers) one process takes.

    Every process gets at least one, or gradients could not be joined: one that has none repeats
    the first, which then must count for nothing (`counts`).
    """
    return list(range(process, len(batches), processes)) or [0]


def counts(batches: Sequence[list[Draw]], process: int) -> bool:
    """Whether a process has batches of its own in a step."""
    return process < len(batches)


def cosine(done: int, total: int) -> float:
    """
    Return the share of the learning rate after some of all optimiser steps.

    Source: Loshchilov and Hutter, SGDR, 2017, equation 5, one period, down to zero.
    """
    return (1 + math.cos(math.pi * min(done, total) / total)) / 2
