"""
Order the pieces of an epoch, and make their batches ahead of the network.

The order is a pure function of the random seed: a training run that is resumed in the middle of
an epoch, or spread over more processes, does the same steps.
"""

import functools
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from mobile_vla_ros.data.dataset import Batch, Item, SegmentDataset, collate

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


class Feed:
    """
    Make batches of a dataset's pieces, and measure how long the consumer waits for them.

    Threads rather than processes: decoding releases the GIL, all threads share one frame cache,
    and no shared memory is needed (many containers have 64 MB).

    :param workers: number of threads; 0 makes each batch on demand.
    :param clock: returns seconds; measures the waiting.
    :param pin: put batches in memory that a GPU copies from while it computes.
    """

    def __init__(
        self, data: SegmentDataset, workers: int, clock: Callable[[], float], *, pin: bool = False
    ):
        self.data = data
        self.workers = workers
        self._clock, self._pin = clock, pin
        self.waited_s = 0.0

    def batches(self, wanted: Iterable[Sequence[Draw | int]]) -> Generator[Batch, None, None]:
        """
        Yield the batches in order.

        :param wanted: the pieces of each batch, as draws (number and random seed), or as plain
            numbers for pieces without augmentation.
        """
        if not self.workers:
            for draws in wanted:
                yield self._timed(functools.partial(self._make, draws))
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix='feed')
        pending: deque[Future[Batch]] = deque()
        try:
            for draws in wanted:
                pending.append(pool.submit(self._make, draws))
                if len(pending) > self.workers + 1:
                    yield self._timed(pending.popleft().result)
            while pending:
                yield self._timed(pending.popleft().result)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, draws: Sequence[Draw | int]) -> Batch:
        batch = collate([self._item(draw) for draw in draws])
        if self._pin:
            for name, value in batch.items():
                if isinstance(value, torch.Tensor):
                    batch[name] = value.pin_memory()  # type: ignore[literal-required]
        return batch

    def _item(self, draw: Draw | int) -> Item:
        if isinstance(draw, int):
            return self.data.item(draw, None)
        index, seed = draw
        return self.data.item(index, torch.Generator().manual_seed(seed))

    def _timed(self, get: Callable[[], Batch]) -> Batch:
        start = self._clock()
        batch = get()
        self.waited_s += self._clock() - start
        return batch
