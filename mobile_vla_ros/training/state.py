"""The state of an interrupted training run: one file, whole or absent, without pickles."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    Position of a training run.

    :param epoch: the current epoch.
    :param step: its optimiser steps done; if all are done, validation comes next.
    :param updates: optimiser steps done overall.
    :param sums: sums of this epoch's training losses, and of their divisors.
    :param history: rows of the epochs before.
    :param broken: errors that name unreadable frames.
    :param scaler: state of the FP16 loss scaler.
    """

    epoch: int = 0
    step: int = 0
    updates: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)


def save_state(
    folder: Path,
    network: VlaNetwork,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    settings: Mapping[str, Any],
) -> None:
    """
    Replace the state on disk.

    :param settings: everything that the numbers depend on; compared on resuming.
    :raises UserError: when the disk is full; the state before is kept then.
    """
    tensors = {f'{NETWORK}.{name}': value for name, value in trained(network).items()}
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for parameter, moments in optimizer.state.items():
        tensors |= {
            f'{MOMENTS}.{key}.{names[id(parameter)]}': value for key, value in moments.items()
        }
    tensors = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    # `told` is a key in files.
    meta = {'version': VERSION, 'told': settings, 'progress': progress.__dict__}
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
            f'cannot write the state of the training to {path}',
            got=first_line(error),
            remedy='make the folder writable',
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_state(folder: Path) -> tuple[Progress, dict[str, Any]] | None:
    """
    Return the progress and the settings of a training run; None if there is no state.

    :raises UserError: when the state is broken or of another version.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        # With 'pt', torch would open the file a second time, and perhaps find its successor.
        with safe_open(path, 'np') as file:
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
            f'cannot read {path}', got=first_line(error), remedy='train into a new folder'
        ) from error


def restore(folder: Path, network: VlaNetwork, optimizer: torch.optim.Optimizer) -> None:
    """Load the tensors of a state into a network and its optimiser."""
    tensors = load_file(folder / NAME)
    parameters = trained(network)
    found = {key.partition('.')[2] for key in tensors if key.startswith(f'{NETWORK}.')}
    if found != set(parameters):
        raise UserError(
            f'{folder / NAME} belongs to another network',
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
            # AdamW keeps its step count on the CPU.
            device = value.device if moment == 'step' else parameters[name].device
            optimizer.state[parameters[name]][moment] = value.to(device)


def trained(network: VlaNetwork) -> dict[str, torch.nn.Parameter]:
    """Return the trainable parameters, by name."""
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
