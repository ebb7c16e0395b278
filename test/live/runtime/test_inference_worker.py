"""The policy worker: newest frames, the spacing of training, dropped plans."""

import threading
import time
import weakref

import numpy as np
import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.runtime import worker
from mobile_vla_ros.runtime.frame_buffer import FrameBuffer
from mobile_vla_ros.runtime.playback import Plan, Playback
from mobile_vla_ros.runtime.policy import NoOpPolicy
from mobile_vla_ros.runtime.vla_policy import VlaPolicy
from mobile_vla_ros.runtime.worker import (
    INACTIVE,
    NEW_INSTRUCTION,
    NO_IMAGE,
    NO_INSTRUCTION,
    NOT_FINITE,
    NOT_FULL,
    TOO_LONG,
    PolicyWorker,
)
from mobile_vla_ros.safety.status import Health, Level, StopReason
from mobile_vla_ros.types import Frame
from ros_helpers import wait_until

MS = 1_000_000
GO = 'go to the red box'
FROZEN = Health.fault(StopReason.CAMERA_FROZEN, 'the camera is frozen')


class LiveFrame(Frame):
    """A frame with a time of receipt on the steady clock."""

    steady_ns = property(lambda self: self.received_ns)


def frame(number: int, rate_hz: float = 10.0) -> LiveFrame:
    """Return frame `number` of a camera: noise, seeded by the number."""
    stamp = round(number * 1e9 / rate_hz) + 1
    image = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return LiveFrame(image, stamp, stamp)


class StepPolicy(NoOpPolicy):
    """A policy whose steps wait for a permit and record their input; vx is len(instruction)."""

    def __init__(self, rate_hz=10.0, window=4, chunk=10):
        super().__init__()
        self.spec = type(self.spec)(
            **{**self.spec.__dict__, 'rate_hz': rate_hz, 'window': window, 'chunk': chunk}
        )
        self.seen: list[tuple[list[int], str]] = []
        self.permits = threading.Semaphore(0)
        self.raises: Exception | None = None
        self.value = 1.0

    def infer(self, window, instruction):
        """Record the input, wait for a permit, then return a plan."""
        self.seen.append(([one.stamp_ns // MS for one in window], instruction))
        self.permits.acquire()
        if self.raises is not None:
            raise self.raises
        return Plan(
            window[-1].stamp_ns,
            np.full((self.spec.chunk, 6), self.value * len(instruction)),
            self.spec.rate_hz,
        )


class WorkerRig:
    """A worker whose changes and failures are recorded."""

    def __init__(self, policy, playback=None):
        self.policy = policy
        self.failures = []
        self.changes = threading.Semaphore(0)
        self.worker = PolicyWorker(
            steady_ns=time.monotonic_ns,
            on_change=self.changes.release,
            on_failure=self.failures.append,
        )
        self.worker.use(policy, playback or Playback())
        self.worker.set_instruction(GO)
        self.worker.start()

    def wait_for_change(self):
        """Wait until the worker reports a change."""
        assert self.changes.acquire(timeout=10)

    def proposal(self, ms: float):
        """Wait until there is a proposal for a time; return it."""
        return wait_until(
            lambda: self.at(ms)[1], what=f'a proposal for {ms} ms', detail=lambda: str(self.at(ms))
        )

    def wait_for_step(self, steps: int):
        """Wait until the policy is in this step, counted from 1."""
        wait_until(lambda: len(self.policy.seen) >= steps, what=f'step {steps}')

    def at(self, ms: float):
        """Return health and proposal at a time."""
        return self.worker.health(round(ms * MS))


@pytest.fixture
def rig():
    """Return a factory of rigs, which are stopped at the end."""
    made = []

    def make(*args):
        made.append(WorkerRig(*args))
        return made[-1]

    yield make
    for one in made:
        if hasattr(one.policy, 'permits'):
            one.policy.permits.release(100)
        one.worker.stop()


def test_a_frame_that_arrives_during_a_step_replaces_the_waiting_one(rig):
    """Nothing queues: the next step has the newest window, with the spacing of the training."""
    one = rig(StepPolicy())
    for number in range(4):
        one.worker.add_frame(frame(number))
    one.wait_for_step(1)
    for number in range(4, 9):
        one.worker.add_frame(frame(number))
    one.policy.permits.release()
    one.wait_for_step(2)
    assert [stamps for stamps, _ in one.policy.seen] == [[0, 100, 200, 300], [500, 600, 700, 800]]


def test_a_slow_policy_encodes_missed_frames_in_one_batch(rig, small_run):
    """The spacing stays the same, and no frame is encoded twice."""
    policy = VlaPolicy.load(small_run / 'best')
    inferred, batches = [], []
    real_infer, real_encode = policy.infer, policy.network.encode
    busy = threading.Semaphore(0)

    def infer(window, instruction):
        inferred.append([frame.stamp_ns // MS for frame in window])
        assert busy.acquire(timeout=10)
        return real_infer(window, instruction)

    def encode(pixels, ids, lengths):
        batches.append(len(pixels))
        return real_encode(pixels, ids, lengths)

    policy.infer, policy.network.encode = infer, encode
    one = rig(policy)
    with one.worker._wake:
        for number in range(10):
            one.worker.add_frame(frame(number, 30.0))
    wait_until(lambda: inferred, what='the first step')
    for number in range(10, 19):
        one.worker.add_frame(frame(number, 30.0))
    busy.release()
    wait_until(lambda: len(inferred) == 2, what='the second step')
    for number in range(19, 25):
        one.worker.add_frame(frame(number, 30.0))
    busy.release(2)
    wait_until(lambda: len(batches) == 3, what='three batches')
    assert all(np.allclose(np.diff(stamps), 100, atol=1) for stamps in inferred)
    assert batches == [4, 3, 2]


def test_a_new_instruction_takes_effect_after_one_step(rig, small_run):
    """The old plan is dropped at once; kept frames are encoded again in one batch."""
    policy = VlaPolicy.load(small_run / 'best')
    one = rig(policy)
    with one.worker._wake:  # so that its first step has a full window
        for number in range(4):
            one.worker.add_frame(frame(number))
    old = one.proposal(300)
    before = policy.encoded_frames
    with one.worker._wake:  # the guard receives this meanwhile
        one.worker.set_instruction('go to the blue ball')
        assert one.at(300) == (NEW_INSTRUCTION, None)
    proposal = one.proposal(300)
    assert policy.encoded_frames - before == 4
    assert proposal.stamp_ns == old.stamp_ns
    assert np.abs(proposal.twist - old.twist).max() > 0


def test_the_plan_of_an_old_instruction_is_never_proposed(rig):
    """Also when the new one arrives during the step."""
    one = rig(StepPolicy(window=1))
    one.worker.add_frame(frame(1))
    one.wait_for_step(1)
    one.worker.set_instruction('stop')
    one.policy.permits.release()
    one.wait_for_step(2)
    assert one.at(150)[1] is None
    one.policy.permits.release()
    one.wait_for_change()
    assert one.at(150)[1].twist[0] == len('stop')
    assert [instruction for _, instruction in one.policy.seen] == [GO, 'stop']


def test_a_gap_holds_until_the_window_is_full_again(rig):
    """No window spans it, and no earlier plan is driven into it."""
    one = rig(StepPolicy())
    one.policy.permits.release(100)
    for number in range(4):
        one.worker.add_frame(frame(number))
    one.proposal(300)
    for number in (6, 7, 8):
        one.worker.add_frame(frame(number))
        wait_until(
            lambda at=number * 100: one.at(at) == (NOT_FULL, None),
            what='the hold',
        )
    one.worker.add_frame(frame(9))
    one.proposal(900)
    assert one.policy.seen[-1][0] == [600, 700, 800, 900]


def test_a_policy_with_steps_of_a_second_still_proposes(rig):
    """Its chunk is longer than its step, so that there is a proposal at every instant."""
    one = rig(StepPolicy(chunk=30))
    number = 0
    while number < 4:
        one.worker.add_frame(frame(number))
        number += 1
    one.wait_for_step(1)
    for step in range(1, 4):
        while number < 4 + 10 * step:  # one second passes
            one.worker.add_frame(frame(number))
            number += 1
            if step > 1:
                health, proposal = one.at(number * 100)
                assert health == Health.ok()
                assert 1.0 <= number / 10 - proposal.stamp_ns / 1e9 <= 2.11
        one.policy.permits.release()
        one.wait_for_change()
        one.wait_for_step(step + 1)
    assert all(np.allclose(np.diff(stamps), 100) for stamps, _ in one.policy.seen)


def test_a_camera_fault_drops_frames_and_plans(rig):
    """Earlier frames are not used after the fault."""
    one = rig(StepPolicy())
    one.policy.permits.release(100)
    for number in range(4):
        one.worker.add_frame(frame(number))
    one.proposal(300)
    assert one.worker.set_camera_fault(FROZEN)
    assert one.at(300) == (FROZEN, None)
    assert not one.worker.set_camera_fault(FROZEN)
    assert one.worker.set_camera_fault(None)
    for number in (4, 5, 6):
        one.worker.add_frame(frame(number))
        assert one.at(number * 100)[0].level == Level.HOLD
    one.worker.add_frame(frame(7))
    one.proposal(700)
    assert one.policy.seen[-1][0] == [400, 500, 600, 700]


@pytest.mark.parametrize(
    ('error', 'reason', 'sentence'),
    [
        (
            RuntimeError('out of memory\nand more'),
            StopReason.POLICY_FAILED,
            'the policy failed: RuntimeError: out of memory',
        ),
        (
            UserError('an image has the wrong layout'),
            StopReason.POLICY_REFUSED,
            'an image has the wrong layout',
        ),
    ],
)
def test_a_policy_that_fails_is_a_fault_until_it_recovers(rig, error, reason, sentence):
    """Its earlier plans are dropped too, and the thread keeps running."""
    one = rig(StepPolicy(window=1))
    one.policy.permits.release(100)
    one.worker.add_frame(frame(1))
    one.wait_for_change()
    one.policy.raises = error
    one.worker.add_frame(frame(2))
    one.wait_for_change()
    assert one.at(200) == (Health.fault(reason, sentence), None)
    assert len(one.failures) == isinstance(error, RuntimeError)
    one.policy.raises = None
    one.worker.add_frame(frame(3))
    one.wait_for_change()
    assert one.at(300)[0] == Health.ok()


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_plan_with_nan_or_inf_is_a_fault(rig, value):
    """It is never proposed."""
    one = rig(StepPolicy(window=1))
    one.policy.value = value
    one.policy.permits.release(100)
    one.worker.add_frame(frame(1))
    one.wait_for_change()
    assert one.at(100) == (NOT_FINITE, None)


def test_the_end_of_the_thread_is_a_fault_until_it_is_started_again(rig, monkeypatch):
    """Whatever it ended by, it is never a plan that goes on, and never silent."""
    one = rig(StepPolicy(window=1))
    one.policy.permits.release(100)
    one.worker.add_frame(frame(0))
    one.proposal(5)
    with monkeypatch.context() as patch:
        patch.setattr(FrameBuffer, 'use_window', lambda _: 1 / 0)
        one.worker.add_frame(frame(1))
        wait_until(lambda: one.failures, what='the failure')
        wait_until(lambda: one.at(5)[0].level == Level.FAULT, what='the fault')
        assert one.at(5)[1] is None
    one.worker.stop()
    one.worker.start()
    one.worker.add_frame(frame(2))
    one.proposal(205)


def test_a_reset_that_failed_is_tried_again(rig, monkeypatch):
    """Without it the policy would drive on what it remembers of another scene."""
    resets = []

    def reset(self):
        resets.append(self)
        if len(resets) == 1:
            raise SystemExit(3)

    monkeypatch.setattr(StepPolicy, 'reset', reset)
    one = rig(StepPolicy(window=1))
    one.policy.permits.release(100)
    one.worker.add_frame(frame(0))
    one.wait_for_change()
    assert one.at(5)[0].sentence == 'the policy failed: SystemExit: 3'
    one.worker.add_frame(frame(1))
    one.proposal(105)
    assert len(resets) == 2


def test_a_step_that_hangs_is_left_behind_and_never_runs_beside_another(rig, monkeypatch):
    """Ctrl-C ends the node; after another start, steps wait for the one that hung."""
    monkeypatch.setattr(worker, 'STOP_S', 0.1)
    one = rig(StepPolicy(window=1))
    one.worker.add_frame(frame(0))
    one.wait_for_step(1)
    one.worker.stop()
    one.worker.use(one.policy, Playback())
    one.worker.start()
    one.worker.add_frame(frame(1))
    time.sleep(0.2)
    assert len(one.policy.seen) == 1
    one.policy.permits.release(2)
    one.proposal(105)
    assert [stamps for stamps, _ in one.policy.seen] == [[0], [100]]


def test_an_exhausted_plan_is_a_fault(rig):
    """The chunk has no action for the instant."""
    one = rig(StepPolicy(window=1, chunk=3))
    one.policy.permits.release(100)
    one.worker.add_frame(frame(1))
    one.wait_for_change()
    assert one.at(399)[0] == Health.ok()
    assert one.at(401)[0].level == Level.FAULT


def test_the_reason_for_a_missing_proposal_is_reported(rig):
    """No image and no instruction are separate holds."""
    one = rig(StepPolicy(window=2))
    one.worker.set_instruction(' ')
    assert one.at(0) == (NO_IMAGE, None)
    one.worker.add_frame(frame(1))
    one.wait_for_change()
    assert one.at(100)[0] == NO_INSTRUCTION
    one.worker.set_instruction(GO)
    one.worker.add_frame(frame(2))
    one.wait_for_step(1)
    assert one.at(200)[0] == NEW_INSTRUCTION
    one.policy.permits.release()
    one.wait_for_change()
    assert one.at(200)[0] == Health.ok()
    one.worker.stop()
    assert one.at(200) == (INACTIVE, None)


def test_an_instruction_of_a_megabyte_is_refused_quickly(rig):
    """Regression: it blocked inference, overlay and Ctrl-C, and used gigabytes."""
    one = rig(StepPolicy(window=1))
    one.policy.permits.release(100)
    one.worker.add_frame(frame(1))
    one.wait_for_change()
    assert one.worker.set_instruction('go ' * 333_333)
    assert not one.worker.set_instruction('go ' * 333_333)
    one.worker.add_frame(frame(2))
    assert one.at(200) == (
        TOO_LONG,
        None,
    )
    assert len(one.worker.instruction) < 1000
    assert one.worker.set_instruction('stop')
    one.proposal(200)
    assert [instruction for _, instruction in one.policy.seen] == [GO, 'stop']


def test_another_policy_starts_without_plans_of_the_previous_one(rig):
    """Neither its plan nor the result of its current step."""
    one = rig(StepPolicy(window=1))
    first, second = one.policy, StepPolicy(window=1)
    one.worker.add_frame(frame(1))
    one.wait_for_step(1)
    one.worker.use(second, Playback())
    first.permits.release(100)
    second.permits.release(100)
    second.value = 2.0
    assert one.at(100)[1] is None
    one.worker.add_frame(frame(2))
    one.wait_for_change()
    assert one.at(200)[1].twist[0] == 2 * len(GO)
    assert len(first.seen) == 1


def test_a_replaced_policy_is_freed(rig):
    """Regression: a node that was cleaned up and configured again held two of them."""
    one = rig(StepPolicy(window=1))
    one.policy.permits.release(100)
    one.worker.add_frame(frame(1))
    one.proposal(100)
    left = weakref.ref(one.policy)
    one.worker.stop()
    one.worker.forget()
    one.policy = None
    assert left() is None
    assert one.at(100) == (INACTIVE, None)
