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
MAX_STEPS = 100  # with more of them in an episode, the receipts are no clock


def without_steps(
    frames_ns: np.ndarray, commands_ns: np.ndarray, *others: np.ndarray
) -> list[np.ndarray]:
    """
    Return receipts of one clock so that those of frames and commands never go back.

    :param frames_ns: (N,) int64 in order of arrival; likewise ``commands_ns``.
    :param others: of rows that may be written late, such as events.
    :returns: the same arrays if none of the first two goes back; else all of them with the rows
        after a step moved.
    """
    streams = (frames_ns, commands_ns)
    backs = [np.flatnonzero(np.diff(stream) < 0) + 1 for stream in streams]
    if not any(len(back) for back in backs):
        return [*streams, *others]
    if max(map(len, backs)) > MAX_STEPS:  # no clock: a stranger's file, or rows without order
        return [np.maximum.accumulate(stream) for stream in (*streams, *others)]
    # The stream that shows most of the steps says where they are.
    leader = 0 if len(backs[0]) >= len(backs[1]) else 1
    steps = [(int(streams[leader][row]), int(streams[leader][row - 1])) for row in backs[leader]]
    apart_ns = sum(map(_interval_ns, streams))
    pieces = [
        np.split(
            stream, backs[leader] if number == leader else _places(stream, own, steps, apart_ns)
        )
        for number, (stream, own) in enumerate(zip(streams, backs, strict=True))
    ]
    moved: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    ends_ns: list[int] = []
    shifts_ns: list[int] = []
    for side in zip(*pieces, strict=True):
        rows = np.concatenate(side)
        shift_ns = ends_ns[-1] + shifts_ns[-1] + GAP_NS - int(rows.min()) if ends_ns else 0
        for kept, piece in zip(moved, side, strict=True):
            # A step that the other stream does not show may be left inside one of its sides.
            kept.append(np.maximum.accumulate(piece) + shift_ns)
        ends_ns.append(int(rows.max()))
        shifts_ns.append(shift_ns)
    return [
        *(np.concatenate(kept) for kept in moved),
        *(_follow(stream, ends_ns, shifts_ns) for stream in others),
    ]


def _follow(stream: np.ndarray, ends_ns: list[int], shifts_ns: list[int]) -> np.ndarray:
    """Move each row with the first side, from that of the row before on, that ends after it."""
    moved, side = np.array(stream), 0
    for row, time_ns in enumerate(stream.tolist()):
        goes_back = row and time_ns < stream[row - 1] - GAP_NS
        side = min(side + bool(goes_back), len(ends_ns) - 1)
        while time_ns > ends_ns[side] and side + 1 < len(ends_ns):
            side += 1
        moved[row] += shifts_ns[side]
    return moved


def _interval_ns(stream: np.ndarray) -> int:
    return int(np.median(np.abs(np.diff(stream)))) if len(stream) > 1 else 0


def _places(
    stream: np.ndarray, own: np.ndarray, steps: list[tuple[int, int]], apart_ns: int
) -> list[int]:
    """
    Return the row of a stream at which each side begins.

    :param own: rows at which the stream itself goes back.
    :param steps: receipts just after and just before each step, in another stream.
    :param apart_ns: how far a step's receipts in one stream may be from those in the other: an
        interval of each, if the step is hardly longer than that.
    """
    places, last = [], 0
    for after_ns, before_ns in steps:
        fits = [
            int(row)
            for row in own
            if row > last
            and stream[row] <= before_ns + apart_ns
            and stream[row - 1] >= after_ns - apart_ns
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
