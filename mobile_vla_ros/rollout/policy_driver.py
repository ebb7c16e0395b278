"""A policy as a driver in the caller's thread: the inference node without its timing."""

from collections.abc import Callable

import numpy as np

from mobile_vla_ros.runtime.frame_buffer import FrameBuffer
from mobile_vla_ros.runtime.playback import Plan, command_at
from mobile_vla_ros.runtime.policy import Policy, unknown_words
from mobile_vla_ros.types import Frame


class PolicyDriver:
    """
    Runs the network on frames and plays back the newest plan.

    It shares frame buffer, choice of windows and playback with the inference node; only the
    network's latency is missing.

    :param warn: called with a sentence that names unknown words, each once.
    """

    def __init__(self, policy: Policy, warn: Callable[[str], object] = lambda _: None):
        self.policy, self._warn = policy, warn
        self._warned: set[str] = set()
        self.wants_images = policy.spec.blank != 'image'
        self.plan: Plan | None = None
        self._instruction = ''
        self._buffer = self._empty_buffer()
        policy.reset()

    def reset(self, instruction: str) -> None:
        """Discard the plan and all frames; follow another instruction."""
        self.policy.reset()
        self.plan = None
        self._instruction = instruction
        words = [one for one in unknown_words(self.policy, instruction) if one not in self._warned]
        if words:
            self._warned.update(words)
            self._warn(f'the policy does not know {", ".join(words)} in {instruction!r}')
        self._buffer = self._empty_buffer()

    def _empty_buffer(self) -> FrameBuffer[Frame]:
        return FrameBuffer(self.policy.spec.rate_hz, self.policy.spec.window)

    def see(self, frame: Frame) -> None:
        """
        Add a frame as it arrives, in any order; run the network if it completes the next window.

        :raises UserError: if the instruction is empty.
        """
        self._buffer.add(frame)
        window = self._buffer.use_window() if self._buffer.due else None
        if window is not None:
            self.plan = self.policy.infer(window, self._instruction)

    def command(self, now_ns: int) -> np.ndarray:
        """Return the (6,) twist for an instant; zeros without a plan and after its end."""
        twist = None if self.plan is None else command_at(self.plan, now_ns)
        return np.zeros(6) if twist is None else twist
