"""Measure predicted actions: per axis in physical units, and the loss of the reference run."""

from typing import Any

import numpy as np
import torch
from torch.nn.functional import huber_loss

from mobile_vla_ros.types import ActionSpec

# The reference run averaged its loss over six motion dimensions, four of them zero padding.
REFERENCE_MOTION_DIMS = 6
# Share of an axis' scale below which the robot counts as not driven along it.
DRIVEN_SHARE = 0.05
# Normalised actions with a smaller variance are constant but for rounding.
MIN_VARIANCE = 1e-12


def motion_loss_sum(
    motion: torch.Tensor,
    actions: torch.Tensor,
    real: torch.Tensor,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Return the Huber loss averaged over the motion dimensions and summed over real chunk steps.

    :param motion: (M, W, chunk, dims) predictions; dims may exceed the axes by padding.
    :param actions: (M, W, chunk, axes) targets; the target of the padding is zero.
    :param real: (M, W, chunk) bool.
    :param weight: (M, W, chunk) float32 weight of each step; None: 1.
    """
    padding = motion.shape[-1] - actions.shape[-1]
    target = torch.nn.functional.pad(actions, (0, padding))
    losses = huber_loss(motion, target, reduction='none').mean(-1)
    if weight is not None:
        real, losses = real & (weight > 0), losses * weight
    # Not a product: values beyond the end of an episode may be NaN or inf.
    return torch.where(real, losses, 0.0).sum()


def motion_loss(motion: torch.Tensor, actions: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return the mean of `motion_loss_sum` over real steps; 0 if there are none."""
    return motion_loss_sum(motion, actions, real) / real.sum().clamp(min=1)


def huber(error: np.ndarray) -> np.ndarray:
    """Return the Huber loss (delta 1) of each error."""
    size = np.abs(error)
    return np.where(size <= 1, 0.5 * size**2, size - 0.5)


def measure(
    predicted: np.ndarray, actions: np.ndarray, real: np.ndarray, spec: ActionSpec
) -> dict[str, Any]:
    """
    Measure predictions against the driven actions, over real chunk steps only.

    :param predicted: (M, W, chunk, dims) normalised; dimensions beyond the axes are padding.
    :param actions: (M, W, chunk, axes) normalised.
    :param real: (M, W, chunk) bool.
    :returns: `loss_arm_act`, the Huber loss of the reference run, averaged over six motion
        dimensions; `loss`, the same over the real axes; and for each axis its `unit`; `mae` and
        `rmse` in that unit; `r2`, the explained share of the variance (None if constant);
        `sign_agreement`, the share of steps driven faster than `DRIVEN_SHARE` of the scale in
        which prediction and action have the same sign (a prediction of zero has none; None if
        nothing was driven); and the same four under `per_step`, as lists with one number a chunk
        step. NaN and inf become None.
    """
    axes = len(spec.axes)
    weight = np.asarray(real, bool)[..., None]
    error = np.where(weight, predicted, 0.0).astype(np.float64)
    driven = np.where(weight, actions, 0.0).astype(np.float64)
    error[..., :axes] -= driven
    losses, steps = huber(error), int(weight.sum())
    result: dict[str, Any] = {
        'loss_arm_act': _ratio(losses.sum(), steps * REFERENCE_MOTION_DIMS),
        'loss': _ratio(losses[..., :axes].sum(), steps * axes),
    }
    # Sums over windows and positions, from which all metrics follow, in all and for each step.
    same_sign = np.sign(predicted[..., :axes]) == np.sign(driven)
    moving = weight & (np.abs(driven) > DRIVEN_SHARE)
    count = np.broadcast_to(weight, driven.shape)
    sums = {
        name: value.sum((0, 1), dtype=np.float64)
        for name, value in {
            'count': count,
            'size': np.abs(error[..., :axes]),
            'square': error[..., :axes] ** 2,
            'driven': driven,
            'driven_square': driven**2,
            'moving': moving,
            'same': moving & same_sign,
        }.items()
    }
    for column, (axis, scale) in enumerate(zip(spec.axes, spec.scale, strict=True)):
        own = {name: value[:, column] for name, value in sums.items()}
        by_step = [
            _metrics({name: value[step] for name, value in own.items()}, scale)
            for step in range(len(own['count']))
        ]
        result[axis] = {
            **_metrics({name: value.sum() for name, value in own.items()}, scale),
            'unit': spec.units[column],
            'per_step': {
                name: [one[name] for one in by_step]
                for name in ('mae', 'rmse', 'r2', 'sign_agreement')
            },
        }
    return result


def _metrics(sums: dict[str, float], scale: float) -> dict[str, float | None]:
    """Return the metrics of one axis from its sums."""
    count = sums['count']
    mean_square = _ratio(sums['square'], count)
    variance = sums['driven_square'] / max(count, 1) - (sums['driven'] / max(count, 1)) ** 2
    explained = (
        None if mean_square is None or variance < MIN_VARIANCE else 1 - mean_square / variance
    )
    return {
        'mae': _ratio(sums['size'] * scale, count),
        'rmse': None if mean_square is None else float(mean_square**0.5 * scale),
        'r2': explained,
        'sign_agreement': _ratio(sums['same'], sums['moving']),
    }


def _ratio(total: float, count: float) -> float | None:
    """Return a mean, or None for NaN and inf, which JSON cannot represent."""
    return float(total / count) if count and np.isfinite(total) else None
