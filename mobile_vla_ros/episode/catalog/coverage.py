"""
What a set of takes covers: directions driven, starts, and sequences of actions that are alike.

All of it is arithmetic on what one pass over a take leaves behind (``motion``, ``signature``,
``start_view``), so that thousands of takes are compared without being opened again.
"""

import io
import itertools
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from mobile_vla_ros.episode.timing.timeline import COMMAND_MAX_AGE_S
from mobile_vla_ros.types import NANOSECONDS

# Directions a base moves in, and the sign and column of the twist that say so (REP 103).
DIRECTIONS = {
    'forward': (0, 1),
    'back': (0, -1),
    'left': (1, 1),
    'right': (1, -1),
    'turn_left': (5, 1),
    'turn_right': (5, -1),
}
DRIVEN = [0, 1, 5]  # vx, vy, wz
STILL_SHARE = 0.05  # of a take's highest speed: below it the robot counts as standing

SIGNATURE_HZ = 5
LONGEST_PAUSE_S = 10.0  # a longer silence between two commands counts as this
# Two takes are near-identical when their commands are apart, on average over time, by less than
# this share of the set's usual speed, and neither is longer than the other by a quarter.
NEAR_SHARE = 0.05
NEAR_LENGTH = 1.25
BLOCKS = 8

VIEW_SIZE = (8, 6)
SAME_VIEW = 0.98  # correlation of two first pictures taken from one place
MAX_STARTS = 100


def motion(received_ns: np.ndarray, twist: np.ndarray) -> dict[str, float]:
    """
    Return the seconds a take moved: ``moving``, and in each of ``DIRECTIONS``.

    A command holds until the next one, at most ``COMMAND_MAX_AGE_S``, as in ``timeline``; the
    last one holds as long as most did. Along a diagonal two directions count.

    :param received_ns: (N,) int64 receipts; twist: (N, 6) m/s and rad/s.
    """
    begins, ends, speeds = _held(received_ns, twist)
    seconds = ends - begins
    still = _still(speeds)
    found = {'moving': float(seconds[np.abs(speeds).max(axis=1, initial=0) > still].sum())}
    for name, (column, sign) in DIRECTIONS.items():
        along = sign * speeds[:, DRIVEN.index(column)]
        found[name] = float(seconds[along > still].sum())
    return found


def signature(received_ns: np.ndarray, twist: np.ndarray) -> np.ndarray:
    """
    Return what was driven, freed of when it was driven: the commands at 5 Hz.

    The time starts at the first command that moves the robot and ends with the last one; every
    row is the mean over its 0.2 s, so that key presses between two rows are not lost. Commands
    hold as in ``motion``.

    :param received_ns: (N,) int64 receipts; twist: (N, 6) m/s and rad/s.
    :returns: (T, 3) float32: vx, vy in m/s and the turn in rad/s; (0, 3) for a take that never
        moves.
    """
    begins, ends, speeds = _held(received_ns, twist)
    moving = np.flatnonzero(np.abs(speeds).max(axis=1, initial=0) > _still(speeds))
    if not len(moving):
        return np.zeros((0, len(DRIVEN)), np.float32)
    first, last = begins[moving[0]], ends[moving[-1]]
    count = max(1, math.ceil(round((last - first) * SIGNATURE_HZ, 6)))
    edges = first + np.arange(count + 1) / SIGNATURE_HZ
    # The way driven by each edge: linear while a command holds, level where none does.
    ways = np.cumsum(speeds * (ends - begins)[:, None], axis=0)
    knots = np.stack([begins, ends], axis=1).ravel()
    before = np.vstack([np.zeros(len(DRIVEN)), ways[:-1]])
    at_knots = np.stack([before, ways], axis=1).reshape(-1, len(DRIVEN))
    along = np.stack([np.interp(edges, knots, way) for way in at_knots.T], axis=1)
    return (np.diff(along, axis=0) * SIGNATURE_HZ).astype(np.float32)


def near_identical(signatures: Sequence[np.ndarray]) -> list[list[int]]:
    """
    Group takes that drive (nearly) the same commands in the same order.

    Each group is gathered around its first take: the others are apart from that one by less
    than ``NEAR_SHARE`` of the set's usual speed, averaged over the longer of the two. Speeds
    are not made equal: the same path at half the speed is another take. Near-linear in the
    number of takes: one is compared only with the groups that lie in cells beside its own.

    :param signatures: of ``signature``, one a take; those of takes that never move group with
        nothing.
    :returns: groups of two or more, as ascending positions, in the order of their first.
    """
    scale = usual_speed(signatures)
    lengths = np.array([len(driven) for driven in signatures])
    blocks = np.array([_blocks(driven) for driven in signatures]) / scale
    cells, members = defaultdict(list), {}
    for index in np.flatnonzero(lengths).tolist():
        way, level = blocks[index].sum(axis=0), _level(lengths[index])
        beside = np.array(sorted(_beside(cells, way, level)), dtype=np.int64)
        # What lies in blocks of time apart is no more than what lies apart at all.
        apart = np.abs(blocks[beside] - blocks[index]).sum(axis=(1, 2))
        beside = beside[apart <= NEAR_SHARE * np.maximum(lengths[beside], lengths[index])]
        leader = next(
            (one for one in beside.tolist() if _near(signatures[one], signatures[index], scale)),
            None,
        )
        if leader is None:
            members[index] = [index]
            cells[level, *_cell(way, level)].append(index)
        else:
            members[leader].append(index)
    return [group for group in members.values() if len(group) > 1]


def usual_speed(signatures: Sequence[np.ndarray]) -> float:
    """Return the speed that nineteen of twenty moments of a set stay below; 1 m/s is 1 rad/s."""
    speeds = [np.linalg.norm(driven, axis=1) for driven in signatures if len(driven)]
    return float(np.percentile(np.concatenate(speeds), 95)) or 1.0 if speeds else 1.0


def start_view(encoded: bytes) -> np.ndarray:
    """
    Return the first picture of a take at 8 by 6, free of brightness and contrast.

    :param encoded: JPEG or PNG.
    :returns: (144,) float32 of mean 0 and length 1, zeros for a picture of one colour.
    :raises OSError: when it is no image.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(encoded))
    image.draft('RGB', (VIEW_SIZE[0] * 8, VIEW_SIZE[1] * 8))
    small = image.convert('RGB').resize(VIEW_SIZE, Image.Resampling.BOX)
    view = np.asarray(small, dtype=np.float32).ravel()
    view -= view.mean()
    length = np.linalg.norm(view)
    return view / length if length > len(view) ** 0.5 else np.zeros_like(view)


def distinct_views(views: Sequence[np.ndarray]) -> int:
    """Count the places that takes start from, as their first pictures tell; at most 100."""
    seen = np.zeros((MAX_STARTS, VIEW_SIZE[0] * VIEW_SIZE[1] * 3), np.float32)
    count, blank = 0, False
    for view in views:
        if not view.any():
            blank = True
        elif count == MAX_STARTS:
            break
        elif not count or (seen[:count] @ view).max() < SAME_VIEW:
            seen[count] = view
            count += 1
    return min(count + blank, MAX_STARTS)


def _held(received_ns: np.ndarray, twist: np.ndarray):
    """Return (N,) seconds each command begins and ends to hold, and (N, 3) speeds of it."""
    received_ns = np.asarray(received_ns, dtype=np.int64)
    order = np.argsort(received_ns, kind='stable')
    speeds = np.nan_to_num(
        np.asarray(twist, dtype=np.float64).reshape(-1, 6)[order][:, DRIVEN],
        posinf=0.0,
        neginf=0.0,
    )
    pauses = np.minimum(np.diff(received_ns[order]) / NANOSECONDS, LONGEST_PAUSE_S)
    begins = np.concatenate([[0.0], np.cumsum(pauses)])[: len(order)]
    usual = np.median(pauses) if len(pauses) else COMMAND_MAX_AGE_S
    holds = np.minimum([*pauses, usual][: len(order)], COMMAND_MAX_AGE_S)
    return begins, begins + holds, speeds


def _still(speeds: np.ndarray) -> float:
    return STILL_SHARE * np.abs(speeds).max(initial=0)


def _blocks(driven: np.ndarray) -> np.ndarray:
    """Return (BLOCKS, 3): the sums over the first blocks of two seconds, and over the rest."""
    if not len(driven):
        return np.zeros((BLOCKS, len(DRIVEN)))
    starts = np.minimum(np.arange(BLOCKS) * 2 * SIGNATURE_HZ, len(driven))
    ways = np.vstack([np.zeros(len(DRIVEN)), np.cumsum(driven, axis=0, dtype=np.float64)])
    return np.diff(ways[[*starts, len(driven)]], axis=0)


def _level(length: int) -> int:
    """Return a class of length: lengths that ``_near`` allows differ by one class at most."""
    return math.floor(math.log(length) / math.log(NEAR_LENGTH))


def _cell(way: np.ndarray, level: int) -> list[int]:
    """
    Return the cell of a way driven, on the grid of one class of length.

    The ways of two takes that are near differ by at most ``NEAR_SHARE`` of the longer one's
    length, which is below the top of the class above: so their cells are neighbours.
    """
    return np.floor(way / (NEAR_SHARE * NEAR_LENGTH ** (level + 2))).astype(int).tolist()


def _beside(cells: dict, way: np.ndarray, level: int) -> list[int]:
    """Return the groups in the cells beside a way's own, in its class of length and the next."""
    found = []
    for near in (level - 1, level, level + 1):
        around = ((axis - 1, axis, axis + 1) for axis in _cell(way, near))
        for cell in itertools.product(*around):
            found += cells.get((near, *cell), ())
    return found


def _near(one: np.ndarray, other: np.ndarray, scale: float) -> bool:
    short, long = sorted((one, other), key=len)
    if len(long) > NEAR_LENGTH * len(short):
        return False
    apart = np.abs(long[: len(short)] - short).sum() + np.abs(long[len(short) :]).sum()
    return bool(apart <= NEAR_SHARE * scale * len(long))
