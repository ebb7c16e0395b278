"""Prefetch batches in threads, ahead of the network."""

import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from mobile_vla_ros.data.dataset import Batch, Item, SegmentDataset, collate
from mobile_vla_ros.data.plan import Draw


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
