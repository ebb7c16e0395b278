"""Runs of frames at the policy's rate, each with the actions that followed it."""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_vla_ros.episode.reader import Episode
from mobile_vla_ros.episode.timeline import actions_ahead, frame_times, segments
from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.types import ACCEPTED_VERDICTS, NANOSECONDS, VERDICTS

MOST_RATES = 100  # takes that are asked for theirs
NEARLY = 0.95  # of a rate: a camera that is a little slow is not resampled to its own


@dataclass(frozen=True)
class Sampling:
    """How takes are cut into training data: the policy's rate, window and chunk."""

    rate_hz: float = 10.0
    window: int = 4
    chunk: int = 10
    command_max_age_s: float = 0.5

    def __post_init__(self):
        if not (self.rate_hz > 0 and self.window > 0 and self.chunk > 0
                and self.command_max_age_s > 0):
            raise UserError('rate, window, chunk and command_max_age_s must be positive',
                            got=self)


@dataclass(frozen=True)
class Run:
    """
    Consecutive frames of one take with no gap between them.

    :param frames: (T,) rows of the episode's frames.
    :param ahead: (T, chunk, 6) commands of this step and the next ones, m/s and rad/s.
    :param real: (T, chunk) False where the take had ended.
    :param before: (T, 6) the command one step earlier; zero before the first.
    """

    path: Path
    episode_id: str
    instruction: str
    frames: np.ndarray
    ahead: np.ndarray
    real: np.ndarray
    before: np.ndarray

    def windows(self, window: int) -> np.ndarray:
        """Return (M, window) rows of this run: each window's frames, oldest first."""
        count = len(self.frames) - window + 1
        return np.arange(count)[:, None] + np.arange(window)[None]


def rate_for(paths: Sequence[Path], highest_hz: float) -> float:
    """Return the rate to sample some takes at: the highest, or their own where that is lower."""
    rates = []
    for path in paths[::1 + len(paths) // MOST_RATES]:
        with contextlib.suppress(UserError), Episode.open(path) as episode:
            rates += _own_rates_hz(episode)
    own_hz = float(np.median(rates)) if rates else highest_hz
    return own_hz if own_hz < NEARLY * highest_hz else highest_hz


def _own_rates_hz(episode: Episode) -> list[float]:
    """Return the rate of a take's frames (by their median spacing), or nothing."""
    times_ns, _ = frame_times(episode.frame_stamp_ns, episode.frame_received_ns)
    period_ns = np.median(np.diff(times_ns)) if len(times_ns) > 1 else 0
    return [NANOSECONDS / period_ns] if period_ns > 0 else []


def load_runs(paths: Iterable[Path], sampling: Sampling,
              accept: Sequence[str] = ACCEPTED_VERDICTS) -> tuple[list[Run], dict[str, str]]:
    """
    Cut takes into runs long enough for one window.

    A take that no writer finished is never taken, whatever its frames are worth.

    :param accept: verdicts of the takes that are taken; a take that holds none is judged.
    :returns: the runs, and for every take that gives none the reason.
    """
    _check_verdicts(accept)
    runs: list[Run] = []
    skipped: dict[str, str] = {}
    for path in paths:
        try:
            with Episode.open(path) as episode:
                reason = refusal(episode, accept)
                runs_of_it = [] if reason else _runs(episode, path, sampling)
                if not reason and not runs_of_it:
                    reason = _too_short(episode, sampling)
        except UserError as error:
            skipped[str(path)] = str(error)
            continue
        if not runs_of_it:
            skipped[str(path)] = reason
        runs.extend(runs_of_it)
    return runs, skipped


def _too_short(episode: Episode, sampling: Sampling) -> str:
    own = ''.join(f'; its frames come at {rate:.3g} Hz' for rate in _own_rates_hz(episode))
    return f'no {sampling.window} frames in a row at {sampling.rate_hz:g} Hz{own}'


def _check_verdicts(accept: Sequence[str]) -> None:
    """Raise UserError unless ``accept`` names at least one verdict, and verdicts alone."""
    for verdict in accept:
        if verdict not in VERDICTS:
            raise UserError('unknown verdict', got=repr(verdict), expected=', '.join(VERDICTS),
                            remedy=did_you_mean(str(verdict), VERDICTS))
    if not accept:
        raise UserError('no verdict is accepted', expected=f'some of {", ".join(VERDICTS)}',
                        remedy='name the verdicts of the takes to learn from')


def refusal(episode: Episode, accept: Sequence[str] = ACCEPTED_VERDICTS) -> str | None:
    """Say why a take is not learned from: unfinished, or its verdict; None when it may be."""
    if not episode.complete:
        return 'the take was never finished: mobile_vla episodes recover completes it'
    health = episode.health or episode.judge()
    if health['verdict'] in accept:
        return None
    return f'verdict {health["verdict"]}: ' + ('; '.join(health['reasons']) or 'no fault')


def refusals(skipped: dict[str, str]) -> str:
    """Return the takes that were left out and why, for a sentence: the first ten by name."""
    lines = [f'{Path(path).name}: {reason}' for path, reason in list(skipped.items())[:10]]
    more = len(skipped) - len(lines)
    return ' | '.join(lines + ([f'and {more} more'] if more else []))


def _runs(episode: Episode, path: Path, sampling: Sampling) -> list[Run]:
    found = []
    if not episode.instruction.strip():
        raise UserError(f'{path} has no instruction')
    if not np.isfinite(episode.commands.twist).all():
        row = int(np.argwhere(~np.isfinite(episode.commands.twist))[0, 0])
        raise UserError(f'{path} has a command that is not a finite number', got=f'row {row}')
    for segment in segments(episode, sampling.rate_hz,
                            command_max_age_s=sampling.command_max_age_s):
        if len(segment.frame_index) < sampling.window:
            continue
        ahead, real = actions_ahead(segment, sampling.chunk)
        before = np.vstack([np.zeros((1, 6)), segment.twist[:-1]])
        found.append(Run(path, episode.episode_id, episode.instruction, segment.frame_index,
                         ahead, real, before))
    return found


def fingerprint(runs: Iterable[Run]) -> str:
    """Return a hash of the takes and commands that some runs were made of."""
    digest = hashlib.sha256()
    for run in sorted(runs, key=lambda run: (run.episode_id, int(run.frames[0]))):
        digest.update(run.episode_id.encode())
        digest.update(run.instruction.encode())
        digest.update(np.ascontiguousarray(run.frames, dtype='<i8').tobytes())
        digest.update(np.ascontiguousarray(run.ahead, dtype='<f8').tobytes())
    return digest.hexdigest()
