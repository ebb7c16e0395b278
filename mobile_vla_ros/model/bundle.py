"""The policy bundle: a folder that holds all that driving needs, and nothing said twice."""

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mobile_vla_ros import __version__
from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.files import sync_tree
from mobile_vla_ros.model.action_head import ActionHead, HeadSettings
from mobile_vla_ros.model.backbone import ASSETS, load_adapter, load_backbone, save_adapter
from mobile_vla_ros.model.device import pick_device
from mobile_vla_ros.model.network import VlaNetwork
from mobile_vla_ros.types import ActionSpec, ImageSpec

FORMAT = 'mobile_vla_policy'
SCHEMA_VERSION = 1
MANIFEST = 'policy.json'
ADAPTER = 'adapter'
HEAD = 'head.safetensors'
# Policies that come with the package.
BUILTIN = {'builtin:demo': ASSETS / 'demo_policy'}


@dataclass(frozen=True)
class BackboneRef:
    """Which backbone a policy was trained on: what to load, and the hash it must have."""

    id: str
    revision: str | None
    sha256: str


@dataclass(frozen=True)
class PolicySpec:
    """
    Everything about a policy but its weights; the content of `policy.json`.

    :param rate_hz: frames and chunk steps a second.
    :param window: frames that the head sees, the newest included.
    :param chunk: actions predicted from a frame, the current one included.
    :param command_max_age_s: how old a command may be to count as the action of a frame.
    :param instruction_template: text put before the action token; `{instruction}` is replaced.
    :param blank: `image` or `instruction` when the policy is a control, trained and driven
        without it; empty for a policy that has both.
    :param data: fingerprint, episodes and mean action (one number an axis, in its unit) of the
        training data.
    :param metrics: validation metrics of the policy beside those of the baselines.
    """

    backbone: BackboneRef
    head: HeadSettings
    image: ImageSpec
    actions: ActionSpec
    rate_hz: float
    window: int
    chunk: int
    command_max_age_s: float = 0.5
    instruction_template: str = '{instruction}'
    blank: str = ''
    data: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)

    def prompt(self, instruction: str) -> str:
        """Return the text that stands for an instruction."""
        if self.blank == 'instruction':
            return ''
        return self.instruction_template.format(instruction=instruction.strip())

    def to_json(self) -> str:
        """Return the text of `policy.json`."""
        content = {'format': FORMAT, 'schema_version': SCHEMA_VERSION,
                   'package_version': __version__, **asdict(self)}
        content['actions']['units'] = self.actions.units
        return json.dumps(content, indent=2) + '\n'

    @classmethod
    def from_json(cls, text: str, where: Path) -> 'PolicySpec':
        """Read `policy.json`; raises UserError naming `where` when it does not fit."""
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f'{where} is not JSON', got=str(error)) from error
        if not isinstance(content, dict) or content.get('format') != FORMAT:
            found = content.get('format') if isinstance(content, dict) else type(content).__name__
            raise UserError(f'{where} is not a policy of ours', got=f'format {found!r}',
                            expected=repr(FORMAT))
        if content.get('schema_version') != SCHEMA_VERSION:
            raise UserError(f'{where} has another schema version',
                            got=content.get('schema_version'), expected=SCHEMA_VERSION,
                            remedy='use the package version that wrote it '
                                   f'({content.get("package_version")}) or train again')
        content = {'blank': '', **content}  # version 0.1 knew no controls
        missing = sorted({f.name for f in fields(cls)} - set(content))
        if missing:
            raise UserError(f'{where} is incomplete', got=f'no {", ".join(missing)}')
        try:
            actions = dict(content['actions'])
            actions.pop('units', None)
            return cls(
                backbone=BackboneRef(**content['backbone']),
                head=HeadSettings(**content['head']), image=ImageSpec(**content['image']),
                actions=ActionSpec(**actions), rate_hz=float(content['rate_hz']),
                window=int(content['window']), chunk=int(content['chunk']),
                command_max_age_s=float(content['command_max_age_s']),
                instruction_template=content['instruction_template'], blank=content['blank'],
                data=content['data'], metrics=content['metrics'])
        except (TypeError, ValueError) as error:
            raise UserError(f'{where} does not fit its schema', got=str(error)) from error


def save_bundle(folder: Path, network: VlaNetwork, spec: PolicySpec) -> Path:
    """
    Write a bundle into a folder beside the final one and rename it: it is whole or absent.

    :raises UserError: when the folder exists already (nothing is overwritten in place).
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f'a policy cannot be written to {folder}', got='a folder that exists',
                        expected='a new name')
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
    try:
        save_adapter(network.backbone, partial / ADAPTER)
        tensors = {f'head.{name}': value for name, value in network.head.state_dict().items()}
        tensors['action_token'] = network.action_token.detach()
        save_file({name: value.contiguous().cpu() for name, value in tensors.items()},
                  partial / HEAD)
        (partial / MANIFEST).write_text(spec.to_json())
        sync_tree(partial)
        partial.chmod(0o755)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def bundle_folder(name: Path | str) -> Path:
    """Return the folder of a bundle: what is given, or what a `builtin:` name stands for."""
    if not str(name).startswith('builtin:'):
        return Path(name)
    if str(name) not in BUILTIN:
        raise UserError('unknown built-in policy', got=repr(str(name)),
                        expected=' or '.join(BUILTIN), remedy=did_you_mean(str(name), BUILTIN))
    return BUILTIN[str(name)]


def read_spec(folder: Path) -> PolicySpec:
    """Return what a bundle says of itself; needs neither its weights nor its backbone."""
    folder = bundle_folder(folder)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        what = 'no policy bundle' if folder.is_dir() else 'no such folder'
        raise UserError(f'{what} at {folder}', expected=f'a folder with {MANIFEST}',
                        remedy='train one with: mobile_vla train --data DIR --out DIR')
    spec = PolicySpec.from_json(manifest.read_text(), manifest)
    missing = [name for name in (HEAD, f'{ADAPTER}/adapter_model.safetensors')
               if not (folder / name).is_file()]
    if missing:
        raise UserError(f'the policy bundle {folder} is incomplete',
                        got=f'no {", ".join(missing)}')
    return spec


@dataclass(frozen=True)
class LoadedPolicy:
    """A bundle in memory: the network in evaluation mode, its spec and its tokenizer."""

    network: VlaNetwork
    spec: PolicySpec
    tokenizer: object


def load_bundle(folder: Path, *, device: str = 'cpu', dtype: torch.dtype = torch.float32,
                merge: bool = True, offline: bool = False) -> LoadedPolicy:
    """
    Load a bundle and the backbone it names.

    :param merge: fold the adapters into the weights, for driving.
    :raises UserError: when the bundle is missing, foreign or incomplete, its backbone is not the
        one it was trained on, or its tensors do not fit.
    """
    folder = bundle_folder(folder)
    spec = read_spec(folder)
    backbone = load_backbone(spec.backbone.id, revision=spec.backbone.revision, offline=offline,
                             dtype=dtype)
    if backbone.sha256 != spec.backbone.sha256:
        raise UserError(
            f'the policy {folder} was trained on other weights of {spec.backbone.id!r}',
            got=f'sha256 {backbone.sha256[:12]}…', expected=f'{spec.backbone.sha256[:12]}…',
            remedy='train it again on this backbone, or restore the backbone it names')
    tensors = load_file(folder / HEAD)
    network = VlaNetwork(load_adapter(backbone.model, folder / ADAPTER, merge=merge),
                         ActionHead(spec.head), backbone.model.config.text_config.bos_token_id,
                         torch.empty(spec.head.features))
    own = {name for name, _ in network.named_parameters() if not name.startswith('backbone.')}
    try:
        if own != set(tensors):
            raise RuntimeError(f'tensors {sorted(own ^ set(tensors))}')
        network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise UserError(f'{folder / HEAD} does not fit policy.json', got=str(error)) from error
    return LoadedPolicy(network.to(pick_device(device)).eval(), spec, backbone.tokenizer)
