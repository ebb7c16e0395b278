"""Files of a bundle or a backbone: inside their folder, of bounded size, and hashed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobile_vla_ros.errors import UserError, first_line

# The tokenizer.json of Kosmos-2 has 5 MB; a policy.json with 100,000 episodes has 5 MB.
MAX_JSON_BYTES = 32_000_000


def inside(folder: Path, name: str) -> Path | None:
    """
    Return the path of a file below a folder, None when it is missing.

    :raises UserError: when it is no ordinary file, or a link that leads out of the folder. A
        snapshot in the hub's cache, which links to its blobs, ends where its repository does.
    """
    path, root = folder / name, Path(os.path.realpath(folder))
    if root.parent.name == 'snapshots':
        root = root.parent.parent
    if not os.path.lexists(path):
        return None
    real = Path(os.path.realpath(path))
    if not real.is_file() or not real.is_relative_to(root):
        raise UserError(
            f'{path} is not a file inside its folder',
            got=real,
            expected='an ordinary file, or a link to one in the same folder',
            remedy='copy the file into the folder',
        )
    return path


def different(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return how files differ from the recorded ones; both are name → sha256."""
    return [
        *(f'{name} is missing' for name in sorted(recorded.keys() - found.keys())),
        *(f'{name} is not in policy.json' for name in sorted(found.keys() - recorded.keys())),
        *(
            f'{name} has another sha256: {found[name][:12]}…, not {recorded[name][:12]}…'
            for name in sorted(recorded.keys() & found.keys())
            if found[name] != recorded[name]
        ),
    ]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise UserError when it is too large or not JSON."""
    return parse_json(read_text(path), path)


def read_text(path: Path) -> str:
    """Return the content of a text file; raise UserError when it is too large or no text."""
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise UserError(
                f'{path} is too large', got=f'{size} bytes', expected=f'at most {MAX_JSON_BYTES}'
            )
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read', got=first_line(error)) from error


def parse_json(text: str, where: Path) -> Any:
    """Return the content of a JSON file; raise UserError, which names it, when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{where} is not JSON', got=first_line(error)) from error
