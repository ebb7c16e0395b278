"""Predictors that see no image; a policy that does not beat them has learned nothing from it."""

from collections.abc import Sequence

import numpy as np

from mobile_vla_ros.data.runs import Run
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ActionSpec


def targets(runs: Sequence[Run], spec: ActionSpec,
            window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return what every window of some runs is to predict, in the order of the runs.

    :returns: actions (M, window, chunk, axes) normalised, real (M, window, chunk), and the command
        before each frame (M, window, axes) normalised.
    """
    if not runs:
        raise UserError('no windows to evaluate', expected='at least one take')
    rows = [run.windows(window) for run in runs]
    pairs = list(zip(runs, rows, strict=True))
    return (np.concatenate([spec.normalise(run.ahead[row]) for run, row in pairs]),
            np.concatenate([run.real[row] for run, row in pairs]),
            np.concatenate([spec.normalise(run.before[row]) for run, row in pairs]))


def baselines(train: Sequence[Run], val: Sequence[Run], spec: ActionSpec,
              window: int) -> dict[str, np.ndarray]:
    """
    Return the predictions of every baseline for the validation windows.

    Means are those of the training side. `repeat_last` holds the command before each frame.

    :returns: name to (M, window, chunk, axes) normalised.
    """
    actions, real, _ = targets(train, spec, window)
    _, val_real, before = targets(val, spec, window)
    shape = (*val_real.shape, len(spec.axes))

    def mean(axes: tuple[int, ...]) -> np.ndarray:
        weight = real[..., None]
        total = (actions * weight).sum(axes, keepdims=True)
        return total / np.maximum(weight.sum(axes, keepdims=True), 1)

    return {
        'zero': np.zeros(shape, np.float32),
        'mean_action': np.broadcast_to(mean((0, 1, 2)), shape),
        'mean_per_step': np.broadcast_to(mean((0, 1)), shape),
        'mean_per_position_and_step': np.broadcast_to(mean((0,)), shape),
        'repeat_last': np.broadcast_to(before[:, :, None], shape),
    }


def mean_action(runs: Sequence[Run], spec: ActionSpec) -> list[float]:
    """Return the mean command of some runs, one number an axis in its unit."""
    actions = np.concatenate([spec.normalise(run.ahead[:, 0]) for run in runs])
    return [float(mean * scale) for mean, scale in zip(actions.mean(0), spec.scale, strict=True)]
