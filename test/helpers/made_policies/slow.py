"""The inference node as a process, with a policy that computes for a second per step."""

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
    """A policy of 10 Hz with chunks of four seconds; half its step holds the GIL."""

    def __init__(self):
        super().__init__()
        self.spec = type(self.spec)(
            **{**self.spec.__dict__, 'rate_hz': 10.0, 'window': 4, 'chunk': CHUNK}
        )

    def infer(self, window, instruction):
        """Refuse a window whose frames are not 100 ms apart; otherwise compute for a second."""
        gaps_ms = np.diff([frame.stamp_ns for frame in window]) / 1e6
        assert np.abs(gaps_ms - 100).max() <= 50, gaps_ms
        until = time.thread_time() + STEP_S / 2
        while time.thread_time() < until:  # the thread's own CPU time, whatever the load
            sum(range(1000))
        time.sleep(STEP_S / 2)
        return Plan(window[-1].stamp_ns, np.full((CHUNK, 6), 0.1), 10.0)


def build() -> InferenceNode:
    """Return the started node."""
    node = InferenceNode(
        load=lambda name, _settings: ReadyPolicy(name, Slow(), True, 'none asked')
    )
    node.start()
    return node


if __name__ == '__main__':
    sys.setswitchinterval(0.001)
    sys.exit(run('slow', build))
