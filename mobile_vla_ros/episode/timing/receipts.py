"""
Make receipts comparable across a step of the clock that they were taken on.

A recorder stores receipts on a clock that never steps. Episodes of version 1, and bags, have only
those of the wall clock or of a simulator: where they go back, the clock was set back. Each side is
paired alone: what follows is moved behind what came before.
"""

import numpy as np

from mobile_vla_ros.types import NANOSECONDS

# How long the step took is unknown; a gap of this length ends every window.
GAP_NS = NANOSECONDS
MIN_STEP_NS = NANOSECONDS // 10  # a smaller change is drift


def without_steps(*streams: np.ndarray) -> list[np.ndarray]:
    """
    Return receipts that never go back, in order of arrival.

    :param streams: (N,) int64 receipts each, of one clock; the first is that of the frames.
    :returns: the same arrays if none goes back; else each with the rows after a step moved.
    """
    backs = [np.flatnonzero(np.diff(stream) < 0) + 1 for stream in streams]
    if not any(len(back) for back in backs):
        return list(streams)
    # The stream that shows most of the steps says where they are.
    leader = max(range(len(streams)), key=lambda number: len(backs[number]))
    steps = [(int(streams[leader][row]), int(streams[leader][row - 1])) for row in backs[leader]]
    pieces = [
        np.split(stream, backs[leader] if number == leader else _places(stream, own, steps))
        for number, (stream, own) in enumerate(zip(streams, backs, strict=True))
    ]
    moved: list[list[np.ndarray]] = [[] for _ in streams]
    end_ns: int | None = None
    for side in zip(*pieces, strict=True):
        rows = [piece for piece in side if len(piece)]
        shift_ns = 0 if end_ns is None else end_ns + GAP_NS - min(int(piece[0]) for piece in rows)
        for kept, piece in zip(moved, side, strict=True):
            # A step that another stream does not show may be left inside one of its sides.
            kept.append(np.maximum.accumulate(piece) + shift_ns)
        end_ns = max(int(piece.max()) for piece in rows) + shift_ns
    return [np.concatenate(kept) for kept in moved]


def _places(stream: np.ndarray, own: np.ndarray, steps: list[tuple[int, int]]) -> list[int]:
    """
    Return the row of a stream at which each side begins.

    :param own: rows at which the stream itself goes back.
    :param steps: receipts just after and just before each step, in another stream.
    """
    places, last = [], 0
    for after_ns, before_ns in steps:
        fits = [
            int(row)
            for row in own
            if row > last and stream[row] <= before_ns and stream[row - 1] >= after_ns
        ]
        # Without a step of its own, the rows between the two times belong to either side.
        later = np.append(stream[last:] > after_ns, True)
        last = fits[0] if fits else last + int(np.argmax(later))
        places.append(last)
    return places


def clock_steps(received_ns: np.ndarray, steady_ns: np.ndarray) -> np.ndarray:
    """
    Return the rows before which the clock of the receipts was set, by ``MIN_STEP_NS`` or more.

    :param received_ns: (N,) int64 receipts on it; steady_ns: (N,) on a clock that never steps.
    """
    return np.flatnonzero(np.abs(np.diff(received_ns - steady_ns)) >= MIN_STEP_NS) + 1
