"""The LSTM action head: from the features of a window to a chunk of actions per frame."""

import torch
from torch import nn

from mobile_vla_ros.model.policy_spec import HeadSettings


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
