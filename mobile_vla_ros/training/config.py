"""What a training run can be told, as dataclasses that check themselves."""

from dataclasses import MISSING, Field, dataclass, field, fields

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ACCEPTED_VERDICTS, BLANKS, TWIST_AXES, VERDICTS


def _range(name: str, value: float, low: float, high: float) -> str | None:
    return None if low <= value <= high else f'{name} is {value}, not from {low:g} to {high:g}'


def _refuse(problems: list[str | None]) -> None:
    found = [problem for problem in problems if problem]
    if found:
        raise UserError('the training configuration is refused', got=', '.join(found))


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    backbone: str = field(
        default='builtin:tiny',
        metadata={'help': 'hub id (microsoft/kosmos-2-patch14-224), folder, or builtin:tiny'},
    )
    revision: str | None = field(default=None, metadata={'help': 'revision of a hub backbone'})
    backbone_dtype: str = field(
        default='float32',
        metadata={
            'help': 'what the frozen weights are held in; bfloat16 or float16 takes half the '
            'memory',
            'choices': ['float32', 'bfloat16', 'float16'],
        },
    )
    activation_checkpointing: bool = field(
        default=False,
        metadata={
            'help': 'keep only what enters each layer and compute the rest again on the way back: '
            'a fraction of the memory for about a third more time'
        },
    )
    offline: bool = field(default=False, metadata={'help': 'never ask the hub'})
    init: str = field(
        default='',
        metadata={
            'help': 'policy bundle to go on from, or builtin:demo: its adapters, head and action '
            'token, and what it says of axes, scale, rate, window and chunk'
        },
    )
    lora_r: int = field(default=32, metadata={'help': 'rank of the LoRA adapters'})
    lora_alpha: int = field(default=16, metadata={'help': 'their alpha'})
    lora_dropout: float = field(default=0.1, metadata={'help': 'their dropout'})
    lora_scope: str = field(
        default='all',
        metadata={
            'help': 'all: both towers and the projection between them; text: the text model '
            'alone; then each frame goes through the vision part once, not once an epoch'
        },
    )
    head_hidden: int = field(default=512, metadata={'help': 'width of the LSTM'})
    head_layers: int = field(default=4, metadata={'help': 'layers of the LSTM'})
    head_dropout: float = field(
        default=0.0, metadata={'help': 'dropout of the features on their way into the head'}
    )
    motion_dims: int = field(
        default=0,
        metadata={
            'help': 'motion numbers a step, padded with zeros; 0: as many as there are axes'
        },
    )
    instruction_template: str = field(
        default='{instruction}', metadata={'help': 'text before the action token'}
    )

    def __post_init__(self):
        _refuse(
            [
                _range('lora_r', self.lora_r, 1, 1024),
                _range('lora_alpha', self.lora_alpha, 1, 4096),
                _range('lora_dropout', self.lora_dropout, 0, 0.9),
                _range('head_hidden', self.head_hidden, 1, 8192),
                _range('head_layers', self.head_layers, 1, 16),
                _range('head_dropout', self.head_dropout, 0, 0.9),
                None
                if self.backbone_dtype in ('float32', 'bfloat16', 'float16')
                else f'backbone_dtype is {self.backbone_dtype!r}, not float32, bfloat16 '
                'or float16',
                _range('motion_dims', self.motion_dims, 0, 64),
                None
                if '{instruction}' in self.instruction_template
                else 'instruction_template has no {instruction}',
            ]
        )


@dataclass(frozen=True)
class DataConfig:
    """The takes, and how they are cut into windows and chunks."""

    data: str = field(metadata={'help': 'folder of episodes'})
    rate_hz: float = field(default=10.0, metadata={'help': 'frames and chunk steps a second'})
    window: int = field(default=4, metadata={'help': 'frames that the head sees'})
    chunk: int = field(default=10, metadata={'help': 'actions predicted, current one included'})
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
    command_max_age_s: float = field(
        default=0.5, metadata={'help': 'an older command counts as none'}
    )
    accept_verdicts: list[str] = field(
        default_factory=lambda: list(ACCEPTED_VERDICTS),
        metadata={'help': 'verdicts of the takes to learn from: good, poor, bad'},
    )
    val_share: float = field(default=0.2, metadata={'help': 'share of the takes that validate'})
    split_seed: int = field(default=0, metadata={'help': 'seed of the split'})
    mirror: bool = field(
        default=False,
        metadata={'help': 'every other time exchange left and right: images, axes and words'},
    )
    light: float = field(
        default=0.0, metadata={'help': 'change brightness and contrast by up to this share'}
    )
    colour: float = field(
        default=0.0,
        metadata={
            'help': 'change saturation, and hue by a tenth as much, by up to this share; keep it '
            'small where instructions name colours'
        },
    )
    shift: float = field(
        default=0.0,
        metadata={'help': 'shift the image to any side by up to this share of its side'},
    )
    idle_keep: float = field(
        default=1.0,
        metadata={'help': 'share of each idle stretch that is learned from, its beginning'},
    )
    balance_instructions: bool = field(
        default=False,
        metadata={'help': 'draw takes so that every instruction is seen as often as any other'},
    )
    group_duplicates: bool = field(
        default=False,
        metadata={'help': 'keep takes of nearly the same commands on one side of the split'},
    )
    corrections: float = field(
        default=0.0,
        metadata={
            'help': 'what a person drove in taking over from a policy weighs so many times, and '
            'what the policy had driven in the second before weighs nothing; 0: all weighs 1'
        },
    )
    blank: str = field(
        default='',
        metadata={
            'help': 'train a control that is shown no image or told no instruction',
            'choices': list(BLANKS),
        },
    )

    def __post_init__(self):
        _refuse(
            [
                *(
                    f'axes has {axis!r}, not one of {", ".join(TWIST_AXES)}'
                    for axis in self.axes
                    if axis not in TWIST_AXES
                ),
                None
                if self.blank in BLANKS
                else f'blank is {self.blank!r}, not image, instruction or empty',
                None
                if self.accept_verdicts and set(self.accept_verdicts) <= set(VERDICTS)
                else f'accept_verdicts is {self.accept_verdicts}, not some of '
                f'{", ".join(VERDICTS)}',
                _range('rate_hz', self.rate_hz, 0.1, 1000),
                _range('window', self.window, 1, 64),
                _range('chunk', self.chunk, 1, 1000),
                _range('command_max_age_s', self.command_max_age_s, 0.001, 60),
                _range('val_share', self.val_share, 0.01, 0.99),
                _range('light', self.light, 0, 0.9),
                _range('colour', self.colour, 0, 0.9),
                _range('shift', self.shift, 0, 0.45),
                _range('idle_keep', self.idle_keep, 0, 1),
                _range('corrections', self.corrections, 0, 1000),
            ]
        )


@dataclass(frozen=True)
class TrainConfig:
    """The optimisation."""

    out: str = field(metadata={'help': 'folder of the run; its best policy will be OUT/best'})
    epochs: int = field(default=20, metadata={'help': 'passes over the training takes'})
    learning_rate: float = field(default=1e-4, metadata={'help': 'of AdamW, at the start'})
    lora_learning_rate: float | None = field(
        default=None,
        metadata={
            'help': 'of the adapters and the action token; none: learning_rate. A small backbone '
            'forgets what it knew at the rate that a fresh head needs'
        },
    )
    weight_decay: float = field(default=0.01, metadata={'help': 'of AdamW'})
    grad_clip: float = field(default=1.0, metadata={'help': 'largest norm of the gradient'})
    batch_size: int = field(default=1, metadata={'help': 'pieces of takes a step'})
    accumulate: int = field(default=8, metadata={'help': 'steps whose gradients are added up'})
    piece_frames: int = field(default=18, metadata={'help': 'frames of a piece of a take'})
    gripper_weight: float = field(
        default=0.0, metadata={'help': "weight of the seed's gripper dummy in the loss"}
    )
    precision: str = field(
        default='no',
        metadata={'help': 'mixed precision: no, bf16 or fp16', 'choices': ['no', 'bf16', 'fp16']},
    )
    token_cache: str = field(
        default='',
        metadata={
            'help': 'folder that keeps image tokens between runs (lora_scope text); none: in OUT'
        },
    )
    workers: int = field(
        default=2, metadata={'help': 'threads that read and decode ahead of the network; 0: none'}
    )
    save_every_min: float = field(
        default=10.0,
        metadata={
            'help': 'minutes between two states to go on from; one is kept, and one an epoch'
        },
    )
    device: str = field(default='auto', metadata={'help': 'auto, cpu or cuda'})
    seed: int = field(default=0, metadata={'help': 'of weights, order and dropout'})

    def __post_init__(self):
        _refuse(
            [
                _range('epochs', self.epochs, 1, 100_000),
                _range('learning_rate', self.learning_rate, 1e-9, 10),
                _range(
                    'lora_learning_rate', self.lora_learning_rate or self.learning_rate, 1e-9, 10
                ),
                _range('weight_decay', self.weight_decay, 0, 10),
                _range('grad_clip', self.grad_clip, 1e-6, 1e6),
                _range('batch_size', self.batch_size, 1, 100_000),
                _range('accumulate', self.accumulate, 1, 100_000),
                _range('piece_frames', self.piece_frames, 1, 100_000),
                _range('workers', self.workers, 0, 256),
                _range('save_every_min', self.save_every_min, 0, 1e6),
                _range('gripper_weight', self.gripper_weight, 0, 1e3),
                None
                if self.precision in ('no', 'bf16', 'fp16')
                else f'precision is {self.precision!r}, not no, bf16 or fp16',
            ]
        )


def default_of(one: Field):
    """Return what a setting is when nobody gives it; MISSING: it has to be given."""
    return one.default if one.default_factory is MISSING else one.default_factory()


def defaults() -> dict:
    """Return every setting that may be left out, by name."""
    found = {
        one.name: default_of(one)
        for config in (ModelConfig, DataConfig, TrainConfig)
        for one in fields(config)
    }
    return {name: value for name, value in found.items() if value is not MISSING}
