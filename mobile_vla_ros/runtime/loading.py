"""Loading of a policy for driving: checks the base's axes, optimises it, checks golden frames."""

from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.model.device import PRECISIONS, check_precision, pick_precision
from mobile_vla_ros.model.golden import read_golden
from mobile_vla_ros.model.packing import pack, pages_of_their_own
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.runtime.golden_check import check_golden
from mobile_vla_ros.runtime.own_policy import is_own, own_policy
from mobile_vla_ros.runtime.policy import NOOP, NoOpPolicy, Policy
from mobile_vla_ros.runtime.preflight import check_axes
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.types import NANOSECONDS, Frame


@dataclass(frozen=True)
class PolicySettings:
    """
    How policies are loaded on this robot.

    :param precision: auto, fp32, bf16, fp16 or int8 (``model.device.pick_precision``).
    :param compile: torch.compile the backbone.
    :param blank: input that the policy does not get, one of ``types.BLANKS``.
    :param offline: never download a backbone.
    :param backbone: folder or hub id to load it from; empty: as ``model.backbone.find_backbone``.
    :param cuda_graph: on a GPU, encode frames by a CUDA graph.
    :param max_velocity: of the base, x and y in m/s, theta in rad/s; 0.0: it lacks the axis.
    :raises UserError: for an unknown precision or invalid speeds.
    """

    device: str = 'auto'
    precision: str = 'auto'
    compile: bool = False
    blank: str = ''
    offline: bool = False
    max_velocity: tuple[float, float, float] = (1.0, 1.0, 1.0)
    cuda_graph: bool = False
    backbone: str = ''

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if self.compile and self.cuda_graph:
            raise UserError('compile and cuda_graph exclude each other', remedy='choose one')
        speeds = tuple(float(speed) for speed in self.max_velocity)
        object.__setattr__(self, 'max_velocity', speeds)
        if len(speeds) != 3 or not all(np.isfinite(speed) and speed >= 0 for speed in speeds):
            raise UserError(
                'invalid max_velocity',
                got=list(speeds),
                expected='three numbers [x, y, theta], each zero or more',
            )


@dataclass(frozen=True)
class ReadyPolicy:
    """
    A loaded policy with the result of its golden check.

    :param name: folder or `builtin:` name that it was loaded by.
    :param golden_ok: whether it reproduces its golden frames.
    :param golden_sentence: the same for people, with a remedy where it does not.
    """

    name: str
    policy: Policy
    golden_ok: bool
    golden_sentence: str


def load_policy(name: str, settings: PolicySettings | None = None) -> ReadyPolicy:
    """
    Load a policy by its bundle's folder or `builtin:` name, and check its golden frames.

    One that is code is loaded by ``module:Class`` or the name of its entry point.

    :param settings: None: the defaults.
    :raises UserError: when it cannot be loaded or compiled, or drives an axis that the base lacks.
    """
    settings = settings or PolicySettings()
    if not name:
        raise UserError(
            'no policy is given',
            expected='a policy bundle',
            remedy='give policy:=FOLDER, or policy:=builtin:demo',
        )
    if name == NOOP:
        return ReadyPolicy(name, NoOpPolicy(), True, f'{NOOP} proposes zero and needs none')
    own = own_policy(name, settings.blank) if is_own(name) else None
    spec = own.spec if own else read_spec(name)
    axes = check_axes(spec.actions.axes, settings.max_velocity)
    if not axes.ok:
        raise UserError(f'the policy {name} does not fit the base: {axes.sentence}')
    if own:
        return ReadyPolicy(name, own, True, f'{name} is code, and has none to reproduce')
    precision = pick_precision(settings.precision, settings.device)
    with pages_of_their_own():
        policy = VlaPolicy.load(
            name,
            device=settings.device,
            dtype=PRECISIONS[precision],
            blank=settings.blank,
            offline=settings.offline,
            backbone=settings.backbone,
        )
        if not settings.compile:
            pack(policy.network.kosmos)
    if settings.compile:
        compile_backbone(policy)
    if settings.cuda_graph and policy.network.action_token.is_cuda:
        policy.capture()
    try:
        ok, sentence = check_golden(policy, read_golden(name), precision)
    except UserError as error:
        ok, sentence = False, str(error)
    if policy.unhashed:
        sentence += (
            f'; {len(policy.unhashed)} files of this older bundle and its backbone have no hash: '
            f'{", ".join(policy.unhashed)}'
        )
    return ReadyPolicy(name, policy, ok, sentence)


def compile_backbone(policy: VlaPolicy) -> None:
    """
    Compile both towers, and run the two batch sizes of driving: one frame, and a full window.

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
    except Exception as error:  # every compiler backend raises its own
        raise UserError(
            f'torch cannot compile the policy on {policy.network.action_token.device}',
            got=first_line(error),
            expected='a C++ compiler (CPU) or Triton (GPU)',
            remedy='install one (apt install g++), or set compile:=false',
        ) from error
    finally:
        policy.reset()
