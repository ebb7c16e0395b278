"""What the guard lets through, for random inputs in random order."""

import math

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mobile_vla_ros.safety.config import AfterTakeover, GuardConfig
from mobile_vla_ros.safety.guard import Guard
from mobile_vla_ros.safety.limits import Limits
from mobile_vla_ros.safety.status import Health, Level, State, StopReason

MS = 1_000_000
LIMITS = Limits(
    max_velocity=(0.6, 0.4, 0.8), max_planar_speed_mps=0.65, max_acceleration=(1.0, 1.5, 2.0)
)
AGE_MS, SILENT_MS, FUTURE_MS, TELEOP_MS, HOLD_MS, MAX_TICK_MS = 300, 200, 100, 300, 600, 100
GAP_MS = 250
PLANAR = [0, 1, 5]
HOLD = Health.hold(StopReason.NO_IMAGE, 'a reason')
FAULT = Health.fault(StopReason.CAMERA_FROZEN, 'a reason')

number = st.floats(-3, 3) | st.sampled_from([math.nan, math.inf, -math.inf, 1.7e308, 5e-324, 0.0])
wild = st.lists(number, min_size=6, max_size=6)
tame = st.lists(st.floats(-0.5, 0.5), min_size=6, max_size=6)
milliseconds = st.sampled_from([0, 1, 20, 50, 50, 50, 110, 210, 310, 900]) | st.integers(0, 3000)
good = st.one_of(  # inputs of a normal drive, which make the base move
    st.tuples(st.just('propose'), tame, st.sampled_from([0, 100, 280])),
    st.tuples(st.just('teleop'), tame),
    st.tuples(st.just('arm')),
    st.tuples(st.just('wait')),
)
bad = st.one_of(
    st.tuples(st.just('propose'), wild | tame, st.integers(-400, 1000)),
    st.tuples(st.just('teleop'), wild),
    st.tuples(st.just('estop'), st.booleans()),
    st.tuples(st.just('disarm')),
    st.tuples(
        st.just('graph_fault'),
        st.sampled_from([(StopReason.NONE, ''), (StopReason.COMPETING_PUBLISHER, '/nav')]),
    ),
    st.tuples(st.just('late_teleop'), tame, st.integers(0, 3000)),
    st.tuples(st.just('resume')),
    st.tuples(st.just('policy_health'), st.sampled_from([Health.ok(), HOLD, FAULT])),
    st.tuples(st.just('step'), st.integers(-10_000, 10_000)),
)
event = st.one_of(good, good, good, bad)
FORWARD = ('propose', [0.5, 0, 0, 0, 0, 0], 0)
TAKEOVER = ('teleop', [0, 0.5, 0, 0, 0, 0])
history = st.lists(st.tuples(event, milliseconds), max_size=40)


class Witness:
    """Stores the guard's inputs in the simplest way, and checks each decision against them."""

    def __init__(self, latch: bool, armed: bool, stays: bool = False):
        self.guard = Guard(
            GuardConfig(
                limits=LIMITS,
                observation_max_age_s=AGE_MS / 1e3,
                proposal_timeout_s=SILENT_MS / 1e3,
                stamp_tolerance_s=FUTURE_MS / 1e3,
                teleop_timeout_s=TELEOP_MS / 1e3,
                takeover_hold_s=HOLD_MS / 1e3,
                max_tick_s=MAX_TICK_MS / 1e3,
                max_gap_s=GAP_MS / 1e3,
                after_takeover=AfterTakeover.STAY_STOPPED if stays else AfterTakeover.RESUME,
                disarm_on_fault=latch,
            ),
            armed=armed,
        )
        self.now, self.steady = 1_000_000, 5  # milliseconds
        self.proposal = self.teleop = self.hold_or_fault = None
        self.pressed, self.rival = False, ''
        self.stays, self.taken_over = stays, False
        self.previous, self.ticked = np.zeros(6), None

    def give(self, name, *values):
        """Give the guard an input."""
        if name == 'propose':
            twist, age = np.array(values[0]), values[1]
            if self.hold_or_fault is None:
                self.proposal = (twist, self.now - age, self.steady)
            self.guard.proposal(twist, (self.now - age) * MS, self.steady * MS)
        elif name in ('teleop', 'late_teleop'):
            late = values[1] if name == 'late_teleop' else 0
            self.teleop = (np.array(values[0]), self.steady, self.steady - late)
            self.taken_over |= self.guard.armed
            self.guard.teleop(np.array(values[0]), self.steady * MS, late * MS)
        elif name == 'step':
            self.now += values[0]
        elif name != 'wait':
            if name == 'estop':
                self.pressed = values[0]
                values += (self.steady * MS,)
            elif name == 'graph_fault':
                values = values[0]
                self.rival = values[1]
            elif name == 'resume' and self.guard.armed:
                driving = self.teleop is not None and self.teleop[0].any()
                if not (driving and self.steady - self.teleop[2] <= TELEOP_MS):
                    self.proposal = None if self.taken_over and self.stays else self.proposal
                    self.taken_over = False
            elif name == 'arm' and not self.guard.armed:
                self.taken_over = False
            elif name == 'policy_health':
                self.hold_or_fault = None if values[0].level == Level.OK else values[0]
                values += (self.steady * MS,)
            getattr(self.guard, name)(*values)

    def tick(self, after: int):
        """Let time pass, and check the guard's decision."""
        self.now += after
        self.steady += after
        armed = self.guard.armed
        decision = self.guard.update(self.now * MS, self.steady * MS)
        self.bounded(decision)
        self.allowed(decision, armed)
        self.smooth(decision)
        self.previous, self.ticked = decision.twist, self.steady

    def bounded(self, decision):
        """Check that the twist is finite and within limits, and that every stop has a reason."""
        out = decision.twist
        assert np.isfinite(out).all()
        assert (np.abs(out[PLANAR]) <= np.array(LIMITS.max_velocity) + 1e-9).all()
        assert math.hypot(out[0], out[1]) <= LIMITS.max_planar_speed_mps + 1e-9
        assert not out[2:5].any()
        if decision.state not in (State.TELEOP, State.DRIVING):
            assert not out.any()
            assert decision.source == 'none'
            assert decision.sentence
            assert decision.stop_reason != StopReason.NONE

    def allowed(self, decision, armed):
        """Check who drives: a person with a fresh command, the policy, or nobody."""
        assert armed or not decision.twist.any()
        assert not ((self.pressed or self.rival) and decision.twist.any())
        stalled = self.ticked is not None and self.steady - self.ticked > GAP_MS
        assert not (stalled and decision.twist.any())
        if stalled:
            self.proposal = None
        held = self.teleop is not None and self.steady - self.teleop[1] <= HOLD_MS
        if held and armed and not self.pressed:
            # Teleop always wins over the policy.
            assert decision.source in ('teleop', 'takeover') or decision.state == State.FAULT
        if not decision.twist.any():
            return
        assert not decision.silent
        if held or decision.source != 'policy':
            assert self.steady - self.teleop[2] <= TELEOP_MS
            self.towards(decision.twist, self.teleop[0])
            return
        assert decision.source == 'policy'
        assert self.hold_or_fault is None
        assert not (self.stays and self.taken_over)
        twist, stamp, received = self.proposal
        assert -FUTURE_MS <= self.now - stamp <= AGE_MS
        assert self.steady - received <= SILENT_MS
        self.towards(decision.twist, twist)

    def towards(self, out, wanted):
        """Check that the twist is on the line from the last one to the requested direction."""
        assert np.isfinite(wanted).all()
        with np.errstate(over='ignore'):
            size = max(
                1.0,
                np.hypot(*wanted[:2]) / LIMITS.max_planar_speed_mps,
                *np.abs(wanted[:2]) / np.array(LIMITS.max_velocity[:2]),
            )
        way = wanted[:2] / size - self.previous[:2]
        change = out[:2] - self.previous[:2]
        assert abs(way[0] * change[1] - way[1] * change[0]) <= 1e-9
        assert way @ change >= -1e-9

    def smooth(self, decision):
        """Check the acceleration between two ticks; only a stop may be sudden."""
        if decision.twist.any():
            passed = 0 if self.ticked is None else min(self.steady - self.ticked, MAX_TICK_MS)
            room = np.array(LIMITS.max_acceleration) * passed / 1e3
            assert (np.abs(decision.twist - self.previous)[PLANAR] <= room + 1e-9).all()


@settings(max_examples=300)
@given(history, st.booleans(), st.booleans(), st.booleans())
@example([*[(FORWARD, 50)] * 6, (('step', 5000), 0)], True, True, True)
@example([(FORWARD, 50), (('policy_health', HOLD), 0), (FORWARD, 50)], True, True, True)
@example([(FORWARD, 50), (TAKEOVER, 50), (FORWARD, 50)], True, True, False)
@example([(FORWARD, 50), (TAKEOVER, 50), *[(FORWARD, 100)] * 20], True, True, True)
@example([(FORWARD, 50), (FORWARD, GAP_MS + 1)], True, False, False)
@example([(FORWARD, 50), (('wait',), SILENT_MS)], True, True, True)
@example([(FORWARD, 50), (('propose', [0.5, 0, 0, 0, 0, 0], AGE_MS), 1)], True, True, True)
def test_whatever_happens_the_output_is_bounded_smooth_and_allowed(events, armed, latch, stays):
    """Over random histories of messages, silences, clock steps, NaN and inf."""
    witness = Witness(latch, armed, stays)
    for one, after in events:
        witness.give(*one)
        witness.tick(after)


@settings(max_examples=100)
@given(history)
def test_after_a_fault_nothing_moves_before_arming(events):
    """No other input moves the base."""
    witness = Witness(latch=True, armed=True)
    witness.give('policy_health', FAULT)
    witness.tick(50)
    for one, after in events:
        if one[0] != 'arm':
            witness.give(*one)
            witness.tick(after)
            assert not witness.previous.any()
