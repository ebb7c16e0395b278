"""Errors of predicted actions: per axis in physical units, and the seed's loss."""

import numpy as np
import torch
from torch.nn.functional import huber_loss

from mobile_vla_ros.types import ActionSpec

# The seed averaged its loss over six motion numbers, four of them padding that is always zero.
SEED_MOTION_DIMS = 6


def motion_loss(motion: torch.Tensor, actions: torch.Tensor, real: torch.Tensor,
                delta: float = 1.0) -> torch.Tensor:
    """
    Return the Huber loss over the real chunk steps and every motion number.

    :param motion: (M, W, chunk, dims) predictions; dims may exceed the axes by padding.
    :param actions: (M, W, chunk, axes) targets; the padding's target is zero.
    :param real: (M, W, chunk) bool.
    """
    padding = motion.shape[-1] - actions.shape[-1]
    target = torch.nn.functional.pad(actions, (0, padding))
    losses = huber_loss(motion, target, reduction='none', delta=delta)
    return (losses * real[..., None]).sum() / (real.sum() * motion.shape[-1]).clamp(min=1)


def measure(predicted: np.ndarray, actions: np.ndarray, real: np.ndarray,
            spec: ActionSpec) -> dict:
    """
    Measure predictions against what was driven, over real chunk steps only.

    :param predicted: (M, W, chunk, dims) normalised; numbers beyond the axes are padding.
    :param actions: (M, W, chunk, axes) normalised.
    :param real: (M, W, chunk) bool.
    :returns: `loss_arm_act`, the seed's Huber loss averaged over six motion numbers; `loss`, the
        same over the real axes alone; and per axis `mae`, `rmse` (its unit) and `r2`, the share of
        the variance that is explained (nan where nothing varies).
    """
    axes = len(spec.axes)
    error = predicted.astype(np.float64)[real]
    error[:, :axes] -= actions[real]
    huber = np.where(np.abs(error) <= 1, 0.5 * error ** 2, np.abs(error) - 0.5)
    result = {'loss_arm_act': float(huber.sum() / (len(error) * SEED_MOTION_DIMS)),
              'loss': float(huber[:, :axes].mean())}
    for column, (axis, scale) in enumerate(zip(spec.axes, spec.scale, strict=True)):
        physical = error[:, column] * scale
        variance = float(np.var(actions[real][:, column] * scale))
        result[axis] = {
            'mae': float(np.abs(physical).mean()),
            'rmse': float(np.sqrt((physical ** 2).mean())),
            'r2': 1 - float((physical ** 2).mean()) / variance if variance > 0 else None,
            'unit': spec.units[column]}
    return result
