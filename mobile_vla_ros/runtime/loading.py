"""A policy as a robot takes it: by name, fit for the base, made fast, asked its golden frames."""

from dataclasses import dataclass

import numpy as np
import torch

from mobile_vla_ros.errors import UserError, did_you_mean, first_line
from mobile_vla_ros.model.golden import read_golden
from mobile_vla_ros.model.packing import pack
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.runtime.noop import NAME as NOOP
from mobile_vla_ros.runtime.noop import NoOpPolicy
from mobile_vla_ros.runtime.policy import Policy, VlaPolicy
from mobile_vla_ros.runtime.preflight import check_axes
from mobile_vla_ros.types import NANOSECONDS, Frame

PRECISIONS = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


@dataclass(frozen=True)
class PolicySettings:
    """
    How policies are loaded on this robot.

    :param precision: a key of ``PRECISIONS``.
    :param compile: torch.compile the backbone.
    :param max_velocity: of the base, x and y in m/s, theta in rad/s; 0.0: it lacks the axis.
    :raises UserError: for a precision that there is none of, or speeds that cannot be.
    """

    device: str = 'auto'
    precision: str = 'fp32'
    compile: bool = False
    blank: str = ''
    offline: bool = False
    max_velocity: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise UserError(
                'unknown precision',
                got=repr(self.precision),
                expected=', '.join(PRECISIONS),
                remedy=did_you_mean(self.precision, PRECISIONS),
            )
        speeds = tuple(float(speed) for speed in self.max_velocity)
        object.__setattr__(self, 'max_velocity', speeds)
        if len(speeds) != 3 or not all(np.isfinite(speed) and speed >= 0 for speed in speeds):
            raise UserError(
                'max_velocity cannot be',
                got=list(speeds),
                expected='three numbers [x, y, theta], each zero or more',
            )


@dataclass(frozen=True)
class Ready:
    """
    A policy that may drive.

    :param name: that it was asked for by.
    :param golden: whether its golden frames came back; and in words.
    """

    name: str
    policy: Policy
    golden: bool
    golden_said: str


def load_policy(name: str, settings: PolicySettings | None = None) -> Ready:
    """
    Load a policy by its bundle's folder or `builtin:` name, and ask it its golden frames.

    :param settings: None: the defaults.
    :raises UserError: when it cannot be loaded, cannot be compiled here, or drives an axis that
        the base lacks.
    """
    settings = settings or PolicySettings()
    if not name:
        raise UserError(
            'no policy is given',
            expected='a policy bundle',
            remedy='give policy:=FOLDER, or policy:=builtin:demo',
        )
    if name == NOOP:
        return Ready(name, NoOpPolicy(), True, f'{NOOP} proposes zero, and needs none')
    axes = check_axes(read_spec(name).actions.axes, settings.max_velocity)
    if not axes.ok:
        raise UserError(f'the policy {name} does not fit the base: {axes.sentence}')
    policy = VlaPolicy.load(
        name,
        device=settings.device,
        dtype=PRECISIONS[settings.precision],
        blank=settings.blank,
        offline=settings.offline,
    )
    if settings.compile:
        compile_backbone(policy)
    else:
        pack(policy.network.kosmos)
    from mobile_vla_ros.runtime.golden_check import golden_check

    try:
        golden, said = golden_check(policy, read_golden(name), settings.precision)
    except UserError as error:
        golden, said = False, str(error)
    return Ready(name, policy, golden, said)


def compile_backbone(policy: VlaPolicy) -> None:
    """
    Have torch compile both towers, and run the two batches that driving has: one frame, and all.

    :raises UserError: when there is no compiler for the policy's device.
    """
    spec = policy.spec
    model = policy.network.kosmos
    for tower in (model.vision_model, model.text_model):
        tower.compile(dynamic=True)
    blank = np.zeros((spec.image.size, spec.image.size, 3), np.uint8)
    window = [
        Frame(blank, number * round(NANOSECONDS / spec.rate_hz), 0)
        for number in range(1, spec.window + 2)
    ]
    try:
        for first in (0, 1):
            policy.infer(window[first : first + spec.window], 'warm up')
    except Exception as error:  # of a compiler, in as many kinds as there are compilers
        raise UserError(
            f'torch cannot compile the policy on {policy.network.action_token.device}',
            got=first_line(error),
            expected='a C++ compiler (CPU) or Triton (GPU)',
            remedy='install one (apt install g++), or set compile:=false',
        ) from error
    finally:
        policy.reset()
