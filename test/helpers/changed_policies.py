"""Policies whose policy.json was edited."""

import json
import shutil
from pathlib import Path


def edit_json(path: Path, **changes):
    """Change values of a JSON file; a name with two underscores goes one level down."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *outer, last = name.split('__')
        place = content
        for step in outer:
            place = place[step]
        place[last] = value
    path.write_text(json.dumps(content))


def changed_policy(policy: Path, folder: Path, **changes) -> Path:
    """
    Copy a policy with other values in the sections of its policy.json; return the folder.

    :param changes: section → {key: value}; the value None removes a key.
    """
    shutil.copytree(policy.resolve(), folder)
    content = json.loads((folder / 'policy.json').read_text())
    sections = {name: {**content[name], **values} for name, values in changes.items()}
    edit_json(
        folder / 'policy.json',
        **{
            name: {key: value for key, value in section.items() if value is not None}
            for name, section in sections.items()
        },
    )
    return folder
