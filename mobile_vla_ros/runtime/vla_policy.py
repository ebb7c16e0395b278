"""The network of a bundle as a policy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mobile_vla_ros.data.preprocess import preprocess
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone import tokenize, unknown_words
from mobile_vla_ros.model.bundle import Bundle, load_bundle
from mobile_vla_ros.model.packing import give_back
from mobile_vla_ros.runtime.frame_buffer import PolicyFrame, check_window
from mobile_vla_ros.runtime.graphed_encoder import TEXT_TOKENS, GraphedEncoder
from mobile_vla_ros.runtime.playback import Plan
from mobile_vla_ros.types import BLANKS


@dataclass(frozen=True)
class _Prompt:
    """An instruction and its tokens on the device: (1, L) int64 ids, their (1,) int64 count."""

    instruction: str
    ids: torch.Tensor
    lengths: torch.Tensor


class VlaPolicy:
    """
    The network of a bundle. Features are cached by frame, so a step encodes only new frames.

    :param blank: `image`: replace every image by the mean colour; `instruction`: leave the
        instruction out. These controls show whether a policy uses its two inputs.
    """

    def __init__(self, bundle: Bundle, *, blank: str = '') -> None:
        if blank not in BLANKS:
            raise UserError(
                "unknown part of a policy's input",
                got=repr(blank),
                expected=' or '.join(repr(known) for known in BLANKS),
            )
        self.spec = replace(bundle.spec, blank=blank) if blank else bundle.spec
        self.network = bundle.network
        self.unhashed = bundle.unhashed
        self._tokenizer = bundle.tokenizer
        self._prompt: _Prompt | None = None
        self._features: dict[int, torch.Tensor] = {}
        self._graphed: GraphedEncoder | None = None
        self.encoded_frames = 0

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: str = 'cpu',
        dtype: torch.dtype = torch.float32,
        blank: str = '',
        offline: bool = False,
        backbone: str = '',
    ) -> 'VlaPolicy':
        """Load a bundle (`load_bundle`) with its adapters merged."""
        bundle = load_bundle(
            folder, device=device, dtype=dtype, offline=offline, backbone=backbone
        )
        return cls(bundle, blank=blank)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.network.action_token.device

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights, as they are held."""
        return sum(value.nbytes for value in self.network.state_dict().values())

    def capture(self) -> None:
        """
        Encode frames one at a time with fixed shapes, on a GPU as a CUDA graph.

        :raises UserError: when it cannot be captured.
        """
        self._graphed = GraphedEncoder(self.network, self.spec.image.size)

    def reset(self) -> None:
        """Forget every feature."""
        self._features.clear()

    def unknown_words(self, instruction: str) -> list[str]:
        """Return the words of an instruction that the policy would read as `<unk>`."""
        return (
            [] if self.spec.blank == 'instruction' else unknown_words(self._tokenizer, instruction)
        )

    @torch.no_grad()
    def infer(self, window: Sequence[PolicyFrame], instruction: str) -> Plan:
        """
        Return the plan for a window of frames, oldest first.

        Frames without a cached feature are encoded in one batch.

        :raises UserError: when the window has the wrong length or the instruction is empty.
        """
        check_window(window, self.spec.window)
        if not instruction.strip():
            raise UserError('the policy has no instruction', remedy='publish one on instruction')
        if self._prompt is None or instruction != self._prompt.instruction:
            ids, lengths = tokenize(self._tokenizer, [self.spec.prompt(instruction)])
            device = self.device
            self._prompt = _Prompt(instruction, ids.to(device), lengths.to(device))
            self.reset()
        self._encode(
            [frame for frame in window if frame.stamp_ns not in self._features], self._prompt
        )
        self._features = {frame.stamp_ns: self._features[frame.stamp_ns] for frame in window}
        features = torch.stack([self._features[frame.stamp_ns] for frame in window])
        motion, _ = self.network.head(features[None].to(self.network.action_token.dtype))
        actions = motion[0, -1, :, : len(self.spec.actions.axes)].float().cpu().numpy()
        return Plan(window[-1].stamp_ns, self.spec.actions.denormalise(actions), self.spec.rate_hz)

    def _encode(self, frames: Sequence[PolicyFrame], prompt: _Prompt) -> None:
        if not frames:
            return
        if self.spec.blank == 'image' and self._features:  # all blank images have one feature
            known = next(iter(self._features.values()))
            self._features.update((frame.stamp_ns, known) for frame in frames)
            return
        pixels = torch.stack([preprocess(frame.image, self.spec.image) for frame in frames])
        if self.spec.blank == 'image':
            pixels = torch.zeros_like(pixels)
        count = len(frames)
        if self._graphed is not None and prompt.ids.shape[1] <= TEXT_TOKENS:
            graphed, ids, lengths = self._graphed, prompt.ids, prompt.lengths
            features = torch.cat([graphed(one[None], ids, lengths) for one in pixels])
        else:
            features = self.network.encode(
                pixels.to(prompt.ids.device, self.network.kosmos.dtype),
                prompt.ids.expand(count, -1),
                prompt.lengths.expand(count),
            )
        self._features.update(zip((frame.stamp_ns for frame in frames), features, strict=True))
        self.encoded_frames += count
        if count > 1:  # a whole window is rare, and takes the room of one frame several times
            give_back()
