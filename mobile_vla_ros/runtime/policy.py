"""What drives: the protocol, and the network from a bundle behind it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from mobile_vla_ros.data.preprocess import preprocess
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone import tokenize
from mobile_vla_ros.model.bundle import Bundle, load_bundle
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.types import BLANKS, Frame


class Policy(Protocol):
    """Anything that turns a window of frames and an instruction into a plan."""

    spec: PolicySpec

    def infer(self, window: Sequence[Frame], instruction: str) -> Plan:
        """Return the plan for a window of `spec.window` frames, oldest first."""

    def reset(self) -> None:
        """Forget what was seen."""


class VlaPolicy:
    """
    The network of a bundle. Features are kept by frame, so a step encodes only what is new.

    :param blank: `image`: show the network the mean colour instead of every image;
        `instruction`: tell it nothing. Controls that tell whether a policy uses its eyes and ears.
    """

    def __init__(self, loaded: Bundle, *, blank: str = ''):
        if blank not in BLANKS:
            raise UserError(
                'unknown part of what a policy is given',
                got=repr(blank),
                expected=' or '.join(repr(known) for known in BLANKS),
            )
        self.spec = replace(loaded.spec, blank=blank) if blank else loaded.spec
        self.network = loaded.network
        self._tokenizer = loaded.tokenizer
        self._instruction: str | None = None
        self._tokens: tuple[torch.Tensor, torch.Tensor] | None = None
        self._features: dict[int, torch.Tensor] = {}
        self.encoded_frames = 0

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = 'cpu',
        dtype: torch.dtype = torch.float32,
        blank: str = '',
        offline: bool = False,
    ) -> 'VlaPolicy':
        """Load a bundle with its adapters merged."""
        return cls(load_bundle(folder, device=device, dtype=dtype, offline=offline), blank=blank)

    def reset(self) -> None:
        """Forget every feature."""
        self._features.clear()

    @torch.no_grad()
    def infer(self, window: Sequence[Frame], instruction: str) -> Plan:
        """
        Return the plan for a window of frames, oldest first.

        Frames without a feature yet are encoded together in one batch.

        :raises UserError: when the window has another length, or there is no instruction.
        """
        if len(window) != self.spec.window:
            raise UserError(
                'the policy was given another window', got=len(window), expected=self.spec.window
            )
        if not instruction.strip():
            raise UserError('the policy has no instruction', remedy='publish one on instruction')
        if instruction != self._instruction:
            self._instruction = instruction
            self._tokens = tokenize(self._tokenizer, [self.spec.prompt(instruction)])
            self.reset()
        self._encode([frame for frame in window if frame.stamp_ns not in self._features])
        self._features = {frame.stamp_ns: self._features[frame.stamp_ns] for frame in window}
        features = torch.stack([self._features[frame.stamp_ns] for frame in window])
        motion, _ = self.network.head(features[None].to(self.network.action_token.dtype))
        actions = motion[0, -1, :, : len(self.spec.actions.axes)].float().cpu().numpy()
        return Plan(window[-1].stamp_ns, self.spec.actions.denormalise(actions), self.spec.rate_hz)

    def _encode(self, frames: Sequence[Frame]) -> None:
        if not frames:
            return
        if self.spec.blank == 'image' and self._features:  # a blank image is like any other
            known = next(iter(self._features.values()))
            self._features.update((frame.stamp_ns, known) for frame in frames)
            return
        pixels = torch.stack([preprocess(frame.image, self.spec.image) for frame in frames])
        if self.spec.blank == 'image':
            pixels = torch.zeros_like(pixels)
        device = self.network.action_token.device
        ids, lengths = self._tokens
        count = len(frames)
        features = self.network.encode(
            pixels.to(device, self.network.kosmos.dtype),
            ids.expand(count, -1).to(device),
            lengths.expand(count).to(device),
        )
        self._features.update(zip((frame.stamp_ns for frame in frames), features, strict=True))
        self.encoded_frames += count
