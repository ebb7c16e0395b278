"""
Exact statistics of the features of a LeRobot set.

Of images, every pixel counts: a histogram for each channel has all there is to know of 8 bits.
"""

from typing import Any

import numpy as np

QUANTILES = {'q01': 0.01, 'q10': 0.1, 'q50': 0.5, 'q90': 0.9, 'q99': 0.99}
Statistics = dict[str, np.ndarray]


def of_values(values: np.ndarray) -> Statistics:
    """
    Return the statistics of (N,) or (N, n) numbers, N > 0, for each column.

    A row with NaN stands for a missing value and does not count; without any other row everything
    but ``count`` is NaN.

    :returns: (n,) each, n = 1 for (N,); ``count`` is (1,).
    """
    values = values.reshape(len(values), -1)
    rows = values[~np.isnan(values).any(axis=1)] if values.dtype.kind == 'f' else values
    count = np.array([len(rows)])
    if not len(rows):
        empty = np.full(values.shape[1], np.nan)
        return dict.fromkeys(('min', 'max', 'mean', 'std'), empty) | {
            'count': count,
            **dict.fromkeys(QUANTILES, empty),
        }
    low = rows.min(axis=0)
    # Of times in nanoseconds a float64 has too few digits: count from the lowest.
    above = (rows if rows.dtype == bool else rows - low).astype(np.float64)
    base = np.zeros(len(low)) if rows.dtype == bool else low
    quantiles = np.quantile(above, list(QUANTILES.values()), axis=0)
    return {
        'min': low,
        'max': rows.max(axis=0),
        'mean': base + above.mean(axis=0),
        'std': above.std(axis=0),
        'count': count,
        **{name: base + one for name, one in zip(QUANTILES, quantiles, strict=True)},
    }


def of_histogram(histogram: np.ndarray, frames: int) -> Statistics:
    """
    Return the statistics of the pixels of images, as values from 0 to 1.

    :param histogram: (3, 256) int64 how often each value occurs in each channel.
    :returns: (3, 1, 1) each; ``count`` is (1,): the images.
    """
    levels = np.arange(256) / 255
    total = histogram.sum(axis=1)
    mean = histogram @ levels / total
    spread = (histogram * (levels - mean[:, None]) ** 2).sum(axis=1) / total
    until = np.cumsum(histogram, axis=1)

    def at(share: float) -> np.ndarray:
        """Interpolate between the values to the left and to the right, as numpy does."""
        place = share * (total - 1)
        left = np.floor(place)
        low, high = (
            levels[(until <= ranks[:, None]).sum(axis=1)] for ranks in (left, np.ceil(place))
        )
        result: np.ndarray = low + (place - left) * (high - low)
        return result

    found = {
        'min': at(0),
        'max': at(1),
        'mean': mean,
        'std': np.sqrt(spread),
        **{name: at(share) for name, share in QUANTILES.items()},
    }
    return {name: np.reshape(one, (3, 1, 1)) for name, one in found.items()} | {
        'count': np.array([frames])
    }


def plain(statistics: dict[str, Statistics]) -> dict[str, dict[str, Any]]:
    """Return statistics as lists, fit for JSON."""
    return {
        feature: {name: value.tolist() for name, value in one.items()}
        for feature, one in statistics.items()
    }
