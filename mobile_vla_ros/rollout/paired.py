"""Statistics of two drivers in the same scenes; each is mirrored when the drivers are swapped."""

import math
from collections.abc import Sequence

import numpy as np

from mobile_vla_ros.rollout.trials import Z_95

Z_ONE_SIDED = 1.645  # standard normal quantile of a one-sided 95 % bound
RESAMPLES, FEWEST = 4000, 10


def most_worse(worse: int, better: int, pairs: int, z: float = Z_ONE_SIDED) -> float:
    """
    Return the most by which a success rate is lower than that of the same scenes, at 95 %.

    It is the one-sided bound of the score test for paired shares. Source: T. Tango, Equivalence
    test and confidence interval for the difference in proportions for the paired-sample design,
    Statistics in Medicine 17, 1998.

    :param worse, better: pairs of which only the other, or only this one, is a success.
    :param z: standard normal quantile of another level.
    """
    low, high = (worse - better) / pairs, 1.0
    while high - low > 1e-6:
        share = (low + high) / 2
        spread = share * (1 - share)
        b = -worse - better + (2 * pairs - worse + better) * share
        q = (math.sqrt(b * b + 8 * pairs * better * spread) - b) / (4 * pairs)
        variance = pairs * (2 * q + spread)
        if worse - better - pairs * share < -z * math.sqrt(max(0.0, variance)):
            high = share
        else:
            low = share
    return high


def rate_interval(worse: int, better: int, pairs: int) -> list[float]:
    """Return the 95 % interval of how much higher a rate is than the other's (`most_worse`)."""
    return [-most_worse(worse, better, pairs, Z_95), most_worse(better, worse, pairs, Z_95)]


def sign_test(one: int, other: int) -> float:
    """
    Return the two-sided p of as unequal counts, if both were equally likely (McNemar, exact).

    :param one, other: pairs of which only one, or only the other, is a success.
    """
    count = one + other
    tail = sum(math.comb(count, k) for k in range(min(one, other) + 1))
    return min(1.0, 2 * tail / 2**count)


def holm(ps: Sequence[float]) -> list[float]:
    """
    Return each p raised for the number of tests, so that one false finding in 20 families remains.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal
    of Statistics 6, 1979.
    """
    raised, least = list(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        raised[place] = least
    return raised


def mean_interval(differences: Sequence[float]) -> list[float] | None:
    """
    Return the 95 % interval of a mean difference of pairs: a bootstrap, always the same.

    None with fewer than ``FEWEST``, of which it would be too narrow.
    """
    if len(differences) < FEWEST:
        return None
    values = np.asarray(differences)
    chosen = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    means = np.sort(values[chosen].mean(1))
    cut = RESAMPLES // 40  # 2.5 %
    return [float(means[cut]), float(means[-1 - cut])]
