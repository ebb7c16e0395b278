"""One optimiser step: the same numbers whoever does its batches, and however they are cut."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch.nn.functional import binary_cross_entropy_with_logits

from mobile_vla_ros.data import plan
from mobile_vla_ros.data.dataset import SegmentDataset
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.metrics import motion_loss_sum
from mobile_vla_ros.model.network import VlaNetwork
from mobile_vla_ros.training import state
from mobile_vla_ros.training.config import TrainConfig

# Each halves the scale of the loss, which starts at 65536.
MOST_SKIPPED = 40


class Optimisation:
    """
    AdamW over what is trained, one step at a time.

    The loss of a step is the mean over every real chunk step of all its batches, so that neither
    the number of processes nor the size of a batch changes what is learned. A piece that cannot
    be read counts as one without an error. Where steps have weights, it is their weighed mean.

    :param updates: optimiser steps of the whole run; the learning rate falls along a cosine.
    :param report: called with the sentence of every frame that cannot be read.
    """

    def __init__(
        self,
        network: VlaNetwork,
        data: SegmentDataset,
        window: int,
        config: TrainConfig,
        updates: int,
        report: Callable[[str], None],
    ):
        self.plain_network = network
        self.data, self.window, self.config = data, window, config
        self.updates, self.report = updates, report
        self.optimizer = _adamw(network, config)
        self.skipped = 0

    def prepare(self, accelerator: Accelerator) -> None:
        """Put network and optimiser in the care of accelerate (after a state was restored)."""
        self.accelerator = accelerator
        # The optimiser stays where it is: AdamW counts its steps on the CPU.
        self.network, self.prepared_optimizer = accelerator.prepare(
            self.plain_network, self.optimizer, device_placement=[True, False]
        )

    def share_of(self, step: Sequence[plan.Draw]) -> list[Sequence[plan.Draw]]:
        """
        Return the batches of a step that this process does.

        At least one, or its gradients could not be joined with those of others: where there is
        none of its own it repeats a piece, which then counts for nothing.
        """
        return self._own(step) or [step[:1]]

    def _own(self, step: Sequence[plan.Draw]) -> list[Sequence[plan.Draw]]:
        return plan.share(
            step,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.config.batch_size,
        )

    def step(
        self, pieces: Sequence[plan.Draw], ready: Iterator[dict], done: int, where: str
    ) -> dict[str, float]:
        """
        Do one step.

        :param ready: the batches of `share_of` come next.
        :param done: steps of the whole run so far.
        :param where: names the step in a sentence.
        :returns: sums over the batches of this process: `loss`, `axes` (the loss of the real axes
            alone), `gripper`, `count` (chunk steps, or the sum of their weights, that these are
            to be divided by), `frames`.
        :raises UserError: when the loss or the gradient is no number; the sentence names takes.
        """
        accelerator, config = self.accelerator, self.config
        total = sum(self.data.weight_of(index) for index, _ in pieces) or 1
        batches = self.share_of(pieces)
        weight = 1.0 if self._own(pieces) else 0.0
        for group in self.prepared_optimizer.param_groups:
            group['lr'] = group['initial_lr'] * plan.cosine(done, self.updates)
        sums = dict.fromkeys(('loss', 'axes', 'gripper', 'count', 'frames'), 0.0)
        self.network.train()
        for number, (draws, batch) in enumerate(zip(batches, ready, strict=False), 1):
            for sentence in batch['broken']:
                self.report(sentence)
            torch.manual_seed(plan.mixed('dropout', draws[0][1]))
            more = number < len(batches)
            with accelerator.no_sync(self.network) if more else nullcontext():
                loss, axes, gripper = self._losses(batch)
                self._check_finite(loss.item(), 'loss', where, draws)
                whole = weight * (loss + config.gripper_weight * gripper)
                # Gradients are averaged over the processes; what is wanted is their sum.
                accelerator.backward(whole * accelerator.num_processes / total)
            for name, value in (
                ('loss', loss.item()),
                ('axes', axes.item()),
                ('gripper', gripper.item()),
                ('count', batch.get('weight', batch['real']).sum().item()),
                ('frames', len(batch['frames'])),
            ):
                sums[name] += weight * value
        norm = accelerator.clip_grad_norm_(self.network.parameters(), config.grad_clip)
        if accelerator.scaler is None:  # with FP16's, a step that overflows is left out
            self._check_finite(float(norm), 'gradient', where, pieces)
        self.prepared_optimizer.step()
        self._count_skipped(where)
        self.prepared_optimizer.zero_grad()
        return sums

    def _count_skipped(self, where: str) -> None:
        """FP16 leaves out steps whose gradient overflows; where all do, nothing is learned."""
        self.skipped = self.skipped + 1 if self.prepared_optimizer.step_was_skipped else 0
        if self.skipped > MOST_SKIPPED:
            raise UserError(
                f'{self.skipped} steps one after the other overflowed FP16, up to {where}',
                expected='a few at the start',
                remedy='use --precision bf16 or no, or lower --learning_rate',
            )

    def _losses(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return sums over real chunk steps: of the motion's loss, its real axes', the dummy's."""
        device = self.accelerator.device
        batch = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        motion, gripper = self.network(
            batch['frames'],
            batch['text_ids'],
            batch['text_lengths'],
            batch['frame_counts'],
            self.window,
        )
        motion, gripper = motion.float(), gripper.float()
        dummy = binary_cross_entropy_with_logits(
            gripper, torch.zeros_like(gripper), reduction='none'
        )
        axes = motion[..., : batch['actions'].shape[-1]].detach()
        weighed = {'weight': batch['weight']} if 'weight' in batch else {}
        return (
            motion_loss_sum(motion, batch['actions'], batch['real'], **weighed),
            motion_loss_sum(axes, batch['actions'], batch['real'], **weighed),
            (dummy * batch.get('weight', batch['real'])).sum(),
        )

    def _check_finite(
        self, value: float, what: str, where: str, draws: Sequence[plan.Draw]
    ) -> None:
        if math.isfinite(value):
            return
        names = sorted(
            {self.data.segments[self.data.pieces[index][0]].path.name for index, _ in draws}
        )
        raise UserError(
            f'the {what} is {value} in {where}',
            got=f'from {", ".join(names)}',
            expected='a finite number',
            remedy='lower --learning_rate, or use --precision bf16 or no instead of fp16; the '
            'policies of the epochs before are whole',
        )


def _adamw(network: VlaNetwork, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW over what is trained, the adapters at a rate of their own."""
    head = list(network.head.parameters())
    own = {id(parameter) for parameter in head}
    adapters = [value for value in state.trained(network).values() if id(value) not in own]
    rates = (config.learning_rate, config.lora_learning_rate or config.learning_rate)
    return torch.optim.AdamW(
        [
            {'params': parameters, 'lr': rate, 'initial_lr': rate}
            for parameters, rate in zip((head, adapters), rates, strict=True)
        ],
        weight_decay=config.weight_decay,
    )
