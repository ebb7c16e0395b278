"""The settings of `mobile_vla replay`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobile_vla_ros.runtime.vla_policy import VlaPolicy

MAX_THREADS = 256  # as in the inference node


@dataclass(frozen=True)
class Settings:
    """
    An episode, a policy, and how to run it.

    :param instruction: None: the episode's own.
    :param device: auto, cpu or cuda.
    :param precision: fp32, bf16 or fp16.
    :param threads: CPU threads for torch.
    :param offline: never ask the hub.
    :param quiet: draw no bar.
    """

    episode: Path
    policy: Path
    instruction: str | None = None
    device: str = 'auto'
    precision: str = 'fp32'
    threads: int = 1
    offline: bool = False
    quiet: bool = False

    def check(self) -> None:
        """Raise UserError for invalid settings; load no network."""
        from mobile_vla_ros.episode.storage.reader import Episode
        from mobile_vla_ros.model.policy_spec import read_spec
        from mobile_vla_ros.replay.run import instruction_of

        read_spec(self.policy)
        with Episode.open(self.episode) as episode:
            instruction_of(episode, self.instruction)

    def load(self) -> 'VlaPolicy':
        """Load the policy as the inference node does; sets torch's threads."""
        import torch

        from mobile_vla_ros.runtime.loading import PRECISIONS
        from mobile_vla_ros.runtime.vla_policy import VlaPolicy

        torch.set_num_threads(self.threads)
        return VlaPolicy.load(
            self.policy,
            device=self.device,
            dtype=PRECISIONS[self.precision],
            offline=self.offline,
        )
