"""LeRobot sets where pyarrow and PyAV may be missing: neither is imported before it is needed."""

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.source import ImportOptions, Source

MARKER = 'meta/info.json'


def load(module: str) -> Any:
    """Return a module of this folder; raise UserError when a library of it is missing."""
    try:
        return importlib.import_module(f'{__package__}.{module}')
    except ModuleNotFoundError as error:
        raise UserError(
            f'LeRobot sets need the library {error.name}', remedy='pip install pyarrow av'
        ) from None


def episodes_of(path: Path, _options: ImportOptions) -> Mapping[str, str]:
    """Return the episodes of a set (``source.episodes_of``)."""
    found: Mapping[str, str] = load('source').episodes_of(path)
    return found


def open_set(
    path: Path, key: str, options: ImportOptions, _scratch: Path
) -> AbstractContextManager[Source]:
    """Open an episode of a set (``source.open_episode``)."""
    found: AbstractContextManager[Source] = load('source').open_episode(path, key, options)
    return found
