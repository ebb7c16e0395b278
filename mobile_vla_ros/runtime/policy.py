"""
The policy protocol, policies without a network, and reading the weights of others ahead.

Needs no torch.
"""

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.manifest_check import rhythm_problems
from mobile_vla_ros.model.policy_spec import BackboneRef, HeadSettings, PolicySpec, read_spec
from mobile_vla_ros.runtime.frame_buffer import PolicyFrame, check_window
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.types import ActionSpec, Frame, ImageSpec

NOOP = 'builtin:noop'
NOOP_RATE_HZ, NOOP_CHUNK = 30.0, 30
DEFAULT_SIDE = 224
READ_BYTES = 1 << 24


class Policy(Protocol):
    """Anything that turns a window of frames and an instruction into a plan."""

    spec: PolicySpec

    def infer(self, window: Sequence[Frame], instruction: str) -> Plan:
        """Return the plan for a window of `spec.window` frames, oldest first."""

    def reset(self) -> None:
        """Forget earlier frames."""


def unknown_words(policy: Policy, instruction: str) -> list[str]:
    """Return the words that a policy does not know; one without a tokenizer knows all."""
    words: list[str] = getattr(policy, 'unknown_words', lambda _: [])(instruction)
    return words


def spec_without_network(
    name: str, actions: ActionSpec, *, rate_hz: float = 10.0, window: int = 1, chunk: int = 10
) -> PolicySpec:
    """
    Return the spec of a policy that is plain code.

    :param name: stands where the spec of a bundle names its backbone.
    :param actions: axes that the policy drives.
    :param rate_hz: frames and chunk steps per second, 0.1 to 1000.
    :param window: frames that ``infer`` receives, 1 to 64.
    :param chunk: steps of each plan, 1 to 1000.
    :raises UserError: for other numbers, as in a bundle.
    """
    if problems := rhythm_problems({'rate_hz': rate_hz, 'window': window, 'chunk': chunk}):
        raise UserError(f'the spec of {name} is invalid', got='; '.join(problems))
    return PolicySpec(
        BackboneRef(name, '', '0' * 64),
        HeadSettings(1, len(actions.axes), chunk, 1, 1, 0.0),
        ImageSpec(DEFAULT_SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        actions,
        rate_hz=rate_hz,
        window=window,
        chunk=chunk,
    )


class NoOpPolicy:
    """Proposes zero for the frames of a 30 Hz camera without decoding them; measures latency."""

    def __init__(self) -> None:
        self.spec = spec_without_network(
            NOOP, ActionSpec(), rate_hz=NOOP_RATE_HZ, chunk=NOOP_CHUNK
        )
        self.encoded_frames = 0

    def infer(self, window: Sequence[PolicyFrame], instruction: str) -> Plan:
        """Return one second of zeros from the newest frame on."""
        check_window(window, 1)
        return Plan(window[0].stamp_ns, np.zeros((NOOP_CHUNK, 6)), NOOP_RATE_HZ)

    def reset(self) -> None:
        """Do nothing: there is no state."""


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
            _read_once(_weight_files(policy, backbone))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def _weight_files(policy: str, backbone: str) -> list[Path]:
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


def _read_once(files: Sequence[Path]) -> None:
    if 2 * sum(path.stat().st_size for path in files) > psutil.virtual_memory().available:
        return
    block = bytearray(READ_BYTES)
    for path in files:
        with path.open('rb', buffering=0) as file:
            while file.readinto(block):
                pass
