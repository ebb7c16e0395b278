"""What a training run can be told, as dataclasses that check themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ACCEPTED_VERDICTS, BLANKS, TWIST_AXES, VERDICTS


def _setting(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    *,
    choices: Sequence[str] = (),
) -> Any:
    """
    Return the field of a setting with a default.

    :param help: of its flag.
    :param low, high: smallest and largest value; None for any.
    """
    metadata = {'help': help, 'range': (low, high), 'choices': choices}
    return field(default=default, metadata=metadata)


def _check(config: Any, *problems: str) -> None:
    """Raise a UserError that names every value out of range, and these problems."""
    found = []
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
        raise UserError('the training configuration is refused', got=', '.join(found))


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    backbone: str = _setting(
        'builtin:tiny', 'hub id (microsoft/kosmos-2-patch14-224), folder, or builtin:tiny'
    )
    revision: str | None = _setting(None, 'revision of a hub backbone')
    backbone_dtype: str = _setting(
        'float32',
        'what the frozen weights are held in; bfloat16 or float16 takes half the memory',
        choices=['float32', 'bfloat16', 'float16'],
    )
    activation_checkpointing: bool = _setting(
        False,
        'keep only what enters each layer and compute the rest again on the way back: '
        'a fraction of the memory for about a third more time',
    )
    offline: bool = _setting(False, 'never ask the hub')
    init: str = _setting(
        '',
        'policy bundle to go on from, or builtin:demo: its adapters, head and action '
        'token, and what it says of axes, scale, rate, window and chunk',
    )
    lora_r: int = _setting(32, 'rank of the LoRA adapters', 1, 1024)
    lora_alpha: int = _setting(16, 'their alpha', 1, 4096)
    lora_dropout: float = _setting(0.1, 'their dropout', 0, 0.9)
    lora_scope: str = _setting(
        'all',
        'all: both towers and the projection between them; text: the text model '
        'alone; then each frame goes through the vision part once, not once an epoch',
    )
    head_hidden: int = _setting(512, 'width of the LSTM', 1, 8192)
    head_layers: int = _setting(4, 'layers of the LSTM', 1, 16)
    head_dropout: float = _setting(
        0.0, 'dropout of the features on their way into the head', 0, 0.9
    )
    motion_dims: int = _setting(
        0, 'motion numbers a step, padded with zeros; 0: as many as there are axes', 0, 64
    )
    instruction_template: str = _setting('{instruction}', 'text before the action token')

    def __post_init__(self):
        whole = '{instruction}' in self.instruction_template
        _check(self, *([] if whole else ['instruction_template has no {instruction}']))


@dataclass(frozen=True)
class DataConfig:
    """The takes, and how they are cut into windows and chunks."""

    data: str = field(metadata={'help': 'folder of episodes'})
    rate_hz: float = _setting(10.0, 'frames and chunk steps a second', 0.1, 1000)
    window: int = _setting(4, 'frames that the head sees', 1, 64)
    chunk: int = _setting(10, 'actions predicted, current one included', 1, 1000)
    axes: list[str] = field(
        default_factory=lambda: ['linear_x', 'linear_y'],
        metadata={'help': 'axes that the policy drives'},
    )
    scale: list[float] = field(
        default_factory=list,
        metadata={
            'help': 'speed of each axis that becomes 1.0; none: the largest of the training takes'
        },
    )
    command_max_age_s: float = _setting(0.5, 'an older command counts as none', 0.001, 60)
    accept_verdicts: list[str] = field(
        default_factory=lambda: list(ACCEPTED_VERDICTS),
        metadata={'help': 'verdicts of the takes to learn from: good, poor, bad'},
    )
    val_share: float = _setting(0.2, 'share of the takes that validate', 0.01, 0.99)
    split_seed: int = _setting(0, 'seed of the split')
    mirror: bool = _setting(
        False, 'every other time exchange left and right: images, axes and words'
    )
    light: float = _setting(0.0, 'change brightness and contrast by up to this share', 0, 0.9)
    colour: float = _setting(
        0.0,
        'change saturation, and hue by a tenth as much, by up to this share; keep it '
        'small where instructions name colours',
        0,
        0.9,
    )
    shift: float = _setting(
        0.0, 'shift the image to any side by up to this share of its side', 0, 0.45
    )
    idle_keep: float = _setting(
        1.0, 'share of each idle stretch that is learned from, its beginning', 0, 1
    )
    balance_instructions: bool = _setting(
        False, 'draw takes so that every instruction is seen as often as any other'
    )
    group_duplicates: bool = _setting(
        False, 'keep takes of nearly the same commands on one side of the split'
    )
    corrections: float = _setting(
        0.0,
        'what a person drove in taking over from a policy weighs so many times, and '
        'what the policy had driven in the second before weighs nothing; 0: all weighs 1',
        0,
        1000,
    )
    blank: str = _setting(
        '', 'train a control that is shown no image or told no instruction', choices=BLANKS
    )

    def __post_init__(self):
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

    out: str = field(metadata={'help': 'folder of the run; its best policy will be OUT/best'})
    epochs: int = _setting(20, 'passes over the training takes', 1, 100_000)
    learning_rate: float = _setting(1e-4, 'of AdamW, at the start', 1e-9, 10)
    lora_learning_rate: float | None = _setting(
        None,
        'of the adapters and the action token; none: learning_rate. A small backbone '
        'forgets what it knew at the rate that a fresh head needs',
        0,
        10,
    )
    weight_decay: float = _setting(0.01, 'of AdamW', 0, 10)
    grad_clip: float = _setting(1.0, 'largest norm of the gradient', 1e-6, 1e6)
    batch_size: int = _setting(1, 'pieces of takes a step', 1, 100_000)
    accumulate: int = _setting(8, 'steps whose gradients are added up', 1, 100_000)
    piece_frames: int = _setting(18, 'frames of a piece of a take', 1, 100_000)
    gripper_weight: float = _setting(0.0, "weight of the seed's gripper dummy in the loss", 0, 1e3)
    precision: str = _setting(
        'no', 'mixed precision: no, bf16 or fp16', choices=['no', 'bf16', 'fp16']
    )
    token_cache: str = _setting(
        '', 'folder that keeps image tokens between runs (lora_scope text); none: in OUT'
    )
    workers: int = _setting(
        2, 'threads that read and decode ahead of the network; 0: none', 0, 256
    )
    save_every_min: float = _setting(
        10.0, 'minutes between two states to go on from; one is kept, and one an epoch', 0, 1e6
    )
    device: str = _setting('auto', 'auto, cpu or cuda')
    seed: int = _setting(0, 'of weights, order and dropout')

    def __post_init__(self):
        _check(self)


CONFIGS = (ModelConfig, DataConfig, TrainConfig)


def configs_of(values: Mapping[str, Any]) -> tuple[ModelConfig, DataConfig, TrainConfig]:
    """Return the configurations with these settings; raises UserError when they are invalid."""
    model, data, train = (
        config(**{one.name: values[one.name] for one in fields(config) if one.name in values})
        for config in CONFIGS
    )
    return model, data, train


def default_of(one: Field):
    """Return what a setting is when nobody gives it; MISSING: it has to be given."""
    return one.default if one.default_factory is MISSING else one.default_factory()


def defaults() -> dict:
    """Return every setting that may be left out, by name."""
    found = {one.name: default_of(one) for config in CONFIGS for one in fields(config)}
    return {name: value for name, value in found.items() if value is not MISSING}
