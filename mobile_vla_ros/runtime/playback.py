"""Plans, and their playback anchored to the time of observation."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.types import NANOSECONDS

NEWEST, TEMPORAL_ENSEMBLE, RECEDING = MODES = ('newest', 'temporal_ensemble', 'receding')
# The weight of the i-th plan from the oldest is exp(-ENSEMBLE_DECAY * i), as in section IV-A of
# Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (ACT), RSS
# 2023, whose code uses this value.
ENSEMBLE_DECAY = 0.01


@dataclass(frozen=True)
class Plan:
    """
    The action chunk that a policy predicts from one observation, with its times.

    :param stamp_ns: stamp of the newest image of the window; step 0 starts at this time.
    :param twists: (chunk, 6) m/s and rad/s, one per period of the policy.
    :param rate_hz: steps per second.
    """

    stamp_ns: int
    twists: np.ndarray
    rate_hz: float


@dataclass(frozen=True)
class Proposal:
    """
    The twist proposed for one instant.

    :param twist: (6,) m/s and rad/s.
    :param stamp_ns: of the newest image behind it.
    """

    twist: np.ndarray
    stamp_ns: int


def command_at(plan: Plan, now_ns: int) -> np.ndarray | None:
    """
    Return the command of a plan for an instant.

    Step k lasts from stamp + k / rate until the next step, however long inference took.

    :returns: (6,) twist, or None before the observation and after the end of the chunk.
    """
    step = (now_ns - plan.stamp_ns) * plan.rate_hz / NANOSECONDS
    if not 0 <= step < len(plan.twists):
        return None
    twist: np.ndarray = plan.twists[int(step)]
    return twist


class Playback:
    """
    Turns plans into proposals. In every mode an action is used at the time it was predicted for.

    :param mode: `newest`: the newest plan alone. `temporal_ensemble`: the weighted mean of all
        plans that cover the instant, with the highest weight on the oldest. `receding`: keep a
        plan for `receding_steps` of its steps, then switch to the newest.
    :param ahead_s: how far an observation may lie in the future (clocks of two machines).
    :raises UserError: for an unknown mode or fewer than one step.
    """

    def __init__(self, mode: str = NEWEST, receding_steps: int = 1, ahead_s: float = 0.1) -> None:
        if mode not in MODES:
            raise UserError(
                'unknown playback',
                got=repr(mode),
                expected=' or '.join(MODES),
                remedy=did_you_mean(mode, MODES),
            )
        if receding_steps < 1:
            raise UserError(
                'receding playback keeps a plan for at least one step',
                got=f'receding_steps {receding_steps}',
            )
        self.mode = mode
        self._steps = receding_steps
        self._ahead_ns = round(ahead_s * NANOSECONDS)
        self._plans: deque[Plan] = deque()
        self._kept: Plan | None = None

    def check_age(self, rate_hz: float, max_age_s: float) -> None:
        """
        Check that no plan is kept until its image is too old.

        :param rate_hz: of the plans.
        :param max_age_s: maximum age of an image, seconds.
        :raises UserError: when `receding` would do so.
        """
        if self.mode == RECEDING and self._steps / rate_hz >= max_age_s:
            raise UserError(
                'receding would keep plans for longer than their image may be old',
                got=f'receding_steps {self._steps} at {rate_hz:g} Hz',
                expected=f'less than observation_max_age_s, {max_age_s:g} s',
            )

    @property
    def newest(self) -> Plan | None:
        """The newest plan, or None."""
        return self._plans[-1] if self._plans else None

    def add(self, plan: Plan) -> None:
        """Add a plan; one of an older observation than the newest is dropped."""
        if self._plans and plan.stamp_ns <= self._plans[-1].stamp_ns:
            return
        if self.mode != TEMPORAL_ENSEMBLE:
            self._plans.clear()
        self._plans.append(plan)

    def clear(self) -> None:
        """Remove every plan."""
        self._plans.clear()
        self._kept = None

    def at(self, now_ns: int) -> Proposal | None:
        """Return the proposal for an instant, None when no plan covers it."""
        if not self._plans:
            return None
        # A camera clock slightly ahead stamps images in the future: such an image counts as now.
        if 0 < self._plans[-1].stamp_ns - now_ns <= self._ahead_ns:
            now_ns = self._plans[-1].stamp_ns
        if self.mode == TEMPORAL_ENSEMBLE:
            return self._ensemble(now_ns)
        newest = self._plans[-1]
        plan = self._receding(newest, now_ns) if self.mode == RECEDING else newest
        twist = command_at(plan, now_ns)
        return None if twist is None else Proposal(twist, plan.stamp_ns)

    def _ensemble(self, now_ns: int) -> Proposal | None:
        while len(self._plans) > 1 and now_ns >= _end_ns(self._plans[0]):
            self._plans.popleft()
        found = [
            (plan, twist)
            for plan in self._plans
            if (twist := command_at(plan, now_ns)) is not None
        ]
        if not found:
            return None
        weights = np.exp(-ENSEMBLE_DECAY * np.arange(len(found)))
        twist = np.average([twist for _, twist in found], axis=0, weights=weights)
        return Proposal(twist, found[-1][0].stamp_ns)

    def _receding(self, newest: Plan, now_ns: int) -> Plan:
        kept = self._kept
        if kept is None or not 0 <= (now_ns - kept.stamp_ns) * kept.rate_hz / NANOSECONDS < min(
            self._steps, len(kept.twists)
        ):
            kept = self._kept = newest
        return kept


def _end_ns(plan: Plan) -> int:
    return plan.stamp_ns + int(len(plan.twists) / plan.rate_hz * NANOSECONDS)


def path_of(plan: Plan) -> np.ndarray:
    """
    Return the path that a plan would drive, in the base's frame at the time of observation.

    :returns: (chunk + 1, 3): x and y in m, yaw in rad; the first row is zero.
    """
    poses = np.zeros((len(plan.twists) + 1, 3))
    for step, twist in enumerate(plan.twists):
        x, y, yaw = poses[step]
        vx, vy, wz = twist[0], twist[1], twist[5]
        cos, sin = np.cos(yaw), np.sin(yaw)
        poses[step + 1] = (
            x + (cos * vx - sin * vy) / plan.rate_hz,
            y + (sin * vx + cos * vy) / plan.rate_hz,
            yaw + wz / plan.rate_hz,
        )
    return poses
