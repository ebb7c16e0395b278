"""The LSTM action head: features of a window of frames in, a chunk of actions a frame out."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class HeadSettings:
    """
    Shape of the head; the defaults are the seed's but for its four padded motion numbers.

    :param features: width of a frame's feature vector.
    :param motion_dims: numbers of motion a step: the policy's axes, then padding if any.
    :param dropout: of the features, in training alone.
    """

    features: int
    motion_dims: int = 2
    chunk: int = 10
    hidden: int = 512
    layers: int = 4
    dropout: float = 0.0


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


class ActionHead(nn.Module):
    """Stateless: the history is the window it is given, and nothing is kept between calls."""

    def __init__(self, settings: HeadSettings):
        super().__init__()
        self.settings = settings
        self.dropout = nn.Dropout(settings.dropout)
        self.lstm = nn.LSTM(settings.features, settings.hidden, settings.layers, batch_first=True)
        self.motion = _mlp(settings.hidden, settings.chunk * settings.motion_dims)
        self.gripper = _mlp(settings.hidden, settings.chunk)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Predict from every frame of the window, each seeing itself and what came before.

        :param features: (B, T, D), oldest first.
        :returns: motion (B, T, chunk, motion_dims) in -1 to 1, and logits (B, T, chunk) of the
            seed's gripper dummy.
        """
        batch, frames, _ = features.shape
        states, _ = self.lstm(self.dropout(features))
        motion = torch.tanh(self.motion(states))
        shape = (batch, frames, self.settings.chunk)
        return motion.view(*shape, self.settings.motion_dims), self.gripper(states).view(shape)
