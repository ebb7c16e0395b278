"""Inference's lines of the preflight, measured on this machine."""

import psutil

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.inference.camera import CameraGate
from mobile_vla_ros.runtime.preflight import (
    check_axes,
    check_camera_rate,
    check_camera_size,
    check_clock_skew,
    check_free_memory,
)
from mobile_vla_ros.safety.preflight import INFERENCE_CHECKS
from mobile_vla_ros.types import Check


def memory_rooms() -> list[tuple[str, int, int]]:
    """Return name, free bytes and all bytes of this machine's memory, and of a GPU in use."""
    machine = psutil.virtual_memory()
    rooms = [('memory', machine.available, machine.total)]
    import torch

    if torch.cuda.is_initialized():
        rooms.append(('GPU', *torch.cuda.mem_get_info()))
    return rooms


def scarce() -> str:
    """Return what is wrong with the free memory, '' when there is enough."""
    check = check_free_memory(memory_rooms())
    return '' if check.ok else check.sentence


def checks(
    ready, gate: CameraGate, now_ns: int, *, max_velocity, tolerance_s: float, max_age_s: float
) -> list[Check]:
    """
    Return all six.

    :param ready: the policy that drives (``runtime.loading.ReadyPolicy``).
    :param now_ns: on the clock that the gate measures by.
    """
    spec = ready.policy.spec
    try:
        size = gate.newest.size if gate.newest is not None else None
    except UserError:  # the health says it
        size = None
    return [
        check_camera_rate(gate.check.rate_hz(now_ns), spec.rate_hz),
        check_camera_size(size, spec.image.size, spec.data.get('camera_sizes') or ()),
        check_clock_skew(gate.check.lateness(now_ns), tolerance_s, max_age_s),
        check_free_memory(memory_rooms()),
        Check('golden_frames', ready.golden_ok, ready.golden_sentence),
        check_axes(spec.actions.axes, max_velocity),
    ]


def unmade(reason: str) -> list[Check]:
    """Return all six as not made."""
    return [Check(name, False, reason) for name in INFERENCE_CHECKS]
