"""
The files of a backbone, in a folder or on the hub: the only ones that a library gets to see.

Their hash, which takes seconds, and the folder where they were are remembered. No torch here.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import replaced, sha256
from mobile_vla_ros.model.closed_folder import inside, read_json

CONFIG, IMAGES, TOKENIZER = 'config.json', 'preprocessor_config.json', 'tokenizer.json'
TOKENIZER_CONFIG = 'tokenizer_config.json'
# Names of the files beside the weights; only the first three are needed.
NAMES = (
    CONFIG,
    IMAGES,
    TOKENIZER,
    TOKENIZER_CONFIG,
    'special_tokens_map.json',
    'added_tokens.json',
)
WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'
PICKLED = 'pytorch_model.bin'
SHARD = re.compile(r'\w[\w.-]{0,200}\.safetensors')
HUB_TIMEOUT_S = 10.0
# Without the weights as pickle, which are as large and never opened: 6.7 GB and not 13.3.
FETCH = 'hf download microsoft/kosmos-2-patch14-224 --exclude "*.bin" --local-dir FOLDER'
LFS_POINTER = b'version https://git-lfs'
# Hashes of files that take a second or more to hash are remembered.
REMEMBERED_BYTES = 1 << 29
MAX_FOLDERS = 100
SHA256 = re.compile('[0-9a-f]{64}')
_of_this_process: dict[str, str] = {}


def download(name: str, revision: str | None, *, offline: bool) -> Path:
    """
    Return the folder of a hub backbone in the hub's cache; its name is the commit.

    The hub is asked only for what is not there, and never if `offline`.

    :raises Exception: as the libraries do, `HUB_TIMEOUT_S` after a hub that does not answer.
    """
    wanted: dict[str, Any] = {
        'revision': revision,
        'allow_patterns': [*NAMES, INDEX, '*.safetensors'],
    }
    try:
        folder = Path(snapshot_download(name, local_files_only=True, **wanted))
        text_files(folder), weight_files(folder)
        return folder
    except (OSError, UserError):
        if offline:
            raise
    HfApi().repo_info(
        name, revision=revision, timeout=HUB_TIMEOUT_S
    )  # the download has no timeout
    return Path(snapshot_download(name, **wanted))


def text_files(folder: Path) -> dict[str, Path]:
    """
    Return the configuration and tokenizer of a backbone, by name.

    :raises UserError: when one is missing, leads out of the folder, or names further files.
    """
    found = {name: path for name in NAMES if (path := inside(folder, name)) is not None}
    missing = [name for name in NAMES[:3] if name not in found]
    if missing:
        raise UserError(f'the folder {folder} is no backbone', got=f'no {", ".join(missing)}')
    if TOKENIZER_CONFIG in found and 'fast_tokenizer_files' in read_json(found[TOKENIZER_CONFIG]):
        raise UserError(
            f'{found[TOKENIZER_CONFIG]} names other files',
            got='fast_tokenizer_files',
            expected='a tokenizer that is tokenizer.json',
        )
    return found


def weight_files(folder: Path) -> dict[str, Path]:
    """
    Return the safetensors files that are loaded, by name, and their index if there is one.

    :raises UserError: when there are none, the index names another kind of file or place, or a
        file is only the pointer that git-lfs leaves.
    """
    whole = inside(folder, WEIGHTS)
    if whole is not None:
        return _fetched({WEIGHTS: whole})
    index = inside(folder, INDEX)
    if index is None:
        raise UserError(
            f'the backbone folder {folder} has no weights that are opened',
            got='pytorch_model.bin alone' if (folder / PICKLED).exists() else 'none',
            expected='model.safetensors or its shards with their index',
            remedy=f'fetch it: {FETCH}',
        )
    content = read_json(index)
    weight_map = content.get('weight_map') if isinstance(content, dict) else None
    named = set(map(str, weight_map.values())) if isinstance(weight_map, dict) else set()
    shards = {name: inside(folder, name) for name in named if SHARD.fullmatch(name)}
    found = {name: path for name, path in sorted(shards.items()) if path is not None}
    if not named or len(found) < len(named):
        raise UserError(
            f'{INDEX} names no weights, or weights that are not there',
            got=', '.join(sorted(named - found.keys())[:3])[:200] or 'nothing',
            expected=f'the names of safetensors files in {folder}',
            remedy=f'fetch it again: {FETCH}',
        )
    return {INDEX: index, **_fetched(found)}


def _fetched(files: dict[str, Path]) -> dict[str, Path]:
    for path in files.values():
        with path.open('rb') as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise UserError(
                    f'{path} is not fetched yet',
                    got='a pointer of git-lfs',
                    expected='the weights themselves',
                    remedy=f'run git lfs pull in {path.parent}, or {FETCH}',
                )
    return files


def tensor_files(files: Mapping[str, Path]) -> list[Path]:
    """Return those of the weight files that have tensors, in the order of their names."""
    return [files[name] for name in sorted(files) if name != INDEX]


def weights_hash(files: Sequence[Path]) -> str:
    """Return the SHA-256 of safetensors files, one after another; of large ones, remembered."""
    note = file_state(files)
    known = _of_this_process.get(note) or _recall(note)
    if SHA256.fullmatch(known):
        return known
    known = sha256(*files)
    large = sum(path.stat().st_size for path in files) >= REMEMBERED_BYTES
    if large and note == file_state(files):  # nobody wrote to them meanwhile
        _of_this_process[note] = known  # where nothing can be written
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


def file_state(files: Sequence[Path]) -> str:
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
