"""The thread that runs the policy, and the decision what is proposed; without ROS."""

import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.runtime.frame_buffer import FrameBuffer, PolicyFrame
from mobile_vla_ros.runtime.playback import Plan, Playback, Proposal
from mobile_vla_ros.runtime.policy import Policy
from mobile_vla_ros.safety.status import Health, StopReason
from mobile_vla_ros.types import MAX_INSTRUCTION_CHARS, NANOSECONDS, Frame

INACTIVE = Health.hold(StopReason.INACTIVE, 'not active')
NO_IMAGE = Health.hold(StopReason.NO_IMAGE, 'no image yet')
NOT_FULL = Health.hold(StopReason.WINDOW_NOT_FULL, 'the window of frames is not full yet')
NO_INSTRUCTION = Health.hold(
    StopReason.NO_INSTRUCTION, 'no instruction yet: publish one on instruction'
)
TOO_LONG = Health.hold(
    StopReason.INSTRUCTION_TOO_LONG,
    f'instruction too long: the limit is {MAX_INSTRUCTION_CHARS} characters',
)
NEW_INSTRUCTION = Health.hold(
    StopReason.NEW_INSTRUCTION, 'the window is being encoded with a new instruction'
)
CHUNK_EXHAUSTED = Health.fault(
    StopReason.CHUNK_EXHAUSTED, 'action chunk exhausted: no newer image has been processed'
)
NOT_FINITE = Health.fault(StopReason.POLICY_NOT_FINITE, 'the policy returned NaN or inf')
STOP_S = 3.0  # what hangs longer is left behind
STATS_STEPS = 300  # number of recent steps behind the means and percentiles


class LiveFrame(PolicyFrame, Protocol):
    """A frame with its time of receipt."""

    @property
    def steady_ns(self) -> int:
        """Time of receipt on the steady clock, nanoseconds."""


@dataclass(frozen=True)
class Stats:
    """
    Cost of the recent steps.

    :param inference_s: mean seconds of a step, None before the first.
    :param to_proposal_ms: median and 99th percentile, ms, from the receipt of a frame to its first
        proposal; None before the first.
    :param encoded_frames: since the policy was loaded.
    """

    inference_s: float | None
    to_proposal_ms: tuple[float, float] | None
    encoded_frames: int


@dataclass(frozen=True, eq=False)
class _InUse:
    """The policy in use with its frames, plans and timings."""

    policy: Policy
    playback: Playback
    buffer: FrameBuffer[LiveFrame]
    durations_s: deque[float] = field(default_factory=lambda: deque(maxlen=STATS_STEPS))
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=STATS_STEPS))

    def clear(self) -> None:
        """Drop frames and plans."""
        self.playback.clear()
        self.buffer.clear()


@dataclass(frozen=True, eq=False)
class _Step:
    """The input of one step."""

    in_use: _InUse
    window: list[LiveFrame]
    instruction: str
    anew: bool


class PolicyWorker:
    """
    Runs the policy on the newest window of frames and plays back its plans.

    A frame that arrives during a step is added to the buffer; the next step uses the newest
    window. Only ``stop`` waits for a step to end, and not for ever.

    :param steady_ns: reads a steady clock.
    :param on_change: called in the worker's thread when there is a new plan or another health.
    :param on_failure: called with the traceback when the policy raises an exception.
    """

    def __init__(
        self,
        *,
        steady_ns: Callable[[], int],
        on_change: Callable[[], object],
        on_failure: Callable[[str], object],
    ) -> None:
        self._steady_ns, self._on_change, self._on_failure = steady_ns, on_change, on_failure
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._left: threading.Thread | None = None  # stopped, perhaps still in a step
        self._active = False
        self._in_use: _InUse | None = None
        self._instruction = ''
        self._camera_fault: Health | None = None
        self._broken: Health | None = None  # why the thread has ended
        self._no_plan = NO_IMAGE  # why there is no plan, while there is none
        self._changed = False
        self._anew = True  # the policy has to forget earlier frames

    def start(self) -> None:
        """Start the thread; call ``use`` first."""
        with self._wake:
            self._active, self._camera_fault, self._broken = True, None, None
            self._begin_again(NO_IMAGE)
            before, self._left = self._left, None
            self._thread = threading.Thread(
                target=self._work, args=(before,), name='policy', daemon=True
            )
        self._thread.start()

    def stop(self) -> None:
        """Stop proposing at once, and wait up to ``STOP_S`` for the current step to end."""
        with self._wake:
            self._active = False
            thread, self._thread = self._thread, None
            self._wake.notify()
        if thread is not None:
            thread.join(STOP_S)
            self._left = thread

    def forget(self) -> None:
        """Release the policy and its memory; call ``stop`` first."""
        with self._wake:
            self._in_use = None

    def use(self, policy: Policy, playback: Playback) -> None:
        """Use this policy from the next step on, without earlier frames and plans."""
        with self._wake:
            self._in_use = _InUse(
                policy, playback, FrameBuffer(policy.spec.rate_hz, policy.spec.window)
            )
            self._begin_again(NOT_FULL)

    def add_frame(self, frame: LiveFrame) -> None:
        """Add a frame that passed the camera check; ignored without a policy."""
        with self._wake:
            if self._in_use is None:
                return
            self._in_use.buffer.add(frame)
            if self._no_plan == NO_IMAGE:
                self._no_plan = NOT_FULL
            self._wake.notify()

    def set_instruction(self, instruction: str) -> bool:
        """
        Set the instruction; a new one drops all plans and has the kept frames encoded again.

        :returns: whether it is a new one; a repeated instruction must not interrupt driving.
        """
        instruction = instruction[: MAX_INSTRUCTION_CHARS + 1]  # one more than the limit
        with self._wake:
            if instruction == self._instruction:
                return False
            self._instruction, self._anew = instruction, True
            if self._in_use is not None:
                self._in_use.playback.clear()
                self._in_use.buffer.revisit()
            if self._no_plan != NO_IMAGE:
                self._no_plan = self._instruction_hold or NEW_INSTRUCTION
            self._wake.notify()
        return True

    def set_camera_fault(self, fault: Health | None) -> bool:
        """Set the camera fault (None clears it); return True if it changed."""
        with self._wake:
            changed = fault != self._camera_fault
            if fault is not None and self._camera_fault is None:
                self._begin_again(NOT_FULL)
            self._camera_fault = fault
            return changed

    def health(self, now_ns: int) -> tuple[Health, Proposal | None]:
        """Return the health at an instant, and the proposal for it (None unless it is OK)."""
        with self._wake:
            if not self._active or self._in_use is None:
                return INACTIVE, None
            if (fault := self._broken or self._camera_fault) is not None:
                return fault, None
            if self._in_use.playback.newest is None:
                return self._no_plan, None
            proposal = self._in_use.playback.at(now_ns)
            return (CHUNK_EXHAUSTED, None) if proposal is None else (Health.ok(), proposal)

    @property
    def plan(self) -> Plan | None:
        """The newest plan, None while there is none."""
        with self._wake:
            return None if self._in_use is None else self._in_use.playback.newest

    @property
    def instruction(self) -> str:
        """The current instruction; its beginning if it is too long."""
        return self._instruction

    @property
    def _instruction_hold(self) -> Health | None:
        """Why the instruction cannot be used, None when it can."""
        if not self._instruction.strip():
            return NO_INSTRUCTION
        return TOO_LONG if len(self._instruction) > MAX_INSTRUCTION_CHARS else None

    @property
    def stats(self) -> Stats:
        """Cost of the recent steps."""
        with self._wake:
            if self._in_use is None:
                return Stats(None, None, 0)
            steps, latencies = list(self._in_use.durations_s), list(self._in_use.latencies_ms)
            encoded = getattr(self._in_use.policy, 'encoded_frames', 0)
        to_proposal_ms = None
        if latencies:
            median, p99 = np.percentile(latencies, (50, 99)).tolist()
            to_proposal_ms = median, p99
        return Stats(float(np.mean(steps)) if steps else None, to_proposal_ms, encoded)

    def _begin_again(self, no_plan: Health) -> None:
        if self._in_use is not None:
            self._in_use.clear()
        self._no_plan, self._anew = no_plan, True

    def _work(self, before: threading.Thread | None) -> None:
        """Run steps until ``stop``, after the thread before has ended; never end silently."""
        try:
            if before is not None:
                before.join()
            self._run_steps()
        except BaseException as error:
            with self._wake:
                if threading.current_thread() is self._thread:
                    self._broken = self._failure(error)

    def _failure(self, error: BaseException) -> Health:
        self._on_failure(traceback.format_exc())
        return Health.fault(
            StopReason.POLICY_FAILED,
            f'the policy failed: {type(error).__name__}: {first_line(error)}',
        )

    def _run_steps(self) -> None:
        me = threading.current_thread()
        while True:
            step = None
            with self._wake:
                while me is self._thread and not self._changed and step is None:
                    step = self._next_step()
                    if step is None and not self._changed:
                        self._wake.wait()
                if me is not self._thread:
                    return
                changed, self._changed = self._changed, False
            if changed:
                self._on_change()
            elif step is not None:
                self._run(step)

    def _next_step(self) -> _Step | None:
        """Return the input of the next step, or None and set the reason."""
        in_use = self._in_use
        if in_use is None or self._camera_fault is not None or not in_use.buffer.due:
            return None
        if self._instruction_hold is not None:
            self._drop_plan(in_use, self._instruction_hold)
            return None
        window = in_use.buffer.use_window()
        if window is None:
            # A plan from before the gap would soon be too old, which is a fault to the guard.
            self._drop_plan(
                in_use, NEW_INSTRUCTION if self._no_plan == NEW_INSTRUCTION else NOT_FULL
            )
            return None
        anew, self._anew = self._anew, False
        return _Step(in_use, window, self._instruction, anew)

    def _drop_plan(self, in_use: _InUse, reason: Health) -> None:
        self._changed = self._no_plan != reason or in_use.playback.newest is not None
        in_use.playback.clear()
        self._no_plan = reason

    def _run(self, step: _Step) -> None:
        in_use = step.in_use
        began_ns = self._steady_ns()
        plan = self._infer(step)
        with self._wake:
            in_use.durations_s.append((self._steady_ns() - began_ns) / NANOSECONDS)
            if (
                in_use is not self._in_use
                or step.instruction != self._instruction
                or not self._active
                or self._camera_fault is not None
            ):
                return  # the input has been replaced during the step
            if isinstance(plan, Health):
                in_use.playback.clear()
                self._no_plan = plan
            else:
                in_use.playback.add(plan)
        self._on_change()
        if not isinstance(plan, Health):
            with self._wake:
                in_use.latencies_ms.append((self._steady_ns() - step.window[-1].steady_ns) / 1e6)

    def _infer(self, step: _Step) -> Plan | Health:
        """Return the policy's plan, or the fault for which there is none."""
        try:
            # To a policy these are ``Frame``s; their images are decoded on demand.
            window = cast(list[Frame], step.window)
            if step.anew:
                self._reset(step.in_use.policy)
            plan = step.in_use.policy.infer(window, step.instruction)
            return plan if np.isfinite(plan.twists).all() else NOT_FINITE
        except UserError as error:
            return Health.fault(StopReason.POLICY_REFUSED, str(error).rstrip('.'))
        except BaseException as error:  # its SystemExit would end the thread
            return self._failure(error)

    def _reset(self, policy: Policy) -> None:
        try:
            policy.reset()
        except BaseException:
            with self._wake:
                self._anew = True  # for the next step to try again
            raise
