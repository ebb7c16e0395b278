"""Who drives in `mobile_vla simulate`: the expert, a policy behind the guard, or a control."""

import hashlib
import time
from pathlib import Path

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import BLANKS

CONTROLS = (*filter(None, BLANKS), 'zero', 'mean_action')
ARENA_AXES = ('linear_x', 'linear_y', 'angular_z')


def read_policy(policy: Path):
    """Return what a bundle says of itself; refuses what does not fit the arena."""
    from mobile_vla_ros.model.policy_spec import read_spec

    spec = read_spec(policy)
    foreign = [axis for axis in spec.actions.axes if axis not in ARENA_AXES]
    if foreign:
        raise UserError(
            f'the arena cannot drive the policy {policy}',
            got=f'axes {", ".join(spec.actions.axes)}',
            expected=f'some of {", ".join(ARENA_AXES)}',
            remedy='train it on these: mobile_vla train --axes',
        )
    return spec


def make_driver(policy: Path | None, spec, control: str, device: str, arena) -> 'Timed':
    """
    Return who drives.

    :param spec: of the policy (``read_policy``).
    :param control: '' or one of ``CONTROLS``.
    """
    return Timed(_driver(policy, spec, control, device, arena))


def _driver(policy: Path | None, spec, control: str, device: str, arena):
    import numpy as np

    from mobile_vla_ros.rollout.trials import ConstantDriver, ExpertDriver

    if policy is None and not control:
        return ExpertDriver(arena)
    if control == 'zero':
        return ConstantDriver(np.zeros(6))
    if control == 'mean_action':
        return ConstantDriver(_mean_action(policy, spec))
    import torch

    from mobile_vla_ros.rollout.policy_driver import PolicyDriver
    from mobile_vla_ros.runtime.vla_policy import VlaPolicy

    torch.set_num_threads(1)  # as the inference node; a step of one frame gains nothing from more
    return _Guarded(
        PolicyDriver(
            VlaPolicy.load(policy, device=device, blank=control if control in BLANKS else '')
        )
    )


def _mean_action(policy: Path, spec):
    import numpy as np

    action = spec.data.get('mean_action')
    if action is None or len(action) != len(spec.actions.axes):
        raise UserError(
            f'the policy {policy} does not know the mean action of its takes',
            got=action,
            expected=f'data.mean_action in policy.json, a number for each '
            f'of {", ".join(spec.actions.axes)}',
            remedy='train it again',
        )
    twist = np.zeros(6)
    twist[spec.actions.columns] = action
    return twist


class _Guarded:
    """A policy's driver behind the guard, which holds it to its limits and stops it when blind."""

    def __init__(self, driver):
        self._driver = driver
        self.wants_images = driver.wants_images

    def reset(self, instruction: str) -> None:
        """Begin a scene."""
        from mobile_vla_ros.safety.config import GuardConfig
        from mobile_vla_ros.safety.guard import Guard

        self._driver.reset(instruction)
        # As in the arena's live stack: nobody is there to arm it again.
        self._guard = Guard(GuardConfig(disarm_on_fault=False), armed=True)

    def see(self, frame) -> None:
        """Take a frame."""
        self._driver.see(frame)

    def command(self, now_ns: int):
        """Return the (6,) twist for now; zeros when the newest plan comes from too old a frame."""
        if self._driver.plan is not None:
            self._guard.proposal(self._driver.command(now_ns), self._driver.plan.stamp_ns, now_ns)
        return self._guard.update(now_ns, now_ns).twist


class Timed:
    """A driver, and the seconds that it took."""

    def __init__(self, driver):
        self._driver = driver
        self.wants_images = driver.wants_images
        self.seconds = 0.0

    def reset(self, instruction: str) -> None:
        """Begin a scene."""
        self._driver.reset(instruction)

    def see(self, frame) -> None:
        """Take a frame."""
        started = time.perf_counter()
        self._driver.see(frame)
        self.seconds += time.perf_counter() - started

    def command(self, now_ns: int):
        """Return the (6,) twist for now."""
        return self._driver.command(now_ns)


def fingerprint(policy: Path | None) -> str | None:
    """Return the hash of every file of a bundle, by name."""
    if policy is None:
        return None
    from mobile_vla_ros.model.builtin import bundle_folder

    total = hashlib.sha256()
    folder = bundle_folder(policy)
    for path in sorted(path for path in folder.rglob('*') if path.is_file()):
        with path.open('rb') as file:
            inner = hashlib.file_digest(file, 'sha256').hexdigest()
        total.update(f'{path.relative_to(folder).as_posix()} {inner}\n'.encode())
    return total.hexdigest()
