"""Train a policy from its first step to its last, or resume an interrupted training run."""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate.utils import gather_object
from tqdm import tqdm

from mobile_vla_ros.data import order
from mobile_vla_ros.data.dataset import Batch
from mobile_vla_ros.data.episodes import EpisodeSet
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.evaluation.predict import policy_dataset
from mobile_vla_ros.evaluation.score import Scored, score
from mobile_vla_ros.model.builtin import bundle_folder
from mobile_vla_ros.model.bundle import Bundle, rewrite_spec
from mobile_vla_ros.model.manifest_check import MAX_TEXT
from mobile_vla_ros.model.network import load_trained
from mobile_vla_ros.model.policy_spec import ADAPTER, HEAD, PolicySpec, read_spec
from mobile_vla_ros.training import state
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.initial_policy import inherit_settings
from mobile_vla_ros.training.optimise import Optimisation, adamw
from mobile_vla_ros.training.prepare import (
    Prepared,
    accelerator_for,
    augmentation,
    compute_tokens,
    episodes_of,
    prepare,
    with_precision,
)
from mobile_vla_ros.training.run_folder import RunFolder
from mobile_vla_ros.training.state import Progress
from mobile_vla_ros.training.validation import Validation, epoch_line, heading, train_row

# Settings that may change when a run is resumed; another device rounds differently.
FREE_TO_CHANGE = (
    *('out', 'data', 'offline', 'workers', 'save_every_min', 'token_cache', 'device'),
    'accept_losses',
)
MAX_BROKEN = 1000  # sentences about broken frames in a bundle; train.log has all
# A launcher of several processes forwards a Ctrl-C that the terminal has sent them already:
# signals within this time are the same one.
SAME_S = 2.0


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


class TrainingStopped(Exception):
    """A person or a scheduler stopped the training run; the message says how to continue."""


class StopSignal:
    """
    Record stop requests while entered.

    A second Ctrl-C ends the process at once; the saved state remains.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._since_s = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> 'StopSignal':
        with contextlib.suppress(ValueError):  # only the main thread can set handlers
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._since_s = True, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since_s > SAME_S:
            raise KeyboardInterrupt


class TrainingRun:
    """A training run between its first step and its last."""

    def __init__(
        self,
        prepared: Prepared,
        data: DataConfig,
        config: TrainConfig,
        folder: RunFolder,
        settings: Mapping[str, Any],
        progress: Progress | None,
        stop: StopSignal,
    ):
        self.prepared, self.data, self.config = prepared, data, config
        self.folder, self.settings, self.stop = folder, settings, stop
        self.progress = progress or Progress()
        spec, cache = prepared.spec, FrameCache(prepared.spec.image)
        self.train_data = policy_dataset(
            prepared.episodes.train,
            spec,
            prepared.tokenizer,
            config.piece_frames,
            augmentation(data),
            idle_keep=data.idle_keep,
            corrections=data.corrections,
            tokens=prepared.tokens,
            cache=cache,
        )
        self.validation = Validation(prepared, config, cache, self._report_broken)
        if self.train_data.thinned:
            folder.log(
                f'{self.train_data.thinned} of '
                f'{self.train_data.thinned + self.train_data.windows} windows left out: '
                'the robot stands still in them (--idle_keep)'
            )
        self.raw_optimizer = adamw(prepared.network, config)
        if progress is not None:
            state.restore(folder.path, prepared.network, self.raw_optimizer)
            folder.log(
                f'resuming in epoch {progress.epoch} after step {progress.step} of {self.steps}'
            )
        self.optimisation = Optimisation(
            prepared.accelerator,
            prepared.network,
            self.raw_optimizer,
            self.train_data,
            config,
            self.steps * config.epochs,
            self._report_broken,
        )
        scaler = prepared.accelerator.scaler
        if scaler is not None and self.progress.scaler:
            scaler.load_state_dict(self.progress.scaler)
        self.saved_s = time.monotonic()

    @property
    def step_pieces(self) -> int:
        """Pieces in an optimiser step."""
        return self.config.batch_size * self.config.accumulate

    @property
    def steps(self) -> int:
        """Optimiser steps in an epoch."""
        return math.ceil(len(self.train_data) / self.step_pieces)

    def fit(self) -> None:
        """Train the remaining epochs."""
        accelerator, progress = self.prepared.accelerator, self.progress
        self.folder.log(self.validation.best_baseline())
        self.folder.log(heading(self.prepared.spec.actions))
        while progress.epoch < self.config.epochs:
            if progress.step < self.steps:
                self._train_epoch()
                if accelerator.num_processes > 1:
                    for sentence in gather_object(progress.broken):
                        self._report_broken(sentence)
                self._save_state()
            row, measured = self.validation.run()
            progress.history.append(
                {
                    'epoch': progress.epoch,
                    **train_row(progress.sums, self.prepared.spec, progress.broken),
                    **row,
                }
            )
            if accelerator.is_main_process:
                self._keep(measured)
            self._stop_if(self._add_up({}), 'after its last step', saved=True)
            progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        accelerator.wait_for_everyone()

    def _train_epoch(self) -> None:
        """Do the remaining optimiser steps of this epoch."""
        progress, config = self.progress, self.config
        draws = order.epoch_draws(
            self.train_data.instructions,
            config.seed,
            progress.epoch,
            balance=self.data.balance_instructions,
        )
        steps = order.steps(draws, self.step_pieces)[progress.step :]
        feed = order.Feed(
            self.train_data,
            config.workers,
            time.perf_counter,
            pin=self.prepared.accelerator.device.type == 'cuda',
        )
        batches = feed.batches(
            batch for pieces in steps for batch in self.optimisation.share_of(pieces)
        )
        bar = tqdm(
            total=self.steps,
            initial=progress.step,
            desc=f'epoch {progress.epoch}',
            leave=False,
            disable=not self.prepared.accelerator.is_main_process,
        )
        try:
            self._do_steps(steps, feed, batches, bar)
        finally:
            bar.close()
            batches.close()

    def _do_steps(
        self,
        steps: Sequence[Sequence[order.Draw]],
        feed: order.Feed,
        batches: Iterator[Batch],
        bar: tqdm,
    ) -> None:
        progress, processes = self.progress, self.prepared.accelerator.num_processes
        start, waited_s = time.perf_counter(), 0.0
        for pieces in steps:
            where = f'epoch {progress.epoch}, step {progress.step}'
            sums = self.optimisation.step(pieces, batches, progress.updates, where)
            now = time.perf_counter()
            # Divided, because the sums of all processes are added up.
            sums |= {
                'seconds': (now - start) / processes,
                'waited_s': (feed.waited_s - waited_s) / processes,
            }
            start, waited_s = now, feed.waited_s
            stopped = self._add_up(sums)
            for name, value in sums.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
            progress.step += 1
            progress.updates += 1
            bar.update()
            due = time.monotonic() - self.saved_s > 60 * self.config.save_every_min
            saved = self._save_state() if stopped or due else False
            self._stop_if(stopped, f'after step {progress.step} of {self.steps}', saved)

    def _stop_if(self, requested: bool, where: str, saved: bool) -> None:
        """Raise TrainingStopped on request, after the main process has written its files."""
        if not requested:
            return
        self.prepared.accelerator.wait_for_everyone()
        if not self.prepared.accelerator.is_main_process:
            raise TrainingStopped('')
        raise TrainingStopped(
            f'stopped in epoch {self.progress.epoch} {where}; '
            + (
                'the same command resumes from here'
                if saved
                else 'the state could not be saved: the same command resumes from the last one'
            )
        )

    def _add_up(self, sums: dict[str, float]) -> bool:
        """Add up the sums of all processes, in place; return whether any should stop."""
        accelerator = self.prepared.accelerator
        if accelerator.num_processes == 1:
            return self.stop.requested
        values = torch.tensor(
            [*sums.values(), float(self.stop.requested)],
            dtype=torch.float64,
            device=accelerator.device,
        )
        *totals, requested = accelerator.reduce(values).tolist()
        sums |= dict(zip(sums, totals, strict=True))
        return bool(requested > 0)

    def _report_broken(self, sentence: str) -> None:
        if sentence not in self.progress.broken:
            self.progress.broken.append(sentence)
            self.folder.log(f'left out: {sentence}')

    def _keep(self, measured: dict[str, Any]) -> None:
        """Write the newest epoch's bundle and its row of the history."""
        history = self.progress.history
        row = history[-1]
        prepared, blind = self.prepared, self.validation.blind
        spec = replace(
            prepared.spec,
            data={
                **prepared.spec.data,
                'broken_frames': [one[:MAX_TEXT] for one in self.progress.broken[:MAX_BROKEN]],
            },
            metrics={'epoch': row, **blind, 'policy': measured},
        )

        def write() -> None:
            self.folder.keep(prepared.network, spec, history, self.validation.golden())
            self.folder.write_history(history, blind['baselines'])

        if row['epoch'] + 1 == self.config.epochs:
            write()
        else:
            self.folder.try_write(write)
        self.folder.log(epoch_line(row, prepared.spec.actions))

    def _save_state(self) -> bool:
        """Write the state; return whether that succeeded."""
        scaler = self.prepared.accelerator.scaler
        if scaler is not None:
            self.progress.scaler = scaler.state_dict()
        self.saved_s = time.monotonic()
        return self.folder.save_state(
            self.prepared.network, self.raw_optimizer, self.progress, self.settings
        )
