"""Golden frames: a window of images in the bundle, and the actions that it must reproduce."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.files import disk_full_error, is_disk_full, replaced, sync
from mobile_vla_ros.model.backbone import Tokenizer, tokenize
from mobile_vla_ros.model.builtin import bundle_folder
from mobile_vla_ros.model.closed_folder import inside
from mobile_vla_ros.model.manifest_check import MAX_TEXT
from mobile_vla_ros.model.network import VlaNetwork, evaluating
from mobile_vla_ros.model.policy_spec import GOLDEN, PolicySpec
from mobile_vla_ros.types import BLANKS

PRECISIONS = ('float32', 'bfloat16', 'float16')
# The command that writes golden frames into a bundle.
STORE = 'mobile_vla replay EPISODE --policy POLICY --store-golden'
REMEDY = f'write it again: {STORE}'


@dataclass(frozen=True, eq=False)
class Golden:
    """
    One input of a policy and its output.

    :param frames: (window, S, S, 3) uint8, RGB, at the policy's size, oldest first.
    :param actions: (chunk, axes) float32, normalised; output with unmerged adapters.
    :param instruction: as given, before the template.
    :param blank: input that the policy does not get (`PolicySpec.blank`).
    :param precision: of the frozen weights, one of `PRECISIONS`.
    """

    frames: np.ndarray
    actions: np.ndarray
    instruction: str
    blank: str = ''
    precision: str = 'float32'


def write_golden(folder: Path, golden: Golden) -> None:
    """
    Write golden frames into a bundle's folder, whole or not at all; nothing else changes.

    :raises UserError: when the disk is full.
    """
    tensors = {
        'frames': torch.from_numpy(np.ascontiguousarray(golden.frames, np.uint8)),
        'actions': torch.from_numpy(np.ascontiguousarray(golden.actions, np.float32)),
    }
    path = Path(folder) / GOLDEN
    try:
        with replaced(path, 'wb') as file:
            file.write(
                save(
                    tensors,
                    {
                        'instruction': golden.instruction,
                        'blank': golden.blank,
                        'precision': golden.precision,
                    },
                )
            )
        sync(path.parent)
    except BaseException as error:
        if is_disk_full(error):
            raise disk_full_error(
                str(path), path.parent, sum(value.nbytes for value in tensors.values())
            ) from error
        raise


def read_golden(folder: Path | str) -> Golden | None:
    """
    Return the golden frames of a bundle, None when it has none.

    :param folder: of the bundle, or a `builtin:` name.
    :raises UserError: when the file is broken or has other contents.
    """
    path = inside(bundle_folder(folder), GOLDEN)
    if path is None:
        return None
    try:
        with safe_open(path, 'pt') as file:
            metadata = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f'{path} is broken',
            got=first_line(error),
            expected='golden frames as training writes them',
            remedy=REMEDY,
        ) from error
    problems = _problems(found, metadata)
    if problems:
        raise UserError(
            f'{path} does not hold golden frames', got='; '.join(problems), remedy=REMEDY
        )
    return Golden(
        found['frames'].numpy(),
        found['actions'].numpy(),
        metadata['instruction'],
        metadata.get('blank', ''),
        metadata.get('precision', 'float32'),
    )


def _problems(found: dict[str, torch.Tensor], metadata: dict[str, str]) -> list[str]:
    """Return how a file's tensors and metadata differ from those of golden frames."""
    wanted = {'frames': (torch.uint8, 4), 'actions': (torch.float32, 2)}
    problems = [f'no tensor {name}' for name in wanted if name not in found]
    for name, (dtype, dims) in wanted.items():
        if name in found and (found[name].dtype != dtype or found[name].ndim != dims):
            shape = ' x '.join(map(str, found[name].shape))
            problems.append(
                f'{name} is {found[name].dtype} {shape}, not {dtype} in {dims} dimensions'
            )
    if not problems and not torch.isfinite(found['actions']).all():
        problems.append('actions contains NaN or inf')
    if not metadata.get('instruction', '').strip():
        problems.append('no instruction')
    if len(metadata.get('instruction', '')) > MAX_TEXT:
        problems.append(
            f'instruction has {len(metadata["instruction"])} characters, not at most {MAX_TEXT}'
        )
    for name, known in (('blank', BLANKS), ('precision', PRECISIONS)):
        if metadata.get(name, known[0]) not in known:
            problems.append(f'{name} is {metadata[name][:40]!r}')
    return problems


@torch.no_grad()
def golden_actions(
    network: VlaNetwork,
    tokenizer: Tokenizer,
    spec: PolicySpec,
    pixels: torch.Tensor,
    instruction: str,
) -> np.ndarray:
    """
    Return a network's actions for a window, in evaluation mode and without autocasting.

    :param pixels: (window, 3, S, S) float32, preprocessed, oldest first.
    :returns: (chunk, axes) float32, normalised.
    """
    with evaluating(network):
        device = network.action_token.device
        if spec.blank == 'image':
            pixels = torch.zeros_like(pixels)
        ids, lengths = tokenize(tokenizer, [spec.prompt(instruction)])
        count = len(pixels)
        features = network.encode(
            pixels.to(device, network.kosmos.dtype),
            ids.expand(count, -1).to(device),
            lengths.expand(count).to(device),
        )
        motion, _ = network.head(features[None].to(network.action_token.dtype))
    actions: np.ndarray = motion[0, -1, :, : len(spec.actions.axes)].float().cpu().numpy()
    return actions


def make_golden(
    network: VlaNetwork,
    tokenizer: Tokenizer,
    spec: PolicySpec,
    frames: np.ndarray,
    pixels: torch.Tensor,
    instruction: str,
) -> Golden:
    """
    Return golden frames with the network's present actions.

    :param frames: (window, S, S, 3) uint8, RGB; `pixels` are the same frames, preprocessed.
    """
    return Golden(
        frames,
        golden_actions(network, tokenizer, spec, pixels, instruction),
        instruction,
        spec.blank,
        str(network.kosmos.dtype).removeprefix('torch.'),
    )
