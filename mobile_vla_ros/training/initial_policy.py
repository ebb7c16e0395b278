"""The network before the first step: a new head on a backbone, or the weights of a policy."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from accelerate.utils import set_seed

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone import (
    LORA_TARGETS,
    LoraSettings,
    Tokenizer,
    checkpoint_activations,
    load_backbone,
)
from mobile_vla_ros.model.builtin import bundle_folder
from mobile_vla_ros.model.bundle import load_bundle
from mobile_vla_ros.model.network import VlaNetwork, build_network
from mobile_vla_ros.model.policy_spec import (
    ADAPTER,
    ADAPTER_FILES,
    BackboneRef,
    read_spec,
    split_template,
)
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig, default_of
from mobile_vla_ros.types import ActionSpec, ImageSpec

PLACE = ('backbone', 'revision')  # where the backbone of a policy is, not which one


@dataclass(frozen=True)
class InitialPolicy:
    """
    A network before its first step, on the CPU, with its backbone and tokenizer.

    :param record: the part of the bundle's `data` that names the policy of ``--init``.
    """

    network: VlaNetwork
    backbone: BackboneRef
    image: ImageSpec
    tokenizer: Tokenizer
    record: dict[str, Any] = field(default_factory=dict)


def initial_policy(
    model: ModelConfig, data: DataConfig, config: TrainConfig, actions: ActionSpec
) -> InitialPolicy:
    """
    Build the network, or load that of `model.init`.

    :param model, data: from `inherit_settings`.
    :raises UserError: when backbone or bundle cannot be loaded, or do not fit each other.
    """
    dtype = getattr(torch, model.backbone_dtype)
    if model.init:
        own = read_spec(model.init).backbone
        loaded = load_bundle(
            bundle_folder(model.init),
            dtype=dtype,
            merge=False,
            offline=model.offline,
            backbone='' if model.backbone == own.id else model.backbone,
        )
        set_seed(config.seed)
        if model.activation_checkpointing:
            checkpoint_activations(loaded.network.kosmos)
        spec = loaded.spec
        return InitialPolicy(
            loaded.network.train(),
            spec.backbone,
            spec.image,
            loaded.tokenizer,
            {'init': {'policy': model.init, 'fingerprint': spec.data.get('fingerprint')}},
        )
    backbone = load_backbone(
        model.backbone, revision=model.revision, offline=model.offline, dtype=dtype
    )
    set_seed(config.seed)
    network = build_network(
        backbone,
        LoraSettings(model.lora_r, model.lora_alpha, model.lora_dropout, model.lora_scope),
        motion_dims=model.motion_dims or len(actions.axes),
        chunk=data.chunk,
        hidden=model.head_hidden,
        layers=model.head_layers,
        dropout=model.head_dropout,
        before_image=split_template(model.instruction_template)[0],
        activation_checkpointing=model.activation_checkpointing,
    )
    return InitialPolicy(
        network,
        backbone.ref,
        backbone.image,
        backbone.tokenizer,
    )


def inherit_settings(
    model: ModelConfig, data: DataConfig, given: Collection[str] | None = None
) -> tuple[ModelConfig, DataConfig]:
    """
    Return the configuration with the settings that the policy of `model.init` determines.

    :param given: names of the settings that a person gave; None: those that differ from their
        defaults.
    :raises UserError: when given settings contradict the policy; lists all of them.
    """
    if not model.init:
        return model, data
    fixed = _settings_of(model.init)
    if data.camera:  # it may look through another one than before
        fixed['camera'] = data.camera
    problems, changed = [], {}
    for config in (model, data):
        for one in fields(config):
            here = getattr(config, one.name)
            there = fixed.get(one.name, here)
            if here == there:
                continue
            by_hand = one.name in given if given is not None else here != default_of(one)
            if by_hand and one.name in PLACE:
                continue  # checked by its hash
            changed[one.name] = there
            if by_hand:
                problems.append(f'{one.name} is {here!r}, and the policy has {there!r}')
    if problems:
        raise UserError(
            f'cannot continue from the policy {model.init} with these settings',
            got='; '.join(problems),
            expected='the settings of the policy',
            remedy='leave them out (--init uses those of the policy), or train without --init',
        )

    def own(config: ModelConfig | DataConfig) -> dict[str, Any]:
        return {one.name: changed[one.name] for one in fields(config) if one.name in changed}

    return replace(model, **own(model)), replace(data, **own(data))


def _settings_of(name: str) -> dict[str, Any]:
    """Return the settings that a policy determines, by name."""
    folder = bundle_folder(name)
    spec = read_spec(folder)
    path = folder / ADAPTER / ADAPTER_FILES[0]
    try:
        adapter = json.loads(path.read_text())
        lora = {
            f'lora_{key}': adapter[full]
            for key, full in (('r', 'r'), ('alpha', 'lora_alpha'), ('dropout', 'lora_dropout'))
        }
        layers = adapter['target_modules']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'cannot read {path}',
            got=f'{type(error).__name__}: {error}',
            expected='the settings of the adapters',
        ) from None
    scopes = [scope for scope, pattern in LORA_TARGETS.items() if pattern == layers]
    if not scopes:
        raise UserError(
            f'the adapters of {name} are on layers of no lora_scope',
            got=str(layers)[:60],
            expected=' or '.join(LORA_TARGETS),
        )
    return {
        'backbone': spec.backbone.id,
        'revision': spec.backbone.revision,
        **lora,
        'lora_scope': scopes[0],
        'head_hidden': spec.head.hidden,
        'head_layers': spec.head.layers,
        'head_dropout': spec.head.dropout,
        'motion_dims': spec.head.motion_dims,
        'instruction_template': spec.instruction_template,
        'rate_hz': spec.rate_hz,
        'window': spec.window,
        'chunk': spec.chunk,
        'axes': list(spec.actions.axes),
        'scale': list(spec.actions.scale),
        'blank': spec.blank,
        'camera': spec.camera,
    }
