"""Plans, and their playback anchored in the time of observation."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.types import NANOSECONDS

NEWEST, TEMPORAL_ENSEMBLE, RECEDING = MODES = ('newest', 'temporal_ensemble', 'receding')
# Weight of the plan that is i-th from the oldest is exp(-ENSEMBLE_DECAY * i), as in section IV-A
# of Zhao et al., "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (ACT),
# RSS 2023, whose code has this value.
ENSEMBLE_DECAY = 0.01


@dataclass(frozen=True)
class Plan:
    """
    What a policy wants to do from one observation on.

    :param stamp_ns: stamp of the newest image that was seen; step 0 belongs to this time.
    :param twists: (chunk, 6) m/s and rad/s, one a period of the policy.
    :param rate_hz: steps a second.
    """

    stamp_ns: int
    twists: np.ndarray
    rate_hz: float


@dataclass(frozen=True)
class Proposal:
    """
    What is proposed for one instant.

    :param twist: (6,) m/s and rad/s.
    :param stamp_ns: of the newest image that it comes from.
    """

    twist: np.ndarray
    stamp_ns: int


def command_at(plan: Plan, now_ns: int) -> np.ndarray | None:
    """
    Return the command a plan has for an instant.

    The action of step k was predicted for the time from stamp + k / rate until the next step,
    however long the network took to say so.

    :returns: (6,) twist, or None before the observation and after the chunk's end.
    """
    step = (now_ns - plan.stamp_ns) * plan.rate_hz / NANOSECONDS
    if not 0 <= step < len(plan.twists):
        return None
    return plan.twists[int(step)]


class Playback:
    """
    Turns the plans of a policy into proposals; each action belongs to the instant that it was
    predicted for, in every mode.

    :param mode: `newest`: the newest plan alone. `temporal_ensemble`: the mean of all plans that
        cover the instant, the oldest weighing most. `receding`: a plan is kept for some of its
        steps before the newest one replaces it.
    :param receding_steps: of the mode `receding`.
    :param ahead_s: how far an observation may lie in the future (clocks of two machines).
    :raises UserError: for another mode, or no step.
    """

    def __init__(self, mode: str = NEWEST, receding_steps: int = 1, ahead_s: float = 0.1):
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

    def fits(self, rate_hz: float, max_age_s: float) -> None:
        """
        Refuse to keep plans until their image is too old to be driven by.

        :param rate_hz: of the plans.
        :raises UserError: when `receding` would.
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
        """Take a plan; one of an older observation than the newest is of no use."""
        if self._plans and plan.stamp_ns <= self._plans[-1].stamp_ns:
            return
        if self.mode != TEMPORAL_ENSEMBLE:
            self._plans.clear()
        self._plans.append(plan)

    def clear(self) -> None:
        """Forget every plan."""
        self._plans.clear()
        self._kept = None

    def at(self, now_ns: int) -> Proposal | None:
        """Return what is proposed for an instant, None when no plan covers it."""
        if not self._plans:
            return None
        # By a clock a little ahead of ours an image is taken in the future: it counts as now.
        if 0 < self._plans[-1].stamp_ns - now_ns <= self._ahead_ns:
            now_ns = self._plans[-1].stamp_ns
        if self.mode == TEMPORAL_ENSEMBLE:
            return self._ensemble(now_ns)
        plan = self._receding(now_ns) if self.mode == RECEDING else self._plans[-1]
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

    def _receding(self, now_ns: int) -> Plan:
        kept = self._kept
        if kept is None or not 0 <= (now_ns - kept.stamp_ns) * kept.rate_hz / NANOSECONDS < min(
            self._steps, len(kept.twists)
        ):
            self._kept = self._plans[-1]
        return self._kept


def _end_ns(plan: Plan) -> int:
    return plan.stamp_ns + int(len(plan.twists) / plan.rate_hz * NANOSECONDS)


def path_of(plan: Plan) -> np.ndarray:
    """
    Return where a plan would take the base, in its own frame at the time of observation.

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
