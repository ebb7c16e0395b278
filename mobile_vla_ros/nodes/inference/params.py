"""The parameters of the inference node."""

from dataclasses import dataclass

from rclpy.node import Node

from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.safety.config import GuardConfig
from mobile_vla_ros.safety.limits import Limits


@dataclass(frozen=True)
class InferenceParams:
    """All of them as they were given at start; what they mean is said where they are declared."""

    policy: str
    image_transport: str
    device: str
    precision: str
    compile: bool
    torch_threads: int
    rate_hz: float
    playback: str
    receding_steps: int
    max_velocity: tuple[float, ...]
    observation_max_age_s: float
    stamp_tolerance_s: float
    blank: str
    offline: bool
    autostart: bool
    instruction: str
    next_policy: str


def declare_params(node: Node) -> InferenceParams:
    """
    Declare every parameter and return the values.

    :raises UserError: for a value of the wrong type or out of range.
    """
    guard = GuardConfig()
    return InferenceParams(
        policy=declare(node, 'policy', '', 'folder of the policy bundle, or a builtin: name'),
        image_transport=declare(node, 'image_transport', 'raw', 'raw or compressed'),
        device=declare(node, 'device', 'auto', 'auto, cpu or cuda'),
        precision=declare(node, 'precision', 'fp32', 'fp32, bf16 or fp16'),
        compile=declare(
            node,
            'compile',
            False,
            'torch.compile the backbone: minutes at start, faster steps after',
        ),
        torch_threads=declare(
            node, 'torch_threads', 1, 'cores that torch may use', limits=(1, 256)
        ),
        rate_hz=declare(node, 'rate_hz', 20.0, 'proposals a second', limits=(1.0, 200.0)),
        playback=declare(
            node,
            'playback',
            'newest',
            'newest, temporal_ensemble or receding: which plans are played',
        ),
        receding_steps=declare(
            node, 'receding_steps', 2, 'steps that receding keeps a plan for', limits=(1, 1000)
        ),
        max_velocity=tuple(
            declare(
                node,
                'max_velocity',
                list(Limits().max_velocity),
                "the guard's speed limits [x, y, theta]; 0.0 for an axis that the base lacks: a "
                'policy that drives it is refused',
            )
        ),
        observation_max_age_s=declare(
            node,
            'observation_max_age_s',
            guard.observation_max_age_s,
            "the guard's oldest image, seconds; images that arrive older are a fault",
            limits=(0.02, 10.0),
        ),
        stamp_tolerance_s=declare(
            node,
            'stamp_tolerance_s',
            guard.stamp_tolerance_s,
            'how far, seconds, a stamp may lie in the future',
            limits=(0.0, 1.0),
        ),
        blank=declare(
            node,
            'blank',
            '',
            'control: image shows the network the mean colour '
            'instead of the image, instruction tells it nothing',
        ),
        offline=declare(node, 'offline', False, 'never ask the hub for a backbone'),
        autostart=declare(node, 'autostart', True, 'configure and activate by itself'),
        instruction=declare(
            node, 'instruction', '', 'what to do, until one is heard on the topic'
        ),
        next_policy=declare(
            node,
            'next_policy',
            '',
            'another policy, loaded beside the one that drives; ~/swap lets it drive',
            read_only=False,
        ),
    )
