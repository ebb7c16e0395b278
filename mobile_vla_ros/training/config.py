"""Settings of a training run, as dataclasses that validate themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.manifest_check import REQUIRED, mismatch
from mobile_vla_ros.types import ACCEPTED_VERDICTS, BLANKS, TWIST_AXES, VERDICTS

# Templates by name: RoboVLMs' own for Kosmos-2, and the marks of Kosmos-2 around an image.
PROMPTS = {
    'plain': '{instruction}',
    'robovlms': '<grounding>An image of a robot {instruction}</s>',
    'kosmos2': '<image>{image}</image>{instruction}',
}


def _setting(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    *,
    choices: Sequence[str] = (),
) -> Any:
    """
    Return the dataclass field of a setting with a default.

    :param help: help text of its flag.
    :param low, high: smallest and largest value; None: any.
    """
    metadata = {'help': help, 'range': (low, high), 'choices': choices}
    return field(default=default, metadata=metadata)


def _check(config: Any, *problems: str) -> None:
    """Raise a UserError that lists every value out of range, and the given problems."""
    found: list[str] = []
    for one in fields(config):
        value, choices = getattr(config, one.name), one.metadata.get('choices')
        low, high = one.metadata.get('range', (None, None))
        if low is not None and value is not None and not low <= value <= high:
            found.append(f'{one.name} is {value}, not from {low:g} to {high:g}')
        if choices and value not in choices:
            *others, last = (choice or 'empty' for choice in choices)
            found.append(f'{one.name} is {value!r}, not {", ".join(others)} or {last}')
    found += problems
    if found:
        raise UserError('invalid training configuration', got=', '.join(found))


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    backbone: str = _setting(
        'builtin:tiny', 'hub id (microsoft/kosmos-2-patch14-224), folder, or builtin:tiny'
    )
    revision: str | None = _setting(None, 'revision of a hub backbone')
    backbone_dtype: str = _setting(
        'float32',
        'dtype of the frozen weights; bfloat16 and float16 take half the memory',
        choices=['float32', 'bfloat16', 'float16'],
    )
    activation_checkpointing: bool = _setting(
        False,
        'keep only the input of each layer and recompute the rest in the backward pass: '
        'a fraction of the memory for about a third more time',
    )
    offline: bool = _setting(False, 'never contact the hub')
    init: str = _setting(
        '',
        'policy bundle to continue from, or builtin:demo: its adapters, head and action '
        'token, and its axes, scale, rate, window and chunk',
    )
    lora_r: int = _setting(32, 'rank of the LoRA adapters', 1, 1024)
    lora_alpha: int = _setting(16, 'alpha of the LoRA adapters', 1, 4096)
    lora_dropout: float = _setting(0.1, 'dropout of the LoRA adapters', 0, 0.9)
    lora_scope: str = _setting(
        'all',
        'all: both towers and the projection between them; text: only the text model, '
        'so that each frame goes through the vision tower once, not once an epoch',
    )
    head_hidden: int = _setting(512, 'width of the LSTM', 1, 8192)
    head_layers: int = _setting(4, 'layers of the LSTM', 1, 16)
    head_dropout: float = _setting(0.0, 'dropout of the features before the head', 0, 0.9)
    motion_dims: int = _setting(
        0, 'motion dimensions a step, padded with zeros; 0: one for each axis', 0, 64
    )
    instruction_template: str = _setting(
        '{instruction}',
        f'what the network reads: {", ".join(PROMPTS)}, or a text with {{instruction}}, and with '
        '{image} before it where the image tokens are not to stand first',
    )

    def __post_init__(self) -> None:
        text = PROMPTS.get(self.instruction_template, self.instruction_template)
        object.__setattr__(self, 'instruction_template', text)
        what, fits = REQUIRED['instruction_template']
        _check(self, *([] if fits(text) else [mismatch('instruction_template', text, what)]))


@dataclass(frozen=True)
class DataConfig:
    """The episodes, and how to cut them into windows and chunks."""

    data: str = field(metadata={'help': 'folder of episodes'})
    camera: str = _setting(
        '', 'camera to learn from: its name, or a part of it (wrist); none: the main one'
    )
    rate_hz: float = _setting(10.0, 'frames and chunk steps a second', 0.1, 1000)
    window: int = _setting(4, 'frames in the window of the head', 1, 64)
    chunk: int = _setting(10, 'actions to predict, including the current one', 1, 1000)
    axes: list[str] = field(
        default_factory=lambda: ['linear_x', 'linear_y'],
        metadata={'help': 'axes for the policy to drive'},
    )
    scale: list[float] = field(
        default_factory=list,
        metadata={
            'help': 'speed of each axis that maps to 1.0; none: the largest in the training '
            'episodes, without outliers'
        },
    )
    command_max_age_s: float | None = _setting(
        None,
        'seconds after a command at which the base stops, for episodes that do not state it; '
        '0: it holds the last command; none: by their odometry or images',
        0,
        60,
    )
    accept_verdicts: list[str] = field(
        default_factory=lambda: list(ACCEPTED_VERDICTS),
        metadata={'help': 'verdicts of the episodes to learn from: good, poor, bad'},
    )
    val_share: float = _setting(0.2, 'share of the episodes to validate on', 0.01, 0.99)
    split_seed: int = _setting(0, 'random seed of the split')
    mirror: bool = _setting(False, 'swap left and right half of the time: images, axes and words')
    light: float = _setting(0.0, 'change brightness and contrast by up to this share', 0, 0.9)
    colour: float = _setting(
        0.0,
        'change saturation by up to this share, and hue by a tenth of it; keep it small if '
        'instructions name colours',
        0,
        0.9,
    )
    shift: float = _setting(0.0, 'shift the image by up to this share of its side', 0, 0.45)
    idle_keep: float = _setting(
        1.0, 'share of each idle span to learn from, from its beginning', 0, 1
    )
    balance_instructions: bool = _setting(
        False, 'draw pieces so that all instructions are equally frequent'
    )
    group_duplicates: bool = _setting(
        False, 'keep near-identical episodes on one side of the split'
    )
    accept_losses: bool = _setting(
        False, 'train even if over half of what was driven is lost (mobile_vla episodes audit)'
    )
    corrections: float = _setting(
        0.0,
        "weight of a person's commands in a takeover; the policy's commands in the second "
        'before weigh nothing then; 0: all commands weigh 1',
        0,
        1000,
    )
    blank: str = _setting(
        '', 'train a control without images or without instructions', choices=BLANKS
    )

    def __post_init__(self) -> None:
        problems = [
            f'axes has {axis!r}, not one of {", ".join(TWIST_AXES)}'
            for axis in self.axes
            if axis not in TWIST_AXES
        ]
        if not self.accept_verdicts or not set(self.accept_verdicts) <= set(VERDICTS):
            problems.append(
                f'accept_verdicts is {self.accept_verdicts}, not some of {", ".join(VERDICTS)}'
            )
        _check(self, *problems)


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation."""

    out: str = field(metadata={'help': 'run folder; the best policy will be OUT/best'})
    epochs: int = _setting(20, 'passes over the training episodes', 1, 100_000)
    learning_rate: float = _setting(1e-4, 'highest learning rate of AdamW', 1e-9, 10)
    lora_learning_rate: float | None = _setting(
        None,
        'learning rate of the adapters and the action token; none: learning_rate. A small '
        'backbone forgets at the rate that a new head needs',
        0,
        10,
    )
    warmup_ratio: float = _setting(
        0.0, 'share of all optimiser steps in which the learning rate rises', 0, 0.9
    )
    min_lr: float = _setting(0.0, 'learning rate at the end, down a cosine', 0, 10)
    weight_decay: float = _setting(0.01, 'weight decay of AdamW', 0, 10)
    grad_clip: float = _setting(1.0, 'maximum norm of the gradient', 1e-6, 1e6)
    batch_size: int = _setting(1, 'pieces of episodes a batch', 1, 100_000)
    accumulate: int = _setting(8, 'gradient accumulation steps', 1, 100_000)
    piece_frames: int = _setting(18, 'maximum frames of a piece of an episode', 1, 100_000)
    gripper_weight: float = _setting(
        0.0, "weight of the reference run's gripper dummy in the loss", 0, 1e3
    )
    precision: str = _setting(
        'auto',
        'mixed precision; auto: bf16 on a GPU that computes in it, else no',
        choices=['auto', 'no', 'bf16', 'fp16'],
    )
    token_cache: str = _setting(
        '', 'folder of image tokens shared between runs (lora_scope text); none: in OUT'
    )
    workers: int = _setting(2, 'threads that prefetch batches; 0: none', 0, 256)
    save_every_min: float = _setting(
        10.0, 'minutes between saved states, besides one an epoch; only the newest is kept', 0, 1e6
    )
    device: str = _setting('auto', 'auto, cpu, cuda or cuda:1 …')
    seed: int = _setting(0, 'random seed of weights, order and dropout')

    def __post_init__(self) -> None:
        rate = min(self.learning_rate, self.lora_learning_rate or self.learning_rate)
        high = [f'min_lr is {self.min_lr:g}, more than the learning rate {rate:g}']
        _check(self, *(high if self.min_lr > rate else []))


CONFIGS = (ModelConfig, DataConfig, TrainConfig)


def configs_of(values: Mapping[str, Any]) -> tuple[ModelConfig, DataConfig, TrainConfig]:
    """Return the configurations with these settings; raises UserError if they are invalid."""

    def own(config: type) -> dict[str, Any]:
        return {one.name: values[one.name] for one in fields(config) if one.name in values}

    return (
        ModelConfig(**own(ModelConfig)),
        DataConfig(**own(DataConfig)),
        TrainConfig(**own(TrainConfig)),
    )


def default_of(one: Field[Any]) -> Any:
    """Return a field's default, or MISSING if it is required."""
    return one.default if one.default_factory is MISSING else one.default_factory()


def defaults() -> dict[str, Any]:
    """Return the defaults of all optional settings, by name."""
    found = {one.name: default_of(one) for config in CONFIGS for one in fields(config)}
    return {name: value for name, value in found.items() if value is not MISSING}
