"""Read the weights of a policy into the page cache while torch is still being imported."""

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil

from mobile_vla_ros.model.policy_spec import read_spec

BLOCK_BYTES = 1 << 24


def read_ahead(policy: str, backbone: str = '') -> threading.Thread:
    """
    Begin to read the backbone of a policy, for `runtime.loading.load_policy` to find it in memory.

    Where it lies must be known without a search, and it must fit into the free memory twice, once
    for the load; else nothing is read, and what is wrong with it is for the load to say.

    :param policy, backbone: as for `load_policy`.
    :returns: the thread, for which nobody has to wait.
    """

    def run() -> None:
        with contextlib.suppress(Exception):  # the load raises the same, for the operator
            _read(_weights(policy, backbone))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _weights(policy: str, backbone: str) -> list[Path]:
    """Return the files with the weights of a policy's backbone; raise an exception if unknown."""
    # Not imported before: the hub's library takes a while, in which torch is imported.
    from mobile_vla_ros.model.backbone_files import (
        download,
        remembered_folders,
        tensor_files,
        weight_files,
    )

    ref = read_spec(policy).backbone
    name, revision = (backbone, None) if backbone else (ref.id, ref.revision)
    if ref.in_folder and not backbone:
        folder = remembered_folders(ref.sha256)[0]
    elif os.path.isdir(os.path.expanduser(name)):
        folder = Path(name).expanduser()
    else:
        folder = download(name, revision, offline=True)
    return tensor_files(weight_files(folder))


def _read(files: Sequence[Path]) -> None:
    if 2 * sum(path.stat().st_size for path in files) > psutil.virtual_memory().available:
        return
    block = bytearray(BLOCK_BYTES)
    for path in files:
        with path.open('rb', buffering=0) as file:
            while file.readinto(block):
                pass
