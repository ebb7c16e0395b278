"""Whether a bundle's weights fit its spec and backbone: returns all mismatches, never raises."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from torch import nn

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.model.backbone import LORA_A, LORA_B, LORA_TARGETS, PEFT_PREFIX
from mobile_vla_ros.model.closed_folder import read_json
from mobile_vla_ros.model.manifest_check import MAX_SHOWN, Rule, mismatch, number, whole

# Keys of adapter_config.json that are checked below, or that change nothing in the computation.
KNOWN_KEYS = {
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
# A pattern from elsewhere could stop the process for hours while it is matched. The last is that
# of `text` in the first bundles.
PATTERNS = (
    *LORA_TARGETS.values(),
    r'(text_model|image_to_text_projection)\.(.*\.)?'
    r'(q_proj|k_proj|v_proj|out_proj|fc1|fc2|dense)',
)
MAX_PROBLEMS_SHOWN = 8
MAX_NAME = 200  # characters of a tensor's name that are shown

Shape = tuple[int, ...]


def tensor_problems(path: Path, wanted: dict[str, Shape]) -> list[str]:
    """
    Return how a safetensors file differs from what it must hold.

    :param wanted: name → shape of every tensor.
    """
    problems = []
    try:
        with safe_open(path, 'pt') as file:
            found: dict[str, Shape] = {
                name: tuple(file.get_slice(name).get_shape())
                for name in file.keys()  # noqa: SIM118
            }
            problems += [f'no tensor {name}' for name in sorted(wanted.keys() - found.keys())]
            problems += [
                f'a tensor {name[:MAX_NAME]}' for name in sorted(found.keys() - wanted.keys())
            ]
            for name in sorted(wanted.keys() & found.keys()):
                if found[name] != wanted[name]:
                    problems.append(f'{name} is {_shape(found[name])}, not {_shape(wanted[name])}')
                elif not _finite(file.get_tensor(name)):
                    problems.append(f'{name} contains NaN or inf')
    except (SafetensorError, OSError, ValueError) as error:
        return [f'{path.name} is broken ({first_line(error)})']
    more = len(problems) - MAX_PROBLEMS_SHOWN
    shown = [f'{path.name}: {problem}' for problem in problems[:MAX_PROBLEMS_SHOWN]]
    return shown + ([f'{path.name}: and {more} more'] if more > 0 else [])


def _finite(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())


def _shape(sides: Shape) -> str:
    return ' x '.join(map(str, sides)) or 'a single number'


def adapter_problems(folder: Path, model: nn.Module) -> list[str]:
    """Return how saved LoRA adapters do not fit a backbone: settings, layers, shapes, values."""
    path = folder / 'adapter_config.json'
    try:
        config = read_json(path)
    except UserError as error:
        return [str(error).rstrip('.')]
    if not isinstance(config, dict):
        return [f'{path.name} holds a {type(config).__name__}, not an object']
    problems = [f'{path.name}: {problem}' for problem in config_problems(config)]
    if not problems:
        shapes = dict(_lora_shapes(model, config['target_modules'], config['r']))
        problems = tensor_problems(folder / 'adapter_model.safetensors', shapes)
    made_by = str(config.get('peft_version', ''))[:MAX_SHOWN]
    if problems and _version(made_by) > _version(peft.__version__):
        problems.append(f'it was made by peft {made_by}, newer than peft {peft.__version__} here')
    return problems


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with."""
    begins = re.match(r'\d{1,9}(\.\d{1,9})*', text)
    return tuple(map(int, begins[0].split('.'))) if begins else ()


def config_problems(config: dict[str, Any]) -> list[str]:
    """Return which settings of LoRA adapters are out of range, or never set by this package."""
    wanted: dict[str, Rule] = {
        'peft_type': ('LORA', lambda value: value == 'LORA'),
        'r': whole(1, 1024),
        'lora_alpha': number(1e-6, 4096),
        'lora_dropout': number(0, 0.9),
        'target_modules': (
            f'the pattern of --lora_scope {" or ".join(LORA_TARGETS)}',
            lambda value: type(value) is str and value in PATTERNS,
        ),
    }
    problems = [
        mismatch(name, config.get(name), what)
        for name, (what, fits) in wanted.items()
        if not fits(config.get(name))
    ]
    defaults = LoraConfig().to_dict()
    return problems + [
        f'{name} is {repr(config[name])[:MAX_SHOWN]}, which this package never sets'
        for name in sorted(config.keys() - KNOWN_KEYS)
        if config[name] and config[name] != defaults.get(name)
    ]


def _lora_shapes(model: nn.Module, pattern: str, rank: int) -> Iterator[tuple[str, Shape]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and re.fullmatch(pattern, name):
            yield f'{PEFT_PREFIX}{name}{LORA_A}', (rank, module.in_features)
            yield f'{PEFT_PREFIX}{name}{LORA_B}', (module.out_features, rank)
