"""Policies without a network: their spec, and one that proposes zero to measure latencies by."""

from collections.abc import Sequence

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.policy_spec import BackboneRef, HeadSettings, PolicySpec
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.types import ActionSpec, Frame, ImageSpec

NAME = 'builtin:noop'
RATE_HZ, CHUNK, SIDE = 30.0, 30, 224


def spec_without_network(
    name: str, actions: ActionSpec, *, rate_hz: float = 10.0, window: int = 1, chunk: int = 10
) -> PolicySpec:
    """
    Return the spec of a policy that is plain code.

    :param name: stands where the spec of a bundle names its backbone.
    :param actions: axes that the policy drives.
    :param rate_hz: frames and chunk steps per second, more than 0.
    :param window: frames that ``infer`` receives.
    :param chunk: steps of each plan.
    :raises UserError: when a number is not positive.
    """
    if not (rate_hz > 0 and window >= 1 and chunk >= 1):
        raise UserError(
            f'the spec of {name} is invalid',
            got=f'rate_hz {rate_hz:g}, window {window}, chunk {chunk}',
            expected='positive numbers',
        )
    return PolicySpec(
        BackboneRef(name, None, '0' * 64),
        HeadSettings(1, len(actions.axes), chunk, 1, 1, 0.0),
        ImageSpec(SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        actions,
        rate_hz=rate_hz,
        window=window,
        chunk=chunk,
    )


class NoOpPolicy:
    """Proposes zero from every frame of a 30 Hz camera, and looks at none."""

    def __init__(self):
        self.spec = spec_without_network(NAME, ActionSpec(), rate_hz=RATE_HZ, chunk=CHUNK)
        self.encoded_frames = 0

    def infer(self, window: Sequence[Frame], instruction: str) -> Plan:
        """Return a second of zeros from the newest frame on."""
        if len(window) != 1:
            raise UserError('the policy was given another window', got=len(window), expected=1)
        return Plan(window[0].stamp_ns, np.zeros((CHUNK, 6)), RATE_HZ)

    def reset(self) -> None:
        """Forget nothing: there is nothing."""
