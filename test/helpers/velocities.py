"""Velocities of six components for logic that knows no ROS."""

import numpy as np


def twist(x: float = 0.0, y: float = 0.0, turn: float = 0.0) -> np.ndarray:
    """Return the velocity of a base on the ground: m/s, m/s and rad/s."""
    return np.array([x, y, 0.0, 0.0, 0.0, turn])
