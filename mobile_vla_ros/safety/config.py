"""What the guard holds to: its time limits, beside those of the base."""

from dataclasses import dataclass, field

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.safety.limits import Limits
from mobile_vla_ros.safety.status import STATUS_MAX_AGE_S


@dataclass(frozen=True)
class GuardConfig:
    """
    What the guard holds to.

    :param limits: speed and acceleration, and the distance to stop in.
    :param period_s: between two ticks.
    :param observation_max_age_s: oldest image that a command may come from.
    :param proposal_timeout_s: proposals that were coming are missed after so long.
    :param health_timeout_s: a policy that proposes nothing, though it has spoken of itself, is
        missed after so long without a word of it.
    :param stamp_tolerance_s: how far a stamp may lie in the future (clocks of two machines).
    :param teleop_timeout_s: a person's command is zero when it is older.
    :param takeover_hold_s: how long after a person's last command the policy stays out.
    :param longest_tick_s: the acceleration limit counts no more than this between two ticks, so
        that a guard which was held up does not make up for it with a jerk.
    :param disarm_on_fault: a fault needs a person to arm again.
    :raises UserError: naming everything that does not fit.
    """

    limits: Limits = field(default_factory=Limits)
    period_s: float = 0.05
    observation_max_age_s: float = 0.3
    proposal_timeout_s: float = 0.2
    health_timeout_s: float = STATUS_MAX_AGE_S
    stamp_tolerance_s: float = 0.1
    teleop_timeout_s: float = 0.3
    takeover_hold_s: float = 1.0
    longest_tick_s: float = 0.1
    disarm_on_fault: bool = True

    def __post_init__(self):
        wrong = [
            f'{name} is {getattr(self, name)}, and must be a positive number of seconds'
            for name in (
                'period_s',
                'observation_max_age_s',
                'proposal_timeout_s',
                'health_timeout_s',
                'teleop_timeout_s',
                'takeover_hold_s',
                'longest_tick_s',
            )
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0)
        ]
        if not (np.isfinite(self.stamp_tolerance_s) and self.stamp_tolerance_s >= 0):
            wrong.append(
                f'stamp_tolerance_s is {self.stamp_tolerance_s}, and must be zero or more seconds'
            )
        if self.takeover_hold_s < self.teleop_timeout_s:
            wrong.append(
                f'takeover_hold_s is {self.takeover_hold_s}, and must not be shorter '
                f'than teleop_timeout_s, {self.teleop_timeout_s}'
            )
        if wrong:
            raise UserError('a guard that cannot be: ' + '; '.join(wrong))

    @property
    def reaction_s(self) -> float:
        """
        Longest time from the newest picture, or a person's last command, to the zero after it.

        A camera's clock that runs ahead makes a picture look younger by up to the tolerance.
        """
        return self.period_s + max(
            self.observation_max_age_s + self.stamp_tolerance_s, self.teleop_timeout_s
        )
