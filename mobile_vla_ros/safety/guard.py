"""The state machine that decides, at every tick, what the wheels are told."""

from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.safety.config import GuardConfig
from mobile_vla_ros.safety.limits import limit_acceleration, limit_speed
from mobile_vla_ros.safety.status import Health, Level, State, StopReason
from mobile_vla_ros.types import NANOSECONDS

# What the operator reads of each reason that the guard finds by itself.
SENTENCES = {
    StopReason.ESTOP: 'the e-stop is pressed',
    StopReason.NOT_ARMED: 'not armed yet',
    StopReason.DISARMED: 'disarmed by a person',
    StopReason.NO_PROPOSAL: 'no proposal yet',
    StopReason.POLICY_SILENT: 'inference is silent',
    StopReason.PROPOSAL_NOT_FINITE: 'the proposal contains NaN or inf',
    StopReason.OBSERVATION_OLD: 'the observation is too old',
    StopReason.OBSERVATION_FUTURE: 'the stamp of the observation is in the future',
    StopReason.TELEOP_SILENT: 'teleop is silent',
    StopReason.TELEOP_NOT_FINITE: 'the teleop command contains NaN or inf',
}


@dataclass(frozen=True)
class Decision:
    """
    What to publish and why.

    :param twist: (6,) float64, finite and within the limits.
    :param source: ``policy``, ``teleop``, ``takeover`` (teleop while the policy was driving), or
        ``none`` when nobody drives.
    :param stop_reason: why the twist is zero; ``NONE`` in ordinary driving.
    :param sentence: the same for people; empty in ordinary driving.
    :param age_s: age of the observation (policy) or of the person's command; nan with neither.
    """

    twist: np.ndarray
    state: State
    source: str = 'none'
    stop_reason: StopReason = StopReason.NONE
    sentence: str = ''
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
        self._competing = ''
        self._why_disarmed = StopReason.NOT_ARMED, SENTENCES[StopReason.NOT_ARMED]
        self._proposal: tuple[np.ndarray, int, int] | None = None
        self._policy_health = Health.ok()
        self._health_ns: int | None = None  # of its newest report; None before the first
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
        Store what the policy proposes; ignored while its health is not OK.

        :param twist: (6,) any values, including NaN and inf.
        :param stamp_ns: when the image it comes from was taken, ROS clock.
        :param steady_ns: when it was received.
        """
        if self._policy_health.level == Level.OK:
            self._proposal = (np.array(twist, dtype=np.float64), stamp_ns, steady_ns)

    def policy_health(self, health: Health, steady_ns: int) -> bool:
        """
        Store the policy's report on itself; a change of level drops its earlier proposals.

        :param health: a hold ends by itself, as long as it is reported again and again.
        :returns: whether zero has to go out now rather than at the next tick.
        """
        before, self._policy_health = self._policy_health, health
        self._health_ns = steady_ns
        if health.level != Level.OK or before.level != Level.OK:
            self._proposal = None
        return health.level not in (Level.OK, before.level)

    def teleop(self, twist: np.ndarray, steady_ns: int):
        """Store a person's command, (6,), received at ``steady_ns``."""
        if not self._held(steady_ns):
            proposed = self._proposal is not None and (
                steady_ns - self._proposal[2] <= self._ns(self.config.observation_max_age_s)
            )
            self._teleop_source = 'takeover' if self._armed and proposed else 'teleop'
        self._teleop = (np.array(twist, dtype=np.float64), steady_ns)

    def estop(self, pressed: bool):
        """Set the e-stop's state; after its release the guard has to be armed again."""
        if pressed:
            self._disarm(StopReason.ESTOP, 'the e-stop was pressed')
        self._estop = bool(pressed)

    def competing_publisher(self, sentence: str):
        """Set who else commands the base; '' while nobody does."""
        self._competing = sentence

    def refusal(self) -> tuple[StopReason, str]:
        """Return why arming would be refused at this moment; ``NONE`` and '' when it would not."""
        if self._estop:
            return (
                StopReason.ESTOP,
                'Not armed: the e-stop is pressed. Release it and arm again.',
            )
        health = self._policy_health
        if (
            health.level == Level.FAULT
            and self.config.disarm_on_fault
            and not self._held(self._last_steady_ns or 0)
        ):
            return health.stop_reason, (
                f'Not armed: the policy reports a fault: {health.sentence}. Clear it, or arm '
                'while driving by hand.'
            )
        return StopReason.NONE, ''

    def arm(self) -> tuple[bool, str]:
        """
        Arm, and forget proposals of before; return whether it was done and a sentence.

        While the policy reports a fault this needs a person who drives already: without one it
        would last no longer than to the next tick. A policy that has gone is not missed again.
        """
        reason, sentence = self.refusal()
        if reason != StopReason.NONE:
            return False, sentence
        if not self._armed:
            self._armed = True
            self._proposal = None
            if self._gone(self._last_steady_ns or 0):
                self._health_ns = None
        return True, 'Armed.'

    def disarm(
        self, reason: StopReason = StopReason.DISARMED, sentence: str = ''
    ) -> tuple[bool, str]:
        """Disarm; always possible."""
        self._disarm(reason, sentence or _sentence(reason))
        return True, 'Disarmed.'

    def update(self, now_ns: int, steady_ns: int) -> Decision:
        """
        Decide the command of this tick.

        :param now_ns: ROS clock, at the moment of publishing.
        :param steady_ns: steady clock, at the same moment.
        """
        if self._estop:
            return self._stop(State.ESTOP, StopReason.ESTOP, steady_ns)
        if not self._armed:
            reason, sentence = self._why_disarmed
            return self._stop(State.DISARMED, reason, steady_ns, sentence)
        if self._competing:
            return self._fault(StopReason.COMPETING_PUBLISHER, steady_ns, self._competing)
        if self._held(steady_ns):
            return self._follow_teleop(steady_ns)
        health = self._policy_health
        if health.level == Level.FAULT:
            return self._fault(health.stop_reason, steady_ns, health.sentence)
        if health.level == Level.HOLD:
            return self._wait(health.stop_reason, steady_ns, health.sentence)
        if self._proposal is None:
            return self._wait(StopReason.NO_PROPOSAL, steady_ns)
        return self._follow_policy(now_ns, steady_ns)

    def _wait(self, reason: StopReason, steady_ns: int, sentence: str = '') -> Decision:
        if self._gone(steady_ns):
            return self._fault(StopReason.POLICY_SILENT, steady_ns)
        return self._stop(State.WAITING, reason, steady_ns, sentence)

    def _follow_policy(self, now_ns: int, steady_ns: int) -> Decision:
        twist, stamp_ns, received_ns = self._proposal
        age_s = max(now_ns - stamp_ns, steady_ns - received_ns) / NANOSECONDS
        if not np.isfinite(twist).all() or twist.shape != (6,):
            return self._fault(StopReason.PROPOSAL_NOT_FINITE, steady_ns, age_s=age_s)
        if steady_ns - received_ns > self._ns(self.config.proposal_timeout_s):
            return self._fault(StopReason.POLICY_SILENT, steady_ns, age_s=age_s)
        if now_ns - stamp_ns < -self._ns(self.config.stamp_tolerance_s):
            return self._fault(
                StopReason.OBSERVATION_FUTURE, steady_ns, age_s=(now_ns - stamp_ns) / NANOSECONDS
            )
        if age_s > self.config.observation_max_age_s:
            return self._fault(StopReason.OBSERVATION_OLD, steady_ns, age_s=age_s)
        return self._move(State.DRIVING, twist, 'policy', steady_ns, age_s)

    @staticmethod
    def _ns(seconds: float) -> int:
        return round(seconds * NANOSECONDS)

    def _gone(self, steady_ns: int) -> bool:
        """Whether a policy that spoke of itself has not done so for too long."""
        return self._health_ns is not None and (
            steady_ns - self._health_ns > self._ns(self.config.health_timeout_s)
        )

    def _held(self, steady_ns: int) -> bool:
        """Whether a person drives or has let go so lately that the policy stays out."""
        return self._teleop is not None and (
            steady_ns - self._teleop[1] <= self._ns(self.config.takeover_hold_s)
        )

    def _disarm(self, reason: StopReason, sentence: str):
        self._armed = False
        self._why_disarmed = reason, sentence

    def _follow_teleop(self, steady_ns: int) -> Decision:
        twist, received_ns = self._teleop
        age_s = (steady_ns - received_ns) / NANOSECONDS
        if age_s > self.config.teleop_timeout_s:
            return self._stop(
                State.TELEOP,
                StopReason.TELEOP_SILENT,
                steady_ns,
                source=self._teleop_source,
                age_s=age_s,
            )
        if not np.isfinite(twist).all() or twist.shape != (6,):
            return self._fault(StopReason.TELEOP_NOT_FINITE, steady_ns, age_s=age_s)
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
        return Decision(self._last.copy(), state, source, age_s=age_s)

    def _stop(
        self,
        state: State,
        reason: StopReason,
        steady_ns: int,
        sentence: str = '',
        *,
        source: str = 'none',
        age_s: float = float('nan'),
    ) -> Decision:
        self._last = np.zeros(6)
        self._last_steady_ns = steady_ns
        return Decision(np.zeros(6), state, source, reason, sentence or _sentence(reason), age_s)

    def _fault(
        self,
        reason: StopReason,
        steady_ns: int,
        sentence: str = '',
        *,
        age_s: float = float('nan'),
    ) -> Decision:
        sentence = sentence or _sentence(reason)
        if self.config.disarm_on_fault:
            self._disarm(reason, f'disarmed after a fault: {sentence}')
        return self._stop(State.FAULT, reason, steady_ns, sentence, age_s=age_s)


def _sentence(reason: StopReason) -> str:
    return SENTENCES.get(reason, reason.value)
