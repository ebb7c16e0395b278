"""
Tell from an episode's odometry or images whether its base holds the last command or stops.

Odometry shows it directly: how fast the base drives under an old command, for a speed that was
commanded. Where there is none, or it does not tell, pairs of images a fifth of a second apart show
motion. Those under a fresh command show how a moving robot looks, those without a command how a
standing one does; the pairs under an old command are then one or the other. Where nothing stands
still to compare with, motion is separated from noise by twice the distance: over it, motion
changes the image more, and noise does not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from mobile_vla_ros.episode.odometry import MAX_VALUE, Odometry
from mobile_vla_ros.episode.timing.command_rule import (
    ASSUMED,
    HOLDS,
    MAX_TIMEOUT_S,
    CommandLog,
    CommandRule,
    KnownBy,
)
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.stored import load
from mobile_vla_ros.types import NANOSECONDS

MAX_PAIRS, MIN_PAIRS = 40, 5  # of a kind
MIN_FRESH = 2  # one command gives no more at 10 Hz
SIZE = (32, 24)  # of the compared images: blocks average the noise of camera and JPEG
LAG_S = 0.2
FRESH_S = 0.3  # a base obeys a command of this age, if it obeys any
SETTLED_S = 0.5  # after a zero command, a base stands
# Grey levels of 255, mean over an image: no still scene changes by as much between two images.
VISIBLE = 3.0
LEAST = 0.1
GROWTH = 1.3  # of the change over twice the distance, in motion
CONTRAST = 2.0  # least ratio of a moving image's change to a standing one's
MAX_MISFIT = 0.25  # share of pairs on the wrong side of the best timeout
# Of odometry.
EDGE_M = 0.3  # from the middle of a base: turning counts by how fast its edge moves
YOUNG_S = 1.0  # by this age of a command, a base moves if it ever does
MIN_SPEED = 0.02  # m/s: a slower base stands


@dataclass(frozen=True)
class _Pairs:
    """
    Pairs of images, by the command that the base had.

    :param standing, driven: (P,) int64 place of the first image, in order of time.
    :param age_s: (P,) age of the command in the middle of each of ``driven``.
    """

    standing: np.ndarray
    driven: np.ndarray
    age_s: np.ndarray


def estimate(
    time_ns: np.ndarray,
    received_ns: np.ndarray,
    twist: np.ndarray,
    encoded: Callable[[int], bytes],
    odometry: Odometry | None = None,
) -> CommandRule:
    """
    Return what the base does, by its odometry, else its images; ``ASSUMED`` if they do not tell.

    Decodes no image if it makes no difference, and at most a few hundred images otherwise.

    :param time_ns: (N,) int64 times of the frames.
    :param received_ns: (M,) int64 receipts of the commands, not decreasing; twist: (M, 6).
    :param encoded: returns the stored image of a row; may raise UserError.
    :param odometry: of the whole recording; None: it has none.
    """
    log = CommandLog(received_ns, twist, ASSUMED)
    if len(time_ns) < 2 or not log.use(time_ns).notable:
        return ASSUMED
    rule = ASSUMED if odometry is None else by_odometry(log, odometry)
    return _by_images(log, time_ns, encoded) if rule == ASSUMED else rule


def by_odometry(log: CommandLog, odometry: Odometry) -> CommandRule:
    """
    Return what the base does under old commands by its odometry; ``ASSUMED`` if it does not tell.

    The timeout counts from the command: the time that the base takes to start is subtracted.
    """
    rows, age_ns, drives = log.newest_at(odometry.steady_ns)
    age_s, speed = age_ns / NANOSECONDS, _speed(odometry.twist)
    standing = speed[~drives & ((rows < 0) | (age_s >= YOUNG_S))]
    old = drives & (age_s > FRESH_S)  # a base may not have reacted to a younger one yet
    if old.sum() < MIN_PAIRS or not (np.abs(log.twist) <= MAX_VALUE).all():
        return ASSUMED
    wanted = _speed(log.twist)[rows]
    young = drives & (age_s <= YOUNG_S)
    floor = float(np.median(standing)) if len(standing) else 0.0
    if not young.any() or float(np.percentile(speed[young], 90)) <= CONTRAST * floor + MIN_SPEED:
        return ASSUMED  # it does not move, or the odometry is all noise
    usual = min(float(np.percentile(speed[young] / np.maximum(wanted[young], MIN_SPEED), 90)), 1.0)
    # Half its speed, which a base passes as late when it starts as when it stops.
    moves = speed > floor + usual * wanted / 2
    found = _timeout(age_s[old], moves[old], KnownBy.ODOMETRY)
    if found.holds or found == ASSUMED:
        return found
    stops_s = max(found.timeout_s - _start_s(rows, age_s, drives & moves), 0.1)
    return CommandRule(round(stops_s, 1), KnownBy.ODOMETRY)


def _start_s(rows: np.ndarray, age_s: np.ndarray, moves: np.ndarray) -> float:
    """Return the usual age of a command at which a standing base begins to move, 0 if unknown."""
    begins = np.flatnonzero(moves[1:] & ~moves[:-1]) + 1
    begins = begins[age_s[begins] <= YOUNG_S]
    return float(np.median(age_s[begins])) if len(begins) else 0.0


def _speed(twist: np.ndarray) -> np.ndarray:
    """Return (N,) speed of a place at the base's edge, m/s, of (N, 6) twists."""
    return np.asarray(np.hypot(twist[:, 0], twist[:, 1]) + EDGE_M * np.abs(twist[:, 5]))


def _by_images(
    log: CommandLog, time_ns: np.ndarray, encoded: Callable[[int], bytes]
) -> CommandRule:
    order = np.argsort(time_ns, kind='stable')
    times = np.asarray(time_ns)[order]
    lag = max(1, round(LAG_S * NANOSECONDS / max(float(np.median(np.diff(times))), 1.0)))
    if len(times) <= lag:
        return ASSUMED
    pairs = _pairs(log, times, lag)
    small = lru_cache(maxsize=None)(lambda place: _small(encoded, int(order[place])))

    def changes(places: np.ndarray, reach: int) -> np.ndarray:
        """Return (P,) grey levels between the images of each pair; NaN without one of them."""
        ends = [place + reach if place + reach < len(times) else place for place in places]
        return np.array([_change(small(a), small(b)) for a, b in zip(places, ends, strict=True)])

    return _decide(pairs, lag, changes)


def _pairs(log: CommandLog, times: np.ndarray, lag: int) -> _Pairs:
    """Sort the pairs that are ``lag`` frames apart; keep at most ``MAX_PAIRS`` of a kind."""
    first = np.arange(len(times) - lag)
    apart_ns = times[lag:] - times[:-lag]
    first = first[apart_ns <= 1.5 * np.median(apart_ns)]  # no gap between them
    rows, age_ns, drives = log.newest_at(times)
    age_s = age_ns / NANOSECONDS
    second = first + lag
    alike = rows[first] == rows[second]
    settled = (rows[first] < 0) | (age_s[first] >= SETTLED_S)
    standing = first[alike & settled & ~drives[first]]
    young = (age_s[first] <= FRESH_S) & (age_s[second] <= FRESH_S) & drives[second]
    driven = first[drives[first] & (alike | young)]
    middle_s = (age_s[driven] + age_s[driven + lag]) / 2
    fresh = middle_s <= FRESH_S
    chosen = np.concatenate([_some(np.flatnonzero(fresh)), _old(middle_s, ~fresh)])
    return _Pairs(_some(standing), driven[chosen], middle_s[chosen])


def _some(items: np.ndarray) -> np.ndarray:
    """Return at most ``MAX_PAIRS`` items, spread evenly."""
    if len(items) <= MAX_PAIRS:
        return items
    chosen: np.ndarray = items[np.linspace(0, len(items) - 1, MAX_PAIRS).astype(int)]
    return chosen


def _old(age_s: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Return some of the old ones, spread evenly over their ages."""
    places = np.flatnonzero(old)
    return _some(places[np.argsort(age_s[places], kind='stable')])


def _small(encoded: Callable[[int], bytes], row: int) -> np.ndarray | None:
    """Return a small grey image (24, 32), None if it is broken."""
    try:
        image = load(encoded(row), 'L', (SIZE[0] * 4, SIZE[1] * 4))
    except UserError:
        return None
    return np.asarray(image.resize(SIZE, Image.Resampling.BOX), np.float32)


def _change(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """Return the mean difference of two images in grey levels, whatever the exposure did."""
    if one is None or other is None:
        return float('nan')
    difference = one - other
    return float(np.abs(difference - difference.mean()).mean())


def _decide(
    pairs: _Pairs, lag: int, changes: Callable[[np.ndarray, int], np.ndarray]
) -> CommandRule:
    change = changes(pairs.driven, lag)
    whole = np.isfinite(change)
    driven, age_s, change = pairs.driven[whole], pairs.age_s[whole], change[whole]
    fresh = age_s <= FRESH_S
    if fresh.sum() < MIN_FRESH or (~fresh).sum() < MIN_PAIRS:
        return ASSUMED
    moving = float(np.median(change[fresh]))
    standing = changes(pairs.standing, lag)
    standing = standing[np.isfinite(standing)]
    oldest = age_s >= np.percentile(age_s[~fresh], 75)
    if len(standing) < MIN_PAIRS:

        def moves(places: np.ndarray, near: np.ndarray) -> bool:
            far = changes(places, 2 * lag)
            far_level, level = float(np.nanmedian(far)), float(np.median(near))
            return level > VISIBLE or far_level > max(GROWTH * level, LEAST)

        if not moves(driven[fresh], change[fresh]):
            return ASSUMED
        if moves(driven[oldest], change[oldest]):
            return CommandRule(HOLDS, KnownBy.IMAGES)
        standing = change[oldest]
    floor = float(np.percentile(standing, 80))
    if moving <= CONTRAST * floor + LEAST:
        return ASSUMED
    # Nearer to standing, so that slow motion counts as motion.
    return _timeout(age_s, change > floor + (moving - floor) / 4, KnownBy.IMAGES)


def _timeout(age_s: np.ndarray, moves: np.ndarray, known_by: KnownBy) -> CommandRule:
    """Return the timeout that fits best: the robot moves before that age and stands after it."""
    order = np.argsort(age_s, kind='stable')
    age_s, moves = age_s[order], moves[order]
    # If the base stops before pair k: pairs that stand before it, and those that move after it.
    wrong = np.append(0, np.cumsum(~moves)) + np.append(np.cumsum(moves[::-1])[::-1], 0)
    # The latest of equally good ones: without evidence, the base does not stand.
    best = len(wrong) - 1 - int(np.argmin(wrong[::-1]))
    if wrong[best] > MAX_MISFIT * len(moves):
        return ASSUMED
    if len(moves) - best < MIN_PAIRS:
        return CommandRule(HOLDS, known_by)
    stops_s = float(age_s[max(best - 1, 0)] + age_s[best]) / 2
    return CommandRule(min(max(round(stops_s, 1), 0.1), MAX_TIMEOUT_S), known_by)
