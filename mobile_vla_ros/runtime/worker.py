"""The thread that owns the policy, and all that decides what is proposed; knows no ROS."""

import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.runtime.frame_buffer import FrameBuffer
from mobile_vla_ros.runtime.playback import Plan, Playback, Proposal
from mobile_vla_ros.safety.status import Health, StopReason
from mobile_vla_ros.types import MAX_INSTRUCTION_CHARS, NANOSECONDS

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
KEPT = 300  # of the last steps, for means and percentiles


@dataclass(frozen=True)
class Stats:
    """
    What driving costs of late.

    :param inference_s: mean seconds of a step, None before the first.
    :param to_proposal_ms: median and 99th percentile, ms, from the camera's callback to the
        publishing of the first proposal that comes from its frame.
    """

    inference_s: float | None
    to_proposal_ms: tuple[float, float] | None
    encoded_frames: int


class PolicyWorker:
    """
    Takes frames and instructions, runs the policy on the newest window, plays its plans.

    A frame that comes while the network is busy takes its place among the kept ones; the network
    goes on with the newest. All methods but ``start`` and ``stop`` return without waiting for it.

    :param steady_ns: reads a steady clock.
    :param said: called in the worker's thread whenever there is something new to say: a plan, or
        another health.
    :param failed: called with the traceback of a policy that failed.
    """

    def __init__(
        self,
        *,
        steady_ns: Callable[[], int],
        said: Callable[[], None],
        failed: Callable[[str], None],
    ):
        self._steady_ns, self._said, self._failed = steady_ns, said, failed
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._policy = self._buffer = self._playback = None
        self._instruction = ''
        self._closed: Health | None = INACTIVE
        self._fault: Health | None = None
        self._trouble = NO_IMAGE
        self._news = False
        self._durations_s: deque[float] = deque(maxlen=KEPT)
        self._latencies_ms: deque[float] = deque(maxlen=KEPT)

    def start(self) -> None:
        """Begin to work; the policy has been given."""
        with self._wake:
            self._stopping, self._closed, self._fault = False, None, None
            self._begin_anew(NO_IMAGE)
        self._thread = threading.Thread(target=self._work, name='policy', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Propose nothing from now on, and wait for the step that is under way."""
        with self._wake:
            self._stopping, self._closed = True, INACTIVE
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def forget(self) -> None:
        """Let go of the policy, so that its memory is free; to be stopped before."""
        with self._wake:
            self._policy = self._buffer = self._playback = None

    def use(self, policy, playback: Playback) -> None:
        """Work with this policy from the next step on; nothing of before counts."""
        with self._wake:
            self._policy, self._playback = policy, playback
            self._buffer = FrameBuffer(policy.spec.rate_hz, policy.spec.window)
            self._durations_s.clear()
            self._latencies_ms.clear()
            self._begin_anew(NOT_FULL)

    def see(self, shot) -> None:
        """Take a frame that may be driven by; a ``Shot``."""
        with self._wake:
            self._buffer.add(shot)
            if self._trouble == NO_IMAGE:
                self._trouble = NOT_FULL
            self._wake.notify()

    def instruct(self, instruction: str) -> bool:
        """
        Take another instruction: plans of before are gone, frames are looked at again.

        :returns: whether it is another one: what is only said again must not stop the drive.
        """
        instruction = instruction[: MAX_INSTRUCTION_CHARS + 1]  # one more than is followed
        with self._wake:
            if instruction == self._instruction:
                return False
            self._instruction = instruction
            if self._playback is not None:
                self._playback.clear()
                self._buffer.again()
            if self._trouble != NO_IMAGE:
                self._trouble = self._untold or NEW_INSTRUCTION
            self._wake.notify()
        return True

    def camera_fault(self, fault: Health | None) -> bool:
        """Set the camera fault (None clears it); return True if it changed."""
        with self._wake:
            changed = fault != self._fault
            if fault is not None and self._fault is None:
                self._begin_anew(NOT_FULL)
            self._fault = fault
            return changed

    def health(self, now_ns: int) -> tuple[Health, Proposal | None]:
        """Return how it is, and what is proposed for an instant (nothing unless all is well)."""
        with self._wake:
            if self._closed is not None:
                return self._closed, None
            if self._fault is not None:
                return self._fault, None
            if self._playback.newest is None:
                return self._trouble, None
            proposal = self._playback.at(now_ns)
            return (CHUNK_EXHAUSTED, None) if proposal is None else (Health.ok(), proposal)

    @property
    def plan(self) -> Plan | None:
        """The newest plan, None while there is none."""
        with self._wake:
            return self._playback.newest if self._playback is not None else None

    @property
    def instruction(self) -> str:
        """The one that is followed; the beginning of one that is too long for that."""
        return self._instruction

    @property
    def _untold(self) -> Health | None:
        """Why the instruction cannot be followed, None when it can."""
        if not self._instruction.strip():
            return NO_INSTRUCTION
        return TOO_LONG if len(self._instruction) > MAX_INSTRUCTION_CHARS else None

    @property
    def stats(self) -> Stats:
        """What driving costs of late."""
        with self._wake:
            steps, latencies = list(self._durations_s), list(self._latencies_ms)
            encoded = getattr(self._policy, 'encoded_frames', 0)
        return Stats(
            float(np.mean(steps)) if steps else None,
            tuple(np.percentile(latencies, (50, 99)).tolist()) if latencies else None,
            encoded,
        )

    def _begin_anew(self, trouble: Health) -> None:
        if self._playback is not None:
            self._playback.clear()
            self._buffer.clear()
        self._trouble = trouble

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._stopping and not self._news and (job := self._next()) is None:
                    if not self._news:
                        self._wake.wait()
                if self._stopping:
                    return
                news, self._news = self._news, False
            if news:
                self._said()
                continue
            self._step(*job)

    def _next(self) -> tuple | None:
        """Return policy, window and instruction of the next step, or None and note why."""
        if self._closed is not None or self._fault is not None or not self._buffer.due:
            return None
        if self._untold is not None:
            self._refuse(self._untold)
            return None
        window = self._buffer.take()
        if window is None:
            # What was planned before the gap would soon be too old; a guard calls that a fault.
            self._refuse(NEW_INSTRUCTION if self._trouble == NEW_INSTRUCTION else NOT_FULL)
            return None
        return self._policy, window, self._instruction

    def _refuse(self, trouble: Health) -> None:
        self._news = self._trouble != trouble or self._playback.newest is not None
        self._playback.clear()
        self._trouble = trouble

    def _step(self, policy, window, instruction: str) -> None:
        began_ns = self._steady_ns()
        plan, trouble = None, None
        try:
            plan = policy.infer(window, instruction)
            if not np.isfinite(plan.twists).all():
                plan, trouble = None, NOT_FINITE
        except UserError as error:
            trouble = Health.fault(StopReason.POLICY_REFUSED, str(error).rstrip('.'))
        except Exception as error:
            trouble = Health.fault(
                StopReason.POLICY_FAILED,
                f'the policy failed: {type(error).__name__}: {first_line(error)}',
            )
            self._failed(traceback.format_exc())
        with self._wake:
            self._durations_s.append((self._steady_ns() - began_ns) / NANOSECONDS)
            if (
                policy is not self._policy
                or instruction != self._instruction
                or self._closed is not None
                or self._fault is not None
            ):
                return  # it was asked something else meanwhile
            if plan is None:
                self._playback.clear()
                self._trouble = trouble
            else:
                self._playback.add(plan)
        self._said()
        if plan is not None:
            with self._wake:
                self._latencies_ms.append((self._steady_ns() - window[-1].steady_ns) / 1e6)
