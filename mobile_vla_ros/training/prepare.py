"""Prepare a training run: episodes, network, and the specification for the bundle."""

import datetime
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from mobile_vla_ros.data.augment import Augmentation
from mobile_vla_ros.data.episodes import (
    EpisodeSet,
    base_lines,
    base_record,
    correction_lines,
    correction_record,
    ids,
    leak_lines,
    load_episodes,
    split_record,
)
from mobile_vla_ros.data.frame_cache import camera_sizes
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.scale import default_scale, scale_lines
from mobile_vla_ros.data.segments import Sampling, fingerprint
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation import audit
from mobile_vla_ros.evaluation.baselines import blind_means, mean_action
from mobile_vla_ros.model.backbone import Tokenizer
from mobile_vla_ros.model.bundle import check_before_training
from mobile_vla_ros.model.device import AUTO, pick_device, pick_precision
from mobile_vla_ros.model.network import VlaNetwork, evaluating
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.training import state
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.initial_policy import initial_policy
from mobile_vla_ros.types import ActionSpec

# Names of the dtypes in `--precision`.
PRECISIONS = {'float32': 'no', 'bfloat16': 'bf16', 'float16': 'fp16'}


@dataclass(frozen=True)
class Prepared:
    """
    What to train, and on what.

    :param tokens: precomputed image tokens (lora_scope text), or None.
    """

    accelerator: Accelerator
    episodes: EpisodeSet
    network: VlaNetwork
    tokenizer: Tokenizer
    spec: PolicySpec
    tokens: ImageTokens | None


def augmentation(data: DataConfig) -> Augmentation:
    """Return the augmentation of a configuration."""
    return Augmentation(mirror=data.mirror, light=data.light, colour=data.colour, shift=data.shift)


def episodes_of(data: DataConfig, log: Callable[[str], None]) -> EpisodeSet:
    """Load and split the episodes of a configuration; log what is left out and what leaks."""
    sampling = Sampling.of(data)
    episodes = load_episodes(
        Path(data.data),
        sampling,
        data.accept_verdicts,
        data.val_share,
        data.split_seed,
        group_duplicates=data.group_duplicates,
    )
    for path, reason in episodes.left_out.items():
        log(f'left out: {path}: {reason}')
    if episodes.left_out:
        count = len(ids(episodes.train) | ids(episodes.val)) + len(episodes.left_out)
        log(f'{len(episodes.left_out)} of {count} episodes left out')
    if episodes.edits:
        log(f'{len(episodes.edits)} episodes are edited (mobile_vla episodes edit --log)')
    found = audit.audit(episodes, sampling, data.axes)
    for line in (
        *audit.lines(found, scales=False),  # the training side has its own
        *base_lines(episodes),
        *leak_lines(episodes),
        *scale_lines(episodes.train, data.axes),
        *correction_lines(episodes, data.corrections),
    ):
        log(line)
    if not data.accept_losses:
        audit.check_losses(found)
    return episodes


def with_precision(config: TrainConfig) -> TrainConfig:
    """
    Return a configuration with the precision that `auto` stands for.

    That is the one of the run to resume, on whatever device; else the best of the device.
    """
    if config.precision != AUTO:
        return config
    begun = state.read_state(Path(config.out))
    if begun is not None:
        return replace(config, precision=begun[1].get('precision', 'no'))
    found = pick_precision(AUTO, config.device)
    return replace(config, precision='no' if found == 'fp32' else found)


def accelerator_for(model: ModelConfig, config: TrainConfig) -> Accelerator:
    """
    Return the accelerator for a device and a precision.

    :raises UserError: for a missing device, or a precision that it cannot train in.
    """
    device = pick_device(config.device)
    if device.type == 'cpu' and 'fp16' in (config.precision, PRECISIONS[model.backbone_dtype]):
        raise UserError(
            'a CPU cannot train in float16',
            got=f'--precision {config.precision} --backbone_dtype {model.backbone_dtype}',
            expected='--precision no or bf16, --backbone_dtype float32 or bfloat16',
            remedy='use --precision bf16, or a GPU',
        )
    if model.backbone_dtype == 'float16' and config.precision != 'fp16':
        raise UserError(
            'float16 weights need a scaled loss',
            got=f'--precision {config.precision} --backbone_dtype float16',
            expected='--precision fp16',
            remedy='use --backbone_dtype bfloat16',
        )
    # The other processes wait while one writes, perhaps to a slow disk.
    process_group = InitProcessGroupKwargs(timeout=datetime.timedelta(hours=12))
    accelerator = Accelerator(
        cpu=device.type == 'cpu', mixed_precision=config.precision, kwargs_handlers=[process_group]
    )
    if accelerator.num_processes == 1:
        accelerator.state.device = device  # accelerate knows the first GPU alone
    elif device.index is not None:
        raise UserError(
            'each process has a GPU of its own',
            got=f'--device {config.device} with {accelerator.num_processes} processes',
            expected='--device auto, cuda or cpu',
            remedy='choose the GPUs with CUDA_VISIBLE_DEVICES',
        )
    return accelerator


def prepare(
    accelerator: Accelerator,
    model: ModelConfig,
    data: DataConfig,
    config: TrainConfig,
    episodes: EpisodeSet,
    log: Callable[[str], None],
) -> Prepared:
    """
    Build the network, and the specification for its bundle.

    :raises UserError: for an invalid configuration.
    """
    actions = default_scale(episodes.train, data.axes)  # with --scale too: refuses idle episodes
    if data.scale:
        actions = ActionSpec(tuple(data.axes), tuple(data.scale))
    if model.motion_dims and model.motion_dims < len(actions.axes):
        raise UserError(
            'fewer motion dimensions than axes',
            got=model.motion_dims,
            expected=f'0, or at least {len(actions.axes)}',
        )
    initial = initial_policy(model, data, config, actions)
    network = initial.network
    network.to(accelerator.device)
    spec = PolicySpec(
        backbone=initial.backbone,
        head=network.head.settings,
        image=initial.image,
        actions=actions,
        rate_hz=data.rate_hz,
        window=data.window,
        chunk=data.chunk,
        command_max_age_s=data.command_max_age_s,
        instruction_template=model.instruction_template,
        blank=data.blank,
        camera=episodes.camera,
        data={
            **_data_record(data, episodes, actions),
            **initial.record,
            'parameters': network.parameter_counts(),
        },
    )
    check_before_training(network, spec)
    if spec.camera:
        log(f'camera: {spec.camera}')
    log(
        f'trained on {accelerator.num_processes} × {accelerator.device.type}, '
        f'--precision {config.precision}'
    )
    instructions = {one.instruction for one in (*episodes.train, *episodes.val)}
    around = model.instruction_template.format(image=' ', instruction=' ')
    for line in audit.word_lines({*instructions, around}, initial.tokenizer):
        log(line)
    if data.blank != 'instruction':
        audit.check_words(instructions, initial.tokenizer)
    counts = spec.data['parameters']
    log(
        f'trainable parameters: {counts["trainable"]:,} (LoRA {counts["lora"]:,}, '
        f'head {counts["head"]:,}, action token {counts["action_token"]:,}); '
        f'episodes: {len(spec.data["train_episodes"])} train, '
        f'{len(spec.data["val_episodes"])} validate'
    )
    tokens = None
    if model.lora_scope == 'text':

        def encode(pixels: torch.Tensor) -> torch.Tensor:
            with evaluating(network):  # one that a training starts from is in training mode
                return network.image_tokens(pixels.to(accelerator.device))

        tokens = ImageTokens(
            encode,
            f'{initial.backbone.sha256} {model.backbone_dtype}',
            initial.image,
            augmentation(data),
            Path(config.token_cache or Path(config.out) / 'image_tokens'),
        )
    return Prepared(accelerator, episodes, network, initial.tokenizer, spec, tokens)


def compute_tokens(prepared: Prepared) -> None:
    """Compute the missing image tokens; several processes share the work."""
    tokens, accelerator = prepared.tokens, prepared.accelerator
    if tokens is None or prepared.spec.blank == 'image':
        return
    segments = [*prepared.episodes.train, *prepared.episodes.val]
    if accelerator.num_processes > 1:
        tokens.prepare(segments[accelerator.process_index :: accelerator.num_processes])
        accelerator.wait_for_everyone()
    tokens.prepare(segments)


def _data_record(data: DataConfig, episodes: EpisodeSet, actions: ActionSpec) -> dict[str, Any]:
    """Return what a bundle stores of its training data."""
    return {
        'fingerprint': fingerprint([*episodes.train, *episodes.val]),
        'train_episodes': sorted(ids(episodes.train)),
        'val_episodes': sorted(ids(episodes.val)),
        'edits': dict(episodes.edits),
        'split': split_record(
            episodes,
            val_share=data.val_share,
            seed=data.split_seed,
            group_duplicates=data.group_duplicates,
        ),
        'mean_action': mean_action(episodes.train, actions),
        'bases': base_record(episodes),
        'camera_sizes': camera_sizes(episodes.train),
        'accept_verdicts': list(data.accept_verdicts),
        'left_out': {Path(path).name: reason for path, reason in episodes.left_out.items()},
        'blind_means': blind_means(episodes.train, actions),
        'augmentation': asdict(augmentation(data)),
        'idle_keep': data.idle_keep,
        'balance_instructions': data.balance_instructions,
        'corrections': {'weight': data.corrections, **correction_record(episodes)},
    }
