"""Validate each epoch; its row of the history has the names of the reference run too."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from mobile_vla_ros import text_table
from mobile_vla_ros.data.frame_cache import FrameCache, golden_window
from mobile_vla_ros.data.preprocess import normalise
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.baselines import targets
from mobile_vla_ros.evaluation.metrics import REFERENCE_MOTION_DIMS, measure
from mobile_vla_ros.evaluation.predict import policy_dataset, predict
from mobile_vla_ros.evaluation.score import baseline_scores
from mobile_vla_ros.model.golden import Golden, make_golden
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.training.config import TrainConfig
from mobile_vla_ros.training.prepare import Prepared
from mobile_vla_ros.types import ActionSpec

LOSSES = ('train_loss_arm_act', 'val_loss_arm_act', 'val_loss')
REMEDY = 'mobile_vla episodes check names the broken files'


class Validation:
    """
    The validation side of a training run, beside the baselines.

    :param cache: decoded frames, shared with the training side.
    :param report: called with the error of every unreadable frame.
    """

    def __init__(
        self,
        prepared: Prepared,
        config: TrainConfig,
        cache: FrameCache,
        report: Callable[[str], None],
    ):
        episodes, spec = prepared.episodes, prepared.spec
        self.prepared = prepared
        self.workers = config.workers
        self.report = report
        self.data = policy_dataset(
            episodes.val,
            spec,
            prepared.tokenizer,
            config.piece_frames,
            tokens=prepared.tokens,
            cache=cache,
        )
        self.actions = targets(episodes.val, spec.actions)[0]
        self.blind = self._baseline_scores(None)
        self.golden_window = golden_window(episodes, cache)

    def best_baseline(self) -> str:
        """Return a log line that names the best baseline."""
        name, scores = min(self.blind['baselines'].items(), key=lambda item: item[1]['loss'])
        return (
            f'the best baseline that sees no image: {name}, val_loss_arm_act '
            f'{scores["loss_arm_act"]:.5f}'
        )

    def run(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        Return the validation part of an epoch's row, and all metrics.

        :raises UserError: when no frame could be read, or a prediction is NaN or inf.
        """
        spec = self.prepared.spec.actions
        found = predict(
            self.prepared.network,
            self.data,
            workers=self.workers,
            accelerator=self.prepared.accelerator,
        )
        for sentence in found.broken:
            self.report(sentence)
        if found.broken:  # measure the baselines over the same steps
            self.blind = self._baseline_scores(found.real)
        if not found.real.any():
            raise UserError(
                'no frame of the validation episodes can be read',
                got=' | '.join(found.broken[:3]),
                remedy=REMEDY,
            )
        measured = measure(found.motion, self.actions, found.real, spec)
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

    def golden(self) -> Golden | None:
        """Return the network's current output for a window; None if none is readable."""
        if self.golden_window is None:
            return None
        frames, instruction = self.golden_window
        prepared = self.prepared
        return make_golden(
            prepared.network,
            prepared.tokenizer,
            prepared.spec,
            frames,
            normalise(frames, prepared.spec.image),
            instruction,
        )

    def _baseline_scores(self, real: np.ndarray | None) -> dict[str, Any]:
        episodes, spec = self.prepared.episodes, self.prepared.spec
        return baseline_scores(episodes.train, episodes.val, spec.actions, real)


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


def heading(spec: ActionSpec) -> str:
    """Return the heading of the epochs' lines."""
    return text_table.GAP.join(_heads(spec))


def epoch_line(row: Mapping[str, Any], spec: ActionSpec) -> str:
    """Return an epoch as a line."""
    maes = [
        f'{row[f"val_mae_{axis}"]:.4f} {unit}'
        for axis, unit in zip(spec.axes, spec.units, strict=True)
    ]
    losses = [f'{row[name]:.5f}' for name in LOSSES]
    return text_table.line([row['epoch'], *losses, *maes], list(map(len, _heads(spec))), '>')


def _heads(spec: ActionSpec) -> list[str]:
    return ['epoch', *LOSSES, *(f'mae {axis}' for axis in spec.axes)]
