"""The inference node as a process, with a policy that computes for a second at each step."""

import sys
import time

import numpy as np

from mobile_vla_ros.nodes.inference.node import InferenceNode
from mobile_vla_ros.nodes.shared.run import run
from mobile_vla_ros.runtime.loading import ReadyPolicy
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.runtime.policy import NoOpPolicy

STEP_S, CHUNK = 1.0, 40


class Slow(NoOpPolicy):
    """Ten frames a second, plans of four seconds; it computes in Python, which holds the GIL."""

    def __init__(self):
        super().__init__()
        self.spec = type(self.spec)(
            **{**self.spec.__dict__, 'rate_hz': 10.0, 'window': 4, 'chunk': CHUNK}
        )

    def infer(self, window, instruction):
        """Refuse a window of another spacing than the trained one; else think."""
        gaps_ms = np.diff([shot.stamp_ns for shot in window]) / 1e6
        assert np.abs(gaps_ms - 100).max() <= 50, gaps_ms
        until = time.thread_time() + STEP_S / 2
        while time.thread_time() < until:  # of its own time, whoever else computes
            sum(range(1000))
        time.sleep(STEP_S / 2)
        return Plan(window[-1].stamp_ns, np.full((CHUNK, 6), 0.1), 10.0)


def build() -> InferenceNode:
    """Return the node, started."""
    node = InferenceNode(
        load=lambda name, _settings: ReadyPolicy(name, Slow(), True, 'none asked')
    )
    node.start()
    return node


if __name__ == '__main__':
    sys.setswitchinterval(0.001)
    sys.exit(run('slow', build))
