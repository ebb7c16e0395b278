"""The state machine that decides, at every tick, what the wheels are told."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from mobile_vla_ros.safety.config import GuardConfig
from mobile_vla_ros.safety.limits import limit_acceleration, limit_speed
from mobile_vla_ros.types import NANOSECONDS


class State(StrEnum):
    """What the guard is doing. Only ``TELEOP`` and ``DRIVING`` may move the base."""

    ESTOP = 'estop'
    DISARMED = 'disarmed'
    TELEOP = 'teleop'  # a person drives, or has just let go
    WAITING = 'waiting'  # armed; the policy proposes nothing yet, or holds
    FAULT = 'fault'  # what the policy sees, thinks or proposes must not be driven
    DRIVING = 'driving'  # the policy drives


@dataclass(frozen=True)
class Decision:
    """
    What to publish and why.

    :param twist: (6,) float64, finite and within the limits.
    :param source: ``policy``, ``teleop``, ``takeover`` (teleop while the policy was driving), or
        ``none`` when nobody drives.
    :param reason: why the twist is zero or who asked for the stop; empty in ordinary driving.
    :param age_s: age of the observation (policy) or of the person's command; nan with neither.
    """

    twist: np.ndarray
    state: State
    source: str = 'none'
    reason: str = ''
    age_s: float = float('nan')


class Guard:
    """
    Holds what was heard and decides at every tick.

    Every stop that is not wished for is zero at once; wished-for changes of speed obey the
    acceleration limits. Times: ``now`` and stamps are on the ROS clock, which may stop or jump;
    ``steady`` never does. Both in nanoseconds.
    """

    def __init__(self, config: GuardConfig, armed: bool = False):
        self.config = config
        self.limits = config.limits.to_stop_in(config.reaction_s)
        self._armed = armed
        self._estop = False
        self._rival = ''
        self._why_disarmed = 'not armed yet'
        self._proposal: tuple[np.ndarray, int, int] | None = None
        # The policy's own word that it proposes nothing: reason, and whether that is a fault.
        self._kept_by: tuple[str, bool] | None = None
        # When it last said anything of itself; None before that.
        self._word_ns: int | None = None
        self._teleop: tuple[np.ndarray, int] | None = None
        self._teleop_source = 'teleop'
        self._last = np.zeros(6)
        self._last_steady_ns: int | None = None

    @property
    def armed(self) -> bool:
        """Whether the base may move at all."""
        return self._armed

    def proposal(self, twist: np.ndarray, stamp_ns: int, steady_ns: int):
        """
        Take what the policy proposes; nothing is taken while it says itself that it must not.

        :param twist: (6,) anything, also numbers that are none.
        :param stamp_ns: when the image it comes from was taken, ROS clock.
        :param steady_ns: when it was received.
        """
        if self._kept_by is None:
            self._proposal = (np.array(twist, dtype=np.float64), stamp_ns, steady_ns)

    def hold(self, reason: str, fault: bool, steady_ns: int) -> bool:
        """
        Take the policy's word that it proposes nothing; its proposals of before are forgotten.

        :param reason: in words.
        :param fault: what it sees or thinks must not be driven; otherwise it waits for something
            and goes on by itself, as long as it says so again and again.
        :returns: whether that is news, so that zero has to go out now and not at the next tick.
        """
        said, self._kept_by = self._kept_by, (reason, bool(fault))
        self._word_ns, self._proposal = steady_ns, None
        return said is None or said[1] != self._kept_by[1]

    def proposing(self, steady_ns: int):
        """Take the policy's word that all is well with it; what came before that is forgotten."""
        self._word_ns = steady_ns
        if self._kept_by is not None:
            self._kept_by = self._proposal = None

    def teleop(self, twist: np.ndarray, steady_ns: int):
        """Take a person's command, (6,), received at ``steady_ns``."""
        if not self._held(steady_ns):
            proposed = self._proposal is not None and (
                steady_ns - self._proposal[2] <= self._ns(self.config.observation_max_age_s)
            )
            self._teleop_source = 'takeover' if self._armed and proposed else 'teleop'
        self._teleop = (np.array(twist, dtype=np.float64), steady_ns)

    def estop(self, pressed: bool):
        """Take the e-stop's state; when it is let go the guard has to be armed again."""
        if pressed:
            self._disarm('e-stop was pressed')
        self._estop = bool(pressed)

    def rival(self, reason: str):
        """Take who else commands the base, in words; '' while nobody does."""
        self._rival = reason

    def why_not_armed(self) -> str:
        """Return why arming would be refused at this moment, '' when it would not."""
        if self._estop:
            return 'Not armed: the e-stop is pressed. Release it and arm again.'
        if (
            self._kept_by is not None
            and self._kept_by[1]
            and self.config.disarm_on_fault
            and not self._held(self._last_steady_ns or 0)
        ):
            return (
                f'Not armed: the policy reports a fault: {self._kept_by[0]}. Mend it, or arm '
                'while driving by hand.'
            )
        return ''

    def arm(self) -> tuple[bool, str]:
        """
        Arm, and forget proposals of before; return whether it was done and a sentence.

        While the policy reports a fault this needs a person who drives already: without one it
        would last no longer than to the next tick. A policy that has gone is not missed again.
        """
        why_not = self.why_not_armed()
        if why_not:
            return False, why_not
        if not self._armed:
            self._armed = True
            self._proposal = None
            if self._gone(self._last_steady_ns or 0):
                self._word_ns = None
        return True, 'Armed.'

    def disarm(self, why: str = 'disarmed by a person') -> tuple[bool, str]:
        """Disarm; always possible."""
        self._disarm(why)
        return True, 'Disarmed.'

    def update(self, now_ns: int, steady_ns: int) -> Decision:
        """
        Decide what the base is told at this tick.

        :param now_ns: ROS clock, at the moment of publishing.
        :param steady_ns: steady clock, at the same moment.
        """
        if self._estop:
            return self._stop(State.ESTOP, 'e-stop is pressed', steady_ns)
        if not self._armed:
            return self._stop(State.DISARMED, self._why_disarmed, steady_ns)
        if self._rival:
            return self._fault(self._rival, steady_ns, float('nan'))
        if self._held(steady_ns):
            return self._follow_teleop(steady_ns)
        if self._kept_by is not None:
            reason, fault = self._kept_by
            if fault:
                return self._fault(reason, steady_ns, float('nan'))
            return self._wait(reason, steady_ns)
        if self._proposal is None:
            return self._wait('no proposal yet', steady_ns)
        return self._follow_policy(now_ns, steady_ns)

    def _wait(self, reason: str, steady_ns: int) -> Decision:
        if self._gone(steady_ns):
            return self._fault('inference is silent', steady_ns, float('nan'))
        return self._stop(State.WAITING, reason, steady_ns)

    def _follow_policy(self, now_ns: int, steady_ns: int) -> Decision:
        twist, stamp_ns, received_ns = self._proposal
        age_s = max(now_ns - stamp_ns, steady_ns - received_ns) / NANOSECONDS
        if not np.isfinite(twist).all() or twist.shape != (6,):
            return self._fault('proposal is not finite', steady_ns, age_s)
        if steady_ns - received_ns > self._ns(self.config.proposal_timeout_s):
            return self._fault('inference is silent', steady_ns, age_s)
        if now_ns - stamp_ns < -self._ns(self.config.stamp_tolerance_s):
            return self._fault(
                'stamp of the observation lies in the future',
                steady_ns,
                (now_ns - stamp_ns) / NANOSECONDS,
            )
        if age_s > self.config.observation_max_age_s:
            return self._fault('observation is too old', steady_ns, age_s)
        return self._move(State.DRIVING, twist, 'policy', steady_ns, age_s)

    @staticmethod
    def _ns(seconds: float) -> int:
        return round(seconds * NANOSECONDS)

    def _gone(self, steady_ns: int) -> bool:
        """Whether a policy that spoke of itself has not done so for too long."""
        return self._word_ns is not None and (
            steady_ns - self._word_ns > self._ns(self.config.health_timeout_s)
        )

    def _held(self, steady_ns: int) -> bool:
        """Whether a person drives or has let go so lately that the policy stays out."""
        return self._teleop is not None and (
            steady_ns - self._teleop[1] <= self._ns(self.config.takeover_hold_s)
        )

    def _disarm(self, why: str):
        self._armed = False
        self._why_disarmed = why

    def _follow_teleop(self, steady_ns: int) -> Decision:
        twist, received_ns = self._teleop
        age_s = (steady_ns - received_ns) / NANOSECONDS
        if age_s > self.config.teleop_timeout_s:
            return self._stop(
                State.TELEOP, 'teleop is silent', steady_ns, self._teleop_source, age_s
            )
        if not np.isfinite(twist).all() or twist.shape != (6,):
            return self._fault('teleop command is not finite', steady_ns, age_s)
        return self._move(State.TELEOP, twist, self._teleop_source, steady_ns, age_s)

    def _move(
        self, state: State, twist: np.ndarray, source: str, steady_ns: int, age_s: float
    ) -> Decision:
        elapsed_s = 0.0
        if self._last_steady_ns is not None:
            elapsed_s = min(
                (steady_ns - self._last_steady_ns) / NANOSECONDS, self.config.longest_tick_s
            )
        self._last = limit_acceleration(
            limit_speed(twist, self.limits), self._last, self.limits, max(elapsed_s, 0.0)
        )
        self._last_steady_ns = steady_ns
        return Decision(self._last.copy(), state, source, '', age_s)

    def _stop(
        self,
        state: State,
        reason: str,
        steady_ns: int,
        source: str = 'none',
        age_s: float = float('nan'),
    ) -> Decision:
        self._last = np.zeros(6)
        self._last_steady_ns = steady_ns
        return Decision(np.zeros(6), state, source, reason, age_s)

    def _fault(self, reason: str, steady_ns: int, age_s: float) -> Decision:
        if self.config.disarm_on_fault:
            self._disarm(f'disarmed after a fault: {reason}')
        return self._stop(State.FAULT, reason, steady_ns, age_s=age_s)
