"""A policy that wants nothing: to measure cameras and latencies by."""

from collections.abc import Sequence

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.action_head import HeadSettings
from mobile_vla_ros.model.bundle import BackboneRef, PolicySpec
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.types import ActionSpec, Frame, ImageSpec

NAME = 'builtin:noop'
RATE_HZ, CHUNK, SIDE = 30.0, 30, 224


class NoOpPolicy:
    """Proposes zero from every frame of a 30 Hz camera, and looks at none."""

    def __init__(self):
        self.spec = PolicySpec(
            BackboneRef(NAME, None, '0' * 64),
            HeadSettings(1, 2, CHUNK, 1, 1, 0.0),
            ImageSpec(SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ActionSpec(),
            rate_hz=RATE_HZ,
            window=1,
            chunk=CHUNK,
        )
        self.encoded_frames = 0

    def infer(self, window: Sequence[Frame], instruction: str) -> Plan:
        """Return a second of zeros from the newest frame on."""
        if len(window) != 1:
            raise UserError('the policy was given another window', got=len(window), expected=1)
        return Plan(window[0].stamp_ns, np.zeros((CHUNK, 6)), RATE_HZ)

    def reset(self) -> None:
        """Forget nothing: there is nothing."""
