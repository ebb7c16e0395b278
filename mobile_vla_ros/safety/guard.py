"""The state machine that decides, at every tick, what is commanded to the base."""

from dataclasses import dataclass, replace

import numpy as np

from mobile_vla_ros.safety.config import GuardConfig
from mobile_vla_ros.safety.limits import limit_acceleration, limit_speed
from mobile_vla_ros.safety.person import Person, PersonCommand
from mobile_vla_ros.safety.status import Health, Level, State, StopReason
from mobile_vla_ros.types import NANOSECONDS

# What the operator reads for each reason that the guard itself finds.
SENTENCES = {
    StopReason.ESTOP: 'the e-stop is pressed',
    StopReason.NOT_ARMED: 'not armed yet',
    StopReason.DISARMED: 'disarmed by a person',
    StopReason.ESTOP_SILENT: 'the e-stop is silent',
    StopReason.NO_PROPOSAL: 'no proposal yet',
    StopReason.POLICY_SILENT: 'inference is silent',
    StopReason.PROPOSAL_NOT_FINITE: 'the proposal contains NaN or inf',
    StopReason.OBSERVATION_OLD: 'the observation is too old',
    StopReason.OBSERVATION_FUTURE: 'the stamp of the observation is in the future',
    StopReason.TELEOP_SILENT: 'teleop is silent',
    StopReason.TELEOP_NOT_FINITE: 'the teleop command contains NaN or inf',
    StopReason.AWAITING_RESUME: 'a person took over: hand back with resume',
}

# A request to arm that was queued while the guard stood still must not arm it afterwards.
STALL_REFUSED_S = 1.0


@dataclass(frozen=True)
class Decision:
    """
    The command of one tick and the reason for it.

    :param twist: (6,) float64, finite and within the limits.
    :param source: ``policy``, ``teleop``, ``takeover`` (teleop while the policy was driving), or
        ``none`` when nobody drives.
    :param stop_reason: why the twist is zero; ``NONE`` in normal driving.
    :param sentence: the same for people; empty in normal driving.
    :param age_s: age of the observation (policy) or of the teleop command; NaN with neither.
    :param silent: whether no command must be published: the guard is disarmed and the base stands.
    """

    twist: np.ndarray
    state: State
    source: str = 'none'
    stop_reason: StopReason = StopReason.NONE
    sentence: str = ''
    age_s: float = float('nan')
    silent: bool = False


@dataclass(frozen=True)
class _Proposal:
    twist: np.ndarray
    stamp_ns: int
    received_ns: int


@dataclass(frozen=True)
class _Disarmed:
    reason: StopReason
    sentence: str
    since_ns: int | None = None  # None before the first tick


@dataclass(frozen=True)
class _HealthReport:
    health: Health
    received_ns: int | None  # None before the first report, and when its absence is known


class Guard:
    """
    Stores inputs as they arrive and decides the command at every tick.

    Every involuntary stop is an immediate zero; commanded changes of speed obey the acceleration
    limits. Times are nanoseconds: ``now`` and stamps are on the ROS clock, which may stop or
    jump; ``steady`` never does.
    """

    def __init__(self, config: GuardConfig, armed: bool = False) -> None:
        self.config = config
        self.limits = config.limits.within_stop_distance(config.reaction_s)
        self._armed = armed
        self._estop = False
        self._estop_ns: int | None = None
        self._graph_fault: tuple[StopReason, str] = StopReason.NONE, ''
        self._disarmed = _Disarmed(StopReason.NOT_ARMED, SENTENCES[StopReason.NOT_ARMED])
        self._proposal: _Proposal | None = None
        self._report = _HealthReport(Health.ok(), None)
        self._person = Person(config)
        self._last_twist = np.zeros(6)
        self._last_steady_ns: int | None = None
        self._stalled_ns: int | None = None

    @property
    def armed(self) -> bool:
        """Whether the base may move at all."""
        return self._armed

    def proposal(self, twist: np.ndarray, stamp_ns: int, steady_ns: int) -> None:
        """
        Store a proposal of the policy; ignored while its health is not OK.

        :param twist: (6,) any values, including NaN and inf.
        :param stamp_ns: stamp of its image, ROS clock.
        :param steady_ns: time of receipt, less its lateness.
        """
        if self._report.health.level == Level.OK:
            self._proposal = _Proposal(np.array(twist, dtype=np.float64), stamp_ns, steady_ns)

    def policy_health(self, health: Health, steady_ns: int) -> bool:
        """
        Store the policy's health; a level other than OK, or a return to OK, drops its proposal.

        :param health: a hold lasts until the policy reports otherwise, or stops reporting.
        :returns: whether zero must be published now rather than at the next tick.
        """
        before, self._report = self._report.health, _HealthReport(health, steady_ns)
        if health.level != Level.OK or before.level != Level.OK:
            self._proposal = None
        return health.level not in (Level.OK, before.level)

    def teleop(self, twist: np.ndarray, steady_ns: int, late_ns: int = 0) -> None:
        """
        Store a teleop command.

        A late one keeps the policy out like any other, and moves the base only while it is young
        enough from when it was sent.

        :param twist: (6,) any values, including NaN and inf.
        :param steady_ns: time of receipt.
        :param late_ns: how much later than usual it arrived.
        """
        proposed = self._proposal is not None and (
            steady_ns - self._proposal.received_ns <= _ns(self.config.observation_max_age_s)
        )
        self._person.drive(twist, steady_ns, late_ns, armed=self._armed, proposed=proposed)

    def resume(self) -> tuple[bool, str]:
        """
        Hand back to the policy after a takeover; return whether it may drive, and a sentence.

        The hold of the person's last command goes on. Refused while the person drives.
        """
        if not self._armed:
            return False, 'Not resumed: the guard is not armed. Arm it instead.'
        now_ns = self._last_steady_ns or 0
        command = self._person.held(now_ns)
        if (
            command is not None
            and command.twist.any()
            and command.age_ns(now_ns) <= _ns(self.config.teleop_timeout_s)
        ):
            return False, 'Not resumed: a person is driving. Let go first.'
        if self._person.to_resume:
            self._person.to_resume = False
            self._proposal = None
        if command is not None:
            return True, 'Handed back: the policy drives when the hold of the takeover is over.'
        return True, 'Handed back to the policy.'

    def estop(self, pressed: bool, steady_ns: int) -> None:
        """
        Set the state of the e-stop; after its release the guard must be armed again.

        :param pressed: of a message that counts (``estop.EstopOrder``).
        :param steady_ns: time of receipt, less its lateness; for ``estop_timeout_s`` alone.
        """
        if pressed:
            self._disarm(StopReason.ESTOP, 'the e-stop was pressed')
        self._estop = bool(pressed)
        self._estop_ns = steady_ns if self._estop_ns is None else max(self._estop_ns, steady_ns)

    def graph_fault(self, reason: StopReason, sentence: str) -> None:
        """Set why the nodes around the guard forbid driving; ``NONE`` and '' while none does."""
        self._graph_fault = reason, sentence

    def refusal(self) -> tuple[StopReason, str]:
        """Return why arming would be refused now; ``NONE`` and '' when it would not."""
        if self._estop:
            return (
                StopReason.ESTOP,
                'Not armed: the e-stop is pressed. Release it and arm again.',
            )
        now_ns = self._last_steady_ns or 0
        if self._stalled_ns is not None and now_ns - self._stalled_ns < _ns(STALL_REFUSED_S):
            return (
                StopReason.STALLED,
                'Not armed: the guard stood still a moment ago, and this request may be from '
                'before. Ask again.',
            )
        if self._estop_silent(now_ns):
            return (
                StopReason.ESTOP_SILENT,
                f'Not armed: no message on estop for {self.config.estop_timeout_s:g} s. Start its '
                'node, or set estop_timeout_s to 0.0 if it does not send continuously.',
            )
        health = self._report.health
        if (
            health.level == Level.FAULT
            and self.config.disarm_on_fault
            and self._person.held(now_ns) is None
        ):
            return health.stop_reason, (
                f'Not armed: the policy reports a fault: {health.sentence}. Clear it, or arm '
                'while driving by hand.'
            )
        return StopReason.NONE, ''

    def arm(self) -> tuple[bool, str]:
        """
        Arm, and drop earlier proposals; return whether it is armed and a sentence.

        While the policy reports a fault, arming needs a person who is driving: without one it
        would last until the next tick. A policy that was already silent when armed does not
        fault again for it.
        """
        reason, sentence = self.refusal()
        if reason != StopReason.NONE:
            return False, sentence
        if not self._armed:
            self._armed = True
            self._person.to_resume = False
            self._proposal = None
            if self._policy_silent(self._last_steady_ns or 0):
                self._report = replace(self._report, received_ns=None)
        return True, 'Armed.'

    def disarm(
        self, reason: StopReason = StopReason.DISARMED, sentence: str = ''
    ) -> tuple[bool, str]:
        """Disarm; return True and a sentence."""
        self._disarm(reason, sentence or _sentence(reason))
        return True, 'Disarmed.'

    def update(self, now_ns: int, steady_ns: int) -> Decision:
        """
        Decide the command of this tick.

        :param now_ns: ROS clock, at the moment of publishing.
        :param steady_ns: steady clock, at the same moment.
        """
        gap_ns = 0 if self._last_steady_ns is None else steady_ns - self._last_steady_ns
        stalled = gap_ns > _ns(self.config.max_gap_s)
        if stalled:  # the proposal is from before the stall
            self._stalled_ns = steady_ns
            self._proposal = None
        if self._estop:
            return self._stop(State.ESTOP, StopReason.ESTOP, steady_ns)
        if not self._armed:
            return self._stay_disarmed(steady_ns)
        if stalled:
            return self._fault(
                StopReason.STALLED,
                steady_ns,
                f'the guard stood still for {gap_ns / NANOSECONDS:.1f} s',
            )
        if self._estop_silent(steady_ns):
            self._disarm(StopReason.ESTOP_SILENT, _sentence(StopReason.ESTOP_SILENT))
            return self._stop(State.FAULT, StopReason.ESTOP_SILENT, steady_ns)
        reason, sentence = self._graph_fault
        if reason != StopReason.NONE:
            return self._fault(reason, steady_ns, sentence)
        command = self._person.held(steady_ns)
        if command is not None:
            return self._follow_person(command, steady_ns)
        health = self._report.health
        if health.level == Level.FAULT:
            return self._fault(health.stop_reason, steady_ns, health.sentence)
        if health.level == Level.HOLD:
            return self._wait(health.stop_reason, steady_ns, health.sentence)
        if self._proposal is None:
            return self._wait(StopReason.NO_PROPOSAL, steady_ns)
        if self._person.to_resume:
            return self._wait(StopReason.AWAITING_RESUME, steady_ns)
        return self._follow_policy(self._proposal, now_ns, steady_ns)

    def _stay_disarmed(self, steady_ns: int) -> Decision:
        """Command zero until the base stands, then nothing: somebody else may drive it."""
        why, other = self._disarmed, self._graph_fault[1]
        if why.since_ns is None:
            why = self._disarmed = replace(why, since_ns=steady_ns)
        also = other and other not in why.sentence
        sentence = f'{why.sentence}; {other}' if also else why.sentence
        decision = self._stop(State.DISARMED, why.reason, steady_ns, sentence)
        settled = steady_ns - (why.since_ns or 0) > _ns(self.config.settle_s)
        return replace(decision, silent=settled and not self.config.zero_while_disarmed)

    def _estop_silent(self, steady_ns: int) -> bool:
        """Whether the e-stop has to send continuously and does not."""
        if self.config.estop_timeout_s == 0:
            return False
        return self._estop_ns is None or (
            steady_ns - self._estop_ns > _ns(self.config.estop_timeout_s)
        )

    def _wait(self, reason: StopReason, steady_ns: int, sentence: str = '') -> Decision:
        if self._policy_silent(steady_ns):
            return self._fault(StopReason.POLICY_SILENT, steady_ns)
        return self._stop(State.WAITING, reason, steady_ns, sentence)

    def _follow_policy(self, proposal: _Proposal, now_ns: int, steady_ns: int) -> Decision:
        image_ns, receipt_ns = now_ns - proposal.stamp_ns, steady_ns - proposal.received_ns
        age_s = max(image_ns, receipt_ns) / NANOSECONDS
        if not _is_twist(proposal.twist):
            return self._fault(StopReason.PROPOSAL_NOT_FINITE, steady_ns, age_s=age_s)
        if receipt_ns > _ns(self.config.proposal_timeout_s):
            return self._fault(StopReason.POLICY_SILENT, steady_ns, age_s=age_s)
        if image_ns < -_ns(self.config.stamp_tolerance_s):
            return self._fault(
                StopReason.OBSERVATION_FUTURE, steady_ns, age_s=image_ns / NANOSECONDS
            )
        if age_s > self.config.observation_max_age_s:
            return self._fault(StopReason.OBSERVATION_OLD, steady_ns, age_s=age_s)
        return self._move(State.DRIVING, proposal.twist, 'policy', steady_ns, age_s)

    def _policy_silent(self, steady_ns: int) -> bool:
        """Whether a policy that has reported its health has stopped doing so."""
        received_ns = self._report.received_ns
        return received_ns is not None and (
            steady_ns - received_ns > _ns(self.config.health_timeout_s)
        )

    def _disarm(self, reason: StopReason, sentence: str) -> None:
        self._armed = False
        self._disarmed = _Disarmed(reason, sentence)

    def _follow_person(self, command: PersonCommand, steady_ns: int) -> Decision:
        age_s = command.age_ns(steady_ns) / NANOSECONDS
        if age_s > self.config.teleop_timeout_s:
            return self._stop(
                State.TELEOP,
                StopReason.TELEOP_SILENT,
                steady_ns,
                source=command.source,
                age_s=age_s,
            )
        if not _is_twist(command.twist):
            return self._fault(StopReason.TELEOP_NOT_FINITE, steady_ns, age_s=age_s)
        return self._move(State.TELEOP, command.twist, command.source, steady_ns, age_s)

    def _move(
        self, state: State, twist: np.ndarray, source: str, steady_ns: int, age_s: float
    ) -> Decision:
        elapsed_s = 0.0
        if self._last_steady_ns is not None:
            elapsed_s = min(
                (steady_ns - self._last_steady_ns) / NANOSECONDS, self.config.max_tick_s
            )
        self._last_twist = limit_acceleration(
            limit_speed(twist, self.limits), self._last_twist, self.limits, max(elapsed_s, 0.0)
        )
        self._last_steady_ns = steady_ns
        return Decision(self._last_twist.copy(), state, source, age_s=age_s)

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
        self._last_twist = np.zeros(6)
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


def _ns(seconds: float) -> int:
    return round(seconds * NANOSECONDS)


def _is_twist(twist: np.ndarray) -> bool:
    return bool(np.isfinite(twist).all()) and twist.shape == (6,)


def _sentence(reason: StopReason) -> str:
    return SENTENCES.get(reason, reason.value)
