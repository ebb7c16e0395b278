"""The training loop: accelerate for devices, a bundle an epoch, the best and the last kept."""

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from tqdm import tqdm

from mobile_vla_ros.data.augment import Augmentation
from mobile_vla_ros.data.dataset import collate
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.runs import Run, Sampling, fingerprint
from mobile_vla_ros.episode.reader import find_episodes
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import replaced
from mobile_vla_ros.model.backbone import LoraSettings, load_backbone
from mobile_vla_ros.model.bundle import BackboneRef, LoadedPolicy, PolicySpec, save_bundle
from mobile_vla_ros.model.device import pick_device
from mobile_vla_ros.model.network import VlaNetwork, build_network
from mobile_vla_ros.training.baselines import mean_action, targets
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.evaluate import score
from mobile_vla_ros.training.metrics import measure, motion_loss
from mobile_vla_ros.training.predict import dataset, predict
from mobile_vla_ros.training.takes import default_scale, load_takes
from mobile_vla_ros.types import ActionSpec


def train(model: ModelConfig, data: DataConfig, config: TrainConfig,
          say: Callable[[str], None] = print) -> Path:
    """
    Fine-tune a policy on a folder of takes.

    Writes below `config.out`: `config.yaml`, `history.json`, `tensorboard/`, `checkpoints/` with
    one bundle for the best epoch and one for the last, and the links `best` and `last`.

    :returns: the best bundle's folder.
    :raises UserError: for anything in takes or configuration that a person must mend; nothing is
        written then.
    """
    out = Path(config.out)
    if (out / 'history.json').exists():
        raise UserError(f'{out} holds a training run already', expected='a new folder')
    device = pick_device(config.device)
    if config.precision == 'fp16' and device.type == 'cpu':
        raise UserError('fp16 cannot be trained on a CPU', got='--precision fp16',
                        expected='no or bf16', remedy='use --precision bf16, or a GPU')
    takes = load_takes(Path(data.data), Sampling(data.rate_hz, data.window, data.chunk,
                                                 data.command_max_age_s),
                       data.accept_verdicts, data.val_share, data.split_seed)
    train_runs, val_runs = takes.train, takes.val
    for path, reason in takes.left_out.items():
        say(f'left out: {path}: {reason}')
    if takes.left_out:
        say(f'{len(takes.left_out)} of {len(find_episodes(data.data))} takes left out')
    left_out = {Path(path).name: reason for path, reason in takes.left_out.items()}
    accelerator = Accelerator(
        cpu=device.type == 'cpu', mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulate)
    set_seed(config.seed)
    backbone = load_backbone(model.backbone, revision=model.revision, offline=model.offline)
    actions = (ActionSpec(tuple(data.axes), tuple(data.scale)) if data.scale
               else default_scale(train_runs, data.axes))
    if model.motion_dims and model.motion_dims < len(actions.axes):
        raise UserError('fewer motion numbers than axes', got=model.motion_dims,
                        expected=f'0, or at least {len(actions.axes)}')
    network = build_network(
        backbone, LoraSettings(model.lora_r, model.lora_alpha, model.lora_dropout,
                               model.lora_scope),
        motion_dims=model.motion_dims or len(actions.axes), chunk=data.chunk,
        hidden=model.head_hidden, layers=model.head_layers, dropout=model.head_dropout)
    spec = PolicySpec(
        backbone=BackboneRef(backbone.id, backbone.revision, backbone.sha256),
        head=network.head.settings, image=backbone.image, actions=actions, rate_hz=data.rate_hz,
        window=data.window, chunk=data.chunk, command_max_age_s=data.command_max_age_s,
        instruction_template=model.instruction_template, blank=data.blank,
        data={'fingerprint': fingerprint([*train_runs, *val_runs]),
              'train_episodes': sorted({run.episode_id for run in train_runs}),
              'val_episodes': sorted({run.episode_id for run in val_runs}),
              'mean_action': mean_action(train_runs, actions),
              'accept_verdicts': list(data.accept_verdicts), 'left_out': left_out,
              'augmentation': {'mirror': data.mirror, 'light': data.light}})
    counts = network.parameter_counts()
    say(f'trainable parameters: {counts["trainable"]:,} (LoRA {counts["lora"]:,}, '
        f'head {counts["head"]:,}); takes: {len(spec.data["train_episodes"])} train, '
        f'{len(spec.data["val_episodes"])} validate')
    tokens = None
    if model.lora_scope == 'text':
        tokens = ImageTokens(
            lambda pixels: network.image_tokens(pixels.to(device)), backbone.sha256,
            backbone.image, Augmentation(data.mirror, data.light),
            Path(config.token_cache or out / 'image_tokens'))
        network.to(device)
        if data.blank != 'image':
            with accelerator.main_process_first():
                tokens.prepare([*train_runs, *val_runs])
    run = _TrainingRun(out, network, backbone.tokenizer, spec, train_runs, val_runs, config,
                       accelerator, say, tokens)
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        (out / 'config.yaml').write_text(yaml.safe_dump(
            {**asdict(model), **asdict(data), **asdict(config)}, sort_keys=False))
    return run.fit()


class _TrainingRun:
    """The state of one run between epochs."""

    def __init__(self, out: Path, network: VlaNetwork, tokenizer, spec: PolicySpec,
                 train_runs: list[Run], val_runs: list[Run], config: TrainConfig,
                 accelerator: Accelerator, say: Callable[[str], None],
                 tokens: ImageTokens | None):
        self.out = out
        self.tokens = tokens
        self.tokenizer = tokenizer
        self.spec = spec
        self.train_runs = train_runs
        self.val_runs = val_runs
        self.config = config
        self.accelerator = accelerator
        self.say = say
        self.history: list[dict] = []
        self.val_data = dataset(val_runs, spec, tokenizer, config.piece_frames, tokens=tokens)
        self.val_targets = targets(val_runs, spec.actions, spec.window)[:2]
        loader = DataLoader(
            dataset(train_runs, spec, tokenizer, config.piece_frames,
                    Augmentation(**spec.data['augmentation']), tokens=tokens),
            batch_size=config.batch_size, shuffle=True, collate_fn=collate,
            generator=torch.Generator().manual_seed(config.seed))
        adapters = [network.action_token,
                    *(p for p in network.backbone.parameters() if p.requires_grad)]
        optimizer = torch.optim.AdamW(
            [{'params': list(network.head.parameters())},
             {'params': adapters, 'lr': config.lora_learning_rate or config.learning_rate}],
            lr=config.learning_rate, weight_decay=config.weight_decay)
        updates = config.epochs * math.ceil(len(loader) / config.accumulate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        self.network, self.optimizer, self.loader, self.schedule = accelerator.prepare(
            network, optimizer, loader, schedule)

    @property
    def plain_network(self) -> VlaNetwork:
        """The network without accelerate's wrapping."""
        return self.accelerator.unwrap_model(self.network)

    def fit(self) -> Path:
        """Train every epoch; return the best bundle's folder."""
        from torch.utils.tensorboard import SummaryWriter
        board = SummaryWriter(self.out / 'tensorboard') if self._main else None
        self.say('epoch   train_loss   val_loss   val_loss_arm_act   '
                 + '   '.join(f'mae {axis}' for axis in self.spec.actions.axes))
        for epoch in range(self.config.epochs):
            row = {'epoch': epoch, **self._train_epoch(epoch), **self._validate()}
            if not math.isfinite(row['train_loss']):
                raise UserError(f'the training loss is {row["train_loss"]} in epoch {epoch}',
                                expected='a finite number',
                                remedy='lower --learning_rate, or use --precision bf16')
            self.history.append(row)
            if self._main:
                self._keep(epoch, row)
                for name, value in row.items():
                    if isinstance(value, float):
                        board.add_scalar(name, value, epoch)
                self.say(f'{epoch:5d}   {row["train_loss"]:10.5f}   {row["val_loss"]:8.5f}   '
                         f'{row["val_loss_arm_act"]:16.5f}   ' + '   '.join(
                             f'{row[f"val_mae_{axis}"]:.4f} {unit}' for axis, unit in zip(
                                 self.spec.actions.axes, self.spec.actions.units, strict=True)))
        if board:
            board.close()
        self.accelerator.wait_for_everyone()
        return self.out / 'best'

    @property
    def _main(self) -> bool:
        return self.accelerator.is_main_process

    def _train_epoch(self, epoch: int) -> dict:
        self.network.train()
        weight = self.config.gripper_weight
        sums = {'train_loss': 0.0, 'train_loss_arm_act': 0.0, 'train_loss_gripper_act': 0.0}
        for batch in tqdm(self.loader, desc=f'epoch {epoch}', leave=False,
                          disable=not self._main):
            with self.accelerator.accumulate(self.network):
                motion, gripper = self.network(
                    batch['frames'], batch['text_ids'], batch['text_lengths'],
                    batch['frame_counts'], self.spec.window)
                motion, gripper = motion.float(), gripper.float()
                loss = motion_loss(motion, batch['actions'], batch['real'])
                dummy = binary_cross_entropy_with_logits(gripper, torch.zeros_like(gripper))
                self.accelerator.backward(loss + weight * dummy)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.network.parameters(),
                                                     self.config.grad_clip)
                self.optimizer.step()
                self.schedule.step()
                self.optimizer.zero_grad()
            sums['train_loss'] += loss.item()
            sums['train_loss_arm_act'] += measure(
                motion.detach().cpu().numpy(), batch['actions'].cpu().numpy(),
                batch['real'].cpu().numpy(), self.spec.actions)['loss_arm_act']
            sums['train_loss_gripper_act'] += dummy.item()
        return {name: value / len(self.loader) for name, value in sums.items()}

    def _validate(self) -> dict:
        found = predict(self.plain_network, self.val_data)
        motion, gripper = found.motion, found.gripper
        actions, real = self.val_targets
        measured = measure(motion, actions, real, self.spec.actions)
        logits = torch.from_numpy(gripper)
        row = {
            'val_loss': float(motion_loss(torch.from_numpy(motion), torch.from_numpy(actions),
                                          torch.from_numpy(real))),
            'val_loss_arm_act': measured['loss_arm_act'],
            'val_loss_gripper_act': float(binary_cross_entropy_with_logits(
                logits, torch.zeros_like(logits))),
            'acc_gripper_act': float((logits < 0).float().mean())}
        for axis in self.spec.actions.axes:
            for name in ('mae', 'rmse', 'r2'):
                row[f'val_{name}_{axis}'] = measured[axis][name]
        return row

    def _keep(self, epoch: int, row: dict) -> None:
        """Write this epoch's bundle, point `last` and perhaps `best` at it, drop the others."""
        best = min(self.history, key=lambda past: past['val_loss'])['epoch'] == epoch
        network = self.plain_network
        scored = best or epoch == self.config.epochs - 1
        scores = (score(LoadedPolicy(network, self.spec, self.tokenizer), self.train_runs,
                        self.val_runs, self.tokens).summary if scored else {})
        spec = PolicySpec(**{**self.spec.__dict__, 'metrics': {'epoch': row, **scores}})
        name = f'epoch={epoch:03d}-val_loss={row["val_loss"]:.5f}'
        folder = save_bundle(self.out / 'checkpoints' / name, network, spec)
        point(self.out / 'last', folder)
        if best:
            point(self.out / 'best', folder)
        kept = {(self.out / link).resolve() for link in ('best', 'last')}
        for other in folder.parent.iterdir():
            if other.resolve() not in kept:
                shutil.rmtree(other)
        with replaced(self.out / 'history.json') as file:
            file.write(json.dumps(self.history, indent=2) + '\n')


def point(link: Path, target: Path) -> None:
    """Point a link at a folder, in one step."""
    partial = link.with_name(f'.{link.name}.new')
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(target, link.parent))
    partial.replace(link)
