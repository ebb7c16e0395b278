"""Runs of frames at the policy's rate, each with the actions that followed it."""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobile_vla_ros.episode.catalog import coverage
from mobile_vla_ros.episode.judge import judge
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.timing.corrections import PLAIN, Takeover, takeovers
from mobile_vla_ros.episode.timing.timeline import (
    actions_ahead,
    frame_times,
    kinds_ahead,
    segments,
)
from mobile_vla_ros.errors import UserError, did_you_mean, first_line
from mobile_vla_ros.types import ACCEPTED_VERDICTS, NANOSECONDS, TWIST_AXES, VERDICTS

MOST_RATES = 100  # takes that are asked for theirs
# m/s or rad/s: beyond it a command is a broken file, or in other units.
FASTEST = 100.0
# What a file that HDF5 opens, but no writer of ours made so, may make of reading it.
NO_EPISODE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
NEARLY = 0.95  # of a rate: a camera that is a little slow is not resampled to its own


@dataclass(frozen=True)
class Sampling:
    """How takes are cut into training data: the policy's rate, window and chunk."""

    rate_hz: float = 10.0
    window: int = 4
    chunk: int = 10
    command_max_age_s: float = 0.5

    def __post_init__(self):
        if not (
            self.rate_hz > 0 and self.window > 0 and self.chunk > 0 and self.command_max_age_s > 0
        ):
            raise UserError('rate, window, chunk and command_max_age_s must be positive', got=self)


@dataclass(frozen=True)
class Run:
    """
    Consecutive frames of one take with no gap between them.

    :param frames: (T,) rows of the episode's frames.
    :param ahead: (T, chunk, 6) commands of this step and the next ones, m/s and rad/s.
    :param real: (T, chunk) False where the take had ended.
    :param before: (T, 6) the command one step earlier; zero before the first.
    :param kinds: (T, chunk) uint8 what each of `ahead` is to who learns from corrections
        (`episode.corrections`); None: the take holds none.
    """

    path: Path
    episode_id: str
    instruction: str
    frames: np.ndarray
    ahead: np.ndarray
    real: np.ndarray
    before: np.ndarray
    kinds: np.ndarray | None = None

    def windows(self, window: int) -> np.ndarray:
        """Return (M, window) rows of this run: each window's frames, oldest first."""
        count = len(self.frames) - window + 1
        return np.arange(count)[:, None] + np.arange(window)[None]


def rate_for(paths: Sequence[Path], highest_hz: float) -> float:
    """Return the rate to sample some takes at: the highest, or their own where that is lower."""
    rates = []
    for path in paths[:: 1 + len(paths) // MOST_RATES]:
        with contextlib.suppress(UserError, *NO_EPISODE), Episode.open(path) as episode:
            rates += _own_rates_hz(episode)
    own_hz = float(np.median(rates)) if rates else highest_hz
    return own_hz if own_hz < NEARLY * highest_hz else highest_hz


def _own_rates_hz(episode: Episode) -> list[float]:
    """Return the rate of a take's frames (by their median spacing), or nothing."""
    times_ns, _ = frame_times(episode.frame_stamp_ns, episode.frame_received_ns)
    period_ns = np.median(np.diff(times_ns)) if len(times_ns) > 1 else 0
    return [NANOSECONDS / period_ns] if period_ns > 0 else []


@dataclass
class Loaded:
    """
    What some takes hold.

    :param runs: their runs of frames, in the order of the takes.
    :param skipped: for every take that gives no run, the reason: a sentence about "it".
    :param signatures: what each take that gives one drives (`episode.coverage.signature`), by id.
    :param takeovers: those of each such take that has any, by id.
    """

    runs: list[Run] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    signatures: dict[str, np.ndarray] = field(default_factory=dict)
    takeovers: dict[str, list[Takeover]] = field(default_factory=dict)


def read_takes(
    paths: Iterable[Path], sampling: Sampling, accept: Sequence[str] = ACCEPTED_VERDICTS
) -> Loaded:
    """
    Cut takes into runs long enough for one window.

    A take that no writer finished is never taken, whatever its frames are worth.

    :param accept: verdicts of the takes that are taken; a take that holds none is judged.
    :raises UserError: for an unknown verdict; never for a take.
    """
    _check_verdicts(accept)
    loaded = Loaded()
    for path in paths:
        try:
            with Episode.open(path) as episode:
                runs = _runs(episode, path, sampling, accept)
                commands = episode.commands
                driven = coverage.signature(commands.received_ns, commands.twist)
                taken = takeovers(commands, episode.events)
        except UserError as error:
            loaded.skipped[str(path)] = str(error).replace(str(path), 'it')
        except NO_EPISODE as error:
            loaded.skipped[str(path)] = (
                f'it lacks what an episode has; got {type(error).__name__}: {first_line(error)}'
            )
        else:
            loaded.runs += runs
            loaded.signatures[runs[0].episode_id] = driven
            if taken:
                loaded.takeovers[runs[0].episode_id] = taken
    return loaded


def load_runs(
    paths: Iterable[Path], sampling: Sampling, accept: Sequence[str] = ACCEPTED_VERDICTS
) -> tuple[list[Run], dict[str, str]]:
    """Return the runs of `read_takes`, and for every take that gives none the reason."""
    loaded = read_takes(paths, sampling, accept)
    return loaded.runs, loaded.skipped


def _too_short(episode: Episode, sampling: Sampling, longest: int) -> str:
    own = ''.join(f'; its frames come at {rate:.3g} Hz' for rate in _own_rates_hz(episode))
    return (
        f'no {sampling.window} frames in a row at {sampling.rate_hz:g} Hz, at most {longest} '
        f'of its {len(episode)}{own}'
    )


def _check_verdicts(accept: Sequence[str]) -> None:
    """Raise UserError unless ``accept`` names at least one verdict, and verdicts alone."""
    for verdict in accept:
        if verdict not in VERDICTS:
            raise UserError(
                'unknown verdict',
                got=repr(verdict),
                expected=', '.join(VERDICTS),
                remedy=did_you_mean(str(verdict), VERDICTS),
            )
    if not accept:
        raise UserError(
            'no verdict is accepted',
            expected=f'some of {", ".join(VERDICTS)}',
            remedy='name the verdicts of the takes to learn from',
        )


def refusal(episode: Episode, accept: Sequence[str] = ACCEPTED_VERDICTS) -> str | None:
    """Say why a take is not learned from: unfinished, or its verdict; None when it may be."""
    if not episode.complete:
        return 'the take was never finished: mobile_vla episodes recover completes it'
    health = episode.health or judge(episode)
    if health['verdict'] in accept:
        return None
    return f'verdict {health["verdict"]}: ' + ('; '.join(health['reasons']) or 'no fault')


def refusals(skipped: dict[str, str]) -> str:
    """Return the takes that were left out and why, for a sentence: the first ten by name."""
    lines = [f'{Path(path).name}: {reason}' for path, reason in list(skipped.items())[:10]]
    more = len(skipped) - len(lines)
    return ' | '.join(lines + ([f'and {more} more'] if more else []))


def _runs(episode: Episode, path: Path, sampling: Sampling, accept: Sequence[str]) -> list[Run]:
    """Return at least one run of a take; raise UserError, about "it", when it gives none."""
    reason = _unusable(episode) or refusal(episode, accept)
    if reason:
        raise UserError(reason)
    found, longest = [], 0
    for segment in segments(
        episode, sampling.rate_hz, command_max_age_s=sampling.command_max_age_s
    ):
        longest = max(longest, len(segment))
        if len(segment) < sampling.window:
            continue
        ahead, real = actions_ahead(segment, sampling.chunk)
        kinds = kinds_ahead(segment, sampling.chunk)
        before = np.vstack([np.zeros((1, 6)), segment.twist[:-1]])
        found.append(
            Run(
                path,
                episode.episode_id,
                episode.instruction,
                segment.frame_index,
                ahead,
                real,
                before,
                kinds if (kinds != PLAIN).any() else None,
            )
        )
    if not found:
        raise UserError(_too_short(episode, sampling, longest))
    return found


def _unusable(episode: Episode) -> str | None:
    """Say what of a take's content cannot be learned from, whatever its verdict is."""
    if not episode.instruction.strip():
        return 'it has no instruction'
    twist = episode.commands.twist
    wrong = np.argwhere(~(np.abs(twist) <= FASTEST))
    if len(wrong):
        row, column = wrong[0]
        what = (
            f'speed of a robot (at most {FASTEST:g})'
            if np.isfinite(twist[row, column])
            else 'finite number'
        )
        return (
            f'it has a command that is not a {what}; '
            f'got row {row}: {TWIST_AXES[column]} {twist[row, column]:g}'
        )
    return None


def fingerprint(runs: Iterable[Run]) -> str:
    """Return a hash of the takes and commands that some runs were made of."""
    digest = hashlib.sha256()
    for run in sorted(runs, key=lambda run: (run.episode_id, int(run.frames[0]))):
        digest.update(run.episode_id.encode())
        digest.update(run.instruction.encode())
        digest.update(np.ascontiguousarray(run.frames, dtype='<i8').tobytes())
        digest.update(np.ascontiguousarray(run.ahead, dtype='<f8').tobytes())
    return digest.hexdigest()
