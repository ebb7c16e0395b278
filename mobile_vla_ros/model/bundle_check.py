"""What a bundle must hold to be loaded: each check returns every mismatch, none of them raises."""

import json
import math
import re
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.model.backbone import LoraConfig
from mobile_vla_ros.types import BLANKS, VERDICTS, ActionSpec

# Keys of adapter_config.json that say nothing of what is computed.
ABOUT = {
    'auto_mapping',
    'base_model_name_or_path',
    'inference_mode',
    'peft_version',
    'revision',
    'task_type',
    'peft_type',
    'r',
    'lora_alpha',
    'lora_dropout',
    'target_modules',
}
PREFIX = 'base_model.model.'
SHOWN = 60  # letters of a value that does not fit
TENSORS_SHOWN = 8


def _whole(low: int, high: int) -> tuple[str, Callable]:
    return (
        f'a whole number from {low} to {high}',
        lambda value: type(value) is int and low <= value <= high,
    )


def _number(low: float, high: float) -> tuple[str, Callable]:
    return f'a number from {low:g} to {high:g}', lambda value: _is_number(value, low, high)


def _is_number(value, low: float = -1e9, high: float = 1e9) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and low <= value <= high


def _list_of(what: str, fits: Callable, length: int | None = None) -> tuple[str, Callable]:
    count = 'a list' if length is None else f'{length}'
    return (
        f'{count} of {what}',
        lambda value: (
            type(value) is list and length in (None, len(value)) and all(map(fits, value))
        ),
    )


def _is_size(value) -> bool:
    return (
        type(value) is list
        and len(value) == 2
        and all(type(side) is int and 0 < side <= 65536 for side in value)
    )


def _is_text(value) -> bool:
    return type(value) is str and value.isprintable() and bool(value.strip())


def _is_template(value) -> bool:
    """Whether a text can be filled in: `{instruction}` and no other place."""
    try:
        places = [place[1:] for place in string.Formatter().parse(value) if place[1] is not None]
    except (TypeError, ValueError):
        return False
    return bool(places) and all(place == ('instruction', '', None) for place in places)


# Path in policy.json → what it must be, in words, and the test. Bounds are those of a training.
MANIFEST = {
    'backbone.id': ('a name', _is_text),
    'backbone.revision': ('a name or null', lambda value: value is None or _is_text(value)),
    'backbone.sha256': (
        '64 hexadecimal digits',
        lambda value: type(value) is str and bool(re.fullmatch('[0-9a-f]{64}', value)),
    ),
    'head.features': _whole(1, 65536),
    'head.motion_dims': _whole(1, 64),
    'head.chunk': _whole(1, 1000),
    'head.hidden': _whole(1, 8192),
    'head.layers': _whole(1, 16),
    'head.dropout': _number(0, 0.9),
    'image.size': _whole(1, 4096),
    'image.mean': _list_of('numbers', _is_number, 3),
    'image.std': _list_of('numbers above 0', lambda value: _is_number(value, 1e-9), 3),
    'actions.axes': _list_of('names', _is_text),
    'actions.scale': _list_of('numbers above 0', lambda value: _is_number(value, 1e-9)),
    'rate_hz': _number(0.1, 1000),
    'window': _whole(1, 64),
    'chunk': _whole(1, 1000),
    'command_max_age_s': _number(0.001, 60),
    'instruction_template': ('a text with {instruction}', _is_template),
    'blank': (f'one of {list(BLANKS)}', lambda value: type(value) is str and value in BLANKS),
    'data': ('an object', lambda value: type(value) is dict),
    'metrics': ('an object', lambda value: type(value) is dict),
}
# Of `data`, where it is there: older bundles lack some.
DATA = {
    'data.train_episodes': _list_of('names', _is_text),
    'data.val_episodes': _list_of('names', _is_text),
    'data.mean_action': _list_of('numbers', _is_number),
    'data.accept_verdicts': _list_of('verdicts', lambda value: value in VERDICTS),
    'data.camera_sizes': _list_of('[width, height]', _is_size),
}
ABSENT = object()


def _at(content: dict, path: str):
    for name in path.split('.'):
        content = content.get(name, ABSENT) if isinstance(content, dict) else ABSENT
    return content


def manifest_problems(content: dict) -> list[str]:
    """Return what does not fit in the content of `policy.json`, beside what it must be."""
    problems = []
    for path, (what, fits) in {**MANIFEST, **DATA}.items():
        value = _at(content, path)
        if value is ABSENT:
            problems += [] if path in DATA else [f'no {path}']
        elif not fits(value):
            problems.append(f'{path} is {repr(value)[:SHOWN]}, not {what}')
    if problems:
        return problems
    axes = content['actions']['axes']
    try:
        ActionSpec(tuple(axes), tuple(content['actions']['scale']))
    except UserError as error:
        problems.append(str(error).rstrip('.'))
    if content['chunk'] != content['head']['chunk']:
        problems.append(f'chunk is {content["chunk"]} and head.chunk {content["head"]["chunk"]}')
    if content['head']['motion_dims'] < len(axes):
        problems.append(
            f'head.motion_dims is {content["head"]["motion_dims"]} for {len(axes)} '
            f'axes ({", ".join(axes)})'
        )
    mean = _at(content, 'data.mean_action')
    if mean is not ABSENT and len(mean) != len(axes):
        problems.append(f'data.mean_action has {len(mean)} numbers for {len(axes)} axes')
    return problems


def tensor_problems(path: Path, wanted: dict[str, tuple[int, ...]]) -> list[str]:
    """
    Return how a safetensors file differs from what it must hold.

    :param wanted: name → shape of every tensor.
    """
    problems = []
    try:
        with safe_open(path, 'pt') as file:
            names = file.keys()
            found = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            missing = sorted(wanted.keys() - found.keys())
            strange = sorted(found.keys() - wanted.keys())
            problems += [f'no tensor {name}' for name in missing]
            problems += [f'a tensor {name}' for name in strange]
            for name in sorted(wanted.keys() & found.keys()):
                if found[name] != wanted[name]:
                    problems.append(f'{name} is {_shape(found[name])}, not {_shape(wanted[name])}')
                elif not _finite(file.get_tensor(name)):
                    problems.append(f'{name} holds a number that is not finite')
    except (SafetensorError, OSError, ValueError) as error:
        return [f'{path.name} is broken ({first_line(error)})']
    more = len(problems) - TENSORS_SHOWN
    shown = [f'{path.name}: {problem}' for problem in problems[:TENSORS_SHOWN]]
    return shown + ([f'{path.name}: and {more} more'] if more > 0 else [])


def _finite(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())


def _shape(sides: tuple[int, ...]) -> str:
    return ' x '.join(map(str, sides)) or 'a single number'


def adapter_problems(folder: Path, model: nn.Module) -> list[str]:
    """Return how saved LoRA adapters do not fit a backbone: settings, layers, shapes, numbers."""
    path = folder / 'adapter_config.json'
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        return [f'{path.name} is not JSON ({first_line(error)})']
    if not isinstance(config, dict):
        return [f'{path.name} holds a {type(config).__name__}, not an object']
    wanted = {
        'peft_type': ('LORA', lambda value: value == 'LORA'),
        'r': _whole(1, 1024),
        'lora_alpha': _number(1e-6, 4096),
        'lora_dropout': _number(0, 0.9),
        'target_modules': ('a regular expression', _is_pattern),
    }
    problems = []
    for name, (what, fits) in wanted.items():
        if not fits(config.get(name)):
            problems.append(f'{path.name}: {name} is {repr(config.get(name))[:SHOWN]}, not {what}')
    usual = LoraConfig().to_dict()
    for name in sorted(config.keys() - ABOUT):
        if config[name] and config[name] != usual.get(name):
            problems.append(
                f'{path.name}: {name} is {repr(config[name])[:SHOWN]}, which this '
                'package never sets'
            )
    if problems:
        return problems
    shapes = dict(_lora_shapes(model, config['target_modules'], config['r']))
    if not shapes:
        return [f'{path.name}: target_modules names no layer of the backbone']
    return tensor_problems(folder / 'adapter_model.safetensors', shapes)


def _is_pattern(value) -> bool:
    try:
        re.compile(value)
    except (TypeError, re.error, RecursionError, OverflowError):
        return False
    return type(value) is str


def _lora_shapes(model: nn.Module, pattern: str, rank: int) -> Iterator[tuple[str, tuple]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and re.fullmatch(pattern, name):
            yield f'{PREFIX}{name}.lora_A.weight', (rank, module.in_features)
            yield f'{PREFIX}{name}.lora_B.weight', (module.out_features, rank)
