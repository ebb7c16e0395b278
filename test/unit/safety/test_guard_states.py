"""The guard's state machine: who may drive, and what makes it stop."""

import numpy as np
import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.safety.config import GuardConfig
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
    """A guard with its two clocks, moved by hand; the ROS clock starts elsewhere than steady."""

    def __init__(self, armed=True, **config):
        self.guard = Guard(GuardConfig(**{'limits': NIMBLE, **config}), armed=armed)
        self.now, self.steady = 1_000_000 * MS, 5 * MS
        self.guard.update(self.now, self.steady)

    def propose(self, twist=FORWARD, age_ms=50):
        """Give the guard a proposal from an image of ``age_ms`` ago."""
        self.guard.proposal(np.array(twist), self.now - age_ms * MS, self.steady)

    def teleop(self, twist=LEFT):
        """Give the guard a person's command."""
        self.guard.teleop(np.array(twist), self.steady)

    def health(self, health):
        """Give the guard the policy's report; return whether it wants a tick at once."""
        return self.guard.policy_health(health, self.steady)

    def after(self, ms=50):
        """Let time pass and return the guard's decision."""
        self.now += ms * MS
        self.steady += ms * MS
        return self.guard.update(self.now, self.steady)


def moves(decision) -> bool:
    """Whether a decision asks the wheels for anything."""
    return bool(decision.twist.any())


def test_a_fresh_finite_proposal_is_driven():
    """Armed, with a proposal from an image of 50 ms ago, the policy's twist is published."""
    bench = Bench()
    bench.propose()
    decision = bench.after()
    np.testing.assert_array_equal(decision.twist, FORWARD)
    assert (decision.state, decision.source) == (State.DRIVING, 'policy')
    assert decision.age_s == pytest.approx(0.1)


def test_a_guard_starts_disarmed_and_stays_still():
    """Neither policy nor teleop moves a base that nobody has armed."""
    bench = Bench(armed=False)
    bench.propose()
    bench.teleop()
    decision = bench.after()
    assert decision.state == State.DISARMED
    assert not moves(decision)


def test_arming_forgets_what_was_proposed_before():
    """A proposal from before the arming must not move the base at the moment of arming."""
    bench = Bench(armed=False)
    bench.propose()
    assert bench.guard.arm()[0]
    assert bench.after().state == State.WAITING
    bench.propose()
    assert moves(bench.after())


def test_the_age_counts_at_the_moment_of_publishing():
    """An image of 200 ms is driven at 250 ms and 300 ms, and no more after that."""
    bench = Bench(disarm_on_fault=False)
    bench.propose(age_ms=200)
    assert moves(bench.after(50))
    assert moves(bench.after(50))
    decision = bench.after(1)
    assert decision.state == State.FAULT
    assert not moves(decision)


def test_a_slow_model_that_stamps_honestly_never_moves_the_base():
    """800 ms of inference under a limit of 300 ms gives no command other than zero."""
    bench = Bench(disarm_on_fault=False)
    for _ in range(40):
        bench.propose(age_ms=800)
        assert not moves(bench.after())


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
def test_a_number_that_is_none_stops_at_once(bad):
    """NaN in one unused axis is enough: whoever sends it is broken."""
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


def test_a_policy_that_falls_silent_is_a_fault_before_its_picture_is_old():
    """Proposals that were coming are missed after proposal_timeout_s, whatever their stamps."""
    bench = Bench(proposal_timeout_s=0.1, observation_max_age_s=1.0)
    bench.propose(age_ms=0)
    assert moves(bench.after(100))
    decision = bench.after(1)
    assert (decision.state, decision.stop_reason) == (State.FAULT, StopReason.POLICY_SILENT)
    assert not bench.guard.armed


def test_a_fault_of_the_policys_own_word_stops_and_disarms():
    """What it says of itself counts more than proposals that are fresh."""
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


def test_a_hold_stops_stays_armed_and_goes_on_by_itself():
    """A new instruction is looked at: zero meanwhile, and then the new proposals are driven."""
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
    assert bench.after().state == State.WAITING  # what came before the word is forgotten
    bench.propose()
    assert moves(bench.after())


def test_a_policy_that_dies_while_it_holds_does_not_drive_on_when_it_is_back():
    """Holding, it says so twice a second; silent for longer than that is a fault like any."""
    bench = Bench()
    bench.health(NO_INSTRUCTION)
    assert bench.after(1500).state == State.WAITING
    assert bench.after(1).stop_reason == StopReason.POLICY_SILENT
    assert not bench.guard.armed


def test_a_policy_that_dies_before_its_first_proposal_does_not_drive_when_it_is_back():
    """All was well with it, and then no word of it: whoever armed may have gone to see why."""
    bench = Bench()
    bench.health(NO_IMAGE)
    bench.health(Health.ok())
    assert bench.after(1500).state == State.WAITING
    assert bench.after(1).stop_reason == StopReason.POLICY_SILENT
    bench.health(Health.ok())
    bench.propose()
    assert bench.after().state == State.DISARMED


def test_a_guard_may_be_armed_for_a_person_after_the_policy_has_gone():
    """Its silence is known then, and keeps nobody from driving by hand."""
    bench = Bench()
    bench.health(Health.ok())
    bench.after(2000)
    assert not bench.guard.armed
    assert bench.guard.arm()[0]
    assert bench.after(5000).state == State.WAITING
    bench.teleop()
    assert moves(bench.after())


def test_the_same_word_again_is_no_news():
    """A hold said twice makes no second zero beside those of the ticks; a fault after it does."""
    bench = Bench()
    assert bench.health(NO_IMAGE)
    assert not bench.health(NO_IMAGE)
    assert bench.health(BLACK)


def test_a_person_drives_on_while_the_policy_reports_a_fault():
    """The camera dies in a takeover: the person goes on, and letting go disarms."""
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
    """It would last no longer than a tick, and look as if it had worked."""
    bench = Bench(armed=False)
    bench.health(FROZEN)
    done, sentence = bench.guard.arm()
    assert not done
    assert 'the camera is frozen' in sentence
    bench.teleop()
    assert bench.guard.arm()[0]
    assert moves(bench.after())


def test_the_speed_is_bounded_by_the_distance_to_stop_in():
    """With 0.5 m to stand in, the base is told no more than what stops in 0.5 m."""
    limits = Limits(
        max_acceleration=(1e3, 1e3, 1e3), stop_distance_m=0.5, base_deceleration_mps2=2.0
    )
    bench = Bench(limits=limits)
    bench.propose([1.0, 0, 0, 0, 0, 0])
    speed = bench.after().twist[0]
    assert 0 < speed < 1.0
    assert bench.guard.config.reaction_s == pytest.approx(0.3 + 0.1 + 0.05)
    assert 0.45 * speed + speed**2 / 4.0 == pytest.approx(0.5)


def test_in_the_arena_driving_goes_on_after_a_fault():
    """With disarm_on_fault off, a good proposal after a bad one is driven."""
    bench = Bench(disarm_on_fault=False)
    bench.propose(age_ms=900)
    assert bench.after().state == State.FAULT
    bench.propose()
    assert bench.after().state == State.DRIVING


def test_the_estop_beats_everything_and_has_to_be_armed_away():
    """Pressed, it stops a person too, arming is refused, and letting go does not arm."""
    bench = Bench(disarm_on_fault=False)
    bench.teleop()
    assert moves(bench.after())
    bench.guard.estop(True)
    bench.teleop()
    bench.propose()
    decision = bench.after()
    assert decision.state == State.ESTOP
    assert not moves(decision)
    done, sentence = bench.guard.arm()
    assert not done
    assert 'e-stop' in sentence
    bench.guard.estop(False)
    assert bench.after().state == State.DISARMED
    assert bench.guard.arm()[0]
    bench.teleop()
    assert moves(bench.after())


def test_a_person_takes_over_and_the_policy_waits_for_the_hold():
    """Teleop wins at once; its silence is zero, not the policy; the policy returns after it."""
    bench = Bench(teleop_timeout_s=0.3, takeover_hold_s=1.0)
    bench.propose()
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
    """While takes are recorded there is no policy, and nothing is taken over."""
    bench = Bench()
    for _ in range(10):
        bench.teleop()
        assert bench.after().source == 'teleop'


def test_a_takeover_is_called_so_for_as_long_as_it_lasts():
    """The policy falling silent in mid-takeover does not relabel the person's commands."""
    bench = Bench()
    bench.propose()
    bench.after()
    for _ in range(40):
        bench.teleop()
        assert bench.after().source == 'takeover'


def test_a_person_who_drives_already_takes_nothing_over():
    """Someone at the keys when the guard is armed corrects no policy: it was not driving."""
    bench = Bench(armed=False)
    bench.propose()
    bench.teleop()
    bench.after()
    bench.guard.arm()
    bench.teleop()
    assert bench.after().source == 'teleop'


def test_ordinary_driving_speeds_up_and_slows_down_within_the_limits():
    """At 2 m/s² a tick of 50 ms changes the speed by 0.1 m/s, down to a wished-for zero too."""
    bench = Bench(limits=Limits(max_acceleration=(2.0, 2.0, 4.0)))
    speeds = []
    for wanted in [0.3] * 4 + [0.0] * 4:
        bench.propose([wanted, 0, 0, 0, 0, 0])
        speeds.append(bench.after().twist[0])
    np.testing.assert_allclose(speeds, [0.1, 0.2, 0.3, 0.3, 0.2, 0.1, 0.0, 0.0], atol=1e-12)


def test_a_guard_that_was_held_up_does_not_make_up_for_it():
    """Two seconds without a tick (a starved machine) give no more than max_tick_s of speed."""
    bench = Bench(limits=Limits(max_acceleration=(2.0, 2.0, 4.0)), max_tick_s=0.1)
    bench.after(2000)
    bench.steady += 2000 * MS
    bench.now += 2000 * MS
    bench.propose([1.0, 0, 0, 0, 0, 0])
    assert bench.guard.update(bench.now, bench.steady).twist[0] == pytest.approx(0.2)


def test_a_configuration_that_cannot_be_is_refused_all_at_once():
    """Every wrong value is named in the one sentence."""
    with pytest.raises(UserError) as refusal:
        GuardConfig(
            observation_max_age_s=0.0,
            stamp_tolerance_s=-1.0,
            teleop_timeout_s=2.0,
            takeover_hold_s=1.0,
        )
    for name in ('observation_max_age_s', 'stamp_tolerance_s', 'takeover_hold_s'):
        assert name in str(refusal.value)


def test_a_rival_on_the_commands_stops_and_disarms_whoever_drives():
    """Its commands would mix with ours; zero at once, named, until somebody arms again."""
    bench = Bench()
    bench.teleop()
    assert moves(bench.after())
    bench.guard.competing_publisher('/nav publishes /cmd_vel too')
    bench.teleop()
    decision = bench.after()
    assert (decision.state, decision.stop_reason) == (
        State.FAULT,
        StopReason.COMPETING_PUBLISHER,
    )
    assert not moves(decision)
    bench.guard.competing_publisher('')
    bench.teleop()
    decision = bench.after()
    assert decision.state == State.DISARMED
    assert decision.stop_reason == StopReason.COMPETING_PUBLISHER
    assert '/nav' in decision.sentence
    bench.guard.arm()
    assert moves(bench.after())
