"""The policy protocol, and policies without a network; needs no torch."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.policy_spec import BackboneRef, HeadSettings, PolicySpec
from mobile_vla_ros.runtime.frame_buffer import PolicyFrame, check_window
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.types import ActionSpec, Frame, ImageSpec

NOOP = 'builtin:noop'
NOOP_RATE_HZ, NOOP_CHUNK = 30.0, 30
DEFAULT_SIDE = 224


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
