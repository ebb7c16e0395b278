"""Validate each epoch of a training run beside the baselines."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mobile_vla_ros.data.camera_samples import golden_window
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.preprocess import normalise
from mobile_vla_ros.evaluation.baselines import targets
from mobile_vla_ros.evaluation.predict import policy_dataset, predict
from mobile_vla_ros.evaluation.score import baseline_scores
from mobile_vla_ros.model.golden import Golden, make_golden
from mobile_vla_ros.training import rows
from mobile_vla_ros.training.config import TrainConfig
from mobile_vla_ros.training.prepare import Prepared


class Validation:
    """
    The validation side of a training run.

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
        """Return the validation part of an epoch's row, and all metrics."""
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
        return rows.val_row(found, self.actions, self.prepared.spec.actions)

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
