"""Action chunks with their times."""

import numpy as np

from mobile_vla_ros.runtime.playback import Plan

MS = 1_000_000


def plan(stamp_ms: int = 1000, first: float = 0.0, chunk: int = 10) -> Plan:
    """Return a plan at 10 Hz whose step k drives first + k / 100 m/s."""
    twists = np.zeros((chunk, 6))
    twists[:, 0] = first + np.arange(chunk) / 100
    return Plan(stamp_ms * MS, twists, 10.0)
