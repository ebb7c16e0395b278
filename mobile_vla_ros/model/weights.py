"""Read the weights of a backbone once, hashed on the way, into nothing but their own memory."""

import contextlib
import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import Kosmos2Config, Kosmos2Model

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import replaced, sha256
from mobile_vla_ros.model.backbone_files import FETCH

LM_HEAD = 'text_model.lm_head.weight'  # tied to the word embeddings, and never computed here
DTYPES = {'F32': torch.float32, 'BF16': torch.bfloat16, 'F16': torch.float16}
BLOCK_BYTES = 1 << 24
NAMED = 3
# Hashes of files that take a second or more to hash are remembered.
REMEMBERED_BYTES = 1 << 29
MAX_FOLDERS = 100
SHA256 = re.compile('[0-9a-f]{64}')

Places = dict[str, tuple[Path, torch.dtype, tuple[int, ...], int, int]]


class _NoMemory(TorchFunctionMode):
    """Gives new parameters neither memory nor values; buffers, which no file has, are computed."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.empty:
            kwargs = {**(kwargs or {}), 'device': 'meta'}
        return func(*args, **(kwargs or {}))


def read_model(
    name: str,
    config: Kosmos2Config,
    files: Sequence[Path],
    dtype: torch.dtype,
    device: torch.device | str = 'cpu',
) -> tuple[Kosmos2Model, str]:
    """
    Return a model in evaluation mode with the weights of safetensors files, and their SHA-256.

    Beside the weights in their final precision it needs a few blocks of memory.

    :param name: of the backbone, for messages.
    :param files: in the order of their names.
    :raises UserError: when they are not exactly the weights of the network; SafetensorError,
        OSError: when a file is broken.
    """
    with _NoMemory():
        model = Kosmos2Model(config)
    before, places = _note(files), _places(files)
    wanted = dict(model.named_parameters(remove_duplicate=False))
    check_weights(name, wanted, places)
    with ThreadPoolExecutor(1) as pool:  # two cores read and hash in the time of one
        hashed = pool.submit(weights_hash, files)
        weights = _read_weights(files, places, wanted, dtype, device)
        sha = hashed.result()
    if before != _note(files):
        raise OSError('it was written to while it was read')
    for key, weight in weights.items():
        module, _, last = key.rpartition('.')
        setattr(model.get_submodule(module), last, nn.Parameter(weight, requires_grad=False))
    for module in model.modules():
        for key, buffer in list(module.named_buffers(recurse=False)):
            kind = dtype if buffer.is_floating_point() else buffer.dtype
            module.register_buffer(key, buffer.to(device, kind), persistent=False)
    return model.eval(), sha


def check_weights(name: str, wanted: Mapping[str, torch.Tensor], places: Places) -> None:
    """
    Check that files have every weight of a network, and no other but that of the words' head.

    :raises UserError: names three of the tensors that are missing, unknown or of another shape.
    """
    wrong = {
        'missing': wanted.keys() - places.keys(),
        'unknown': places.keys() - wanted.keys() - {LM_HEAD},
        'of another shape': {
            key
            for key in wanted.keys() & places.keys()
            if tuple(wanted[key].shape) != places[key][2]
        },
    }
    found = [
        f'{len(keys)} {what} ({", ".join(sorted(keys)[:NAMED])}{", …" * (len(keys) > NAMED)})'
        for what, keys in wrong.items()
        if keys
    ]
    if found:
        raise UserError(
            f'the weights of the backbone {name!r} are not those of its config.json',
            got='; '.join(found),
            expected='every tensor of the vision tower, the text model and the projection',
            remedy=f'fetch it again: {FETCH}',
        )


def weights_hash(files: Sequence[Path]) -> str:
    """Return the SHA-256 of safetensors files, one after another; of large ones, remembered."""
    note = _note(files)
    known = _recall(note)
    if SHA256.fullmatch(known):
        return known
    known = sha256(*files)
    large = sum(path.stat().st_size for path in files) >= REMEMBERED_BYTES
    if large and note == _note(files):  # nobody wrote to them meanwhile
        _remember(note, known)
    return known


def remember_folder(folder: Path, sha: str) -> None:
    """Remember, for this user on this machine, in which folder the weights of a hash were."""
    others = [one for one in remembered_folders(sha) if one != Path(os.path.realpath(folder))]
    kept = [os.path.realpath(folder), *map(str, others)][:MAX_FOLDERS]
    _remember(f'folders_{sha}', '\n'.join(kept))


def remembered_folders(sha: str) -> list[Path]:
    """Return where the weights of a hash were, the newest first; they may have changed since."""
    return [Path(one) for one in _recall(f'folders_{sha}').split('\n') if os.path.isdir(one)]


def _note(files: Sequence[Path]) -> str:
    """Return the name by which the hash of files is remembered while they stay as they are."""
    stats = [(os.path.realpath(path), path.stat()) for path in files]
    state = [[p, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev] for p, s in stats]
    return f'hash_{hashlib.sha256(json.dumps(state).encode()).hexdigest()}'


def _cache() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mobile_vla_ros'


def _recall(name: str) -> str:
    try:
        return (_cache() / name).read_text()
    except (OSError, ValueError, RuntimeError):
        return ''


def _remember(name: str, text: str) -> None:
    # A robot may have no place for it, and does without.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        if _recall(name) != text:
            _cache().mkdir(parents=True, exist_ok=True)
            with replaced(_cache() / name) as file:
                file.write(text)


def _places(files: Sequence[Path]) -> Places:
    """Return where each tensor is: file, dtype, shape, first byte and the one after its last."""
    places: Places = {}
    for path in files:
        with safe_open(path, 'pt') as file:  # checks that the header fits the file
            kinds = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        with path.open('rb') as data:
            (size,) = struct.unpack('<Q', data.read(8))
            header = json.loads(data.read(size))
        for key, kind in kinds.items():
            if kind not in DTYPES:
                raise OSError(f'{path.name} has {key} in {kind}, not in {", ".join(DTYPES)}')
            if key in places:
                raise OSError(f'{path.name} has {key}, and so has {places[key][0].name}')
            first, end = (8 + size + offset for offset in header[key]['data_offsets'])
            places[key] = path, DTYPES[kind], tuple(header[key]['shape']), first, end
    return places


def _read_weights(
    files: Sequence[Path],
    places: Places,
    wanted: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    device: torch.device | str,
) -> dict[str, torch.Tensor]:
    """Read the tensors in the order of the files, a block at a time, and convert each block."""
    weights = {}
    buffer = memoryview(bytearray(BLOCK_BYTES))
    for path in files:
        mine = sorted(
            (first, end, key, kind)
            for key, (place, kind, _, first, end) in places.items()
            if place == path and key in wanted
        )
        with path.open('rb') as file:
            for first, end, key, kind in mine:
                weight = weights[key] = torch.empty(wanted[key].shape, dtype=dtype, device=device)
                file.seek(first)
                for start in range(first, end, BLOCK_BYTES):
                    block = buffer[: min(BLOCK_BYTES, end - start)]
                    if file.readinto(block) != len(block):
                        raise OSError(f'{path.name} ends in {key}')
                    row = (start - first) // kind.itemsize
                    values = torch.frombuffer(block, dtype=kind)
                    weight.view(-1)[row : row + len(values)].copy_(values)
    return weights
