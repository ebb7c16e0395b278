"""The policy bundle: a folder that holds all that driving needs, and nothing said twice."""

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mobile_vla_ros import __version__
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.files import is_disk_full, no_room, replaced, sync, sync_tree
from mobile_vla_ros.model.action_head import ActionHead, HeadSettings
from mobile_vla_ros.model.backbone import (
    Backbone,
    load_adapter,
    load_backbone,
    save_adapter,
)
from mobile_vla_ros.model.builtin import bundle_folder
from mobile_vla_ros.model.bundle_check import adapter_problems, manifest_problems, tensor_problems
from mobile_vla_ros.model.device import pick_device
from mobile_vla_ros.model.golden import Golden, write_golden
from mobile_vla_ros.model.network import VlaNetwork
from mobile_vla_ros.types import ActionSpec, ImageSpec

FORMAT = 'mobile_vla_policy'
SCHEMA_VERSION = 1
MANIFEST = 'policy.json'
ADAPTER = 'adapter'
ADAPTER_FILES = ('adapter_config.json', 'adapter_model.safetensors')
HEAD = 'head.safetensors'


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
    :param data: fingerprint, episodes, mean action (one number an axis, in its unit) and
        `camera_sizes` ([width, height], the commonest first) of the training data.
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
        content = {
            'format': FORMAT,
            'schema_version': SCHEMA_VERSION,
            'package_version': __version__,
            **asdict(self),
        }
        content['actions']['units'] = self.actions.units
        return json.dumps(content, indent=2) + '\n'

    @classmethod
    def from_json(cls, text: str, where: Path) -> 'PolicySpec':
        """Read `policy.json`; raises UserError naming `where` when it does not fit."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f'{where} is not JSON', got=first_line(error)) from error
        if not isinstance(content, dict) or content.get('format') != FORMAT:
            found = content.get('format') if isinstance(content, dict) else type(content).__name__
            raise UserError(
                f'{where} is not a policy of ours',
                got=f'format {str(found)[:40]!r}',
                expected=repr(FORMAT),
            )
        version = content.get('schema_version')
        if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
            raise UserError(
                f'{where} has another schema version',
                got=str(version)[:40],
                expected=SCHEMA_VERSION,
                remedy='use the package version that wrote it '
                f'({str(content.get("package_version"))[:40]}) or train again',
            )
        content = {'blank': '', **content}  # version 0.1 knew no controls
        problems = manifest_problems(content)
        if problems:
            raise UserError(
                f'{where} does not fit its schema',
                got='; '.join(problems),
                remedy='train again, or take the bundle from where it was whole',
            )
        head = {name: content['head'][name] for name in HeadSettings.__dataclass_fields__}
        image, actions, backbone = content['image'], content['actions'], content['backbone']
        plain = (
            'rate_hz',
            'window',
            'chunk',
            'command_max_age_s',
            'instruction_template',
            'blank',
            'data',
            'metrics',
        )
        return cls(
            BackboneRef(backbone['id'], backbone['revision'], backbone['sha256']),
            HeadSettings(**head),
            ImageSpec(image['size'], image['mean'], image['std']),
            ActionSpec(actions['axes'], actions['scale']),
            **{name: content[name] for name in plain},
        )


def save_bundle(
    folder: Path, network: VlaNetwork, spec: PolicySpec, golden: Golden | None = None
) -> Path:
    """
    Write a bundle into a folder beside the final one and rename it: it is whole or absent.

    :param golden: what the network says of a window, to be asked again before every drive.
    :raises UserError: when the folder exists already (nothing is overwritten in place), or there
        is no room for it.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(
            f'a policy cannot be written to {folder}',
            got='a folder that exists',
            expected='a new name',
        )
    tensors = {f'head.{name}': value for name, value in network.head.state_dict().items()}
    tensors['action_token'] = network.action_token.detach()
    trained = [p for p in network.parameters() if p.requires_grad]
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
        save_adapter(network.backbone, partial / ADAPTER)
        save_file(
            {name: value.contiguous().cpu() for name, value in tensors.items()}, partial / HEAD
        )
        if golden is not None:
            write_golden(partial, golden)
        # Last: what a kill leaves before this is no bundle even to somebody who looks into it.
        (partial / MANIFEST).write_text(spec.to_json())
        sync_tree(partial)
        partial.chmod(0o755)
        partial.rename(folder)
        sync(folder.parent)
    except BaseException as error:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        if is_disk_full(error):
            size = sum(p.numel() * p.element_size() for p in trained)
            size += golden.frames.nbytes if golden is not None else 0
            raise no_room(f'the policy {folder}', folder.parent, size) from error
        raise
    return folder


def rewrite_spec(folder: Path, spec: PolicySpec) -> None:
    """
    Replace what a bundle says of itself, for numbers that are known only later.

    :raises UserError: when there is no bundle, or no room.
    """
    manifest = Path(folder) / MANIFEST
    read_spec(folder)
    text = spec.to_json()
    try:
        with replaced(manifest) as file:
            file.write(text)
    except OSError as error:
        if is_disk_full(error):
            raise no_room(str(manifest), manifest.parent, len(text)) from error
        raise


def read_spec(folder: Path) -> PolicySpec:
    """Return what a bundle says of itself; needs neither its weights nor its backbone."""
    folder = bundle_folder(folder)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        what = 'no policy bundle' if folder.is_dir() else 'no such folder'
        raise UserError(
            f'{what} at {folder}',
            expected=f'a folder with {MANIFEST}',
            remedy='train one with: mobile_vla train --data DIR --out DIR',
        )
    try:
        text = manifest.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{manifest} cannot be read', got=first_line(error)) from error
    spec = PolicySpec.from_json(text, manifest)
    missing = [
        name
        for name in (HEAD, *(f'{ADAPTER}/{name}' for name in ADAPTER_FILES))
        if not (folder / name).is_file()
    ]
    if missing:
        raise UserError(
            f'the policy bundle {folder} is incomplete', got=f'no {", ".join(missing)}'
        )
    return spec


@dataclass(frozen=True)
class LoadedPolicy:
    """A bundle in memory: the network in evaluation mode, its spec and its tokenizer."""

    network: VlaNetwork
    spec: PolicySpec
    tokenizer: object


def load_bundle(
    folder: Path,
    *,
    device: str = 'cpu',
    dtype: torch.dtype = torch.float32,
    merge: bool = True,
    offline: bool = False,
) -> LoadedPolicy:
    """
    Load a bundle and the backbone it names.

    :param merge: fold the adapters into the weights, for driving.
    :raises UserError: when the bundle is missing, foreign or incomplete, its backbone is not the
        one it was trained on, or its tensors do not fit.
    """
    folder = bundle_folder(folder)
    spec = read_spec(folder)
    backbone = load_backbone(
        spec.backbone.id, revision=spec.backbone.revision, offline=offline, dtype=dtype
    )
    problems = _problems(folder, spec, backbone)
    if problems:
        raise UserError(
            f'the policy {folder} does not fit the backbone {spec.backbone.id!r} or its own '
            f'{MANIFEST}',
            got='; '.join(problems),
            remedy='restore the bundle, or the backbone that it was trained on; or train again',
        )
    network = VlaNetwork(
        load_adapter(backbone.model, folder / ADAPTER, merge=merge),
        ActionHead(spec.head),
        backbone.model.config.text_config.bos_token_id,
        torch.empty(spec.head.features),
    )
    network.load_state_dict(load_file(folder / HEAD), strict=False)
    return LoadedPolicy(network.to(pick_device(device)).eval(), spec, backbone.tokenizer)


def _problems(folder: Path, spec: PolicySpec, backbone: Backbone) -> list[str]:
    """Return everything in which a bundle, its weights and its backbone disagree."""
    config = backbone.model.config
    problems = []
    if backbone.sha256 != spec.backbone.sha256:
        problems.append(
            f'it was trained on other weights, of sha256 {spec.backbone.sha256[:12]}…,'
            f' and these have {backbone.sha256[:12]}…'
        )
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
    return (
        problems
        + tensor_problems(folder / HEAD, wanted)
        + adapter_problems(folder / ADAPTER, backbone.model)
    )
