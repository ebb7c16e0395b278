"""Train a policy from its first step to its last, or resume an interrupted training run."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mobile_vla_ros.data.episodes import EpisodeSet
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.evaluation.score import Scored, score
from mobile_vla_ros.model.builtin import bundle_folder
from mobile_vla_ros.model.bundle import Bundle, rewrite_spec
from mobile_vla_ros.model.network import load_trained
from mobile_vla_ros.model.policy_spec import ADAPTER, HEAD, PolicySpec, read_spec
from mobile_vla_ros.training import state
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.initial_policy import inherit_settings
from mobile_vla_ros.training.prepare import (
    Prepared,
    accelerator_for,
    compute_tokens,
    episodes_of,
    prepare,
    with_precision,
)
from mobile_vla_ros.training.run_folder import RunFolder
from mobile_vla_ros.training.stop import StopSignal
from mobile_vla_ros.training.training_run import TrainingRun

# Settings that may change when a run is resumed; another device rounds differently.
FREE_TO_CHANGE = (
    *('out', 'data', 'offline', 'workers', 'save_every_min', 'token_cache', 'device'),
    'accept_losses',
)


@dataclass(frozen=True)
class Trained:
    """
    A finished training run.

    :param best: link to the bundle of the best epoch.
    :param policy: specification in that bundle.
    :param scored: the best policy on the validation episodes, beside baselines and controls.
    :param history: a row for each epoch.
    """

    best: Path
    policy: PolicySpec
    scored: Scored
    episodes: EpisodeSet
    history: list[dict[str, Any]]


def train(
    model: ModelConfig,
    data: DataConfig,
    config: TrainConfig,
    log: Callable[[str], None] = print,
    report: Callable[[Trained], None] = lambda trained: None,
    loaded: Callable[[], None] = lambda: None,
) -> Trained | None:
    """
    Fine-tune a policy on a folder of episodes, or resume an interrupted training run.

    Writes the files of `RunFolder` below `config.out`; every file is whole at any time.

    :param log: called with every line of the log.
    :param report: called with the finished run before its state is removed, so that the same
        command resumes here if the report fails.
    :param loaded: called before the first step, when everything is in memory.
    :returns: the finished run; None in all processes but the main one.
    :raises UserError: for invalid episodes or settings, before anything is written.
    :raises TrainingStopped: after Ctrl-C or SIGTERM, with the state saved.
    """
    (model, data), config = inherit_settings(model, data), with_precision(config)
    config_values = {**asdict(model), **asdict(data), **asdict(config)}
    accelerator = accelerator_for(model, config)
    folder = RunFolder(Path(config.out), log, writes=accelerator.is_main_process)
    folder.refuse_finished()
    episodes = episodes_of(data, folder.log)
    prepared = prepare(accelerator, model, data, config, episodes, folder.log)
    settings = {
        **{name: value for name, value in config_values.items() if name not in FREE_TO_CHANGE},
        'fingerprint': prepared.spec.data['fingerprint'],
        'backbone_sha256': prepared.spec.backbone.sha256,
    }
    trained_bytes = sum(value.nbytes for value in state.trained(prepared.network).values())
    try:
        progress = folder.begin(settings, trained_bytes, config_values)
        compute_tokens(prepared)
        with StopSignal() as stop:
            run = TrainingRun(prepared, data, config, folder, settings, progress, stop)
            loaded()
            run.fit()
            if not accelerator.is_main_process:
                return None
            trained = _measure_best(prepared, folder, run.progress.history)
            report(trained)
            folder.finish()
            return trained
    except torch.OutOfMemoryError as error:
        raise UserError(
            'the device has too little memory for this training',
            got=first_line(error),
            remedy='use --activation_checkpointing, --backbone_dtype bfloat16, a smaller '
            '--batch_size or fewer --piece_frames; mobile_vla bench train memory shows '
            'what each needs',
        ) from error
    finally:
        folder.release()


def _measure_best(prepared: Prepared, folder: RunFolder, history: list[dict[str, Any]]) -> Trained:
    """Measure the best epoch beside every control, and write the metrics to its bundle."""
    best = bundle_folder(folder.path / 'best').resolve()
    episodes, network = prepared.episodes, prepared.network
    if best != bundle_folder(folder.path / 'last').resolve():
        load_trained(network, best / ADAPTER, best / HEAD)
    spec = read_spec(best)
    scored = score(
        Bundle(network.eval(), spec, prepared.tokenizer),
        episodes.train,
        episodes.val,
        prepared.tokens,
    )
    spec = replace(spec, metrics={'epoch': spec.metrics['epoch'], **scored.summary})
    rewrite_spec(best, spec)
    for sentence in scored.summary['policy']['verdict']:
        folder.log(sentence)
    return Trained(folder.path / 'best', spec, scored, episodes, history)
