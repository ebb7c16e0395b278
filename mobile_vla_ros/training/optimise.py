"""One optimiser step, with the same result for any number of processes and batch size."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch.nn.functional import binary_cross_entropy_with_logits

from mobile_vla_ros.data import order
from mobile_vla_ros.data.dataset import Batch, SegmentDataset
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.metrics import motion_loss_sum
from mobile_vla_ros.model.network import VlaNetwork
from mobile_vla_ros.training import state
from mobile_vla_ros.training.config import TrainConfig

# Consecutive skipped steps; each halves the loss scale, which starts at 65536.
MAX_SKIPPED = 40


class Optimisation:
    """
    Optimise a network, one step at a time.

    The loss of a step is the (weighted) mean over all real chunk steps of its batches, so that
    neither the number of processes nor the batch size changes what is learned. An unreadable
    piece contributes as one without an error.

    :param optimizer: from `adamw`, with its state restored; the state stays on the CPU.
    :param updates: optimiser steps of the whole training run, for the schedule of the
        learning rate.
    :param report: called with the error of every unreadable frame.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        network: VlaNetwork,
        optimizer: torch.optim.Optimizer,
        data: SegmentDataset,
        config: TrainConfig,
        updates: int,
        report: Callable[[str], None],
    ):
        self.accelerator = accelerator
        # The optimiser is not moved: AdamW keeps its step count on the CPU.
        self.network, self.optimizer = accelerator.prepare(
            network, optimizer, device_placement=[True, False]
        )
        self.data, self.config = data, config
        self.updates, self.report = updates, report
        self.skipped = 0

    def share_of(self, step: Sequence[order.Draw]) -> list[Sequence[order.Draw]]:
        """
        Return this process's batches of a step.

        There is at least one, because gradients are averaged over all processes: a process
        without a batch of its own repeats a piece with weight zero.
        """
        return self._own(step) or [step[:1]]

    def _own(self, step: Sequence[order.Draw]) -> list[Sequence[order.Draw]]:
        return order.share(
            step,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.config.batch_size,
        )

    def step(
        self, pieces: Sequence[order.Draw], batches: Iterator[Batch], done: int, where: str
    ) -> dict[str, float]:
        """
        Do one step.

        :param batches: yields the batches of `share_of`.
        :param done: steps of the whole training run so far.
        :param where: describes the step in errors.
        :returns: sums over this process's batches: `loss`; `axes`, the loss of the real axes;
            `gripper`; `count`, their divisor (chunk steps, or the sum of their weights);
            `frames`.
        :raises UserError: when the loss or the gradient is NaN or inf; names the episodes.
        """
        accelerator, config = self.accelerator, self.config
        total = sum(self.data.weight_of(index) for index, _ in pieces) or 1
        shares = self.share_of(pieces)
        weight = 1.0 if self._own(pieces) else 0.0
        for group in self.optimizer.param_groups:
            group['lr'] = learning_rate(
                group['initial_lr'],
                done,
                self.updates,
                warmup=config.warmup_ratio,
                lowest=config.min_lr,
            )
        sums = dict.fromkeys(('loss', 'axes', 'gripper', 'count', 'frames'), 0.0)
        found = []
        self.network.train()
        for number, (draws, batch) in enumerate(zip(shares, batches, strict=False), 1):
            for sentence in batch['broken']:
                self.report(sentence)
            torch.manual_seed(order.mixed('dropout', draws[0][1]))
            more = number < len(shares)
            with accelerator.no_sync(self.network) if more else nullcontext():
                loss, axes, gripper, count = self._losses(batch)
                whole = weight * (loss + config.gripper_weight * gripper)
                # Multiplied, because gradients are averaged over the processes, not summed.
                accelerator.backward(whole * accelerator.num_processes / total)
            found.append(
                torch.stack([one.detach().double() for one in (loss, axes, gripper, count)])
            )
            sums['frames'] += weight * len(batch['frames'])
        norm = accelerator.clip_grad_norm_(self.network.parameters(), config.grad_clip)
        # Here alone a step waits for the GPU: before the network learns from it.
        *rows, (norm, *_) = torch.stack([*found, norm.double().expand(4)]).tolist()
        for draws, row in zip(shares, rows, strict=False):
            self._check_finite(row[0], 'loss', where, draws)
            for name, value in zip(('loss', 'axes', 'gripper', 'count'), row, strict=True):
                sums[name] += weight * value
        if accelerator.scaler is None:  # the FP16 scaler skips steps that overflow
            self._check_finite(norm, 'gradient', where, pieces)
        self.optimizer.step()
        self._count_skipped(where)
        self.optimizer.zero_grad()
        return sums

    def _count_skipped(self, where: str) -> None:
        """Raise UserError if FP16 overflows in too many consecutive steps."""
        self.skipped = self.skipped + 1 if self.optimizer.step_was_skipped else 0
        if self.skipped > MAX_SKIPPED:
            raise UserError(
                f'{self.skipped} consecutive steps overflowed FP16, up to {where}',
                expected='a few at the start',
                remedy='use --precision bf16 or no, or lower --learning_rate',
            )

    def _losses(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Return sums over real chunk steps: loss, that of the real axes, gripper, weights."""

        def here(value: torch.Tensor) -> torch.Tensor:
            return value.to(self.accelerator.device, non_blocking=True)

        actions, real = here(batch['actions']), here(batch['real'])
        weight = here(batch['weight']) if 'weight' in batch else None
        motion, gripper = self.network(
            here(batch['frames']),
            here(batch['text_ids']),
            here(batch['text_lengths']),
            batch['frame_counts'],
            here(batch['windows']),
        )
        motion, gripper = motion.float(), gripper.float()
        dummy = binary_cross_entropy_with_logits(
            gripper, torch.zeros_like(gripper), reduction='none'
        )
        axes = motion[..., : actions.shape[-1]].detach()
        return (
            motion_loss_sum(motion, actions, real, weight=weight),
            motion_loss_sum(axes, actions, real, weight=weight),
            (dummy * (real if weight is None else weight)).sum(),
            (real if weight is None else weight).sum(),
        )

    def _check_finite(
        self, value: float, what: str, where: str, draws: Sequence[order.Draw]
    ) -> None:
        if math.isfinite(value):
            return
        names = sorted(
            {self.data.segments[self.data.pieces[index][0]].path.name for index, _ in draws}
        )
        raise UserError(
            f'the {what} is {value} in {where}',
            got=f'from {", ".join(names)}',
            expected='a finite value',
            remedy='lower --learning_rate, or use --precision bf16 or no instead of fp16; the '
            'policies of the epochs before are intact',
        )


def learning_rate(
    rate: float, done: int, total: int, *, warmup: float = 0.0, lowest: float = 0.0
) -> float:
    """
    Return the learning rate after some of all optimiser steps.

    It rises in equal steps, and then falls along a cosine (source: Loshchilov and Hutter, SGDR,
    2017, equation 5, one period).

    :param rate: the highest one.
    :param warmup: share of all steps in which it rises; a part of a step counts as one.
    :param lowest: where it ends.
    """
    rising = math.ceil(warmup * total)
    if done < rising:
        return rate * (done + 1) / (rising + 1)
    falling = max(1, total - rising)
    share = min(done - rising, falling) / falling
    return lowest + (rate - lowest) * (1 + math.cos(math.pi * share)) / 2


def adamw(network: VlaNetwork, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters, with the adapters at their own rate."""
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
