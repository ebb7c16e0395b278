"""Predictors that see no image; a policy that does not beat them has learned nothing from it."""

from collections.abc import Mapping, Sequence

import numpy as np

from mobile_vla_ros.data.runs import Run
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ActionSpec


def targets(
    runs: Sequence[Run], spec: ActionSpec, window: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return what every window of some runs is to predict, in the order of the runs.

    :returns: actions (M, window, chunk, axes) normalised, real (M, window, chunk), and the command
        before each frame (M, window, axes) normalised.
    """
    if not runs:
        raise UserError('no windows to evaluate', expected='at least one take')
    rows = [run.windows(window) for run in runs]
    pairs = list(zip(runs, rows, strict=True))
    return (
        np.concatenate([spec.normalise(run.ahead[row]) for run, row in pairs]),
        np.concatenate([run.real[row] for run, row in pairs]),
        np.concatenate([spec.normalise(run.before[row]) for run, row in pairs]),
    )


def blind_means(runs: Sequence[Run], spec: ActionSpec, window: int) -> dict[str, list]:
    """
    Return the means that baselines say always, for a bundle to carry as `data.blind_means`.

    :param runs: the training side.
    :returns: normalised numbers as JSON has them: `mean_action` [axes], `mean_per_step`
        [chunk][axes], and `mean_per_position_and_step` [window][chunk][axes].
    :raises UserError: when there is no run.
    """
    actions, real, _ = targets(runs, spec, window)
    weight = real[..., None]

    def mean(axes: tuple[int, ...]) -> list:
        return ((actions * weight).sum(axes) / np.maximum(weight.sum(axes), 1)).tolist()

    return {
        'mean_action': mean((0, 1, 2)),
        'mean_per_step': mean((0, 1)),
        'mean_per_position_and_step': mean((0,)),
    }


def baselines(
    train: Sequence[Run],
    val: Sequence[Run],
    spec: ActionSpec,
    window: int,
    means: Mapping[str, Sequence] | None = None,
) -> dict[str, np.ndarray]:
    """
    Return the predictions of every baseline for the validation windows.

    `repeat_last` holds the command before each frame.

    :param means: those of `blind_means`; None: of `train`, which may be empty otherwise.
    :returns: name to (M, window, chunk, axes) normalised.
    :raises UserError: when there is no run to validate on, or none that the means could be of;
        when means that are given do not fit.
    """
    means = means or blind_means(train, spec, window)
    _, real, before = targets(val, spec, window)
    shape = (*real.shape, len(spec.axes))
    return {
        'zero': np.zeros(shape, np.float32),
        **{
            name: np.broadcast_to(_fitting(means, name, of), shape)
            for name, of in (
                ('mean_action', shape[3:]),
                ('mean_per_step', shape[2:]),
                ('mean_per_position_and_step', shape[1:]),
            )
        },
        'repeat_last': np.broadcast_to(before[:, :, None], shape),
    }


def _fitting(means: Mapping[str, Sequence], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mean as float32, the type of what it is compared with."""
    try:
        found = np.asarray(means.get(name), np.float32)
    except (AttributeError, TypeError, ValueError):  # no mapping, no numbers, or ragged
        found = np.asarray(np.nan)
    if found.shape != shape or not np.isfinite(found).all():
        raise UserError(
            f"the policy's data.blind_means.{name} does not fit",
            expected=f'finite numbers, {" × ".join(map(str, shape))} of them',
            remedy='use the bundle as training wrote it',
        )
    return found


def mean_action(runs: Sequence[Run], spec: ActionSpec) -> list[float]:
    """Return the mean command of some runs, one number an axis in its unit."""
    actions = np.concatenate([spec.normalise(run.ahead[:, 0]) for run in runs])
    return [float(mean * scale) for mean, scale in zip(actions.mean(0), spec.scale, strict=True)]
