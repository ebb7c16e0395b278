"""
Check by an episode's odometry whether its base drove what it was commanded.

Commands in force and reported velocities are averaged over cells of a twentieth of a second and
compared axis by axis (``base_fit``): only what no base that obeys can do is a fault.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from mobile_vla_ros.episode.odometry import MAX_VALUE, PLANAR, Odometry, velocity_by_pose
from mobile_vla_ros.episode.quality.base_fit import (
    CELL_S,
    Fit,
    driven_instead,
    fit_axis,
    inner_products,
    would_drive,
)
from mobile_vla_ros.episode.timing.base_estimate import by_odometry
from mobile_vla_ros.episode.timing.command_rule import (
    ASSUMED,
    SETTING,
    CommandLog,
    CommandRule,
    KnownBy,
)
from mobile_vla_ros.types import NANOSECONDS, TWIST_AXES

AXES = tuple(TWIST_AXES[column] for column in PLANAR)
SEEN = '(by its odometry)'
# An axis is judged if it was commanded at no less than this (m/s, rad/s) for so long.
MIN_COMMAND = np.array([0.05, 0.05, 0.1])
MIN_COMMANDED_S = 2.0
POOR_SCALE = (0.5, 2.0)
NOTED_SCALE = (0.8, 1.25)
MAX_RULE_ERROR_S = 0.3
STANDS = 0.1  # a smaller scale is no motion

CELL_NS = round(CELL_S * NANOSECONDS)
MAX_CELLS = 36_000  # half an hour
MAX_GAP_NS = NANOSECONDS // 2  # between two messages; longer ones are left out
OUTLIERS = (1, 99)  # percentiles that bound the reported velocities: a pose may jump
CONTRADICTS = 0.5  # share of a pose's motion by which the twist misses it


@dataclass(frozen=True)
class BaseCheck:
    """
    What the base did with its commands.

    :param scale: of each judged axis, how many times the commanded speed was driven.
    :param lag_s: how much later, of those that move, in the fit that explains it best.
    :param poor: sentences about a base that does not drive what it is commanded.
    :param notes: sentences about smaller differences, and why odometry was not used.
    """

    scale: dict[str, float] = field(default_factory=dict)
    lag_s: dict[str, float] = field(default_factory=dict)
    poor: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_base(log: CommandLog, odometry: Odometry) -> BaseCheck:
    """
    Compare the motion that a base reports with the commands in force.

    :param log: every command, with what the base does between them.
    """
    notes = []
    if odometry.left_out:
        notes.append(
            f'{odometry.left_out} of {odometry.left_out + len(odometry)} messages of odometry '
            'are broken or not finite, and left out'
        )
    if odometry.by_pose:
        notes.append('the odometry has no twist: it is computed from the pose')
    grid_ns = _grid(log, odometry)
    if not len(grid_ns) or not (np.abs(log.twist) <= MAX_VALUE).all():
        return BaseCheck(notes=tuple(notes))
    known = _known(grid_ns, odometry.steady_ns)
    if not known.any():
        return BaseCheck(notes=tuple(notes))
    driven = _bounded(_means(grid_ns, odometry.steady_ns, odometry.twist[:, PLANAR]), known)
    if not odometry.by_pose and _contradicts(odometry, grid_ns, driven, known):
        notes.append(
            'the twist of the odometry does not match the change of its pose: the base is not '
            "checked (a twist belongs into the base's axes)"
        )
        return BaseCheck(notes=tuple(notes))
    known_by, rule, poor = log.rule.known_by, ASSUMED, []
    if known_by != KnownBy.ODOMETRY and log.use(grid_ns).notable:
        rule = by_odometry(log, odometry)
    if rule != ASSUMED and _differs(rule, log.rule):
        if known_by in (KnownBy.RECORDED, KnownBy.GIVEN):
            poor.append(f'{log.rule.sentence}, but {rule.sentence}: correct {SETTING}')
        log = replace(log, rule=rule)
    commanded = log.at(grid_ns[:-1])[0][:, PLANAR]
    axes = [axis for axis in range(len(AXES)) if _is_commanded(commanded[known], axis)]
    if not axes:
        return BaseCheck(poor=tuple(poor), notes=tuple(notes))
    products = inner_products(would_drive(commanded)[:, known], driven[known])
    cells = int(known.sum())
    found = {axis: fit_axis(products, axis, cells) for axis in axes}
    fits = {axis: fit for axis, fit in found.items() if fit is not None}
    faults = _faults(fits, products, cells)
    for axis, fit in fits.items():
        if axis not in faults and (fit.high < NOTED_SCALE[0] or fit.low > NOTED_SCALE[1]):
            notes.append(_scaled(axis, fit))
    return BaseCheck(
        {AXES[axis]: round(fit.scale, 3) for axis, fit in fits.items()},
        {AXES[axis]: fit.lag_s for axis, fit in fits.items() if abs(fit.scale) >= STANDS},
        (*poor, *dict.fromkeys(faults.values())),
        tuple(notes),
    )


def _differs(one: CommandRule, other: CommandRule) -> bool:
    """Whether two rules differ by more than an estimate may be wrong."""
    return one.holds != other.holds or abs(one.timeout_s - other.timeout_s) > MAX_RULE_ERROR_S


def _grid(log: CommandLog, odometry: Odometry) -> np.ndarray:
    """Return the edges of the cells between the first command and the last odometry."""
    if not len(odometry) or not len(log.received_ns):
        return np.zeros(0, np.int64)
    first_ns = max(int(log.received_ns[0]), int(odometry.steady_ns[0]))
    cells = (int(odometry.steady_ns[-1]) - first_ns) // CELL_NS
    return first_ns + CELL_NS * np.arange(min(cells, MAX_CELLS) + 1 if cells > 0 else 0)


def _known(grid_ns: np.ndarray, steady_ns: np.ndarray) -> np.ndarray:
    """Return (C,) bool: a cell lies in no gap of the odometry."""
    after = np.searchsorted(steady_ns, grid_ns[1:], side='left')
    before = np.searchsorted(steady_ns, grid_ns[:-1], side='right') - 1
    inside = (before >= 0) & (after < len(steady_ns))
    gap_ns = steady_ns[np.minimum(after, len(steady_ns) - 1)] - steady_ns[np.maximum(before, 0)]
    return np.asarray(inside & (gap_ns <= MAX_GAP_NS))


def _means(grid_ns: np.ndarray, time_ns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return (C, A) means of samples over each cell, linear between the samples."""
    seconds = (time_ns - grid_ns[0]) / NANOSECONDS
    area = np.diff(seconds)[:, None] * (values[1:] + values[:-1]) / 2
    sums = np.vstack([np.zeros(values.shape[1]), np.cumsum(area, axis=0)])
    edges = (grid_ns - grid_ns[0]) / NANOSECONDS
    columns = [np.diff(np.interp(edges, seconds, column)) for column in sums.T]
    return np.column_stack(columns) / (CELL_NS / NANOSECONDS)


def _bounded(driven: np.ndarray, known: np.ndarray) -> np.ndarray:
    low, high = np.percentile(driven[known], OUTLIERS, axis=0)
    return np.asarray(np.clip(driven, low, high))


def _contradicts(
    odometry: Odometry, grid_ns: np.ndarray, driven: np.ndarray, known: np.ndarray
) -> bool:
    """Whether a twist does not belong to its pose: usually it is in the odometry's frame."""
    by_pose = _bounded(
        _means(grid_ns, odometry.steady_ns, velocity_by_pose(odometry.steady_ns, odometry.pose)),
        known,
    )
    # The change of a pose is over the last tenth of a second: compare what is slower than that.
    slow = np.ones(20) / 20
    planar = [
        np.column_stack([np.convolve(v[known, axis], slow, 'same') for axis in (0, 1)])
        for v in (driven, by_pose)
    ]
    twist, pose = planar
    energy = (pose**2).sum()
    return bool(
        energy > (MIN_COMMAND[0] ** 2) * max(len(pose), 1) / 4
        and ((twist - pose) ** 2).sum() > CONTRADICTS**2 * max(energy, (twist**2).sum())
    )


def _is_commanded(commanded: np.ndarray, axis: int) -> bool:
    enough = (np.abs(commanded[:, axis]) >= MIN_COMMAND[axis]).sum()
    return bool(enough * CELL_NS >= MIN_COMMANDED_S * NANOSECONDS)


def _faults(fits: dict[int, Fit], products: np.ndarray, cells: int) -> dict[int, str]:
    """Return a sentence for each axis that is not driven as commanded."""
    wrong = {
        axis: fit
        for axis, fit in fits.items()
        if fit.high < POOR_SCALE[0] or fit.low > POOR_SCALE[1]
    }
    instead = {
        axis: driven_instead(products, axis, MIN_COMMAND**2 * cells / 4)
        for axis, fit in wrong.items()
        if abs(fit.scale) < POOR_SCALE[0]
    }
    found = {}
    for axis, fit in wrong.items():
        other, name = instead.get(axis), AXES[axis]
        if other is not None and instead.get(other) == axis:
            first, second = sorted((axis, other))
            found[axis] = f'{AXES[first]} and {AXES[second]} are swapped {SEEN}'
        elif other is not None:
            found[axis] = f'the base drives in {AXES[other]} what is commanded in {name} {SEEN}'
        else:
            found[axis] = _scaled(axis, fit)
    return found


def _scaled(axis: int, fit: Fit) -> str:
    if abs(fit.scale) < STANDS:
        return f'the base does not move in {AXES[axis]} when commanded {SEEN}'
    way = ' the other way,' if fit.scale < 0 else ''
    return (
        f'the base drives {AXES[axis]}{way} {abs(fit.scale):.2f} times as fast as commanded {SEEN}'
    )
