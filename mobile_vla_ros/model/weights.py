"""Read the weights of a backbone once, hashed on the way, into nothing but their own memory."""

import json
import os
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import Kosmos2Config, Kosmos2Model

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone_files import FETCH, file_state, weights_hash

LM_HEAD = 'text_model.lm_head.weight'  # tied to the word embeddings, and never computed here
DTYPES = {'F32': torch.float32, 'BF16': torch.bfloat16, 'F16': torch.float16}
BLOCK_BYTES = 1 << 20  # as many as a core's cache holds
NAMED = 3
LOADERS = min(4, os.cpu_count() or 1)  # threads of a load; another policy may drive meanwhile

Place = tuple[Path, torch.dtype, tuple[int, ...], int, int]
Places = dict[str, Place]
# Called with a module that has its weights, and its name; returns what takes its place.
Finish = Callable[[str, nn.Module], nn.Module]
T = TypeVar('T')
R = TypeVar('R')


def at_once(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return what work makes of each item, in `LOADERS` threads; torch's own may be one."""
    with ThreadPoolExecutor(LOADERS) as pool:
        return list(pool.map(work, items))


def meanwhile(work: Callable[..., R], *given: Any) -> 'Future[R]':
    """Begin work in a thread that nobody waits for who does not ask for its result."""
    result: Future[R] = Future()

    def run() -> None:
        try:
            result.set_result(work(*given))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result


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
    prepare: Callable[[Kosmos2Model], Finish] | None = None,
) -> tuple[Kosmos2Model, str]:
    """
    Return a model in evaluation mode with the weights of safetensors files, and their SHA-256.

    Beside the weights in their final form it needs the memory of a few modules.

    :param name: of the backbone, for messages.
    :param files: in the order of their names.
    :param prepare: called with the model before it has weights; what it returns finishes each
        module as soon as that is read, in several threads.
    :raises UserError: when they are not exactly the weights of the network; SafetensorError,
        OSError: when a file is broken.
    """
    with _NoMemory():
        model = Kosmos2Model(config)
    before, places = file_state(files), tensor_places(files)
    wanted = dict(model.named_parameters(remove_duplicate=False))
    check_weights(name, wanted, places)
    hashed = meanwhile(weights_hash, files)
    for part in model.modules():
        for key, buffer in list(part.named_buffers(recurse=False)):
            kind = dtype if buffer.is_floating_point() else buffer.dtype
            part.register_buffer(key, buffer.to(device, kind), persistent=False)
    finish = prepare(model) if prepare else lambda _, module: module
    own: dict[str, list[str]] = {}  # in the order of the files
    for key in sorted(wanted, key=lambda key: (places[key][0], places[key][3])):
        module, _, last = key.rpartition('.')
        own.setdefault(module, []).append(last)

    def read(path: str) -> None:
        module = model.get_submodule(path)
        for key in own[path]:
            whole = f'{path}.{key}'
            weight = read_tensor(whole, places[whole], dtype, device)
            setattr(module, key, nn.Parameter(weight, requires_grad=False))
        parent, _, last = path.rpartition('.')
        setattr(model.get_submodule(parent), last, finish(path, module))

    at_once(read, own)
    sha = hashed.result()
    if before != file_state(files):
        raise OSError('it was written to while it was read')
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


def tensor_places(files: Sequence[Path]) -> Places:
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


def read_tensor(
    key: str, place: Place, dtype: torch.dtype, device: torch.device | str
) -> torch.Tensor:
    """Read a tensor a block at a time; one that is not to be converted, to where it stays."""
    path, kind, shape, first, _ = place
    weight = torch.empty(shape, dtype=dtype, device=device)
    stays = weight.dtype is kind and weight.device.type == 'cpu'
    count = BLOCK_BYTES // kind.itemsize
    block = torch.empty(0 if stays else count, dtype=kind)
    with path.open('rb', buffering=0) as file:
        file.seek(first)
        for part in weight.view(-1).split(count):
            values = part if stays else block[: len(part)]
            data = values.view(torch.uint8).numpy()
            if file.readinto(data) != len(data):
                raise OSError(f'{path.name} ends in {key}')
            if not stays:
                part.copy_(values)
    return weight
