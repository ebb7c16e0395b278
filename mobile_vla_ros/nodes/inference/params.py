"""The parameters of the inference node."""

from dataclasses import dataclass
from typing import cast

from rclpy.node import Node

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.camera_time import CameraTime, declare_camera_time
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.topics import encoding_param
from mobile_vla_ros.runtime.playback import Playback
from mobile_vla_ros.safety.config import GuardConfig
from mobile_vla_ros.safety.limits import Limits


@dataclass(frozen=True)
class InferenceParams:
    """All values as given at start; ``declare_params`` describes each."""

    policy: str
    backbone: str
    image_transport: str
    camera_time: CameraTime
    encoding: str
    device: str
    precision: str
    compile: bool
    cuda_graph: bool
    torch_threads: int
    rate_hz: float
    playback: str
    receding_steps: int
    max_velocity: tuple[float, float, float]
    observation_max_age_s: float
    stamp_tolerance_s: float
    blank: str
    offline: bool
    autostart: bool
    instruction: str
    next_policy: str

    def check(self) -> None:
        """
        Refuse what no policy could drive with.

        :raises UserError: for an unknown playback, or images that would always be too old.
        """
        self.new_playback()
        receipt, latency_s = self.camera_time.receipt, self.camera_time.latency_s
        if receipt and latency_s >= self.observation_max_age_s:
            raise UserError(
                'every image would be too old',
                got=f'camera_latency_s {latency_s:g}',
                expected=f'less than observation_max_age_s, {self.observation_max_age_s:g}',
                remedy='use a faster camera or driver',
            )

    def new_playback(self) -> Playback:
        """
        Return a playback without plans.

        :raises UserError: for an unknown mode.
        """
        return Playback(self.playback, self.receding_steps, self.stamp_tolerance_s)


def declare_params(node: Node) -> InferenceParams:
    """
    Declare every parameter and return the values.

    :raises UserError: for a value of the wrong type or out of range.
    """
    guard = GuardConfig()
    return InferenceParams(
        policy=declare(node, 'policy', '', 'bundle folder, builtin: name, or module:Class'),
        backbone=declare(
            node,
            'backbone',
            '',
            "folder or hub id of the policies' backbone; empty: looked for by its hash or hub id",
        ),
        image_transport=declare(node, 'image_transport', 'raw', 'raw or compressed'),
        camera_time=declare_camera_time(node),
        encoding=encoding_param(node),
        device=declare(node, 'device', 'auto', 'auto, cpu, cuda or cuda:1 …'),
        precision=declare(node, 'precision', 'auto', 'auto, fp32, bf16, fp16 or int8'),
        compile=declare(
            node,
            'compile',
            False,
            'torch.compile the backbone: minutes at start, faster steps after',
        ),
        cuda_graph=declare(
            node, 'cuda_graph', False, 'on a GPU, launch the encoding of a frame as one CUDA graph'
        ),
        torch_threads=declare(
            node, 'torch_threads', 1, 'number of cores that torch may use', limits=(1, 256)
        ),
        rate_hz=declare(node, 'rate_hz', 20.0, 'proposals per second', limits=(1.0, 200.0)),
        playback=declare(
            node,
            'playback',
            'newest',
            'which plans are played: newest, temporal_ensemble or receding',
        ),
        receding_steps=declare(
            node,
            'receding_steps',
            2,
            'number of steps for which receding keeps a plan',
            limits=(1, 1000),
        ),
        # Another length than three is refused by ``PolicySettings``.
        max_velocity=cast(
            tuple[float, float, float],
            tuple(
                declare(
                    node,
                    'max_velocity',
                    list(Limits().max_velocity),
                    "the guard's speed limits [x, y, theta]; 0.0 for an axis that the base lacks: "
                    'a policy that drives it is refused',
                )
            ),
        ),
        observation_max_age_s=declare(
            node,
            'observation_max_age_s',
            guard.observation_max_age_s,
            'maximum image age in seconds, as in the guard; images that arrive older are a fault',
            limits=(0.02, 10.0),
        ),
        stamp_tolerance_s=declare(
            node,
            'stamp_tolerance_s',
            guard.stamp_tolerance_s,
            'how far a stamp may lie in the future, seconds',
            limits=(0.0, 1.0),
        ),
        blank=declare(
            node,
            'blank',
            '',
            'ablation: image shows the network the mean colour '
            'instead of the image, instruction withholds the instruction',
        ),
        offline=declare(node, 'offline', False, 'never download a backbone from the hub'),
        autostart=declare(node, 'autostart', True, 'configure and activate at start'),
        instruction=declare(
            node, 'instruction', '', 'what to do, until one is published on the topic instruction'
        ),
        next_policy=declare(
            node,
            'next_policy',
            '',
            'another policy, loaded beside the one that drives; ~/swap makes it drive',
            read_only=False,
        ),
    )
