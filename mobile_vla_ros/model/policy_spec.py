"""The spec of a policy, and `policy.json`; needs neither weights nor torch."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mobile_vla_ros import __version__
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.builtin import bundle_folder, is_builtin
from mobile_vla_ros.model.closed_folder import inside, parse_json, read_text
from mobile_vla_ros.model.manifest_check import manifest_problems
from mobile_vla_ros.types import ActionSpec, ImageSpec

FORMAT = 'mobile_vla_policy'
SCHEMA_VERSION = 1
# The files of a bundle.
MANIFEST = 'policy.json'
ADAPTER = 'adapter'
ADAPTER_FILES = ('adapter_config.json', 'adapter_model.safetensors')
HEAD = 'head.safetensors'
GOLDEN = 'golden.safetensors'
# Those that are loaded besides the manifest, by their names in it.
FILES = (HEAD, *(f'{ADAPTER}/{name}' for name in ADAPTER_FILES))


@dataclass(frozen=True)
class BackboneRef:
    """
    The backbone that a policy was trained on.

    :param id: hub id, `builtin:` name, or `hashed_id` of a folder's weights; in older bundles the
        folder as it was typed.
    :param revision: the hub's commit; None for a folder.
    :param sha256: of its weights.
    :param files: SHA-256 of its other files by name; empty in older bundles.
    """

    id: str
    revision: str | None
    sha256: str
    files: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def in_folder(self) -> bool:
        """Whether it was loaded from a folder, and is known by its hashes alone."""
        return self.revision is None and not is_builtin(self.id)

    @property
    def label(self) -> str:
        """Its name for people."""
        return f'weights {self.sha256[:12]}' if self.in_folder else self.id


def hashed_id(sha256: str) -> str:
    """Return the name of a backbone by the hash of its weights."""
    return f'sha256:{sha256}'


@dataclass(frozen=True)
class HeadSettings:
    """
    Shape of the action head; the defaults are those of the reference run.

    :param features: width of a frame's feature vector.
    :param motion_dims: outputs per chunk step: the policy's axes, then padding. The reference run
        pads to six.
    :param dropout: of the features, in training only.
    """

    features: int
    motion_dims: int = 2
    chunk: int = 10
    hidden: int = 512
    layers: int = 4
    dropout: float = 0.0


@dataclass(frozen=True)
class PolicySpec:
    """
    Everything about a policy except its weights; the content of `policy.json`.

    :param rate_hz: frames and chunk steps per second.
    :param window: frames that the head sees, including the newest.
    :param chunk: actions predicted from a frame, including the current one.
    :param command_max_age_s: the timeout of a base in episodes that do not state it (0: it holds
        the last command); None: by their odometry or images. Older bundles always have a number.
    :param instruction_template: text before the action token; `{instruction}` is replaced. Image
        tokens stand for `{image}`, without it before the text.
    :param blank: `image` or `instruction` for a control policy that is trained and driven
        without it; empty for a policy that has both.
    :param camera: name of the camera that it was trained on, if one was chosen; '': the main
        camera of each episode, as in older bundles, which lack the key.
    :param data: of the training data: fingerprint, episodes, mean action (one value per axis, in
        its unit), `camera_sizes` ([width, height], the most frequent first) and `edits` (a hash
        for each edited episode).
    :param metrics: validation metrics of the policy and of the baselines.
    :param int8: the proof that it drives as well with int8 weights (`rollout.quantise`); empty
        without.
    :param files: SHA-256 of each of `FILES`, by `save_bundle`; empty in older bundles.
    """

    backbone: BackboneRef
    head: HeadSettings
    image: ImageSpec
    actions: ActionSpec
    rate_hz: float
    window: int
    chunk: int
    command_max_age_s: float | None = None
    instruction_template: str = '{instruction}'
    blank: str = ''
    camera: str = ''
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    int8: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict, compare=False)

    def prompt(self, instruction: str) -> str:
        """Return the text that the network reads for an instruction, after the image."""
        if self.blank == 'instruction':
            return ''
        _, after = split_template(self.instruction_template)
        return after.format(instruction=instruction.strip())

    def to_json(self) -> str:
        """Return the text of `policy.json`."""
        content = {
            'format': FORMAT,
            'schema_version': SCHEMA_VERSION,
            'package_version': __version__,
            **asdict(self),
        }
        content['actions']['units'] = self.actions.units
        if not self.camera:
            del content['camera']
        # Absent, not empty, where nothing is hashed or proved.
        for part, name in ((content, 'files'), (content['backbone'], 'files'), (content, 'int8')):
            if not part[name]:
                del part[name]
        return json.dumps(content, indent=2) + '\n'

    @classmethod
    def from_json(cls, text: str, where: Path) -> 'PolicySpec':
        """
        Parse `policy.json`.

        :param where: the file, for error messages.
        :raises UserError: when it is not JSON, of another format or version, or does not fit the
            schema.
        """
        content = {
            'blank': '',
            **_known(parse_json(text, where), where),
        }  # version 0.1 had no controls
        problems = manifest_problems(content)
        if problems:
            raise UserError(
                f'{where} does not fit its schema',
                got='; '.join(problems),
                remedy='train again, or restore the bundle from an intact copy',
            )
        backbone, head, image, actions = (
            content.pop(name) for name in ('backbone', 'head', 'image', 'actions')
        )
        return cls(
            BackboneRef(
                backbone['id'],
                backbone['revision'],
                backbone['sha256'],
                backbone.get('files', {}),
            ),
            HeadSettings(**{one.name: head[one.name] for one in fields(HeadSettings)}),
            ImageSpec(image['size'], image['mean'], image['std']),
            ActionSpec(actions['axes'], actions['scale']),
            **{one.name: content[one.name] for one in fields(cls) if one.name in content},
        )


def split_template(template: str) -> tuple[str, str]:
    """Return the text before the image tokens, and the template of the text after them."""
    before, image, after = template.partition('{image}')
    return (before.format(), after) if image else ('', template)


def _known(content: object, where: Path) -> dict[str, Any]:
    """Return an object of a known format and version; raise UserError otherwise."""
    if not isinstance(content, dict) or content.get('format') != FORMAT:
        found = content.get('format') if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f'{where} is not a policy of this package',
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
    return content


def read_spec(folder: Path | str) -> PolicySpec:
    """
    Read the spec of a bundle; needs neither its weights nor its backbone.

    :param folder: of the bundle, or a `builtin:` name.
    :raises UserError: when there is no bundle, it lacks a file or has one that is elsewhere, or
        `policy.json` does not fit.
    """
    folder = bundle_folder(folder)
    manifest = inside(folder, MANIFEST)
    if manifest is None:
        what = 'no policy bundle' if folder.is_dir() else 'no such folder'
        raise UserError(
            f'{what} at {folder}',
            expected=f'a folder with {MANIFEST}',
            remedy='train one with: mobile_vla train --data DIR --out DIR',
        )
    spec = PolicySpec.from_json(read_text(manifest), manifest)
    missing = [name for name in FILES if inside(folder, name) is None]
    if missing:
        raise UserError(
            f'the policy bundle {folder} is incomplete', got=f'no {", ".join(missing)}'
        )
    return spec
