"""The policy bundle: a folder with everything that driving needs; saved whole, loaded checked."""

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Kosmos2Model

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import disk_full_error, is_disk_full, replaced, sha256, sync, sync_tree
from mobile_vla_ros.model.backbone import (
    Backbone,
    Tokenizer,
    find_backbone,
    load_adapter,
    load_backbone,
    merging,
    save_adapter,
)
from mobile_vla_ros.model.builtin import bundle_folder
from mobile_vla_ros.model.bundle_check import adapter_problems, config_problems, tensor_problems
from mobile_vla_ros.model.closed_folder import MAX_JSON_BYTES, different, inside
from mobile_vla_ros.model.device import pick_device
from mobile_vla_ros.model.golden import Golden, write_golden
from mobile_vla_ros.model.manifest_check import manifest_problems
from mobile_vla_ros.model.network import ActionHead, VlaNetwork, start_ids
from mobile_vla_ros.model.packing import quantised
from mobile_vla_ros.model.policy_spec import (
    ADAPTER,
    FILES,
    GOLDEN,
    HEAD,
    MANIFEST,
    PolicySpec,
    hashed_id,
    read_spec,
    split_template,
)
from mobile_vla_ros.model.weights import Finish, meanwhile


def save_bundle(
    folder: Path, network: VlaNetwork, spec: PolicySpec, golden: Golden | None = None
) -> Path:
    """
    Write a bundle beside its final folder and rename it, so that it is whole or absent.

    :param golden: golden frames, compared before every drive.
    :raises UserError: when the folder exists (nothing is overwritten) or the disk is full.
    """
    tensors = {f'head.{name}': value for name, value in network.head.state_dict().items()}
    tensors['action_token'] = network.action_token.detach()
    size = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    with _new_bundle(folder, size + (golden.frames.nbytes if golden else 0), spec) as partial:
        save_adapter(network.backbone, partial / ADAPTER)
        save_file(
            {name: value.contiguous().cpu() for name, value in tensors.items()}, partial / HEAD
        )
        if golden is not None:
            write_golden(partial, golden)
    return Path(folder)


def copy_bundle(source: Path | str, folder: Path, spec: PolicySpec) -> Path:
    """
    Write a bundle with the weights and golden frames of another, and another spec.

    :raises UserError: as `save_bundle`.
    """
    source = bundle_folder(source)
    names = [*FILES, *([GOLDEN] if inside(source, GOLDEN) else ())]
    size = sum((source / name).stat().st_size for name in names)
    with _new_bundle(folder, size, spec) as partial:
        (partial / ADAPTER).mkdir()
        for name in names:
            shutil.copyfile(source / name, partial / name)
    return Path(folder)


def check_new(folder: Path) -> None:
    """Raise UserError if there is something at the place of a new bundle."""
    if folder.exists():
        raise UserError(
            f'a policy cannot be written to {folder}',
            got='a folder that exists',
            expected='a new folder',
        )


@contextlib.contextmanager
def _new_bundle(folder: Path, size: int, spec: PolicySpec) -> Iterator[Path]:
    """Yield a folder for all but the manifest, then write that and rename the folder."""
    folder = Path(folder)
    check_new(folder)
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f'.{folder.name}.{secrets.token_hex(4)}')
        partial.mkdir()  # for whom the umask lets read it, as the files in it
        yield partial
        # Last, so that what a kill leaves before this cannot be read as a bundle.
        spec = replace(spec, files=_hashes(partial))
        (partial / MANIFEST).write_text(spec.to_json())
        sync_tree(partial)
        partial.rename(folder)
        sync(folder.parent)
    except BaseException as error:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        if is_disk_full(error):
            raise disk_full_error(f'the policy {folder}', folder.parent, size) from error
        raise


def _hashes(folder: Path) -> dict[str, str]:
    return {name: sha256(folder / name) for name in FILES}


def check_before_training(network: VlaNetwork, spec: PolicySpec) -> None:
    """
    Check that the bundle of a training run will load; metrics and broken frames are to come.

    :raises UserError: names the settings that would not fit `policy.json` or the adapters.
    """
    text, adapters = spec.to_json(), network.backbone.peft_config['default']
    problems = [
        *manifest_problems(json.loads(text)),
        *config_problems(json.loads(json.dumps(adapters.to_dict(), default=str))),
    ]
    if len(text) > MAX_JSON_BYTES // 2:
        problems.append(f'{MANIFEST} would have {len(text)} bytes before its metrics')
    if problems:
        raise UserError(
            'a policy with these settings and episodes cannot be trained',
            got='; '.join(problems),
            expected=f'what fits its {MANIFEST}',
            remedy='change the setting, or leave out or rename the episode',
        )


def rewrite_spec(folder: Path, spec: PolicySpec) -> None:
    """
    Replace the `policy.json` of a bundle, for metrics that are known only later.

    :raises UserError: when there is no bundle, or the disk is full.
    """
    manifest = Path(folder) / MANIFEST
    read_spec(folder)
    text = spec.to_json()
    try:
        with replaced(manifest) as file:
            file.write(text)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full_error(str(manifest), manifest.parent, len(text)) from error
        raise


@dataclass(frozen=True)
class Bundle:
    """
    A bundle in memory: the network in evaluation mode, its spec and its tokenizer.

    :param unhashed: names of the files that an older bundle has no hash of.
    """

    network: VlaNetwork
    spec: PolicySpec
    tokenizer: Tokenizer
    unhashed: tuple[str, ...] = ()


def load_bundle(
    folder: Path | str,
    *,
    device: str = 'cpu',
    dtype: torch.dtype = torch.float32,
    merge: bool = True,
    offline: bool = False,
    backbone: str = '',
) -> Bundle:
    """
    Load a bundle and its backbone (`find_backbone`); only `KNOWN_HUB` is downloaded.

    :param folder: of the bundle, or a `builtin:` name.
    :param dtype: of the weights; int8, for a bundle with the proof: of most, and bfloat16 of the
        rest (`packing.quantise`).
    :param merge: fold the adapters into the weights, for driving.
    :param backbone: folder or hub id to load it from instead; it must have the same files.
    :raises UserError: when the bundle is missing, foreign or incomplete, its backbone is not the
        one it was trained on, its tensors do not fit, or nothing proves that it drives in int8.
    """
    typed, folder = Path(folder).expanduser(), bundle_folder(folder)
    spec = read_spec(folder)
    int8 = dtype is torch.int8
    if int8 and not spec.int8:
        raise UserError(
            f'nothing proves that the policy {folder} drives as well with int8 weights',
            expected=f'the proof in its {MANIFEST}',
            remedy=f'run: mobile_vla quantise {folder} --out NEW_FOLDER; and drive the new folder',
        )
    name, revision = (backbone, None) if backbone else find_backbone(spec.backbone, folder, typed)
    place, hashes = pick_device(device), meanwhile(_hashes, folder)
    adapter, of_adapter = folder / ADAPTER, list[str]()

    def prepare(model: Kosmos2Model) -> Finish:
        of_adapter.extend(adapter_problems(adapter, model))
        add = merging(adapter, place) if merge and not of_adapter else None
        words = model.get_input_embeddings()

        def finish(name: str, module: nn.Module) -> nn.Module:
            if add is not None:
                add(name, module)
            return quantised(module, words) if int8 else module

        return finish

    loaded = load_backbone(
        name,
        revision=revision,
        offline=offline,
        dtype=torch.bfloat16 if int8 else dtype,
        device=place,
        chosen=bool(backbone),
        prepare=prepare,
    )
    problems = _problems(folder, spec, loaded, hashes) + of_adapter
    if problems:
        raise UserError(
            f'the policy {folder} does not fit the backbone {name!r} or its own {MANIFEST}',
            got='; '.join(problems),
            remedy='restore the bundle or the backbone that it was trained on, or train again',
        )
    network = VlaNetwork(
        loaded.model if merge else load_adapter(loaded.model, adapter),
        ActionHead(spec.head),
        start_ids(loaded, split_template(spec.instruction_template)[0]),
        torch.empty(spec.head.features),
    )
    network.load_state_dict(load_file(folder / HEAD), strict=False)
    unhashed = () if spec.files else FILES
    if not spec.backbone.files:
        unhashed += tuple(loaded.files)
    # What older bundles lack, a training that continues from it stores.
    known = replace(spec.backbone, files=spec.backbone.files or loaded.files)
    if known.in_folder:
        known = replace(known, id=hashed_id(known.sha256))
    spec = replace(spec, backbone=known)
    return Bundle(network.to(place).eval(), spec, loaded.tokenizer, unhashed)


def _problems(
    folder: Path, spec: PolicySpec, backbone: Backbone, hashes: 'Future[dict[str, str]]'
) -> list[str]:
    """Return the mismatches of a bundle's spec, its head and its backbone; not of its adapters."""
    config = backbone.model.config
    problems = []
    if backbone.sha256 != spec.backbone.sha256:
        problems.append(
            f'it was trained on other weights: sha256 {spec.backbone.sha256[:12]}…, '
            f'this backbone has {backbone.sha256[:12]}…'
        )
    if spec.backbone.files:
        problems += different(spec.backbone.files, backbone.files)
    if spec.files:
        problems += different(spec.files, hashes.result())
    for what, own, known in (
        ('head.features', spec.head.features, config.text_config.embed_dim),
        ('image.size', spec.image.size, config.vision_config.image_size),
    ):
        if own != known:
            problems.append(f'{what} is {own}, and the backbone has {known}')
    with torch.device('meta'):
        head = ActionHead(spec.head)
    wanted = {f'head.{name}': tuple(value.shape) for name, value in head.state_dict().items()}
    wanted['action_token'] = (spec.head.features,)
    return problems + tensor_problems(folder / HEAD, wanted)
