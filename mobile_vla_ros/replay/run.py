"""Replay a recorded episode through the inference path, in process."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from mobile_vla_ros.episode.catalog.inspect import vet
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.timing.command_rule import CommandLog
from mobile_vla_ros.episode.timing.timeline import ArrivalTimes, arrival_times
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.rollout.policy_driver import PolicyDriver
from mobile_vla_ros.runtime.frame_buffer import step_outcomes
from mobile_vla_ros.runtime.own_policy import is_own, own_policy
from mobile_vla_ros.runtime.playback import command_at
from mobile_vla_ros.runtime.policy import Policy
from mobile_vla_ros.safety.config import GuardConfig
from mobile_vla_ros.types import MAX_INSTRUCTION_CHARS, NANOSECONDS, TWIST_AXES, Frame

MAX_THREADS = 256  # as in the inference node
GAP_PERIODS = 1.5  # of the policy: frames further apart leave a gap in the window


@dataclass(frozen=True)
class Settings:
    """
    An episode, a policy, and how to run it.

    :param instruction: None: the episode's own.
    :param device: auto, cpu, cuda or cuda:1 ….
    :param precision: auto, fp32, bf16, fp16 or int8.
    :param threads: CPU threads for torch.
    :param offline: never ask the hub.
    :param backbone: folder or hub id of the policy's backbone, instead of the usual places.
    :param quiet: draw no bar.
    """

    episode: Path
    policy: Path | str
    instruction: str | None = None
    device: str = 'auto'
    precision: str = 'auto'
    threads: int = 1
    offline: bool = False
    backbone: str = ''
    quiet: bool = False

    def check(self) -> None:
        """Raise UserError for invalid settings; load no network."""
        from mobile_vla_ros.model.device import check_precision

        check_precision(self.precision)
        if not 1 <= self.threads <= MAX_THREADS:
            raise UserError(
                'invalid number of threads',
                got=f'--threads {self.threads}',
                expected=f'1 to {MAX_THREADS}',
            )
        camera = '' if is_own(self.policy) else read_spec(self.policy).camera
        vet(self.episode)
        with Episode.open(self.episode, camera=camera) as episode:
            instruction_of(episode, self.instruction)

    @property
    def computed_in(self) -> str:
        """The precision that `auto` stands for on this device."""
        from mobile_vla_ros.model.device import pick_precision

        return pick_precision(self.precision, self.device)

    def load(self) -> Policy:
        """Load the policy as the inference node does; sets torch's threads."""
        import torch

        from mobile_vla_ros.model.device import PRECISIONS
        from mobile_vla_ros.runtime.vla_policy import VlaPolicy

        torch.set_num_threads(self.threads)
        if is_own(self.policy):
            return own_policy(self.policy)
        return VlaPolicy.load(
            self.policy,
            device=self.device,
            dtype=PRECISIONS[self.computed_in],
            offline=self.offline,
            backbone=self.backbone,
        )


class _StoredFrame:
    """A stored frame, decoded when the policy reads it, as in the node."""

    def __init__(self, episode: Episode, index: int, times: ArrivalTimes, side: int):
        self._episode, self._index, self._side = episode, index, side
        self.stamp_ns = int(times.stamp_ns[index])
        self.received_ns = int(times.now_ns[index])

    @cached_property
    def image(self) -> np.ndarray:
        """(height, width, 3) uint8, RGB, decoded as for driving."""
        return self._episode.frame(self._index, self._side).image


@dataclass
class Replayed:
    """
    A policy's commands along an episode.

    :param now_ns: (N,) int64 receipt of each frame; `stamp_ns` (N,) its stamp.
    :param twist: (N, 6) m/s and rad/s: the command once the frame is processed; NaN where there
        is none.
    :param new: (N,) bool: the frame yielded a plan.
    :param driven: (N, 6) the driven commands; `before` (N, 6) those one policy period earlier.
    :param seconds: of each step that encoded one frame; `first_s` of the first step.
    :param gaps: sentences on missing frames; `refused`: on windows that were not full and on
        unreadable frames; `notes`: on anything else.
    """

    instruction: str
    now_ns: np.ndarray
    stamp_ns: np.ndarray
    twist: np.ndarray
    new: np.ndarray
    driven: np.ndarray
    before: np.ndarray
    seconds: list[float] = field(default_factory=list)
    first_s: float | None = None
    gaps: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def commanded(self) -> np.ndarray:
        """(N,) bool: the policy commands something."""
        return np.isfinite(self.twist[:, 0])


def instruction_of(episode: Episode, given: str | None) -> str:
    """
    Return the instruction that the policy follows.

    :raises UserError: if neither the user nor the episode gives one, or it is too long.
    """
    text = (episode.instruction if given is None else given).strip()
    if not text:
        raise UserError(
            f'{episode.path} has no instruction' if given is None else 'the instruction is empty',
            remedy='give one with --instruction TEXT',
        )
    if len(text) > MAX_INSTRUCTION_CHARS:
        raise UserError(
            'instruction too long',
            got=f'{len(text)} characters',
            expected=f'at most {MAX_INSTRUCTION_CHARS}',
            remedy='give a shorter one with --instruction TEXT',
        )
    return text


def replay(
    path: Path, policy: Policy, instruction: str | None, bar=lambda frames: frames
) -> Replayed:
    """
    Give a policy the frames of an episode at their times of receipt.

    :param bar: wraps the frame numbers, to draw progress.
    :raises UserError: if the episode cannot be read, or has no frame or no instruction.
    """
    with Episode.open(path, camera=policy.spec.camera) as episode:
        text = instruction_of(episode, instruction)
        if not len(episode):
            raise UserError(f'{path} has no frame', remedy='use another episode')
        times, spec = arrival_times(episode), policy.spec
        finite = np.isfinite(episode.commands.twist).all(-1)
        log = CommandLog(
            episode.commands.steady_ns[finite],
            episode.commands.twist[finite],
            episode.command_rule(spec.command_max_age_s),
        )
        period_ns = round(NANOSECONDS / spec.rate_hz)
        count = len(episode)
        found = Replayed(
            text,
            times.now_ns,
            times.stamp_ns,
            np.full((count, 6), np.nan),
            np.zeros(count, bool),
            log.at(times.now_ns)[0],
            log.at(times.now_ns - period_ns)[0],
        )
        found.notes = _notes(episode, finite, times, spec, log)
        found.gaps = _gaps(times, spec.rate_hz)
        outcomes = step_outcomes(times.stamp_ns, spec.rate_hz, spec.window)
        found.refused = _refused(times, outcomes)
        _drive(episode, times, policy, found, outcomes, bar(range(count)))
    return found


def _drive(
    episode: Episode,
    times: ArrivalTimes,
    policy: Policy,
    found: Replayed,
    outcomes: list[bool | None],
    frames: Iterable[int],
) -> None:
    driver = PolicyDriver(policy, found.notes.append)
    driver.reset(found.instruction)
    for index in frames:
        frame = _StoredFrame(episode, index, times, policy.spec.image.size)
        plan, encoded = driver.plan, getattr(policy, 'encoded_frames', 0)
        started = time.perf_counter()
        try:
            driver.see(cast(Frame, frame))
        except UserError as error:  # an unreadable frame: the node has no plan then
            driver.plan = None
            found.refused.append(f'at {_at(times, index):.2f} s: {error}')
        step_s = time.perf_counter() - started
        if outcomes[index] is False:  # the node holds, and drops the old plan
            driver.plan = None
        if driver.plan is None:
            continue
        if driver.plan is not plan:
            found.new[index] = True
            if found.first_s is None:
                found.first_s = step_s
            elif getattr(policy, 'encoded_frames', 0) - encoded == 1:
                found.seconds.append(step_s)
        twist = command_at(driver.plan, frame.received_ns)
        if twist is not None:
            found.twist[index] = twist


def _at(times: ArrivalTimes, index: int) -> float:
    return float(times.now_ns[index] - times.now_ns[0]) / NANOSECONDS


def _notes(
    episode: Episode, finite: np.ndarray, times: ArrivalTimes, spec, log: CommandLog
) -> list[str]:
    notes = [times.note] if times.note else []
    late_s = float(np.median(times.now_ns - times.stamp_ns)) / NANOSECONDS
    oldest_s = GuardConfig().observation_max_age_s
    if late_s > oldest_s:
        notes.append(
            f'images were received {late_s:.2f} s after their stamps; by default the guard stops '
            f'when they are older than {oldest_s:g} s'
        )
    if not episode.complete:
        notes.append('the episode is unfinished: only its flushed part is replayed')
    twist = episode.commands.twist[finite]
    if not finite.all():
        notes.append(f'{int((~finite).sum())} commands with NaN or inf are left out')
    if not len(twist):
        notes.append('the episode has no command: zero is assumed')
    other = [
        axis
        for column, axis in enumerate(TWIST_AXES)
        if axis not in spec.actions.axes and twist[:, column].any()
    ]
    use = log.use(times.now_ns)
    if use.notable:
        notes.append(use.sentence)
    if other:
        notes.append(
            f'the episode also drives {", ".join(other)}, which this policy does not command'
        )
    return notes


def _gaps(times: ArrivalTimes, rate_hz: float) -> list[str]:
    """Return a sentence for each gap between stamps and for each stamp that goes back."""
    steps_s = np.diff(times.stamp_ns) / NANOSECONDS
    found = []
    for index in np.flatnonzero((steps_s > GAP_PERIODS / rate_hz) | (steps_s <= 0)).tolist():
        gap = (
            f'{steps_s[index]:.2f} s without a frame'
            if steps_s[index] > 0
            else f'stamps go back by {-steps_s[index]:.3f} s'
        )
        found.append(f'at {_at(times, index):.2f} s: {gap}')
    return found


def _refused(times: ArrivalTimes, outcomes: list[bool | None]) -> list[str]:
    """Return a sentence for each series of due frames without a full window."""
    found, first, count = [], None, 0
    for index, plan in enumerate([*outcomes, True]):
        if plan is False:
            first, count = (index, 1) if first is None else (first, count + 1)
        elif plan and first is not None:
            end = f'to {_at(times, index):.2f} s' if index < len(times.now_ns) else 'to the end'
            why = (
                'the window has a gap'
                if first
                else 'the first window fills'
                if index < len(times.now_ns)
                else 'the window is never full'
            )
            found.append(
                f'at {_at(times, first):.2f} s {end}: {count} frames without a plan, {why}'
            )
            first = None
    return found
