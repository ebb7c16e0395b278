"""Cut episodes into segments of frames at the policy's rate, each with the actions that follow."""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros.data.facts import EpisodeFacts, facts_of
from mobile_vla_ros.episode.cameras import NoSuchCamera
from mobile_vla_ros.episode.catalog import coverage
from mobile_vla_ros.episode.catalog.inspect import MAX_SPEED, refusal, vetted
from mobile_vla_ros.episode.storage.hdf5_gate import MALFORMED
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.timing.corrections import PLAIN, Takeover, takeovers
from mobile_vla_ros.episode.timing.timeline import (
    actions_ahead,
    actions_before,
    kinds_ahead,
    times_of,
)
from mobile_vla_ros.episode.timing.timeline import (
    segments as grid_segments,
)
from mobile_vla_ros.episode.timing.windows import median_rate_hz
from mobile_vla_ros.errors import UserError, did_you_mean, first_line
from mobile_vla_ros.types import ACCEPTED_VERDICTS, NANOSECONDS, VERDICTS

MAX_RATES = 100  # episodes whose rate is measured
NEARLY = 0.95  # a camera at this share of the rate or above is not resampled to its own rate


@dataclass(frozen=True)
class Sampling:
    """
    How to cut episodes into training data: the policy's rate, window and chunk.

    :param command_max_age_s: the timeout of a base that an episode does not state; 0: it holds
        the last command; None: by odometry or images (`Episode.command_rule`).
    :param camera: whose images are the frames (`Episode.open`); '': the main one's.
    """

    rate_hz: float = 10.0
    window: int = 4
    chunk: int = 10
    command_max_age_s: float | None = None
    camera: str = ''

    @classmethod
    def of(cls, settings: Any) -> 'Sampling':
        """Return that of a policy or of a training, which has fields of the same names."""
        return cls(**{one.name: getattr(settings, one.name) for one in fields(cls)})

    def __post_init__(self) -> None:
        if not (self.rate_hz > 0 and self.window > 0 and self.chunk > 0):
            raise UserError('rate, window and chunk must be positive', got=self)


@dataclass(frozen=True)
class Segment:
    """
    Frames of one episode in the order of time, without a gap, and the windows among them.

    :param frames: (T,) rows of the recording's frames: an edit does not change their meaning.
    :param time_ns: (T,) int64 when they were taken, increasing.
    :param windows: (M, window) places in `frames` of the frames of each window, oldest first: the
        ones that driving would take (`episode.timing.windows`).
    :param ahead: (T, chunk, 6) commands at this step and the next ones, m/s and rad/s.
    :param real: (T, chunk) bool: False beyond the end of the segment.
    :param before: (T, 6) the command one step before the frame; zero before the first.
    :param kinds: (T, chunk) uint8 kind of each command in `ahead`
        (`episode.timing.corrections`); None: the episode has no corrections.
    :param camera: whose images the frames are; '': the main one's.
    """

    path: Path
    episode_id: str
    instruction: str
    frames: np.ndarray
    time_ns: np.ndarray
    windows: np.ndarray
    ahead: np.ndarray
    real: np.ndarray
    before: np.ndarray
    kinds: np.ndarray | None = None
    camera: str = ''

    def open(self) -> Episode:
        """Open its episode as recorded, by its camera: `frames` are rows of it."""
        return Episode.open(self.path, as_recorded=True, camera=self.camera)

    @property
    def seconds(self) -> np.ndarray:
        """Return (T,) the seconds of each frame, counted from the first."""
        seconds: np.ndarray = (self.time_ns - self.time_ns[0]) / NANOSECONDS
        return seconds


def rate_for(paths: Sequence[Path], max_hz: float) -> float:
    """Return the rate to sample episodes at: the maximum, or their own if it is lower."""
    rates = []
    for path, fault in vetted(paths[:: 1 + len(paths) // MAX_RATES], images=False):
        if fault is None:
            with contextlib.suppress(UserError, *MALFORMED), Episode.open(path) as episode:
                rates += _own_rates_hz(episode)
    own_hz = float(np.median(rates)) if rates else max_hz
    return own_hz if own_hz < NEARLY * max_hz else max_hz


def _own_rates_hz(episode: Episode) -> list[float]:
    """Return the rate of an episode's frames, from their median spacing, if it has any."""
    rate_hz = median_rate_hz(times_of(episode)[0])
    return [rate_hz] if rate_hz else []


@dataclass
class LoadedEpisodes:
    """
    The content of some episodes.

    :param segments: their segments, in the order of the episodes.
    :param skipped: by path, why an episode has no segments; a sentence about "it".
    :param signatures: by id, the command signature of each episode that has segments
        (`episode.catalog.coverage.signature`).
    :param takeovers: by id, the takeovers of each such episode that has any.
    :param facts: what each readable episode contains, also those without segments, except what
        somebody excluded.
    :param edits: by id, the hash of the edits of each such episode that has any.
    :param unreadable: how many of the skipped files cannot be read as episodes.
    """

    segments: list[Segment] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    signatures: dict[str, np.ndarray] = field(default_factory=dict)
    takeovers: dict[str, list[Takeover]] = field(default_factory=dict)
    facts: list[EpisodeFacts] = field(default_factory=list)
    edits: dict[str, str] = field(default_factory=dict)
    unreadable: int = 0


def read_episodes(
    paths: Iterable[Path],
    sampling: Sampling,
    accept: Sequence[str] = ACCEPTED_VERDICTS,
    *,
    images: bool = True,
) -> LoadedEpisodes:
    """
    Cut episodes into segments that are long enough for one window.

    Unfinished episodes are always skipped.

    :param accept: verdicts of the episodes to use; an episode without a verdict is judged now.
    :param images: whether their images will be read too.
    :raises UserError: for an unknown verdict; problems of an episode go to `skipped` instead.
    """
    _check_verdicts(accept)
    loaded = LoadedEpisodes()
    for path, fault in vetted(paths, images=images):
        readable = False
        try:
            if fault is not None:
                raise fault
            with Episode.open(path, camera=sampling.camera) as episode:
                if not episode.excluded:  # what somebody leaves out is not lost
                    log = episode.command_log(sampling.command_max_age_s)
                    loaded.facts.append(facts_of(episode, log, sampling.rate_hz, sampling.window))
                readable = True
                segments = _segments(episode, path, sampling, accept)
                signature = coverage.signature(log, int(episode.frame_steady_ns[-1]))
                own_takeovers = takeovers(episode.commands, episode.events)
                digest = episode.edits.digest
        except UserError as error:
            loaded.unreadable += not (readable or isinstance(error, NoSuchCamera))
            loaded.skipped[str(path)] = str(error).replace(str(path), 'it')
        except MALFORMED as error:
            loaded.unreadable += not readable
            loaded.skipped[str(path)] = (
                f'it is not a valid episode; got {type(error).__name__}: {first_line(error)}'
            )
        else:
            loaded.segments += segments
            loaded.signatures[segments[0].episode_id] = signature
            if own_takeovers:
                loaded.takeovers[segments[0].episode_id] = own_takeovers
            if digest:
                loaded.edits[segments[0].episode_id] = digest
    return loaded


def load_segments(
    paths: Iterable[Path], sampling: Sampling, accept: Sequence[str] = ACCEPTED_VERDICTS
) -> tuple[list[Segment], dict[str, str]]:
    """Return the segments from `read_episodes`, and why each skipped episode was skipped."""
    loaded = read_episodes(paths, sampling, accept)
    return loaded.segments, loaded.skipped


def _too_short(episode: Episode, sampling: Sampling, longest: int) -> str:
    own = ''.join(f'; its own frame rate is {rate:.3g} Hz' for rate in _own_rates_hz(episode))
    return (
        f'it has no {sampling.window} consecutive frames at {sampling.rate_hz:g} Hz: its '
        f'longest run has {longest} of its {len(episode)}{own}'
    )


def _check_verdicts(accept: Sequence[str]) -> None:
    """Raise UserError unless ``accept`` names at least one verdict, and only verdicts."""
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
            remedy='name the verdicts of the episodes to learn from',
        )


def refusals(skipped: dict[str, str]) -> str:
    """Return a clause listing the first ten skipped episodes with their reasons."""
    lines = [f'{Path(path).name}: {reason}' for path, reason in list(skipped.items())[:10]]
    more = len(skipped) - len(lines)
    return ' | '.join(lines + ([f'and {more} more'] if more else []))


def _segments(
    episode: Episode, path: Path, sampling: Sampling, accept: Sequence[str]
) -> list[Segment]:
    """Return at least one segment of an episode; otherwise raise UserError, about "it"."""
    reason = refusal(episode, accept)
    if reason:
        raise UserError(reason)
    found, longest = [], 0
    for grid in grid_segments(
        episode,
        sampling.rate_hz,
        sampling.window,
        command_max_age_s=sampling.command_max_age_s,
    ):
        longest = max(longest, len(grid))
        if not len(grid.windows):
            continue
        ahead, real = actions_ahead(grid, sampling.chunk)
        if not (np.abs(ahead) <= MAX_SPEED).all():  # just beyond the end of a trim
            raise UserError('it has an invalid command within a step of where it was trimmed')
        kinds = kinds_ahead(grid, sampling.chunk)
        found.append(
            Segment(
                path,
                episode.episode_id,
                episode.instruction,
                episode.recording.rows[grid.frame_index],
                grid.time_ns,
                grid.windows,
                ahead,
                real,
                actions_before(grid),
                kinds if (kinds != PLAIN).any() else None,
                episode.camera if sampling.camera else '',
            )
        )
    if not found:
        raise UserError(_too_short(episode, sampling, longest))
    return found


def fingerprint(segments: Iterable[Segment]) -> str:
    """Return a hash of the episodes and commands behind some segments."""
    digest = hashlib.sha256()
    for segment in sorted(
        segments, key=lambda segment: (segment.episode_id, int(segment.frames[0]))
    ):
        digest.update(segment.episode_id.encode())
        digest.update(segment.instruction.encode())
        digest.update(segment.camera.encode())
        digest.update(np.ascontiguousarray(segment.frames, dtype='<i8').tobytes())
        digest.update(np.ascontiguousarray(segment.ahead, dtype='<f8').tobytes())
    return digest.hexdigest()
