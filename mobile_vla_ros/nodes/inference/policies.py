"""The policy that drives, the previous and the next one, and the checks that they must pass."""

import threading
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import psutil

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.inference.camera import CameraGate
from mobile_vla_ros.nodes.shared.camera_time import CameraTime
from mobile_vla_ros.nodes.shared.guard_status import GuardStatusListener
from mobile_vla_ros.runtime.preflight import (
    check_axes,
    check_camera_rate,
    check_camera_size,
    check_camera_topic,
    check_clock_skew,
    check_free_memory,
    check_instruction,
)
from mobile_vla_ros.safety.preflight import INFERENCE_CHECKS
from mobile_vla_ros.types import Check

if TYPE_CHECKING:  # it imports torch
    from mobile_vla_ros.runtime.loading import ReadyPolicy

# One load at a time in a process: torch's loaders set global state.
LOADS = threading.Lock()
NONE, LOADING, READY, REFUSED = 'none', 'loading', 'ready', 'refused'


def resident_gb() -> float:
    """Return the memory that this process occupies, on the GPU too, in 10^9 bytes."""
    import torch

    on_gpu = sum(map(torch.cuda.memory_allocated, _gpus_in_use()))
    return (psutil.Process().memory_info().rss + on_gpu) / 1e9


def memory_rooms() -> list[tuple[str, int, int]]:
    """Return name, free bytes and total bytes of the main memory, and of a GPU in use."""
    machine = psutil.virtual_memory()
    rooms = [('memory', machine.available, machine.total)]
    import torch

    return [*rooms, *(('GPU', *torch.cuda.mem_get_info(one)) for one in _gpus_in_use())]


def _gpus_in_use() -> list[int]:
    import torch

    if not torch.cuda.is_initialized():
        return []
    return [one for one in range(torch.cuda.device_count()) if torch.cuda.memory_allocated(one)]


def memory_shortage() -> str:
    """Return why too little memory is free, '' when there is enough."""
    check = check_free_memory(memory_rooms())
    return '' if check.ok else check.sentence


def policy_checks(
    ready: 'ReadyPolicy',
    instruction: str,
    gate: CameraGate,
    now_ns: int,
    *,
    max_velocity: Sequence[float],
    tolerance_s: float,
    max_age_s: float,
    camera_time: CameraTime,
    camera: str,
) -> list[Check]:
    """
    Return inference's preflight checks, and one more if the policy names its camera.

    :param ready: the policy that drives.
    :param now_ns: on the clock that the gate measures durations by.
    :param camera_time: what times the frames; camera: name of the camera.
    """
    spec = ready.policy.spec
    try:
        size = gate.newest.size if gate.newest is not None else None
    except UserError:  # the camera fault reports it
        size = None
    return [
        check_camera_rate(gate.check.rate_hz(now_ns), spec.rate_hz),
        check_camera_size(size, spec.image.size, spec.data.get('camera_sizes') or ()),
        check_clock_skew(
            gate.check.lateness(now_ns),
            tolerance_s,
            max_age_s,
            images=gate.newest is not None,
            by_receipt=camera_time.receipt,
            latency_s=camera_time.latency_s,
        ),
        check_free_memory(memory_rooms()),
        Check('golden_frames', ready.golden_ok, ready.golden_sentence),
        check_axes(spec.actions.axes, max_velocity),
        check_instruction(ready.policy, instruction),
        *([check_camera_topic(spec.camera, camera)] if spec.camera else []),
    ]


def failed_checks(reason: str) -> list[Check]:
    """Return inference's checks, all of them failed for one reason."""
    return [Check(name, False, reason) for name in INFERENCE_CHECKS]


def swap_refusal(guard: GuardStatusListener, proposing: bool) -> str:
    """Return why the policy must not be swapped now, '' when it may: only at rest."""
    if guard.status is None:
        refusal = 'no guard reports that the base is at rest, and there are proposals'
        return refusal if proposing else ''
    return '' if guard.stopped else 'the base is driven; disarm the guard (guard/disarm) first'


class Policies:
    """
    The current, the previous and the next policy.

    :param first: the one to begin with.
    :param load: loads a policy by name; raises ``UserError``.
    :param shortage: returns why too little memory is free, '' when there is enough.
    :param use: makes a policy the one that drives; called in the thread that swaps.
    :param log: logs a sentence.
    """

    def __init__(
        self,
        first: 'ReadyPolicy',
        *,
        load: Callable[[str], 'ReadyPolicy'],
        shortage: Callable[[], str],
        use: Callable[['ReadyPolicy'], None],
        log: Callable[[str], object],
    ):
        self._load, self._shortage, self._use, self._log = load, shortage, use, log
        self._lock = threading.Lock()
        self._requests = 0
        self.now = first
        self.before: ReadyPolicy | None = None
        self._next: ReadyPolicy | None = None
        self.state, self.sentence = NONE, ''  # of the next one

    def request(self, name: str) -> None:
        """Load another policy beside the current one, in a thread; '' drops the next one."""
        with self._lock:
            self._requests += 1
            self._next = None
            self.state, self.sentence = (LOADING, f'loading {name}') if name else (NONE, '')
            number = self._requests
        if name:
            threading.Thread(
                target=self._fetch, args=(name, number), name='next policy', daemon=True
            ).start()

    def swap(self, refusal: str) -> tuple[bool, str]:
        """
        Make the next policy the current one.

        :param refusal: why that must not happen now, '' when it may.
        :returns: whether it was done, and a sentence.
        """
        with self._lock:
            if self._next is None:
                return False, (
                    f'Not swapped: no next policy is ready ({self.sentence or "none"}). '
                    'Set the parameter next_policy.'
                )
            if refusal:
                return False, f'Not swapped: {refusal}.'
            self.before, self.now, self._next = self.now, self._next, None
            self.state, self.sentence = NONE, ''
            self._use(self.now)
        return True, f'{self.now.name} drives now; ~/swap_back returns to {self.before.name}.'

    def swap_back(self, refusal: str) -> tuple[bool, str]:
        """Make the previous policy the current one; see ``swap``."""
        with self._lock:
            if self.before is None:
                return False, 'Not swapped back: there is no previous policy.'
            if refusal:
                return False, f'Not swapped back: {refusal}.'
            self.before, self.now = self.now, self.before
            self._use(self.now)
        return True, f'{self.now.name} drives again; ~/swap_back returns to {self.before.name}.'

    def _fetch(self, name: str, number: int) -> None:
        with LOADS:
            if number != self._requests:
                return  # superseded by a newer request
            ready, sentence = self._try(name)
        with self._lock:
            if number != self._requests:
                return
            self._next = ready
            self.state, self.sentence = (READY if ready else REFUSED), sentence
        self._log(sentence)

    def _try(self, name: str) -> 'tuple[ReadyPolicy | None, str]':
        """Return the loaded policy, None when it must not drive, and a sentence."""
        before_gb = resident_gb()
        try:
            # Without memory do not even begin: the kernel would kill the policy that drives too.
            refusal = self._shortage()
            if refusal:
                return None, f'{name} is refused: {refusal}'
            ready = self._load(name)
            refusal = self._shortage()
        except UserError as error:
            return None, f'{name} is refused: {error}'
        except Exception as error:  # whatever happens here, the current policy goes on
            self._log(traceback.format_exc())
            return None, f'{name} is refused: {type(error).__name__}: {error}'
        if refusal or not ready.golden_ok:
            return None, f'{name} is refused: {refusal or ready.golden_sentence}'
        return ready, (
            f'{name} is ready: {ready.golden_sentence}; {resident_gb():.2f} GB in use, '
            f'{before_gb:.2f} GB before; ~/swap makes it drive'
        )
