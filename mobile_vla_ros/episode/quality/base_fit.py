"""
Fit what a base reports as a multiple of its commands, whatever kind of base it is.

What bases of every kind would have driven is computed first: up to half a second late, and up to
two seconds from zero to full speed. The scale is known only as far as all kinds that explain the
motion about equally well agree, and only beyond the noise. So a slow base, or one that slips, is
not taken for one that does not obey.
"""

from dataclasses import dataclass

import numpy as np

CELL_S = 0.05  # of the grid on which commands and motion are compared
LAG_CELLS = range(0, 11, 2)  # 0 to 0.5 s
RISES_S = np.array([0.0, 0.25, 0.5, 1.0, 2.0])  # from zero to the largest command
CORRELATED_S = 1.0  # slip lasts: a second of odometry counts as one observation
DEVIATIONS = 3.0
EQUAL_MISFIT = 0.02  # of the motion's energy: kinds of bases that differ by less explain it alike
DISTINCT = 0.2  # least share of a command's energy that the other axes do not share
MAX_WIDTH = 1.0  # of the interval in which a scale is known, and of the scale
INSTEAD = 0.6  # share of another axis' motion that a command explains


@dataclass(frozen=True)
class Fit:
    """Scale and lag of the best fit, and bounds of the scale for all fits about as good."""

    scale: float
    low: float
    high: float
    lag_s: float


def would_drive(commanded: np.ndarray) -> np.ndarray:
    """
    Return (K, C, A) what bases of each kind would have driven.

    Kinds are the pairs of ``RISES_S`` and ``LAG_CELLS``, the lag varying fastest.
    """
    axes = commanded.shape[1]
    step = np.full((len(RISES_S), axes), np.inf)
    full = np.abs(commanded).max(axis=0, initial=0.0)
    slow = RISES_S > 0
    step[slow] = full * CELL_S / RISES_S[slow, None]
    speed, speeds = np.zeros_like(step), []
    for wanted in commanded:
        speed = speed + np.clip(wanted - speed, -step, step)
        speeds.append(speed)
    rising = np.array(speeds).reshape(-1, *step.shape).swapaxes(0, 1)
    kinds = []
    for one in rising:
        for lag in LAG_CELLS:
            kinds.append(np.vstack([np.zeros((lag, axes)), one])[: len(commanded)])
    return np.array(kinds)


def inner_products(followed: np.ndarray, driven: np.ndarray) -> np.ndarray:
    """
    Return (K, 2 A, 2 A) inner products of what bases would have driven, then of what was driven.

    :param followed: (K, C, A); driven: (C, A).
    """
    axes, turned = driven.shape[1], followed.swapaxes(1, 2)
    products = np.zeros((len(followed), 2 * axes, 2 * axes))
    products[:, :axes, :axes] = turned @ followed
    products[:, :axes, axes:] = turned @ driven
    products[:, axes:, :axes] = products[:, :axes, axes:].swapaxes(1, 2)
    products[:, axes:, axes:] = driven.T @ driven
    return products


def fit_axis(products: np.ndarray, axis: int, cells: int) -> Fit | None:
    """
    Return how an axis follows its own command; None if the episode does not tell.

    :param products: as ``inner_products`` returns them.
    """
    own, motion = _distinct(products, axis, axis)
    if not (own[:, 0, 0] > 0).all():
        return None
    energy, scale = own[:, 0, 0], own[:, 0, 1] / own[:, 0, 0]
    misfit = np.maximum(own[:, 1, 1] - scale * own[:, 0, 1], 0.0)
    independent = max(cells * CELL_S / CORRELATED_S, 1.0)
    error = DEVIATIONS * np.sqrt(misfit / energy / independent)
    best = int(np.argmin(misfit))
    alike = misfit <= misfit[best] * (1 + DEVIATIONS**2 / independent) + EQUAL_MISFIT * motion
    low, high = float((scale - error)[alike].min()), float((scale + error)[alike].max())
    if high - low > MAX_WIDTH * max(1.0, abs(float(scale[best]))):
        return None
    lag_s = LAG_CELLS[best % len(LAG_CELLS)] * CELL_S
    return Fit(float(scale[best]), low, high, lag_s)


def _distinct(products: np.ndarray, axis: int, moved: int) -> tuple[np.ndarray, float]:
    """
    Return (K, 2, 2) products of a command and the motion of an axis, and the motion's with itself.

    What the commands of the other axes explain of both is taken out first. Axes that are always
    commanded together are judged together.
    """
    axes = products.shape[1] // 2
    pair = [axis, axes + moved]
    others = [other for other in range(axes) if other != axis]
    plain = products[:, pair][:, :, pair]
    shared = products[:, pair][:, :, others]
    inverse = np.linalg.pinv(products[:, others][:, :, others], hermitian=True)
    rest = plain - shared @ inverse @ shared.swapaxes(1, 2)
    distinct = (rest[:, 0, 0] >= DISTINCT * plain[:, 0, 0])[:, None, None]
    return np.where(distinct, rest, plain), float(plain[0, 1, 1])


def driven_instead(products: np.ndarray, axis: int, least: np.ndarray) -> int | None:
    """
    Return the other axis whose motion a command explains, None if there is none.

    :param least: (A,) energy below which an axis does not move.
    """
    shares = {}
    for other in range(len(least)):
        pair, _ = _distinct(products, axis, other)
        moved = pair[:, 1, 1]
        if other != axis and moved.min() > least[other]:
            energy = np.maximum(pair[:, 0, 0], 1e-12)
            shares[other] = float((pair[:, 0, 1] ** 2 / energy / moved).max())
    share, found = max(((share, other) for other, share in shares.items()), default=(0.0, -1))
    return found if share >= INSTEAD else None
