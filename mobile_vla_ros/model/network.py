"""The network: one Kosmos-2 feature per frame, and the LSTM head over windows of features."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Kosmos2Model

from mobile_vla_ros.model.backbone import (
    Backbone,
    LoraSettings,
    add_lora,
    checkpoint_activations,
    kosmos,
    restore_adapter,
)
from mobile_vla_ros.model.backbone_check import image_tokens
from mobile_vla_ros.model.policy_spec import HeadSettings

OBJECT_TOKEN = '<object>'


class ActionHead(nn.Module):
    """
    An LSTM and two MLPs, stateless: the history is the window, nothing is kept between calls.
    """

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.settings = settings
        self.dropout = nn.Dropout(settings.dropout)
        self.lstm = nn.LSTM(settings.features, settings.hidden, settings.layers, batch_first=True)
        self.motion = _mlp(settings.hidden, settings.chunk * settings.motion_dims)
        self.gripper = _mlp(settings.hidden, settings.chunk)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Predict a chunk from every frame of the window and the frames before it.

        :param features: (B, T, D), oldest first.
        :returns: motion (B, T, chunk, motion_dims) in -1 to 1, and logits (B, T, chunk) of the
            gripper that the reference run predicts and no base has.
        """
        batch, frames, _ = features.shape
        states, _ = self.lstm(self.dropout(features))
        motion = torch.tanh(self.motion(states))
        shape = (batch, frames, self.settings.chunk)
        return motion.view(*shape, self.settings.motion_dims), self.gripper(states).view(shape)


class VlaNetwork(nn.Module):
    """
    Kosmos-2 (usually with LoRA), a learned action token, and the action head.

    The sequence of a frame is ``[BOS] [image tokens] [instruction] [action token]``; the last
    layer's state at the action token is the frame's feature. Each frame is a sequence of its own.

    :param start_ids: ids of the tokens before the image tokens (`start_ids`).
    :param action_token: (D,) initial embedding of the action token.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: ActionHead,
        start_ids: Sequence[int],
        action_token: torch.Tensor,
    ):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.start_ids: torch.Tensor
        self.register_buffer('start_ids', torch.tensor(start_ids), persistent=False)
        self.action_token = nn.Parameter(action_token)

    @property
    def kosmos(self) -> Kosmos2Model:
        """The Kosmos2Model inside, with or without adapters around it."""
        return kosmos(self.backbone)

    def embed(
        self, image_tokens: torch.Tensor, text_ids: torch.Tensor, text_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return the embedded sequence of each frame.

        :param image_tokens: (N, K, D) from the image-to-text projection.
        :param text_ids: (N, L) token ids, padded on the right.
        :param text_lengths: (N,) how many of them are not padding.
        :returns: (N, S + K + L + 1, D) embeddings with S start tokens, and (N,) positions of the
            action token, which follows the last text token; a causal model cannot see the padding
            behind it.
        """
        embed_tokens = self.kosmos.get_input_embeddings()
        text = embed_tokens(text_ids)
        count, images = image_tokens.shape[:2]
        start = embed_tokens(self.start_ids).expand(count, -1, -1)
        room = torch.zeros_like(start[:, :1])
        sequence = torch.cat([start, image_tokens.to(text.dtype), text, room], dim=1)
        positions = len(self.start_ids) + images + text_lengths
        here = torch.arange(sequence.shape[1], device=positions.device) == positions[:, None]
        sequence = torch.where(here[..., None], self.action_token.to(text.dtype), sequence)
        return sequence, positions

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the (N, K, D) tokens that the text model reads for (N, 3, S, S) pixels."""
        return image_tokens(self.kosmos, pixels)

    def encode(
        self, frames: torch.Tensor, text_ids: torch.Tensor, text_lengths: torch.Tensor
    ) -> torch.Tensor:
        """
        Return the feature of each frame.

        :param frames: (N, 3, S, S) from `data.preprocess`, or their (N, K, D) image tokens.
        :param text_ids: (N, L) token ids of each frame's instruction, padded on the right.
        :param text_lengths: (N,) int64.
        :returns: (N, D).
        """
        model = self.kosmos
        image_tokens = self.image_tokens(frames) if frames.ndim == 4 else frames
        sequence, positions = self.embed(image_tokens, text_ids, text_lengths)
        states: torch.Tensor = model.text_model(
            inputs_embeds=sequence, use_cache=False
        ).last_hidden_state
        return states[torch.arange(len(states), device=states.device), positions]

    def forward(
        self,
        frames: torch.Tensor,
        text_ids: torch.Tensor,
        text_lengths: torch.Tensor,
        frame_counts: list[int],
        windows: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Encode every frame of some segments once, and apply the head to windows of the features.

        :param frames: (sum of frame_counts, 3, S, S) images, or (sum of frame_counts, K, D) image
            tokens; one segment after another.
        :param text_ids: (segments, L) token ids; one instruction per segment.
        :param text_lengths: (segments,) int64.
        :param frame_counts: frames of each segment.
        :param windows: (M, window) int64 rows in ``frames`` of the frames of each window.
        :returns: motion (M, window, chunk, motion_dims) and gripper logits (M, window, chunk).
        """
        # Not repeat_interleave, which would wait for the GPU to read the counts.
        ids, lengths = (
            torch.cat(
                [
                    row.expand(count, *row.shape)
                    for row, count in zip(one, frame_counts, strict=True)
                ]
            )
            for one in (text_ids, text_lengths)
        )
        features = self.encode(frames, ids, lengths)
        return self.act(features, windows)

    def act(
        self, features: torch.Tensor, windows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Apply the head to windows of (N, D) features; see `forward`."""
        # Indexing would add up its gradients in any order; this is reproducible.
        of_windows = nn.functional.embedding(windows, features)
        motion, gripper = self.head(of_windows.to(self.action_token.dtype))
        return motion, gripper

    def parameter_counts(self) -> dict[str, int]:
        """Return the trained parameters of `lora`, `head`, `action_token`, and all `trainable`."""
        lora = sum(p.numel() for p in self.backbone.parameters() if p.requires_grad)
        head = sum(p.numel() for p in self.head.parameters())
        token = self.action_token.numel()
        return {
            'lora': lora,
            'head': head,
            'action_token': token,
            'trainable': lora + head + token,
        }


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Compute without dropout while the block runs; training mode returns after it."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def build_network(
    backbone: Backbone,
    lora: LoraSettings,
    *,
    motion_dims: int,
    chunk: int,
    hidden: int = 512,
    layers: int = 4,
    dropout: float = 0.0,
    before_image: str = '',
    activation_checkpointing: bool = False,
) -> VlaNetwork:
    """
    Add LoRA and a new head to a backbone, ready to train.

    :param before_image: text before the image tokens.
    :param activation_checkpointing: keep only the inputs of the towers' layers and recompute the
        rest in the backward pass.
    """
    if activation_checkpointing:
        checkpoint_activations(backbone.model)
    config = backbone.model.config
    head = ActionHead(
        HeadSettings(config.text_config.embed_dim, motion_dims, chunk, hidden, layers, dropout)
    )
    return VlaNetwork(
        add_lora(backbone.model, lora),
        head,
        start_ids(backbone, before_image),
        _first_action_token(backbone),
    )


def start_ids(backbone: Backbone, before_image: str) -> list[int]:
    """Return the ids of the beginning of a sequence: BOS, and the text before the image tokens."""
    ids = backbone.tokenizer(before_image, add_special_tokens=False)['input_ids']
    return [backbone.model.config.text_config.bos_token_id, *(ids if before_image else ())]


def load_trained(network: VlaNetwork, adapter: Path, head: Path) -> None:
    """Load a bundle's adapters, head and action token into a network of the same shape."""
    restore_adapter(network.backbone, adapter)
    network.load_state_dict(load_file(head), strict=False)


def _first_action_token(backbone: Backbone) -> torch.Tensor:
    """
    Return the initial embedding of the action token: (D,) float32.

    After `<object>` Kosmos-2 predicts where the object that was just named is, which is what a
    drive to it needs, so the action token starts as that token. A backbone without it gets a
    random vector with the spread of its word embeddings.
    """
    table: torch.Tensor = backbone.model.get_input_embeddings().weight.detach().float()
    known = backbone.tokenizer.get_vocab()
    if OBJECT_TOKEN in known:
        return table[known[OBJECT_TOKEN]].clone()
    return torch.randn_like(table[0]) * table.std()


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 1024),
        nn.ReLU(),
        nn.Linear(1024, 512),
        nn.ReLU(),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Linear(256, outputs),
    )
