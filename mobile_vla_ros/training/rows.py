"""Rows of the history, one for each epoch, with the names of the reference run too."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from mobile_vla_ros import text_table
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.metrics import REFERENCE_MOTION_DIMS, measure
from mobile_vla_ros.evaluation.predict import Predictions
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.types import ActionSpec

LOSSES = ('train_loss_arm_act', 'val_loss_arm_act', 'val_loss')
REMEDY = 'mobile_vla episodes check names the broken files'


def train_row(
    sums: Mapping[str, float], spec: PolicySpec, broken: Sequence[str]
) -> dict[str, Any]:
    """
    Return the training part of an epoch's row.

    :param sums: `loss` (over all motion dimensions), `axes` (over the real ones), `gripper`;
        `count`, the chunk steps in these sums; `frames`, `seconds`, `waited_s`.
    :param broken: errors that name unreadable frames.
    :raises UserError: when no frame could be read.
    """
    if not sums['count']:
        raise UserError(
            'no frame of the training episodes can be read',
            got=' | '.join(broken[:3]),
            remedy=REMEDY,
        )
    return {
        'train_loss': sums['axes'] / sums['count'],
        'train_loss_arm_act': sums['loss']
        / sums['count']
        * spec.head.motion_dims
        / REFERENCE_MOTION_DIMS,
        'train_loss_gripper_act': sums['gripper'] / sums['count'],
        'frames_encoded': int(sums['frames']),
        'seconds': sums['seconds'],
        'waiting_share': sums['waited_s'] / sums['seconds'],
    }


def val_row(
    found: Predictions, actions: np.ndarray, spec: ActionSpec
) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Return the validation part of an epoch's row, and all metrics.

    :param actions: (M, window, chunk, axes) driven actions, normalised.
    :raises UserError: when no frame could be read, or a prediction is NaN or inf.
    """
    if not found.real.any():
        raise UserError(
            'no frame of the validation episodes can be read',
            got=' | '.join(found.broken[:3]),
            remedy=REMEDY,
        )
    measured = measure(found.motion, actions, found.real, spec)
    if measured['loss_arm_act'] is None:
        raise UserError(
            'the validation loss is NaN or inf',
            remedy='lower --learning_rate, or use another --precision',
        )
    logits = torch.from_numpy(found.gripper)[torch.from_numpy(found.real)]
    row = {
        'val_loss': measured['loss'],
        'val_loss_arm_act': measured['loss_arm_act'],
        'val_loss_gripper_act': float(
            binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
        ),
        'acc_gripper_act': float((logits < 0).float().mean()),
    }
    row |= {
        f'val_{name}_{axis}': measured[axis][name]
        for axis in spec.axes
        for name in ('mae', 'rmse', 'r2')
    }
    return row, measured


def head(spec: ActionSpec) -> str:
    """Return the heading of the epochs' lines."""
    return text_table.GAP.join(_heads(spec))


def line(row: Mapping[str, Any], spec: ActionSpec) -> str:
    """Return an epoch as a line."""
    maes = [
        f'{row[f"val_mae_{axis}"]:.4f} {unit}'
        for axis, unit in zip(spec.axes, spec.units, strict=True)
    ]
    losses = [f'{row[name]:.5f}' for name in LOSSES]
    return text_table.line([row['epoch'], *losses, *maes], list(map(len, _heads(spec))), '>')


def _heads(spec: ActionSpec) -> list[str]:
    return ['epoch', *LOSSES, *(f'mae {axis}' for axis in spec.axes)]
