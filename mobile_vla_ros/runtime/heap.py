"""Which of its free memory a process keeps: settings of glibc's malloc, elsewhere nothing."""

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
HEAP_BYTES = 1 << 25


@contextlib.contextmanager
def pages_of_their_own() -> Iterator[None]:
    """
    Let each tensor of 1 MB have its own pages, which go back as soon as it is replaced.

    In one heap the holes between them would stay, up to a quarter of the weights. Afterwards
    images and the like, up to 32 MB, are in the heap again, which keeps as much when it is free:
    a page that goes back is zeroed when it is next used, many times in a step.
    """
    _glibc('mallopt', M_MMAP_THRESHOLD, 1 << 20)
    try:
        yield
    finally:
        _glibc('mallopt', M_MMAP_THRESHOLD, HEAP_BYTES)
        _glibc('mallopt', M_TRIM_THRESHOLD, HEAP_BYTES)


def give_back() -> None:
    """Give back every free page of the heap."""
    _glibc('malloc_trim', 0)


def _glibc(name: str, *values: int) -> Any:
    return getattr(ctypes.CDLL(None), name, lambda *_: None)(*values)
