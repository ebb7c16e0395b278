"""Errors of predicted actions: per axis in physical units, and the seed's loss."""

import numpy as np
import torch
from torch.nn.functional import huber_loss

from mobile_vla_ros.types import ActionSpec

# The seed averaged its loss over six motion numbers, four of them padding that is always zero.
SEED_MOTION_DIMS = 6
# Of an axis' scale: a robot driven slower than this has no sign to agree with.
DRIVEN_SHARE = 0.05
# Variance of normalised actions below which they are all the same but for rounding.
CONSTANT = 1e-12


def motion_loss_sum(
    motion: torch.Tensor,
    actions: torch.Tensor,
    real: torch.Tensor,
    delta: float = 1.0,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Return the Huber loss of the real chunk steps, each averaged over its motion numbers, summed.

    :param motion: (M, W, chunk, dims) predictions; dims may exceed the axes by padding.
    :param actions: (M, W, chunk, axes) targets; the padding's target is zero.
    :param real: (M, W, chunk) bool.
    :param weight: (M, W, chunk) float32: how often each step counts; None: once.
    """
    padding = motion.shape[-1] - actions.shape[-1]
    target = torch.nn.functional.pad(actions, (0, padding))
    losses = huber_loss(motion, target, reduction='none', delta=delta).mean(-1)
    if weight is not None:
        real, losses = real & (weight > 0), losses * weight
    # Chosen, not multiplied: what stands beyond the end of a take may be anything.
    return torch.where(real, losses, 0.0).sum()


def motion_loss(
    motion: torch.Tensor, actions: torch.Tensor, real: torch.Tensor, delta: float = 1.0
) -> torch.Tensor:
    """Return `motion_loss_sum` a real step; 0 where no step is real."""
    return motion_loss_sum(motion, actions, real, delta) / real.sum().clamp(min=1)


def huber(error: np.ndarray) -> np.ndarray:
    """Return the Huber loss (delta 1) of each error."""
    size = np.abs(error)
    return np.where(size <= 1, 0.5 * size**2, size - 0.5)


def measure(
    predicted: np.ndarray, actions: np.ndarray, real: np.ndarray, spec: ActionSpec
) -> dict:
    """
    Measure predictions against what was driven, over real chunk steps only.

    :param predicted: (M, W, chunk, dims) normalised; numbers beyond the axes are padding.
    :param actions: (M, W, chunk, axes) normalised.
    :param real: (M, W, chunk) bool.
    :returns: `loss_arm_act`, the seed's Huber loss averaged over six motion numbers; `loss`, the
        same over the real axes alone; and for each axis `unit`, `mae` and `rmse` in it, `r2`,
        the share of the variance that is explained (None where nothing varies),
        `sign_agreement`, the share of the steps driven faster than `DRIVEN_SHARE` of the scale
        on which the prediction has the sign of what was driven (a prediction of zero has none;
        None where nothing was driven), and the same four under `per_step`, as lists with one
        number a chunk step. What is not a finite number is None.
    """
    axes = len(spec.axes)
    weight = np.asarray(real, bool)[..., None]
    error = np.where(weight, predicted, 0.0).astype(np.float64)
    driven = np.where(weight, actions, 0.0).astype(np.float64)
    error[..., :axes] -= driven
    losses, steps = huber(error), int(weight.sum())
    result = {
        'loss_arm_act': _ratio(losses.sum(), steps * SEED_MOTION_DIMS),
        'loss': _ratio(losses[..., :axes].sum(), steps * axes),
    }
    # Sums over windows and places; each metric is made of them, for all steps and for each.
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


def _metrics(sums: dict[str, float], scale: float) -> dict:
    """Return the metrics that some sums of one axis make."""
    count = sums['count']
    mean_square = _ratio(sums['square'], count)
    variance = sums['driven_square'] / max(count, 1) - (sums['driven'] / max(count, 1)) ** 2
    explained = None if mean_square is None or variance < CONSTANT else 1 - mean_square / variance
    return {
        'mae': _ratio(sums['size'] * scale, count),
        'rmse': None if mean_square is None else float(mean_square**0.5 * scale),
        'r2': explained if explained is None else float(explained),
        'sign_agreement': _ratio(sums['same'], sums['moving']),
    }


def _ratio(total: float, count: float) -> float | None:
    """Return a mean, or None: JSON has no number for what is not one."""
    return float(total / count) if count and np.isfinite(total) else None
