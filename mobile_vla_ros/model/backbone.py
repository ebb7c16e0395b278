"""Kosmos-2 and its LoRA adapters, by transformers and peft."""

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from transformers import Kosmos2Config, Kosmos2Model, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from mobile_vla_ros.errors import UserError, did_you_mean, first_line
from mobile_vla_ros.files import sha256
from mobile_vla_ros.model.backbone_check import check_attention
from mobile_vla_ros.model.backbone_files import (
    CONFIG,
    FETCH,
    IMAGES,
    TOKENIZER,
    download,
    remember_folder,
    remembered_folders,
    tensor_files,
    text_files,
    weight_files,
    weights_hash,
)
from mobile_vla_ros.model.builtin import BACKBONES, KNOWN_HUB, backbone_folder, is_builtin
from mobile_vla_ros.model.closed_folder import MAX_JSON_BYTES, inside, read_json
from mobile_vla_ros.model.policy_spec import ADAPTER_FILES, BackboneRef, hashed_id
from mobile_vla_ros.model.weights import Finish, read_model, read_tensor, tensor_places
from mobile_vla_ros.types import ImageSpec

# LoRA targets go by path: the projections have the same names in both towers.
LORA_TARGETS = {
    'all': r'(vision_model|text_model|image_to_text_projection)\.(.*\.)?'
    r'(q_proj|k_proj|v_proj|out_proj|fc1|fc2|dense)',
    'text': r'text_model\.(.*\.)?(q_proj|k_proj|v_proj|out_proj|fc1|fc2)',
}
PEFT_PREFIX, LORA_A, LORA_B = 'base_model.model.', '.lora_A.weight', '.lora_B.weight'
MERGED_VALUES = 1 << 16  # at a time on a CPU: as many as a core's cache holds
MAX_BESIDE = 100  # folders beside a bundle that are looked at

# The settings that define the network; transformers has others in each version.
TEXT_SETTINGS = (
    'vocab_size',
    'max_position_embeddings',
    'embed_dim',
    'layers',
    'ffn_dim',
    'attention_heads',
    'activation_function',
    'dropout',
    'attention_dropout',
    'activation_dropout',
    'layerdrop',
    'layer_norm_eps',
    'scale_embedding',
    'pad_token_id',
    'bos_token_id',
    'eos_token_id',
)
VISION_SETTINGS = (
    'hidden_size',
    'intermediate_size',
    'num_hidden_layers',
    'num_attention_heads',
    'num_channels',
    'image_size',
    'patch_size',
    'hidden_act',
    'layer_norm_eps',
    'attention_dropout',
)


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that this package uses."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, list[int]]:
        """Return `input_ids` and more."""

    def get_vocab(self) -> Mapping[str, int]:
        """Return the id of every token."""

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """Return the id of a token, None if there is none."""


@dataclass(frozen=True)
class Backbone:
    """
    A pretrained Kosmos-2 with its tokenizer and image settings.

    :param model: the `Kosmos2Model`, frozen.
    :param image: the size and normalisation that it was trained with.
    :param id: hub id, folder or `builtin:` name that it was loaded by.
    :param revision: the hub's commit, also when a branch or nothing was requested; None for a
        folder.
    :param sha256: hash of its weight files, in the order of their names, hexadecimal.
    :param files: the hash of every other file that was loaded, by name.
    """

    model: Kosmos2Model
    tokenizer: Tokenizer
    image: ImageSpec
    id: str
    revision: str | None
    sha256: str
    files: dict[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> BackboneRef:
        """What a bundle stores of it."""
        return BackboneRef(self.id, self.revision, self.sha256, self.files)


def load_tokenizer(name: str) -> Tokenizer:
    """
    Load the tokenizer of a backbone by folder, `builtin:tiny`, or hub id from the hub's cache.

    :raises UserError: when it is not there.
    """
    _quiet_libraries()
    folder = _local_folder(name)
    on_hub = folder is None
    try:
        folder = folder or download(name, None, offline=True)
        return _read_tokenizer(text_files(folder)[TOKENIZER])
    except UserError:
        raise
    except Exception as error:  # every part of a foreign file raises its own
        raise _not_loaded(name, None, error, on_hub=on_hub, chosen=True) from error


def load_backbone(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = 'cpu',
    chosen: bool = True,
    prepare: Callable[[Kosmos2Model], Finish] | None = None,
) -> Backbone:
    """
    Load a Kosmos-2 by hub id, by folder, or `builtin:tiny`; its parameters are frozen.

    Its files are safetensors and JSON; nothing else is opened, and none of them brings code. The
    hub is asked only for what is not in its cache.

    :param chosen: by the user; False: by a bundle, for which only `KNOWN_HUB` is downloaded.
    :param prepare: as for `read_model`.
    :raises UserError: when there is no such backbone, or it is not a Kosmos-2.
    """
    _quiet_libraries()
    folder = _local_folder(name)
    on_hub = folder is None
    try:
        if folder is None:
            folder = download(name, revision, offline=offline or not (chosen or name == KNOWN_HUB))
        config = _config(folder, name)
        texts, weights = text_files(folder), weight_files(folder)
        image, tokenizer = _image_spec(texts[IMAGES]), _read_tokenizer(texts[TOKENIZER])
        model, sha = read_model(name, config, tensor_files(weights), dtype, device, prepare)
        # transformers 4.53 to 5.22 let SDPA hide later positions here, where all are to be seen.
        model.image_to_text_projection.x_attn.is_causal = False
        check_attention(model)
    except UserError:
        raise
    except torch.OutOfMemoryError as error:
        raise UserError(
            f'the backbone {name!r} does not fit into the memory of {device}',
            got=first_line(error),
            remedy='use --precision bf16 (precision:=bf16), or end what else uses the memory',
        ) from error
    except Exception as error:  # every part of a foreign file raises its own
        raise _not_loaded(name, revision, error, on_hub=on_hub, chosen=chosen) from error
    named = on_hub or is_builtin(name)
    if not named:
        remember_folder(folder, sha)
    return Backbone(
        model,
        tokenizer,
        image,
        name if named else hashed_id(sha),
        folder.name if on_hub else None,
        sha,
        text_hashes(texts, weights),
    )


def find_backbone(ref: BackboneRef, *places: Path) -> tuple[str, str | None]:
    """
    Return the name and revision by which the backbone of a bundle is loaded.

    What ships is at hand. Else a folder beside the bundle that has its files comes first; then the
    name in the bundle, or, for what is known by its hashes alone, a folder that it was loaded from
    before on this machine, or `KNOWN_HUB` in the hub's cache.

    :param places: of the bundle: its folder, and what was typed for it, which may be a link.
    :raises UserError: when it is known by its hashes alone, and not found.
    """
    if is_builtin(ref.id):
        return ref.id, None
    around = dict.fromkeys([*(place.absolute() for place in places), places[0].resolve()])
    beside = [path.parent for place in around for path in sorted(place.parent.glob(f'*/{CONFIG}'))]
    typed = Path(os.path.expanduser(ref.id))  # by older bundles
    known = [*remembered_folders(ref.sha256), typed] if ref.in_folder else []
    for folder in [*beside[:MAX_BESIDE], *known]:
        if _is_backbone(folder, ref):
            return str(folder), None
    if not ref.in_folder:
        return ref.id, ref.revision
    with contextlib.suppress(OSError, UserError):
        folder = download(KNOWN_HUB, None, offline=True)
        if _is_backbone(folder, ref):
            return str(folder), None
    if os.path.isdir(typed):
        return str(typed), None  # whose differences are going to be named
    looked = min(len(beside), MAX_BESIDE)
    raise UserError(
        f'the backbone of the policy {places[0]} is not on this machine',
        got=f'none of {looked} folders beside it (of {len(beside)}) and nothing in the hub cache '
        f'has the weights {ref.sha256}',
        expected='the folder of the backbone that it was trained on',
        remedy='copy that folder beside the policy, or give it: --backbone FOLDER '
        '(backbone:=FOLDER for a launch file)',
    )


def _is_backbone(folder: Path, ref: BackboneRef) -> bool:
    """Whether a folder has the files of a backbone; the small ones are compared first."""
    try:
        if not (folder / CONFIG).is_file():
            return False
        _config(folder, str(folder))
        texts, weights = text_files(folder), weight_files(folder)
        if max(path.stat().st_size for path in texts.values()) > MAX_JSON_BYTES:
            return False
        if ref.files and text_hashes(texts, weights) != ref.files:
            return False
        return weights_hash(tensor_files(weights)) == ref.sha256
    except (UserError, OSError):
        return False


def text_hashes(texts: Mapping[str, Path], weights: Mapping[str, Path]) -> dict[str, str]:
    """Return the SHA-256 of a backbone's files beside its tensors, by name."""
    return {
        name: sha256(path)
        for name, path in {**texts, **weights}.items()
        if not name.endswith('.safetensors')
    }


def _read_tokenizer(path: Path) -> Tokenizer:
    """Read tokenizer.json, and not the name of a class, which depends on who wrote it."""
    tokenizer: Tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
    return tokenizer


def _quiet_libraries() -> None:
    """Disable transformers' progress bars and a warning about peft that no user can act on."""
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings(
        'ignore', message='`is_gradient_checkpointing`', category=FutureWarning
    )


def _not_loaded(
    name: str, revision: str | None, error: Exception, *, on_hub: bool, chosen: bool
) -> UserError:
    """Return the error for a backbone that failed to load, with how to download it."""
    if not on_hub:
        return UserError(
            f'the backbone {name!r} cannot be loaded ({first_line(error)})',
            expected='a folder saved by transformers: config.json, '
            'model.safetensors, tokenizer, preprocessor_config.json',
            remedy=f'fetch it again ({FETCH}), or use --backbone builtin:tiny',
        )
    wanted = f' --revision {revision}' if revision else ''
    if not chosen:
        return UserError(
            f'the backbone {name!r} of a policy cannot be loaded ({first_line(error)})',
            expected=f"it in this machine's hub cache; for a policy only {KNOWN_HUB} is "
            'downloaded',
            remedy=f'if you trust it, run: hf download {name}{wanted} --exclude "*.bin"',
        )
    folder = name.split('/')[1]
    return UserError(
        f'the backbone {name!r} cannot be loaded ({first_line(error)})',
        expected='a reachable hub, or a copy on this machine',
        remedy=f'on a machine with network access run: hf download {name}{wanted} '
        f'--exclude "*.bin" --local-dir {folder}; then give that folder: --backbone {folder}. '
        'Or use --backbone builtin:tiny',
    )


def _local_folder(name: str) -> Path | None:
    """Return the folder of a backbone, or None for a hub id."""
    if is_builtin(name):
        return backbone_folder(name)
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):
        return Path(folder)
    here = os.path.isdir(os.path.dirname(name))  # so it is a path, whatever it looks like
    if name.count('/') != 1 or name.startswith(('.', '/', '~')) or here:
        raise UserError(
            'unknown backbone',
            got=repr(name),
            expected=f"a hub id such as '{KNOWN_HUB}', an existing folder, or 'builtin:tiny'",
            remedy=did_you_mean(name, BACKBONES),
        )
    return None


def _config(folder: Path, name: str) -> Kosmos2Config:
    """Return the shape of a Kosmos-2; other settings could name kernels or code on the hub."""
    path = inside(folder, CONFIG)
    content = {} if path is None else read_json(path)
    model_type = content.get('model_type') if isinstance(content, dict) else None
    if model_type != Kosmos2Config.model_type:
        raise UserError(
            f'the backbone {name!r} is not a Kosmos-2',
            got=repr(model_type),
            expected=repr(Kosmos2Config.model_type),
        )

    def known(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: values[name] for name in names if name in values}

    return Kosmos2Config(
        **known(('latent_query_num',), content),
        text_config=known(TEXT_SETTINGS, content.get('text_config', {})),
        vision_config=known(VISION_SETTINGS, content.get('vision_config', {})),
    )


def _image_spec(path: Path) -> ImageSpec:
    settings = read_json(path)
    size = settings['size']
    side = size if isinstance(size, int) else size.get('height', size.get('shortest_edge'))
    return ImageSpec(int(side), tuple(settings['image_mean']), tuple(settings['image_std']))


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


def checkpoint_activations(model: Kosmos2Model) -> None:
    """Keep only the inputs of the towers' layers, and recompute the rest in the backward pass."""
    # Its name before transformers 5.23.
    enable = getattr(model, 'activation_checkpointing_enable', model.gradient_checkpointing_enable)
    enable({'use_reentrant': False})


def add_lora(model: Kosmos2Model, settings: LoraSettings) -> PeftModel:
    """Wrap a frozen Kosmos-2 in trainable LoRA adapters."""
    return _adapted(
        model, settings.r, settings.alpha, settings.dropout, LORA_TARGETS[settings.scope]
    )


def _adapted(model: Kosmos2Model, r: int, alpha: int, dropout: float, layers: str) -> PeftModel:
    _quiet_libraries()
    return get_peft_model(
        model,
        LoraConfig(
            r=r, lora_alpha=alpha, lora_dropout=dropout, bias='none', target_modules=layers
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


def load_adapter(model: Kosmos2Model, folder: Path) -> PeftModel:
    """
    Add saved adapters, which `bundle_check.adapter_problems` has passed, to a backbone, trainable.

    peft does not read their configuration, which could ask a hub.
    """
    config = read_json(folder / ADAPTER_FILES[0])
    adapted = _adapted(
        model,
        config['r'],
        config['lora_alpha'],
        config['lora_dropout'],
        config['target_modules'],
    )
    restore_adapter(adapted, folder)
    return adapted


def merging(folder: Path, device: torch.device) -> Callable[[str, nn.Module], None]:
    """Return what adds saved adapters, which were passed, to a module of a name, as peft does."""
    config = read_json(folder / ADAPTER_FILES[0])
    scale = config['lora_alpha'] / config['r']
    places = tensor_places([folder / ADAPTER_FILES[1]])  # not mapped, which would take memory

    def merge(name: str, module: nn.Module) -> None:
        keys = PEFT_PREFIX + name + LORA_A, PEFT_PREFIX + name + LORA_B
        if keys[0] not in places:
            return
        down, up = (read_tensor(key, places[key], torch.float32, device) for key in keys)
        weight = module.get_parameter('weight')
        count = MERGED_VALUES if weight.device.type == 'cpu' else weight.numel()
        rows = max(1, count // weight.shape[1])
        for part, of_part in zip(weight.split(rows), up.split(rows), strict=True):
            part.copy_((of_part @ down).mul_(scale).add_(part))

    return merge


def restore_adapter(model: PeftModel, folder: Path) -> None:
    """Load saved adapters into a model that has adapters of the same shape."""
    set_peft_model_state_dict(model, load_file(Path(folder) / ADAPTER_FILES[1]))


def kosmos(model: nn.Module) -> Kosmos2Model:
    """Return the Kosmos-2 inside a model that LoRA may wrap."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def unknown_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """Return the words of a text, each once, that are read as `<unk>` or as nothing."""
    # Not `unk_token_id`: tokenizer.json does not say which token that is.
    unknown = tokenizer.convert_tokens_to_ids('<unk>')
    ids = {word: tokenizer(word, add_special_tokens=False)['input_ids'] for word in text.split()}
    return [word for word, row in ids.items() if unknown in row or not row]


def tokenize(tokenizer: Tokenizer, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the token ids of prompts, without special tokens.

    :returns: (N, L) int64, padded on the right with zeros, which nothing attends to, and (N,)
        int64 lengths.
    """
    rows = [tokenizer(prompt, add_special_tokens=False)['input_ids'] for prompt in prompts]
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros((len(rows), max(1, int(lengths.max()))), dtype=torch.long)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    return ids, lengths
