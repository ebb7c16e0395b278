"""All that is settled before the first step: takes, network, and what the bundle says of both."""

import datetime
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from mobile_vla_ros.data.augment import Augmentation
from mobile_vla_ros.data.camera_samples import camera_sizes
from mobile_vla_ros.data.episodes import (
    EpisodeSet,
    correction_lines,
    correction_record,
    default_scale,
    leak_lines,
    load_episodes,
    split_record,
    still_lines,
)
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.segments import Sampling, fingerprint
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.baselines import blind_means, mean_action
from mobile_vla_ros.model.backbone import Tokenizer
from mobile_vla_ros.model.device import pick_device
from mobile_vla_ros.model.network import VlaNetwork
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.initial_weights import begin
from mobile_vla_ros.types import ActionSpec

# What `--precision` calls the types.
SHORT = {'float32': 'no', 'bfloat16': 'bf16', 'float16': 'fp16'}


@dataclass(frozen=True)
class Prepared:
    """
    What is trained, and with what.

    :param tokens: image tokens that are kept (lora_scope text), or None.
    """

    accelerator: Accelerator
    takes: EpisodeSet
    network: VlaNetwork
    tokenizer: Tokenizer
    spec: PolicySpec
    tokens: ImageTokens | None


def augmentation(data: DataConfig) -> Augmentation:
    """Return what a configuration lets change in a take."""
    return Augmentation(mirror=data.mirror, light=data.light, colour=data.colour, shift=data.shift)


def episodes_of(data: DataConfig, say: Callable[[str], None]) -> EpisodeSet:
    """Load and split the takes of a configuration, and say what is left out and what leaks."""
    takes = load_episodes(
        Path(data.data),
        Sampling(data.rate_hz, data.window, data.chunk, data.command_max_age_s),
        data.accept_verdicts,
        data.val_share,
        data.split_seed,
        group_duplicates=data.group_duplicates,
    )
    for path, reason in takes.left_out.items():
        say(f'left out: {path}: {reason}')
    if takes.left_out:
        used = len({run.episode_id for run in [*takes.train, *takes.val]})
        say(f'{len(takes.left_out)} of {used + len(takes.left_out)} takes left out')
    for line in (
        *leak_lines(takes),
        *still_lines(takes.train, data.axes),
        *correction_lines(takes, data.corrections),
    ):
        say(line)
    return takes


def accelerator_for(model: ModelConfig, config: TrainConfig) -> Accelerator:
    """
    Return what carries the devices and the precision.

    :raises UserError: for a device that is not there, or a precision that it cannot train in.
    """
    device = pick_device(config.device)
    if device.type == 'cpu' and 'fp16' in (config.precision, SHORT[model.backbone_dtype]):
        raise UserError(
            'float16 cannot be trained on a CPU',
            got=f'--precision {config.precision} --backbone_dtype {model.backbone_dtype}',
            expected='--precision no or bf16, --backbone_dtype float32 or bfloat16',
            remedy='use --precision bf16, or a GPU',
        )
    if model.backbone_dtype == 'float16' and config.precision != 'fp16':
        raise UserError(
            'float16 weights need the loss to be scaled',
            got=f'--precision {config.precision} --backbone_dtype float16',
            expected='--precision fp16',
            remedy='use --backbone_dtype bfloat16',
        )
    # One process writes while the others wait, and a disk may be slow.
    patience = InitProcessGroupKwargs(timeout=datetime.timedelta(hours=12))
    return Accelerator(
        cpu=device.type == 'cpu', mixed_precision=config.precision, kwargs_handlers=[patience]
    )


def prepare(
    accelerator: Accelerator,
    model: ModelConfig,
    data: DataConfig,
    config: TrainConfig,
    takes: EpisodeSet,
    say: Callable[[str], None],
) -> Prepared:
    """
    Build the network and what the bundle will say of it and of its data.

    :raises UserError: for anything in the configuration that a person must mend.
    """
    actions = default_scale(takes.train, data.axes)  # also where another is given: it refuses
    if data.scale:
        actions = ActionSpec(tuple(data.axes), tuple(data.scale))
    if model.motion_dims and model.motion_dims < len(actions.axes):
        raise UserError(
            'fewer motion numbers than axes',
            got=model.motion_dims,
            expected=f'0, or at least {len(actions.axes)}',
        )
    begun = begin(model, data, config, actions)
    network = begun.network
    network.to(accelerator.device)
    spec = PolicySpec(
        backbone=begun.backbone,
        head=network.head.settings,
        image=begun.image,
        actions=actions,
        rate_hz=data.rate_hz,
        window=data.window,
        chunk=data.chunk,
        command_max_age_s=data.command_max_age_s,
        instruction_template=model.instruction_template,
        blank=data.blank,
        data={
            **_record(data, takes, actions),
            **begun.record,
            'parameters': network.parameter_counts(),
        },
    )
    say(
        f'trained on {accelerator.num_processes} × {accelerator.device.type}, '
        f'--precision {config.precision}'
    )
    counts = spec.data['parameters']
    say(
        f'trainable parameters: {counts["trainable"]:,} (LoRA {counts["lora"]:,}, '
        f'head {counts["head"]:,}, action token {counts["action_token"]:,}); '
        f'takes: {len(spec.data["train_episodes"])} train, '
        f'{len(spec.data["val_episodes"])} validate'
    )
    tokens = None
    if model.lora_scope == 'text':
        tokens = ImageTokens(
            lambda pixels: network.image_tokens(pixels.to(accelerator.device)),
            f'{begun.backbone.sha256} {model.backbone_dtype}',
            begun.image,
            augmentation(data),
            Path(config.token_cache or Path(config.out) / 'image_tokens'),
        )
    return Prepared(accelerator, takes, network, begun.tokenizer, spec, tokens)


def compute_tokens(prepared: Prepared) -> None:
    """Compute the image tokens that are missing; several processes share the work."""
    tokens, accelerator = prepared.tokens, prepared.accelerator
    if tokens is None or prepared.spec.blank == 'image':
        return
    runs = [*prepared.takes.train, *prepared.takes.val]
    if accelerator.num_processes > 1:
        tokens.prepare(runs[accelerator.process_index :: accelerator.num_processes])
        accelerator.wait_for_everyone()
    tokens.prepare(runs)


def _record(data: DataConfig, takes: EpisodeSet, actions: ActionSpec) -> dict:
    """Return what a bundle says of its data."""
    return {
        'fingerprint': fingerprint([*takes.train, *takes.val]),
        'train_episodes': sorted({run.episode_id for run in takes.train}),
        'val_episodes': sorted({run.episode_id for run in takes.val}),
        'split': split_record(
            takes,
            val_share=data.val_share,
            seed=data.split_seed,
            group_duplicates=data.group_duplicates,
        ),
        'mean_action': mean_action(takes.train, actions),
        'camera_sizes': camera_sizes(takes.train),
        'accept_verdicts': list(data.accept_verdicts),
        'left_out': {Path(path).name: reason for path, reason in takes.left_out.items()},
        'blind_means': blind_means(takes.train, actions, data.window),
        'augmentation': asdict(augmentation(data)),
        'idle_keep': data.idle_keep,
        'balance_instructions': data.balance_instructions,
        'corrections': {'weight': data.corrections, **correction_record(takes)},
    }
