"""The guard's configuration: its timeouts, and the limits of the base."""

from dataclasses import dataclass, field

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.safety.limits import Limits
from mobile_vla_ros.safety.status import STATUS_MAX_AGE_S
from mobile_vla_ros.types import StrEnum

# Part of the time for which a guard that was disarmed still commands zero.
SETTLE_MARGIN_S = 1.0


class AfterTakeover(StrEnum):
    """What happens when a person who took over lets go."""

    RESUME = 'resume'  # the policy drives on after the hold
    STAY_STOPPED = 'stay_stopped'  # until a person hands back (~/resume, or disarming and arming)


@dataclass(frozen=True)
class GuardConfig:
    """
    Timeouts and limits of the guard.

    :param limits: of speed, acceleration and stopping distance.
    :param period_s: of the ticks.
    :param observation_max_age_s: maximum age of the image behind a command.
    :param proposal_timeout_s: a gap between proposals that is longer is a fault.
    :param health_timeout_s: while a policy proposes nothing, a gap between its health reports
        that is longer is a fault.
    :param stamp_tolerance_s: how far a stamp may lie in the future (clocks of two machines).
    :param teleop_timeout_s: an older teleop command becomes zero.
    :param takeover_hold_s: how long the policy stays out after the last teleop command, at least;
        three times the interval between commands where that is longer.
    :param after_takeover: what happens then.
    :param estop_timeout_s: a gap between messages of the e-stop that is longer disarms; zero: the
        e-stop need not send continuously.
    :param zero_while_disarmed: command zero as long as the guard is disarmed, rather than until
        the base stands.
    :param max_tick_s: the longest time between two ticks that the acceleration limit counts, so
        that a guard which was delayed does not catch up with a jerk.
    :param max_gap_s: a longer time between two ticks is a fault: the process stood still.
    :param disarm_on_fault: after a fault a person has to arm again.
    :raises UserError: naming every value that does not fit.
    """

    limits: Limits = field(default_factory=Limits)
    period_s: float = 0.05
    observation_max_age_s: float = 0.3
    proposal_timeout_s: float = 0.2
    health_timeout_s: float = STATUS_MAX_AGE_S
    stamp_tolerance_s: float = 0.1
    teleop_timeout_s: float = 0.3
    takeover_hold_s: float = 1.0
    after_takeover: AfterTakeover = AfterTakeover.STAY_STOPPED
    estop_timeout_s: float = 0.0
    zero_while_disarmed: bool = False
    max_tick_s: float = 0.1
    max_gap_s: float = 0.2
    disarm_on_fault: bool = True

    def __post_init__(self) -> None:
        problems = [
            f'{name} is {getattr(self, name)}, and must be a positive number of seconds'
            for name in (
                'period_s',
                'observation_max_age_s',
                'proposal_timeout_s',
                'health_timeout_s',
                'teleop_timeout_s',
                'takeover_hold_s',
                'max_tick_s',
                'max_gap_s',
            )
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0)
        ]
        problems += [
            f'{name} is {getattr(self, name)}, and must be zero or more seconds'
            for name in ('stamp_tolerance_s', 'estop_timeout_s')
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0)
        ]
        if self.takeover_hold_s < self.teleop_timeout_s:
            problems.append(
                f'takeover_hold_s is {self.takeover_hold_s}, and must not be shorter '
                f'than teleop_timeout_s, {self.teleop_timeout_s}'
            )
        if problems:
            raise UserError('invalid guard configuration: ' + '; '.join(problems))

    @property
    def settle_s(self) -> float:
        """How long a guard that was disarmed commands zero: a base stands well before."""
        return SETTLE_MARGIN_S + self.limits.top_speed_mps / self.limits.base_deceleration_mps2

    @property
    def reaction_s(self) -> float:
        """
        Longest time from the newest image, or the last teleop command, to the zero after it.

        A gap of ``max_gap_s`` between ticks is no fault yet. A camera clock that runs ahead makes
        an image seem younger by up to the tolerance.
        """
        return self.max_gap_s + max(
            self.observation_max_age_s + self.stamp_tolerance_s, self.teleop_timeout_s
        )
