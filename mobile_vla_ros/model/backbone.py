"""Kosmos-2 and its LoRA adapters: the only module that imports transformers and peft."""

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoTokenizer, Kosmos2Config, Kosmos2Model
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import extract_commit_hash

from mobile_vla_ros.errors import UserError, did_you_mean, first_line
from mobile_vla_ros.model.builtin import BACKBONES, backbone_folder, is_builtin
from mobile_vla_ros.types import ImageSpec

# LoRA targets go by path: the projections have the same names in both towers.
LORA_TARGETS = {
    'all': r'(vision_model|text_model|image_to_text_projection)\.(.*\.)?'
    r'(q_proj|k_proj|v_proj|out_proj|fc1|fc2|dense)',
    'text': r'text_model\.(.*\.)?(q_proj|k_proj|v_proj|out_proj|fc1|fc2)',
}


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that this package uses."""

    pad_token_id: int

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, list[int]]:
        """Return `input_ids` and more."""

    def get_vocab(self) -> Mapping[str, int]:
        """Return the id of every token."""


@dataclass(frozen=True)
class Backbone:
    """
    A pretrained Kosmos-2 with its tokenizer and image settings.

    :param model: the `Kosmos2Model`, frozen.
    :param image: the size and normalisation that it was trained with.
    :param id: hub id, folder or `builtin:` name that it was loaded by.
    :param revision: the hub's commit, also when a branch or nothing was requested; None for a
        folder.
    :param sha256: hash of its weight files, hexadecimal.
    """

    model: Kosmos2Model
    tokenizer: Tokenizer
    image: ImageSpec
    id: str
    revision: str | None
    sha256: str


def load_backbone(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """
    Load a Kosmos-2 by hub id, by folder, or `builtin:tiny`; its parameters are frozen.

    :raises UserError: when there is no such backbone, or it is not a Kosmos-2.
    """
    _quiet_libraries()
    source = _source(name)
    options = {'revision': revision, 'local_files_only': offline or source != name}
    try:
        config_path = Path(cached_file(source, 'config.json', **options))
        model_type = json.loads(config_path.read_text()).get('model_type')
        if model_type != Kosmos2Config.model_type:
            raise UserError(
                f'the backbone {name!r} is not a Kosmos-2',
                got=repr(model_type),
                expected=repr(Kosmos2Config.model_type),
            )
        image = _image_spec(Path(cached_file(source, 'preprocessor_config.json', **options)))
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = Kosmos2Model.from_pretrained(source, dtype=dtype, use_safetensors=True, **options)
    except (OSError, ValueError) as error:
        raise _not_loaded(name, source, revision, error) from error
    model.requires_grad_(False)
    commit = extract_commit_hash(str(config_path), None) if source == name else None
    return Backbone(
        model, tokenizer, image, name, commit or revision, weights_hash(config_path.parent)
    )


def _quiet_libraries() -> None:
    """Disable transformers' progress bars and a warning about peft that no user can act on."""
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings(
        'ignore', message='`is_gradient_checkpointing`', category=FutureWarning
    )


def _not_loaded(name: str, source: str, revision: str | None, error: Exception) -> UserError:
    """Return the error for a backbone that failed to load, with how to download it."""
    if source != name:
        return UserError(
            f'the backbone {name!r} cannot be loaded ({first_line(error)})',
            expected='a folder saved by transformers: config.json, '
            'model.safetensors, tokenizer, preprocessor_config.json',
            remedy='download it again, or use --backbone builtin:tiny',
        )
    wanted = f' --revision {revision}' if revision else ''
    folder = name.split('/')[1]
    return UserError(
        f'the backbone {name!r} cannot be loaded ({first_line(error)})',
        expected='a reachable hub, or a copy on this machine',
        remedy=f'on a machine with network access run: hf download {name}{wanted} '
        f'--local-dir {folder}; then give that folder: --backbone {folder}. '
        'Or use --backbone builtin:tiny',
    )


def _source(name: str) -> str:
    """Return what transformers loads: the path of a folder, or the hub id."""
    if is_builtin(name):
        return str(backbone_folder(name))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    if name.count('/') != 1 or name.startswith(('.', '/', '~')):
        raise UserError(
            'unknown backbone',
            got=repr(name),
            expected="a hub id such as 'microsoft/kosmos-2-patch14-224', an existing folder, "
            "or 'builtin:tiny'",
            remedy=did_you_mean(name, BACKBONES),
        )
    return name


def _image_spec(path: Path) -> ImageSpec:
    settings = json.loads(path.read_text())
    size = settings['size']
    side = size if isinstance(size, int) else size.get('height', size.get('shortest_edge'))
    return ImageSpec(int(side), tuple(settings['image_mean']), tuple(settings['image_std']))


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 of a folder's safetensors files, in the order of their names."""
    digest = hashlib.sha256()
    files = sorted(folder.glob('*.safetensors'))
    if not files:
        raise UserError(
            'a backbone folder has no weights',
            got=folder,
            expected='model.safetensors or its shards',
        )
    for path in files:
        with path.open('rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class LoraSettings:
    """Rank, alpha, dropout, and which towers have adapters (`all`, or `text` alone)."""

    r: int = 32
    alpha: int = 16
    dropout: float = 0.1
    scope: str = 'all'

    def __post_init__(self) -> None:
        if self.scope not in LORA_TARGETS:
            raise UserError(
                'unknown lora scope',
                got=repr(self.scope),
                expected=' or '.join(LORA_TARGETS),
                remedy=did_you_mean(self.scope, LORA_TARGETS),
            )


def add_lora(model: Kosmos2Model, settings: LoraSettings) -> PeftModel:
    """Wrap a frozen Kosmos-2 in trainable LoRA adapters."""
    _quiet_libraries()
    return get_peft_model(
        model,
        LoraConfig(
            r=settings.r,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            bias='none',
            target_modules=LORA_TARGETS[settings.scope],
        ),
    )


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapters as safetensors with their configuration."""
    model.save_pretrained(str(folder), save_embedding_layers=False)
    # peft's model card for the hub; policy.json describes the bundle.
    (folder / 'README.md').unlink(missing_ok=True)
    # No path of the machine that trained: policy.json names the backbone by id and hash.
    config = folder / 'adapter_config.json'
    config.write_text(
        json.dumps({**json.loads(config.read_text()), 'base_model_name_or_path': None}, indent=2)
        + '\n'
    )


def load_adapter(model: Kosmos2Model, folder: Path, *, merge: bool) -> torch.nn.Module:
    """
    Add saved adapters to a backbone.

    :param merge: fold them into the weights (for driving) instead of keeping them trainable.
    """
    try:
        adapted = PeftModel.from_pretrained(
            model, str(folder), is_trainable=not merge, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f'the adapters in {folder} do not fit the backbone', got=first_line(error)
        ) from error
    return adapted.merge_and_unload() if merge else adapted


def restore_adapter(model: PeftModel, folder: Path) -> None:
    """Load saved adapters into a model that has adapters of the same shape."""
    set_peft_model_state_dict(model, load_file(Path(folder) / 'adapter_model.safetensors'))


def kosmos(model: torch.nn.Module) -> Kosmos2Model:
    """Return the Kosmos-2 inside a model that LoRA may wrap."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def tokenize(tokenizer: Tokenizer, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the token ids of prompts, without special tokens.

    :returns: (N, L) int64, padded on the right, and (N,) int64 lengths.
    """
    rows = [tokenizer(prompt, add_special_tokens=False)['input_ids'] for prompt in prompts]
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), max(1, int(lengths.max()))), tokenizer.pad_token_id)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    return ids, lengths
