"""Drivers of `mobile_vla simulate`: the expert, a policy behind the guard, or a control."""

import hashlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import sha256
from mobile_vla_ros.types import BLANKS, PLANAR_AXES, Frame

if TYPE_CHECKING:  # `mobile_vla simulate --help` loads neither MuJoCo nor torch
    import numpy as np

    from mobile_vla_ros.model.policy_spec import PolicySpec
    from mobile_vla_ros.rollout.policy_driver import PolicyDriver
    from mobile_vla_ros.rollout.trials import Driver
    from mobile_vla_ros.runtime.policy import Policy
    from mobile_vla_ros.safety.guard import Guard
    from mobile_vla_ros.sim.arena import Arena

CONTROLS = (*filter(None, BLANKS), 'zero', 'mean_action')
EXPERT = 'expert'  # among the names of policies


def read_policy(policy: Path | str) -> 'PolicySpec':
    """Return the spec of a policy; raise UserError for one that does not fit the arena."""
    from mobile_vla_ros.model.policy_spec import read_spec
    from mobile_vla_ros.runtime.own_policy import is_own, own_policy

    return _fitting(policy, own_policy(policy).spec if is_own(policy) else read_spec(policy))


def _fitting(policy: Path | str, spec: 'PolicySpec') -> 'PolicySpec':
    foreign = [axis for axis in spec.actions.axes if axis not in PLANAR_AXES]
    if foreign:
        raise UserError(
            f'the arena cannot drive the policy {policy}',
            got=f'axes {", ".join(spec.actions.axes)}',
            expected=f'some of {", ".join(PLANAR_AXES)}',
            remedy='train it on these: mobile_vla train --axes',
        )
    return spec


def make_driver(
    policy: Path | str | None,
    control: str,
    device: str,
    arena: 'Arena',
    precision: str = 'auto',
    backbone: str = '',
    offline: bool = False,
) -> 'Timed':
    """
    Return the driver.

    :param policy: bundle, or one that is code; None: the expert, or the control ``zero``.
    :param control: '' or one of ``CONTROLS``.
    :raises UserError: for a policy that does not fit the arena or lacks what the control needs.
    """
    import numpy as np

    from mobile_vla_ros.rollout.trials import ConstantDriver, ExpertDriver
    from mobile_vla_ros.runtime.own_policy import is_own, own_policy

    blank = control if control in BLANKS else ''
    own = own_policy(policy, blank) if policy is not None and is_own(policy) else None
    spec = None
    if policy is not None:
        spec = _fitting(policy, own.spec) if own else read_policy(policy)
    if control == 'zero':
        return Timed(ConstantDriver(np.zeros(6)))
    if policy is None or spec is None:
        return Timed(ExpertDriver(arena))
    if control == 'mean_action':
        return Timed(ConstantDriver(_mean_action(policy, spec)))
    if own is not None:
        return policy_driver(own)
    from mobile_vla_ros.model.device import PRECISIONS, pick_precision
    from mobile_vla_ros.runtime.vla_policy import VlaPolicy

    dtype = PRECISIONS[pick_precision(precision, device)]
    loaded = VlaPolicy.load(
        policy, device=device, dtype=dtype, blank=blank, backbone=backbone, offline=offline
    )
    return policy_driver(loaded)


def policy_driver(policy: 'Policy') -> 'Timed':
    """Return the driver of a loaded policy, behind the guard."""
    from tqdm import tqdm

    from mobile_vla_ros.rollout.policy_driver import PolicyDriver

    if torch := sys.modules.get('torch'):  # code may do without
        torch.set_num_threads(1)  # as in the inference node; one frame gains nothing from more
    # Beside the bar, and away from --json.
    return Timed(Guarded(PolicyDriver(policy, lambda words: tqdm.write(words, file=sys.stderr))))


def _mean_action(policy: Path | str, spec: 'PolicySpec') -> 'np.ndarray':
    """Return the (6,) mean twist of the policy's training episodes."""
    import numpy as np

    action = spec.data.get('mean_action')
    if action is None or len(action) != len(spec.actions.axes):
        raise UserError(
            f'the policy {policy} lacks the mean action of its episodes',
            got=action,
            expected=f'data.mean_action in policy.json, a number for each '
            f'of {", ".join(spec.actions.axes)}',
            remedy='train it again',
        )
    twist = np.zeros(6)
    twist[spec.actions.columns] = action
    return twist


class Guarded:
    """A policy's driver behind the guard, which limits its speed and stops it on stale frames."""

    def __init__(self, driver: 'PolicyDriver'):
        self._driver = driver
        self._guard = _armed_guard()
        self.wants_images = driver.wants_images

    def reset(self, instruction: str) -> None:
        """Begin a scene."""
        self._driver.reset(instruction)
        self._guard = _armed_guard()

    def see(self, frame: Frame) -> None:
        """Add a frame as it arrives."""
        self._driver.see(frame)

    def command(self, now_ns: int) -> 'np.ndarray':
        """Return the (6,) twist for now; zeros if the newest plan's frame is too old."""
        if self._driver.plan is not None:
            self._guard.proposal(self._driver.command(now_ns), self._driver.plan.stamp_ns, now_ns)
        return self._guard.update(now_ns, now_ns).twist


def _armed_guard() -> 'Guard':
    """Return an armed guard that does not disarm on faults, as in the arena's live stack."""
    from mobile_vla_ros.safety.config import AfterTakeover, GuardConfig
    from mobile_vla_ros.safety.guard import Guard

    return Guard(
        GuardConfig(disarm_on_fault=False, after_takeover=AfterTakeover.RESUME), armed=True
    )


class Timed:
    """A driver that counts the seconds it spends on frames."""

    def __init__(self, driver: 'Driver'):
        self._driver = driver
        self.wants_images = driver.wants_images
        self.seconds = 0.0

    def reset(self, instruction: str) -> None:
        """Begin a scene."""
        self._driver.reset(instruction)

    def see(self, frame: Frame) -> None:
        """Add a frame as it arrives."""
        started = time.perf_counter()
        self._driver.see(frame)
        self.seconds += time.perf_counter() - started

    def command(self, now_ns: int) -> 'np.ndarray':
        """Return the (6,) twist for now."""
        return self._driver.command(now_ns)


def fingerprint(policy: Path | str | None) -> str | None:
    """Return the hash of every file of a bundle, by name; of code, of its name and its file."""
    if policy is None:
        return None
    from mobile_vla_ros.model.builtin import bundle_folder
    from mobile_vla_ros.runtime.own_policy import is_own, policy_source

    total = hashlib.sha256()
    if is_own(policy):
        total.update(f'{policy}\n'.encode() + policy_source(policy))
        return total.hexdigest()
    folder = bundle_folder(policy)
    for path in sorted(path for path in folder.rglob('*') if path.is_file()):
        total.update(f'{path.relative_to(folder).as_posix()} {sha256(path)}\n'.encode())
    return total.hexdigest()
