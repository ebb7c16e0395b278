"""
Measure what a set of episodes covers: directions, starting places, and repeated drives.

Each episode is read once (``motion``, ``signature``, ``start_view``); thousands of episodes are
then compared without opening them again.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mobile_vla_ros.episode.timing.command_rule import USUAL_TIMEOUT_S, CommandLog
from mobile_vla_ros.images.stored import load
from mobile_vla_ros.types import NANOSECONDS

# Directions of a base, as column and sign of the twist (REP 103).
DIRECTIONS = {
    'forward': (0, 1),
    'back': (0, -1),
    'left': (1, 1),
    'right': (1, -1),
    'turn_left': (5, 1),
    'turn_right': (5, -1),
}
DRIVEN = [0, 1, 5]  # vx, vy, wz
STILL_SHARE = 0.05  # of an episode's highest speed: below it the robot counts as standing

SIGNATURE_HZ = 5
LONGEST_PAUSE_S = 10.0  # a longer silence between two commands counts as this
# Two episodes are near-identical if their commands differ, on average over time, by less than this
# fraction of the set's usual speed, and neither is longer than the other by a quarter.
NEAR_SHARE = 0.05
NEAR_LENGTH = 1.25
BLOCKS = 8
Cells = dict[tuple[int, int, int, int], list[int]]  # length class and cell → episodes

VIEW_SIZE = (8, 6)
SAME_VIEW = 0.98  # correlation of two first images from one place
MAX_STARTS = 100


def motion(log: CommandLog, first_ns: int, last_ns: int) -> dict[str, float]:
    """
    Return the seconds an episode moved: ``moving``, and in each of ``DIRECTIONS``.

    Along a diagonal two directions count.

    :param first_ns, last_ns: receipts of the first and the last frame; nothing counts outside.
    """
    begins_ns = np.clip(log.received_ns, first_ns, last_ns)
    ends_ns = np.clip(log.received_ns + log.spans(last_ns), first_ns, last_ns)
    seconds, speeds = (ends_ns - begins_ns) / NANOSECONDS, _speeds(log)
    still = _still(speeds)
    found = {'moving': float(seconds[np.abs(speeds).max(axis=1, initial=0) > still].sum())}
    for name, (column, sign) in DIRECTIONS.items():
        along = sign * speeds[:, DRIVEN.index(column)]
        found[name] = float(seconds[along > still].sum())
    return found


def signature(log: CommandLog, last_ns: int = 0) -> np.ndarray:
    """
    Return the commands at 5 Hz, independent of when they were driven.

    The time starts at the first command that moves the robot and ends with the last one; each row
    is the mean over its 0.2 s, so that no key press falls between two rows. The last command is in
    force for the median time, or until the last frame.

    :param last_ns: receipt of the last frame.
    :returns: (T, 3) float32: vx, vy in m/s and the turn in rad/s; (0, 3) for an episode that
        never moves.
    """
    begins, ends = _begins_and_ends(log, last_ns)
    speeds = _speeds(log)
    moving = np.flatnonzero(np.abs(speeds).max(axis=1, initial=0) > _still(speeds))
    if not len(moving):
        return np.zeros((0, len(DRIVEN)), np.float32)
    first, last = begins[moving[0]], ends[moving[-1]]
    count = max(1, math.ceil(round((last - first) * SIGNATURE_HZ, 6)))
    edges = first + np.arange(count + 1) / SIGNATURE_HZ
    # Distance covered at each edge: linear while a command holds, constant otherwise.
    ways = np.cumsum(speeds * (ends - begins)[:, None], axis=0)
    knots = np.stack([begins, ends], axis=1).ravel()
    before = np.vstack([np.zeros(len(DRIVEN)), ways[:-1]])
    at_knots = np.stack([before, ways], axis=1).reshape(-1, len(DRIVEN))
    along = np.stack([np.interp(edges, knots, way) for way in at_knots.T], axis=1)
    return (np.diff(along, axis=0) * SIGNATURE_HZ).astype(np.float32)


def near_identical(signatures: Sequence[np.ndarray]) -> list[list[int]]:
    """
    Group episodes that drive (nearly) the same commands in the same order.

    Each group forms around its first episode: the others differ from it by less than
    ``NEAR_SHARE`` of the set's usual speed, averaged over the longer of the two. Speeds are not
    normalised: the same path at half the speed is distinct. Near-linear in the number of
    episodes: each is compared only with groups in neighbouring cells.

    :param signatures: one ``signature`` an episode; those that never move are in no group.
    :returns: groups of two or more, as ascending positions, in the order of their first.
    """
    scale = usual_speed(signatures)
    lengths = np.array([len(driven) for driven in signatures])
    blocks = np.array([_blocks(driven) for driven in signatures]) / scale
    cells: Cells = defaultdict(list)
    members: dict[int, list[int]] = {}
    for index in np.flatnonzero(lengths).tolist():
        way, level = blocks[index].sum(axis=0), _level(lengths[index])
        beside = np.array(sorted(_beside(cells, way, level)), dtype=np.int64)
        # The difference of block sums is a lower bound of the whole difference.
        apart = np.abs(blocks[beside] - blocks[index]).sum(axis=(1, 2))
        beside = beside[apart <= NEAR_SHARE * np.maximum(lengths[beside], lengths[index])]
        leader = next(
            (one for one in beside.tolist() if _near(signatures[one], signatures[index], scale)),
            None,
        )
        if leader is None:
            members[index] = [index]
            cell = (level, *_cell(way, level))
            cells[cell].append(index)
        else:
            members[leader].append(index)
    return [group for group in members.values() if len(group) > 1]


def usual_speed(signatures: Sequence[np.ndarray]) -> float:
    """Return the 95th percentile of a set's speeds, counting 1 rad/s as 1 m/s."""
    speeds = [np.linalg.norm(driven, axis=1) for driven in signatures if len(driven)]
    return float(np.percentile(np.concatenate(speeds), 95)) or 1.0 if speeds else 1.0


def start_view(encoded: bytes) -> np.ndarray:
    """
    Return the first image of an episode at 8 by 6, normalised for brightness and contrast.

    :param encoded: JPEG or PNG.
    :returns: (144,) float32 of mean 0 and length 1; zeros for an image of one colour.
    :raises BrokenImage: when the bytes are no image.
    """
    image = load(encoded, min_size=(VIEW_SIZE[0] * 8, VIEW_SIZE[1] * 8))
    small = image.resize(VIEW_SIZE, Image.Resampling.BOX)
    view = np.asarray(small, dtype=np.float32).ravel()
    view -= view.mean()
    length = np.linalg.norm(view)
    return view / length if length > len(view) ** 0.5 else np.zeros_like(view)


def distinct_views(views: Sequence[np.ndarray]) -> int:
    """Count the different places in the start views of episodes; at most 100."""
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


def _begins_and_ends(log: CommandLog, last_ns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (M,) seconds at which each command is in force first and last, long pauses cut."""
    pauses_ns = np.diff(log.received_ns)
    usual_ns = np.median(pauses_ns) if len(pauses_ns) else USUAL_TIMEOUT_S * NANOSECONDS
    newest_ns = int(log.received_ns[-1]) if len(log.received_ns) else 0
    spans = log.spans(max(last_ns, newest_ns + int(usual_ns))) / NANOSECONDS
    pauses = np.minimum(pauses_ns / NANOSECONDS, LONGEST_PAUSE_S)
    begins = np.concatenate([[0.0], np.cumsum(pauses)])[: len(spans)]
    return begins, begins + np.minimum(spans, LONGEST_PAUSE_S)


def _speeds(log: CommandLog) -> np.ndarray:
    """Return (M, 3): vx and vy in m/s, the turn in rad/s; zero where a value is not finite."""
    return np.asarray(np.nan_to_num(log.twist[:, DRIVEN], posinf=0.0, neginf=0.0))


def _still(speeds: np.ndarray) -> float:
    return STILL_SHARE * float(np.abs(speeds).max(initial=0))


def _blocks(driven: np.ndarray) -> np.ndarray:
    """Return (BLOCKS, 3): the sums over the first blocks of two seconds; the last is the rest."""
    if not len(driven):
        return np.zeros((BLOCKS, len(DRIVEN)))
    starts = np.minimum(np.arange(BLOCKS) * 2 * SIGNATURE_HZ, len(driven))
    ways = np.vstack([np.zeros(len(DRIVEN)), np.cumsum(driven, axis=0, dtype=np.float64)])
    return np.diff(ways[[*starts, len(driven)]], axis=0)


def _level(length: int) -> int:
    """Return the length class: lengths that ``_near`` allows differ by at most one class."""
    return math.floor(math.log(length) / math.log(NEAR_LENGTH))


def _cell(way: np.ndarray, level: int) -> tuple[int, int, int]:
    """
    Return the cell of a covered distance, on the grid of one length class.

    The distances of two near episodes differ by at most ``NEAR_SHARE`` of the longer one's length,
    which is below the top of the next class: so their cells are neighbours.
    """
    x, y, turn = np.floor(way / (NEAR_SHARE * NEAR_LENGTH ** (level + 2))).astype(int).tolist()
    return x, y, turn


def _beside(cells: Cells, way: np.ndarray, level: int) -> list[int]:
    """Return the groups in and around a distance's cell, in its length class and the next ones."""
    found: list[int] = []
    for near in (level - 1, level, level + 1):
        around = ((axis - 1, axis, axis + 1) for axis in _cell(way, near))
        for x, y, turn in itertools.product(*around):
            found += cells.get((near, x, y, turn), ())
    return found


def _near(one: np.ndarray, other: np.ndarray, scale: float) -> bool:
    short, long = sorted((one, other), key=len)
    if len(long) > NEAR_LENGTH * len(short):
        return False
    apart = np.abs(long[: len(short)] - short).sum() + np.abs(long[len(short) :]).sum()
    return bool(apart <= NEAR_SHARE * scale * len(long))
