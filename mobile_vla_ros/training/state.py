"""What an interrupted run goes on from: one file, whole or absent, without pickles."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.files import disk_full_error, is_disk_full, sync
from mobile_vla_ros.model.network import VlaNetwork

NAME = 'state.safetensors'
VERSION = 1
NETWORK, MOMENTS = 'network', 'optimizer'


@dataclass
class Progress:
    """
    Where a run is.

    :param epoch: the epoch at work.
    :param step: optimiser steps of it that are done; all of them: it is to be validated.
    :param updates: optimiser steps done in all.
    :param sums: of this epoch's training losses so far, and of what they are divided by.
    :param history: the rows of the epochs before.
    :param broken: sentences of frames that could not be read.
    :param scaler: of FP16's loss scaling.
    """

    epoch: int = 0
    step: int = 0
    updates: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    scaler: dict = field(default_factory=dict)


def save_state(
    folder: Path,
    network: VlaNetwork,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    told: dict,
) -> None:
    """
    Write the state in the place of the one before.

    :param told: what the run was told, and the fingerprint of its takes; compared on resuming.
    :raises UserError: when there is no room; the state before is still there then.
    """
    tensors = {f'{NETWORK}.{name}': value for name, value in trained(network).items()}
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for parameter, moments in optimizer.state.items():
        tensors |= {
            f'{MOMENTS}.{key}.{names[id(parameter)]}': value for key, value in moments.items()
        }
    tensors = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    meta = {'version': VERSION, 'told': told, 'progress': progress.__dict__}
    path, partial = folder / NAME, folder / f'.{NAME}.partial'
    try:
        save_file(tensors, partial, metadata={'state': json.dumps(meta)})
        sync(partial)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full_error(
                'the state of the training',
                folder,
                sum(value.nbytes for value in tensors.values()),
            ) from error
        raise UserError(
            f'the state of the training cannot be written to {path}',
            got=first_line(error),
            remedy='see that the folder can be written',
        ) from (error)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_state(folder: Path) -> tuple[Progress, dict] | None:
    """
    Return a run's progress and what it was told; None when there is no state.

    :raises UserError: when it is broken or of another version.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, 'pt') as file:
            meta = json.loads(file.metadata()['state'])
        if meta['version'] != VERSION:
            raise UserError(
                f'{path} has another version',
                got=meta['version'],
                expected=VERSION,
                remedy='train into a new folder',
            )
        return Progress(**meta['progress']), meta['told']
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{path} cannot be read', got=first_line(error), remedy='train into a new folder'
        ) from error


def restore(folder: Path, network: VlaNetwork, optimizer: torch.optim.Optimizer) -> None:
    """Put the tensors of a state back into a network and its optimiser."""
    tensors = load_file(folder / NAME)
    parameters = trained(network)
    found = {key.partition('.')[2] for key in tensors if key.startswith(f'{NETWORK}.')}
    if found != set(parameters):
        raise UserError(
            f'{folder / NAME} is of another network',
            got=f'{len(found)} tensors',
            expected=f'{len(parameters)}',
            remedy='train into a new folder',
        )
    with torch.no_grad():
        for key, value in tensors.items():
            kind, _, rest = key.partition('.')
            if kind == NETWORK:
                parameters[rest].copy_(value)
                continue
            moment, _, name = rest.partition('.')
            # AdamW counts its steps on the CPU.
            device = value.device if moment == 'step' else parameters[name].device
            optimizer.state[parameters[name]][moment] = value.to(device)


def trained(network: VlaNetwork) -> dict[str, torch.nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
