"""What an episode contains, whether or not it is learned from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.catalog import coverage
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.timing.command_rule import CommandLog, CommandUse, KnownBy
from mobile_vla_ros.episode.timing.receipts import clock_steps
from mobile_vla_ros.episode.timing.timeline import times_of
from mobile_vla_ros.episode.timing.windows import median_rate_hz
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS

MAX_PAUSE_S = 10.0


@dataclass(frozen=True)
class EpisodeFacts:
    """
    What an episode contains.

    :param possible: windows that it would give if no frame were missing; none spans a split.
    :param camera_hz, command_hz: median rates; 0 if there are too few.
    :param command_age_s: median age of the newest command at the frames; None without one.
    :param use: how much depends on what the base does between two commands.
    :param clock_steps: how often the receiving clock was set.
    :param left_s, right_s: seconds driven or turned to that side.
    :param view: its start view (`coverage.start_view`); zeros if the image cannot be read.
    """

    episode_id: str
    instruction: str
    outcome: str
    frames: int
    possible: int
    camera_hz: float
    command_hz: float
    command_age_s: float | None
    use: CommandUse
    clock_steps: int
    left_s: float
    right_s: float
    view: np.ndarray

    @property
    def base_is_stated(self) -> bool:
        """Whether the episode says what its base does, so that no setting can."""
        return self.use.rule.known_by == KnownBy.RECORDED


def facts_of(episode: Episode, log: CommandLog, rate_hz: float, window: int) -> EpisodeFacts:
    """
    Return what an open episode contains; decodes one image.

    :param log: its commands (`Episode.command_log`).
    :param rate_hz: the policy's rate; window: frames of its window.
    """
    times_ns, _ = times_of(episode)
    times_ns = np.sort(times_ns)
    camera_hz = median_rate_hz(times_ns)
    rows, age_ns, _ = log.newest_at(times_ns)
    known = rows >= 0
    ends = (int(times_ns[0]), int(times_ns[-1])) if len(times_ns) else (0, 0)
    driven = coverage.motion(log, *ends)
    sides = np.split(times_ns, np.searchsorted(times_ns, episode.cuts_ns))
    try:
        view = coverage.start_view(episode.encoded(0))
    except (UserError, IndexError):
        view = np.zeros(1, np.float32)
    return EpisodeFacts(
        episode.episode_id,
        episode.instruction,
        episode.outcome,
        len(episode),
        sum(possible_windows(side, min(camera_hz, rate_hz), window) for side in sides),
        camera_hz,
        median_rate_hz(log.received_ns),
        float(np.median(age_ns[known])) / NANOSECONDS if known.any() else None,
        log.use(times_ns),
        len(clock_steps(episode.frame_received_ns, episode.frame_steady_ns)),
        driven['left'] + driven['turn_left'],
        driven['right'] + driven['turn_right'],
        view,
    )


def share_a_view(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    """Whether an episode of each side starts at the same place, by their start views."""
    if not some or not others:
        return False
    return bool((np.array(some) @ np.array(others).T).max() >= coverage.SAME_VIEW)


def possible_windows(times_ns: np.ndarray, rate_hz: float, window: int) -> int:
    """
    Return how many windows frames at these sorted times give if none is missing.

    A longer pause than ``MAX_PAUSE_S`` is no gap of the camera: its clock may have been set.
    """
    if not rate_hz or not len(times_ns):
        return 0
    span_s = float(np.minimum(np.diff(times_ns) / NANOSECONDS, MAX_PAUSE_S).sum())
    return max(0, round(span_s * rate_hz) + 1 - window + 1)
