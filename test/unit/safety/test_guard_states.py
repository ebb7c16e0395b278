"""The guard's state machine: who may drive, and what makes it stop."""

import numpy as np
import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.safety.config import AfterTakeover, GuardConfig
from mobile_vla_ros.safety.guard import Guard
from mobile_vla_ros.safety.limits import Limits
from mobile_vla_ros.safety.status import Health, State, StopReason

MS = 1_000_000
TICK = 50 * MS
FORWARD = np.array([0.5, 0, 0, 0, 0, 0])
LEFT = np.array([0, 0.5, 0, 0, 0, 0])
# A base that reaches any speed within a tick, where a test is not about acceleration.
NIMBLE = Limits(max_acceleration=(1e3, 1e3, 1e3))
FROZEN = Health.fault(StopReason.CAMERA_FROZEN, 'the camera is frozen')
BLACK = Health.fault(StopReason.CAMERA_DARK, 'the camera is black')
ENCODING = Health.hold(StopReason.NEW_INSTRUCTION, 'encoding a new instruction')
NO_INSTRUCTION = Health.hold(StopReason.NO_INSTRUCTION, 'no instruction yet')
NO_IMAGE = Health.hold(StopReason.NO_IMAGE, 'no image yet')


class Bench:
    """A guard with two clocks set by hand; the ROS clock has an offset from the steady one."""

    def __init__(self, armed=True, **config):
        self.guard = Guard(GuardConfig(**{'limits': NIMBLE, **config}), armed=armed)
        self.now, self.steady = 1_000_000 * MS, 5 * MS
        self.guard.update(self.now, self.steady)

    def propose(self, twist=FORWARD, age_ms=50):
        """Give the guard a proposal from an image of ``age_ms`` ago."""
        self.guard.proposal(np.array(twist), self.now - age_ms * MS, self.steady)

    def teleop(self, twist=LEFT):
        """Give the guard a teleop command."""
        self.guard.teleop(np.array(twist), self.steady)

    def health(self, health):
        """Give the guard a health report; return whether it requests a tick at once."""
        return self.guard.policy_health(health, self.steady)

    def teleop_every(self, interval_ms, count, twist=LEFT):
        """Send commands at an interval; return the decisions of all ticks in between."""
        decisions = []
        for _ in range(count):
            self.teleop(twist)
            for _ in range(interval_ms // 50):
                self.propose()
                decisions.append(self.after())
        return decisions

    def drive_on(self, ms):
        """Let time pass with a proposal for each tick; return the last decision."""
        for _ in range(ms // 50):
            self.propose()
            decision = self.after()
        return decision

    def after(self, ms=50):
        """Let time pass, with a tick at least every 50 ms; return the last decision."""
        while ms > 50:
            self.jump(50)
            ms -= 50
        return self.jump(ms)

    def jump(self, ms):
        """Let time pass without a tick, and return the decision of the next one."""
        self.now += ms * MS
        self.steady += ms * MS
        return self.guard.update(self.now, self.steady)


def moves(decision) -> bool:
    """Whether a decision commands any motion."""
    return bool(decision.twist.any())


def test_a_fresh_finite_proposal_is_driven():
    """Armed, with a proposal from an image of 50 ms ago, the policy's twist is published."""
    bench = Bench()
    bench.propose()
    decision = bench.after()
    np.testing.assert_array_equal(decision.twist, FORWARD)
    assert (decision.state, decision.source) == (State.DRIVING, 'policy')
    assert decision.age_s == pytest.approx(0.1)


def test_a_guard_starts_disarmed_and_commands_zero():
    """Neither policy nor teleop moves a base before arming."""
    bench = Bench(armed=False)
    bench.propose()
    bench.teleop()
    decision = bench.after()
    assert decision.state == State.DISARMED
    assert not moves(decision)


def test_arming_drops_earlier_proposals():
    """A proposal from before must not move the base at the moment of arming."""
    bench = Bench(armed=False)
    bench.propose()
    assert bench.guard.arm()[0]
    assert bench.after().state == State.WAITING
    bench.propose()
    assert moves(bench.after())


def test_the_age_counts_at_the_moment_of_publishing():
    """An image of 200 ms is driven by at 250 ms and 300 ms, and not after that."""
    bench = Bench(disarm_on_fault=False)
    bench.propose(age_ms=200)
    assert moves(bench.after(50))
    assert moves(bench.after(50))
    decision = bench.after(1)
    assert decision.state == State.FAULT
    assert not moves(decision)


def test_a_slow_policy_with_honest_stamps_never_moves_the_base():
    """800 ms of inference under a limit of 300 ms gives no command other than zero."""
    bench = Bench(disarm_on_fault=False)
    for _ in range(40):
        bench.propose(age_ms=800)
        assert not moves(bench.after())


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
def test_nan_or_inf_stops_at_once(bad):
    """A value in an unused axis is enough: its sender is broken."""
    bench = Bench(limits=Limits())
    for _ in range(10):
        bench.propose()
        bench.after()
    bench.propose([0.5, 0, bad, 0, 0, 0])
    decision = bench.after()
    assert decision.state == State.FAULT
    assert not moves(decision)
    assert decision.stop_reason == StopReason.PROPOSAL_NOT_FINITE


def test_a_stopped_ros_clock_does_not_keep_a_proposal_fresh():
    """With /clock frozen, the time since receipt on the steady clock still counts."""
    bench = Bench()
    bench.propose()
    bench.steady += 301 * MS
    decision = bench.guard.update(bench.now, bench.steady)
    assert decision.state == State.FAULT


@pytest.mark.parametrize('step_s', [-10, 10])
def test_a_step_of_the_ros_clock_stops(step_s):
    """Ten seconds back puts the stamp in the future, ten forward make it old: both are zero."""
    bench = Bench()
    bench.propose()
    assert moves(bench.after())
    bench.now += step_s * 1000 * MS
    decision = bench.after()
    assert decision.state == State.FAULT
    assert not moves(decision)


def test_after_a_fault_a_person_has_to_arm_again():
    """The policy coming back to life does not set the base in motion by itself."""
    bench = Bench()
    bench.propose([float('nan')] * 6)
    assert bench.after().state == State.FAULT
    bench.propose()
    decision = bench.after()
    assert decision.state == State.DISARMED
    assert decision.stop_reason == StopReason.PROPOSAL_NOT_FINITE
    bench.guard.arm()
    bench.propose()
    assert bench.after().state == State.DRIVING


def test_a_silent_policy_is_a_fault_before_its_image_is_old():
    """A gap longer than proposal_timeout_s is a fault, whatever the stamps."""
    bench = Bench(proposal_timeout_s=0.1, observation_max_age_s=1.0)
    bench.propose(age_ms=0)
    assert moves(bench.after(100))
    decision = bench.after(1)
    assert (decision.state, decision.stop_reason) == (State.FAULT, StopReason.POLICY_SILENT)
    assert not bench.guard.armed


def test_a_fault_that_the_policy_reports_stops_and_disarms():
    """Its report takes precedence over fresh proposals."""
    bench = Bench()
    bench.propose()
    assert moves(bench.after())
    assert bench.health(FROZEN)
    bench.propose()
    decision = bench.after(0)
    assert (decision.state, decision.stop_reason, decision.sentence) == (
        State.FAULT,
        FROZEN.stop_reason,
        FROZEN.sentence,
    )
    assert not moves(decision)
    assert not bench.guard.armed
    bench.health(Health.ok())
    bench.propose()
    assert bench.after().state == State.DISARMED


def test_a_hold_stops_stays_armed_and_ends_by_itself():
    """Zero while a new instruction is encoded; then the new proposals are driven."""
    bench = Bench()
    bench.propose()
    assert moves(bench.after())
    assert bench.health(ENCODING)
    bench.propose()
    for _ in range(40):
        bench.health(ENCODING)
        decision = bench.after()
        assert (decision.state, decision.stop_reason, decision.sentence) == (
            State.WAITING,
            ENCODING.stop_reason,
            ENCODING.sentence,
        )
        assert not moves(decision)
    bench.health(Health.ok())
    assert bench.after().state == State.WAITING  # proposals from before the report are dropped
    bench.propose()
    assert moves(bench.after())


def test_a_policy_that_dies_during_a_hold_does_not_drive_when_it_restarts():
    """It reports its hold four times a second; a longer silence is a fault."""
    bench = Bench()
    bench.health(NO_INSTRUCTION)
    assert bench.after(1500).state == State.WAITING
    assert bench.after(1).stop_reason == StopReason.POLICY_SILENT
    assert not bench.guard.armed


def test_a_policy_that_dies_before_its_first_proposal_does_not_drive_when_it_restarts():
    """The person who armed may have gone to the robot to see why it does not move."""
    bench = Bench()
    bench.health(NO_IMAGE)
    bench.health(Health.ok())
    assert bench.after(1500).state == State.WAITING
    assert bench.after(1).stop_reason == StopReason.POLICY_SILENT
    bench.health(Health.ok())
    bench.propose()
    assert bench.after().state == State.DISARMED


def test_a_guard_can_be_armed_for_teleop_after_the_policy_died():
    """The silence is known then, and does not prevent driving by hand."""
    bench = Bench()
    bench.health(Health.ok())
    bench.after(2000)
    assert not bench.guard.armed
    assert bench.guard.arm()[0]
    assert bench.after(5000).state == State.WAITING
    bench.teleop()
    assert moves(bench.after())


def test_a_repeated_report_requests_no_tick():
    """The second report of a hold publishes no extra zero; a fault after it does."""
    bench = Bench()
    assert bench.health(NO_IMAGE)
    assert not bench.health(NO_IMAGE)
    assert bench.health(BLACK)


def test_a_person_can_drive_on_while_the_policy_reports_a_fault():
    """The camera dies in a takeover: the person drives on; releasing the keys disarms."""
    bench = Bench(takeover_hold_s=0.4)
    bench.propose()
    bench.after()
    bench.teleop()
    bench.health(FROZEN)
    decision = bench.after()
    assert (decision.source, moves(decision)) == ('takeover', True)
    assert bench.after(400).state == State.FAULT
    assert not bench.guard.armed


def test_arming_is_refused_while_the_policy_reports_a_fault_and_nobody_drives():
    """It would last one tick, and look as if it had worked."""
    bench = Bench(armed=False)
    bench.health(FROZEN)
    done, sentence = bench.guard.arm()
    assert not done
    assert 'the camera is frozen' in sentence
    bench.teleop()
    assert bench.guard.arm()[0]
    assert moves(bench.after())


def test_the_speed_is_limited_by_the_stopping_distance():
    """With a limit of 0.5 m, no command is faster than what stops within 0.5 m."""
    limits = Limits(
        max_acceleration=(1e3, 1e3, 1e3), stop_distance_m=0.5, base_deceleration_mps2=2.0
    )
    bench = Bench(limits=limits)
    bench.propose([1.0, 0, 0, 0, 0, 0])
    speed = bench.after().twist[0]
    assert 0 < speed < 1.0
    assert bench.guard.config.reaction_s == pytest.approx(0.3 + 0.1 + 0.2)
    assert 0.6 * speed + speed**2 / 4.0 == pytest.approx(0.5)


def test_the_arena_drives_on_after_a_fault():
    """With disarm_on_fault off, a good proposal after a bad one is driven."""
    bench = Bench(disarm_on_fault=False)
    bench.propose(age_ms=900)
    assert bench.after().state == State.FAULT
    bench.propose()
    assert bench.after().state == State.DRIVING


def test_the_estop_overrides_everything_until_the_guard_is_armed_again():
    """It also stops teleop, arming is refused while it is pressed, and a release does not arm."""
    bench = Bench(disarm_on_fault=False)
    bench.teleop()
    assert moves(bench.after())
    bench.guard.estop(True, bench.steady)
    bench.teleop()
    bench.propose()
    decision = bench.after()
    assert decision.state == State.ESTOP
    assert not moves(decision)
    done, sentence = bench.guard.arm()
    assert not done
    assert 'e-stop' in sentence
    bench.guard.estop(False, bench.steady)
    assert bench.after().state == State.DISARMED
    assert bench.guard.arm()[0]
    bench.teleop()
    assert moves(bench.after())


def test_a_press_of_the_estop_holds_however_late_it_seems():
    """Its sender's clock was set back by an hour between "not pressed" and the press."""
    bench = Bench()
    bench.guard.estop(False, bench.steady)
    bench.guard.estop(True, bench.steady - 3_600_000 * MS)
    assert bench.after().state == State.ESTOP
    assert not bench.guard.arm()[0]
    bench.guard.estop(False, bench.steady - 3_600_000 * MS)
    assert bench.after().state == State.DISARMED
    assert bench.guard.arm()[0]


def test_a_person_takes_over_and_the_policy_waits_for_the_hold():
    """Teleop wins at once; its silence means zero; the policy returns after takeover_hold_s."""
    bench = Bench(teleop_timeout_s=0.3, takeover_hold_s=1.0, after_takeover=AfterTakeover.RESUME)
    bench.propose()
    bench.after()
    bench.teleop()
    bench.after()
    bench.teleop()
    decisions = []
    for _ in range(24):
        bench.propose()
        decisions.append(bench.after())
    assert [d.source for d in decisions[:20]] == ['takeover'] * 20
    np.testing.assert_array_equal([d.twist for d in decisions[:6]], [LEFT] * 6)
    assert not any(moves(d) for d in decisions[6:20])
    assert [d.source for d in decisions[20:]] == ['policy'] * 4


def test_teleop_without_a_policy_is_called_teleop():
    """While episodes are recorded there is no policy to take over from."""
    bench = Bench()
    for _ in range(10):
        bench.teleop()
        assert bench.after().source == 'teleop'


def test_a_takeover_keeps_its_label_until_it_ends():
    """A policy that falls silent during a takeover does not relabel the teleop commands."""
    bench = Bench()
    bench.propose()
    bench.after()
    for _ in range(40):
        bench.teleop()
        assert bench.after().source == 'takeover'


def test_a_person_who_is_driving_at_arming_takes_nothing_over():
    """Their commands correct no policy, since none was driving."""
    bench = Bench(armed=False)
    bench.propose()
    bench.teleop()
    bench.after()
    bench.guard.arm()
    bench.teleop()
    assert bench.after().source == 'teleop'


def test_normal_driving_accelerates_and_brakes_within_the_limits():
    """At 2 m/s² a tick of 50 ms changes the speed by 0.1 m/s, also down to a commanded zero."""
    bench = Bench(limits=Limits(max_acceleration=(2.0, 2.0, 4.0)))
    speeds = []
    for wanted in [0.3] * 4 + [0.0] * 4:
        bench.propose([wanted, 0, 0, 0, 0, 0])
        speeds.append(bench.after().twist[0])
    np.testing.assert_allclose(speeds, [0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 0.0, 0.0], atol=1e-12)


def test_a_delayed_guard_does_not_catch_up():
    """After 150 ms without a tick the speed rises by no more than max_tick_s allows."""
    bench = Bench(limits=Limits(max_acceleration=(2.0, 2.0, 4.0)), max_tick_s=0.1)
    bench.propose([1.0, 0, 0, 0, 0, 0], age_ms=0)
    assert bench.jump(150).twist[0] == pytest.approx(0.2)


@pytest.mark.parametrize('who', ['policy', 'person'])
def test_a_stall_is_a_fault_and_what_came_before_is_forgotten(who):
    """A gap between ticks beyond 0.2 s disarms, whatever arrives at its end."""
    bench = Bench(limits=Limits(max_acceleration=(2.0, 2.0, 4.0)))
    for _ in range(20):
        bench.propose([1.0, 0, 0, 0, 0, 0]) if who == 'policy' else bench.teleop()
        assert moves(bench.after())
    bench.now += 3000 * MS
    bench.steady += 3000 * MS
    bench.propose([1.0, 0, 0, 0, 0, 0], age_ms=0)
    bench.teleop()
    decision = bench.jump(0)
    assert (decision.state, decision.stop_reason) == (State.FAULT, StopReason.STALLED)
    assert '3.0 s' in decision.sentence
    bench.propose()
    assert bench.after().state == State.DISARMED


def test_after_a_stall_the_arena_starts_from_standstill():
    """Where a fault does not disarm, the speed rises from zero within the limits."""
    bench = Bench(
        limits=Limits(max_acceleration=(2.0, 2.0, 4.0)),
        disarm_on_fault=False,
        after_takeover=AfterTakeover.RESUME,
    )
    for _ in range(20):
        bench.propose([1.0, 0, 0, 0, 0, 0])
        bench.after()
    assert not moves(bench.jump(3000))
    bench.propose([1.0, 0, 0, 0, 0, 0])
    assert bench.after().twist[0] == pytest.approx(0.1)


def test_a_teleop_command_that_arrives_late_moves_nothing():
    """It keeps the policy out, and is as old as when it was sent."""
    bench = Bench(teleop_timeout_s=0.3)
    bench.propose()
    assert moves(bench.after())
    bench.guard.teleop(LEFT, bench.steady, 280 * MS)
    bench.propose()
    assert bench.jump(10).source == 'takeover'
    decision = bench.after()
    assert (decision.state, decision.stop_reason) == (State.TELEOP, StopReason.TELEOP_SILENT)
    assert not moves(decision)


def test_a_person_who_sends_once_a_second_is_not_overridden_in_between():
    """The policy stays out for three times the longest interval, or takeover_hold_s."""
    bench = Bench(takeover_hold_s=1.0, after_takeover=AfterTakeover.RESUME)
    bench.propose()
    bench.after()
    decisions = bench.teleop_every(1050, 12)
    assert {decision.source for decision in decisions} == {'takeover'}
    decisions = bench.teleop_every(3500, 1)
    held = [decision.source == 'takeover' for decision in decisions]
    assert sum(held) == 3 * 1050 // 50
    assert held == sorted(held, reverse=True)


def test_a_pause_is_no_rhythm():
    """Two commands with more than three seconds between them do not lengthen the hold."""
    bench = Bench(takeover_hold_s=1.0, after_takeover=AfterTakeover.RESUME)
    bench.teleop_every(50, 3)
    bench.drive_on(3100)
    bench.teleop_every(50, 2)
    assert sum(d.source != 'policy' for d in bench.teleop_every(3500, 1)) == 20


@pytest.mark.parametrize('how', ['resume', 'arm'])
def test_after_a_takeover_the_robot_stands_until_the_person_hands_back(how):
    """By default; it stays armed, so that they can drive on, and resume lets the policy drive."""
    bench = Bench(takeover_hold_s=1.0)
    bench.propose()
    assert bench.after().source == 'policy'
    bench.teleop_every(50, 3)
    for _ in range(100):
        bench.propose()
        decision = bench.after()
        assert not moves(decision) or decision.source == 'takeover'
    assert (decision.state, decision.stop_reason) == (State.WAITING, StopReason.AWAITING_RESUME)
    assert bench.guard.armed
    bench.teleop()
    assert moves(bench.after())
    if how == 'arm':
        bench.guard.disarm()
        bench.after(1500)
        assert not bench.guard.resume()[0]
        assert bench.guard.arm()[0]
    else:
        assert not bench.guard.resume()[0]  # they drive
        bench.teleop(np.zeros(6))
        bench.drive_on(100)
        assert bench.guard.resume()[0]
        assert bench.drive_on(850).source == 'takeover'  # the hold goes on
        bench.drive_on(100)
    bench.propose()
    assert bench.after().source == 'policy'


def test_resume_without_a_takeover_changes_nothing():
    """The policy drives on without a jolt."""
    bench = Bench()
    bench.propose()
    bench.after()
    assert bench.guard.resume()[0]
    assert bench.after().source == 'policy'


def test_a_request_to_arm_from_before_a_stall_does_not_arm_after_it():
    """Whoever asked may have walked to the robot meanwhile."""
    bench = Bench(armed=False)
    bench.jump(10_000)
    done, sentence = bench.guard.arm()
    assert not done
    assert 'Ask again' in sentence
    bench.after(1050)
    assert bench.guard.arm()[0]


def test_a_person_who_disarms_gets_zeros_again():
    """Also where the guard was disarmed and silent: somebody else's command may move the base."""
    bench = Bench(armed=False)
    bench.after(3000)
    assert bench.after().silent
    bench.guard.disarm()
    assert not bench.after().silent


def test_a_silent_estop_disarms_where_it_has_to_send_continuously():
    """With estop_timeout_s; arming is refused before its first message and after its last one."""
    bench = Bench(armed=False, estop_timeout_s=0.5)
    assert bench.guard.refusal()[0] == StopReason.ESTOP_SILENT
    assert not bench.guard.arm()[0]
    bench.guard.estop(False, bench.steady)
    assert bench.guard.arm()[0]
    bench.teleop()
    assert moves(bench.after())
    for _ in range(9):
        bench.teleop()
        assert moves(bench.after())
    bench.teleop()
    decision = bench.after()
    assert (decision.state, decision.stop_reason) == (State.FAULT, StopReason.ESTOP_SILENT)
    assert bench.after().state == State.DISARMED
    assert not bench.guard.arm()[0]


def test_an_estop_without_a_timeout_may_be_silent():
    """Its last word counts."""
    bench = Bench(estop_timeout_s=0.0)
    bench.guard.estop(False, bench.steady)
    bench.after(60_000)
    bench.teleop()
    assert moves(bench.after())


@pytest.mark.parametrize('stream', [False, True])
def test_a_disarmed_guard_falls_silent_once_the_base_stands(stream):
    """At its start and after it was disarmed; never while the e-stop is pressed."""
    bench = Bench(armed=False, zero_while_disarmed=stream)
    settle_ms = round(bench.guard.config.settle_s * 1000)
    assert settle_ms == 2000  # 1 s, and what braking from 1 m/s at 1 m/s² takes

    def falls_silent() -> bool:
        silent = [bench.after().silent for _ in range(60)]
        assert silent == sorted(silent)
        assert silent.count(False) in ({60} if stream else {settle_ms // 50, settle_ms // 50 + 1})
        return silent[-1]

    assert falls_silent() != stream
    bench.guard.arm()
    bench.teleop()
    assert not bench.after().silent
    bench.guard.disarm()
    assert falls_silent() != stream
    bench.guard.estop(True, bench.steady)
    assert not any(bench.after().silent for _ in range(100))


def test_a_disarmed_guard_names_who_else_publishes():
    """In the sentence of its status."""
    bench = Bench(armed=False)
    bench.guard.graph_fault(StopReason.COMPETING_PUBLISHER, '/nav publishes /cmd_vel too')
    decision = bench.after()
    assert decision.stop_reason == StopReason.NOT_ARMED
    assert decision.sentence == 'not armed yet; /nav publishes /cmd_vel too'


def test_an_invalid_configuration_is_refused_with_every_problem():
    """One sentence names every wrong value."""
    with pytest.raises(UserError) as refusal:
        GuardConfig(
            observation_max_age_s=0.0,
            stamp_tolerance_s=-1.0,
            teleop_timeout_s=2.0,
            takeover_hold_s=1.0,
        )
    for name in ('observation_max_age_s', 'stamp_tolerance_s', 'takeover_hold_s'):
        assert name in str(refusal.value)


def test_a_graph_fault_stops_and_disarms():
    """Its commands would mix with the guard's: zero at once, with its name, until armed again."""
    bench = Bench()
    bench.teleop()
    assert moves(bench.after())
    bench.guard.graph_fault(StopReason.COMPETING_PUBLISHER, '/nav publishes /cmd_vel too')
    bench.teleop()
    decision = bench.after()
    assert (decision.state, decision.stop_reason) == (
        State.FAULT,
        StopReason.COMPETING_PUBLISHER,
    )
    assert not moves(decision)
    bench.guard.graph_fault(StopReason.NONE, '')
    bench.teleop()
    decision = bench.after()
    assert decision.state == State.DISARMED
    assert decision.stop_reason == StopReason.COMPETING_PUBLISHER
    assert '/nav' in decision.sentence
    bench.guard.arm()
    assert moves(bench.after())
