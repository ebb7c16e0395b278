"""Batches that threads read and decode ahead of the network."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from mobile_vla_ros.data.dataset import RunDataset, collate
from mobile_vla_ros.data.plan import Draw


class Feed:
    """
    Makes batches of a dataset's pieces, and counts how long was waited for them.

    Threads and not processes: decoding lets go of Python's lock, all share one cache of frames,
    and shared memory (64 MB in many containers) is not needed.

    :param workers: threads; 0 makes each batch when it is asked for.
    :param clock: seconds, to count the waiting by.
    """

    def __init__(self, data: RunDataset, workers: int, clock: Callable[[], float]):
        self.data = data
        self.workers = workers
        self._clock = clock
        self.waited_s = 0.0

    def batches(self, wanted: Iterable[Sequence[Draw | int]]) -> Iterator[dict]:
        """
        Yield the batches in their order.

        :param wanted: the pieces of each batch: with the seed of what is random about it, or a
            number alone for a piece as it is.
        """
        if not self.workers:
            for draws in wanted:
                yield self._waited(lambda draws=draws: self._make(draws))
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix='feed')
        pending: deque = deque()
        try:
            for draws in wanted:
                pending.append(pool.submit(self._make, draws))
                if len(pending) > self.workers + 1:
                    yield self._waited(pending.popleft().result)
            while pending:
                yield self._waited(pending.popleft().result)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _make(self, draws: Sequence[Draw | int]) -> dict:
        return collate([self._item(one) for one in draws])

    def _item(self, one: Draw | int):
        if isinstance(one, int):
            return self.data.item(one, None)
        index, seed = one
        return self.data.item(index, torch.Generator().manual_seed(seed))

    def _waited(self, get: Callable[[], dict]) -> dict:
        began = self._clock()
        batch = get()
        self.waited_s += self._clock() - began
        return batch
