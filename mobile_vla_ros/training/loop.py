"""A training from its first step to its last, and on from where it was interrupted."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate.utils import gather_object
from tqdm import tqdm

from mobile_vla_ros.data import plan
from mobile_vla_ros.data.camera_samples import golden_window
from mobile_vla_ros.data.episodes import EpisodeSet
from mobile_vla_ros.data.feed import Feed
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.preprocess import normalise
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.evaluation.baselines import targets
from mobile_vla_ros.evaluation.evaluate import Scored, baseline_scores, score
from mobile_vla_ros.evaluation.predict import dataset, predict
from mobile_vla_ros.model.bundle import Bundle, rewrite_spec
from mobile_vla_ros.model.golden import Golden, make_golden
from mobile_vla_ros.model.network import load_trained
from mobile_vla_ros.model.policy_spec import ADAPTER, HEAD, PolicySpec, read_spec
from mobile_vla_ros.training import rows, state
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.initial_weights import settled
from mobile_vla_ros.training.optimise import Optimisation
from mobile_vla_ros.training.prepare import (
    Prepared,
    accelerator_for,
    augmentation,
    compute_tokens,
    episodes_of,
    prepare,
)
from mobile_vla_ros.training.run_folder import RunFolder
from mobile_vla_ros.training.state import Progress
from mobile_vla_ros.training.stop import StopSignal, TrainingStopped

# What may differ between a run and its resumption; another device rounds in its own way.
FREE_TO_CHANGE = ('out', 'data', 'offline', 'workers', 'save_every_min', 'token_cache', 'device')


@dataclass(frozen=True)
class Trained:
    """
    A finished run.

    :param best: link to the best epoch's bundle, and `policy` what it says of itself.
    :param scored: the best policy on the validation takes, beside baselines and controls.
    :param history: a row for each epoch.
    """

    best: Path
    policy: PolicySpec
    scored: Scored
    takes: EpisodeSet
    history: list[dict]


def train(
    model: ModelConfig,
    data: DataConfig,
    config: TrainConfig,
    say: Callable[[str], None] = print,
    report: Callable[[Trained], None] = lambda trained: None,
    loaded: Callable[[], None] = lambda: None,
) -> Trained | None:
    """
    Fine-tune a policy on a folder of takes, or go on with a run that was interrupted.

    Writes below `config.out` what `RunFolder` names; every file is whole at every moment.

    :param report: called with the finished run before its state is dropped: whatever stops it
        there, the same command comes back to it.
    :param loaded: called before the first step, when everything it needs is in memory.
    :returns: the finished run; None in a process that is not the main one of several.
    :raises UserError: for anything in takes or configuration that a person must mend; nothing is
        written then.
    :raises TrainingStopped: after Ctrl-C or SIGTERM, when the state has been saved.
    """
    model, data = settled(model, data)
    settings = {**asdict(model), **asdict(data), **asdict(config)}
    accelerator = accelerator_for(model, config)
    folder = RunFolder(Path(config.out), say, writes=accelerator.is_main_process)
    folder.refuse_finished()
    takes = episodes_of(data, folder.say)
    prepared = prepare(accelerator, model, data, config, takes, folder.say)
    told = {name: value for name, value in settings.items() if name not in FREE_TO_CHANGE}
    told |= {
        'fingerprint': prepared.spec.data['fingerprint'],
        'backbone_sha256': prepared.spec.backbone.sha256,
    }
    trained_bytes = sum(value.nbytes for value in state.trained(prepared.network).values())
    try:
        progress = folder.begin(told, trained_bytes, settings)
        compute_tokens(prepared)
        with StopSignal() as stop:
            run = _Run(prepared, data, config, folder, told, progress, stop)
            loaded()
            run.fit()
            return run.finish(report)
    except torch.OutOfMemoryError as error:
        raise UserError(
            'the device has not enough memory for this training',
            got=first_line(error),
            remedy='use --activation_checkpointing, --backbone_dtype bfloat16, a smaller '
            '--batch_size or fewer --piece_frames; mobile_vla bench train memory counts '
            'what each takes',
        ) from error
    finally:
        folder.release()


class _Run:
    """A training between its first step and its last."""

    def __init__(
        self,
        prepared: Prepared,
        data: DataConfig,
        config: TrainConfig,
        folder: RunFolder,
        told: dict,
        progress: Progress | None,
        stop: StopSignal,
    ):
        self.prepared, self.data, self.config = prepared, data, config
        self.folder, self.told, self.stop = folder, told, stop
        self.accelerator, self.spec = prepared.accelerator, prepared.spec
        self.progress = progress or Progress()
        takes, spec = prepared.takes, prepared.spec
        shared = {'tokens': prepared.tokens, 'cache': FrameCache(spec.image)}
        self.golden_window = golden_window(takes, spec.window, shared['cache'])
        self.train_data = dataset(
            takes.train,
            spec,
            prepared.tokenizer,
            config.piece_frames,
            augmentation(data),
            idle_keep=data.idle_keep,
            corrections=data.corrections,
            **shared,
        )
        self.val_data = dataset(takes.val, spec, prepared.tokenizer, config.piece_frames, **shared)
        if self.train_data.thinned:
            folder.say(
                f'{self.train_data.thinned} of '
                f'{self.train_data.thinned + self.train_data.windows} windows left out: '
                'the robot stands still in them (--idle_keep)'
            )
        self.val_actions = targets(takes.val, spec.actions, spec.window)[0]
        self.blind = baseline_scores(takes.train, takes.val, spec.actions, spec.window)
        self.step_pieces = config.batch_size * config.accumulate
        self.steps = math.ceil(len(self.train_data) / self.step_pieces)
        self.optimisation = Optimisation(
            prepared.network,
            self.train_data,
            spec.window,
            config,
            self.steps * config.epochs,
            self._report_broken,
        )
        if progress is not None:
            state.restore(folder.path, prepared.network, self.optimisation.optimizer)
            folder.say(
                f'going on in epoch {progress.epoch} after step {progress.step} of {self.steps}'
            )
        self.optimisation.prepare(self.accelerator)
        if self.accelerator.scaler is not None and self.progress.scaler:
            self.accelerator.scaler.load_state_dict(self.progress.scaler)
        self.saved_s = time.monotonic()

    def fit(self) -> None:
        """Train every epoch that is left."""
        best = min(self.blind['baselines'].items(), key=lambda item: item[1]['loss'])
        self.folder.say(
            f'the best predictor that sees no image: {best[0]}, val_loss_arm_act '
            f'{best[1]["loss_arm_act"]:.5f}'
        )
        self.folder.say(rows.head(self.spec.actions))
        progress = self.progress
        while progress.epoch < self.config.epochs:
            if progress.step < self.steps:
                self._train_epoch()
                if self.accelerator.num_processes > 1:
                    for sentence in gather_object(self.progress.broken):
                        self._report_broken(sentence)
                self._save_state()
            row, measured = self._validate()
            progress.history.append(
                {
                    'epoch': progress.epoch,
                    **rows.train_row(progress.sums, self.spec, progress.broken),
                    **row,
                }
            )
            if self.accelerator.is_main_process:
                self._keep(measured)
            self._stop_if(self._joined({}), 'after its last step', saved=True)
            progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        self.accelerator.wait_for_everyone()

    def finish(self, report: Callable[[Trained], None]) -> Trained | None:
        """Measure the best epoch beside every control, and write that into its bundle."""
        if not self.accelerator.is_main_process:
            return None
        best = (self.folder.path / 'best').resolve()
        history, takes, network = self.progress.history, self.prepared.takes, self.prepared.network
        if best != (self.folder.path / 'last').resolve():
            load_trained(network, best / ADAPTER, best / HEAD)
        spec = read_spec(best)
        scored = score(
            Bundle(network.eval(), spec, self.prepared.tokenizer),
            takes.train,
            takes.val,
            self.prepared.tokens,
        )
        spec = replace(spec, metrics={'epoch': spec.metrics['epoch'], **scored.summary})
        rewrite_spec(best, spec)
        for sentence in scored.summary['policy']['verdict']:
            self.folder.say(sentence)
        trained = Trained(self.folder.path / 'best', spec, scored, takes, history)
        report(trained)
        self.folder.finish()
        return trained

    def _train_epoch(self) -> None:
        """Do the optimiser steps of this epoch that are left."""
        progress, config = self.progress, self.config
        draws = plan.epoch_draws(
            self.train_data.instructions,
            config.seed,
            progress.epoch,
            balance=self.data.balance_instructions,
        )
        steps = plan.steps(draws, self.step_pieces)[progress.step :]
        feed = Feed(self.train_data, config.workers, time.perf_counter)
        ready = feed.batches(
            batch for pieces in steps for batch in self.optimisation.share_of(pieces)
        )
        bar = tqdm(
            total=self.steps,
            initial=progress.step,
            desc=f'epoch {progress.epoch}',
            leave=False,
            disable=not self.accelerator.is_main_process,
        )
        began, waited_s = time.perf_counter(), 0.0
        try:
            for pieces in steps:
                sums = self.optimisation.step(
                    pieces,
                    ready,
                    progress.updates,
                    f'epoch {progress.epoch}, step {progress.step}',
                )
                now = time.perf_counter()
                # Of several processes the mean: what they count is added up.
                sums |= {
                    'seconds': (now - began) / self.accelerator.num_processes,
                    'waited_s': (feed.waited_s - waited_s) / self.accelerator.num_processes,
                }
                began, waited_s = now, feed.waited_s
                stopped = self._joined(sums)
                for name, value in sums.items():
                    progress.sums[name] = progress.sums.get(name, 0.0) + value
                progress.step += 1
                progress.updates += 1
                bar.update()
                due = time.monotonic() - self.saved_s > 60 * config.save_every_min
                saved = self._save_state() if stopped or due else False
                self._stop_if(stopped, f'after step {progress.step} of {self.steps}', saved)
        finally:
            bar.close()
            ready.close()

    def _validate(self) -> tuple[dict, dict]:
        """Return what validation gives to an epoch's row, and all of its metrics."""
        found = predict(
            self.prepared.network,
            self.val_data,
            workers=self.config.workers,
            accelerator=self.accelerator,
        )
        for sentence in found.broken:
            self._report_broken(sentence)
        if found.broken:  # the baselines beside it are measured over the same steps
            self.blind = baseline_scores(
                self.prepared.takes.train,
                self.prepared.takes.val,
                self.spec.actions,
                self.spec.window,
                found.real,
            )
        return rows.val_row(found, self.val_actions, self.spec.actions)

    def _stop_if(self, asked: bool, where: str, saved: bool) -> None:
        """Leave, once the main process has written what the others wait for."""
        if not asked:
            return
        self.accelerator.wait_for_everyone()
        raise TrainingStopped(
            f'stopped in epoch {self.progress.epoch} {where}; '
            + (
                'the same command goes on from here'
                if saved
                else 'this could not be saved: the same command goes on from what was saved before'
            )
            if self.accelerator.is_main_process
            else ''
        )

    def _joined(self, sums: dict[str, float]) -> bool:
        """Add up what the processes counted, in place; return whether any was asked to stop."""
        if self.accelerator.num_processes == 1:
            return self.stop.asked
        values = torch.tensor(
            [*sums.values(), float(self.stop.asked)],
            dtype=torch.float64,
            device=self.accelerator.device,
        )
        *values, asked = self.accelerator.reduce(values).tolist()
        sums |= dict(zip(sums, values, strict=True))
        return asked > 0

    def _report_broken(self, sentence: str) -> None:
        if sentence not in self.progress.broken:
            self.progress.broken.append(sentence)
            self.folder.say(f'left out: {sentence}')

    def _keep(self, measured: dict) -> None:
        """Write the newest epoch's bundle and its row of the table."""
        history = self.progress.history
        row = history[-1]
        spec = replace(
            self.spec,
            data={**self.spec.data, 'broken_frames': self.progress.broken},
            metrics={'epoch': row, **self.blind, 'policy': measured},
        )

        def write():
            self.folder.keep(self.prepared.network, spec, history, self._golden())
            self.folder.write_history(history, self.blind['baselines'])

        if row['epoch'] + 1 == self.config.epochs:
            write()
        else:
            self.folder.without_dying(write)
        self.folder.say(rows.line(row, self.spec.actions))

    def _golden(self) -> Golden | None:
        """Return what the network says of a window now; None where none can be read."""
        if self.golden_window is None:
            return None
        frames, instruction = self.golden_window
        return make_golden(
            self.prepared.network,
            self.prepared.tokenizer,
            self.spec,
            frames,
            normalise(frames, self.spec.image),
            instruction,
        )

    def _save_state(self) -> bool:
        """Write the state; return whether it could be."""
        if self.accelerator.scaler is not None:
            self.progress.scaler = self.accelerator.scaler.state_dict()
        self.saved_s = time.monotonic()
        return self.folder.save_state(
            self.prepared.network, self.optimisation.optimizer, self.progress, self.told
        )
