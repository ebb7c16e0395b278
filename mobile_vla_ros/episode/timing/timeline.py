"""
Pair frames with commands and resample them to the policy's rate.

All times are on the episode's steady clock. A frame's time is that of its exposure by its header
stamp, or its receipt if the camera's clock cannot be trusted (``frame_times``); a frame that newer
ones have overtaken is sorted in by its time. The action at time t is the newest command received
at or before t if it is still in force (``command_rule``), else zero. A segment has the frames of
the policy's windows without a gap, and these windows are the ones that driving would take
(``windows``). A segment never spans a time at which somebody split the episode.
"""

import functools
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.records import RecordedRows, TimedEpisode
from mobile_vla_ros.episode.timing import camera_clock as clock
from mobile_vla_ros.episode.timing import corrections
from mobile_vla_ros.episode.timing.command_rule import CommandLog, RuledEpisode
from mobile_vla_ros.episode.timing.windows import (
    TOLERANCE_PERIODS,
    training_windows,
    window_rows,
)
from mobile_vla_ros.types import NANOSECONDS


@dataclass(frozen=True)
class GridSegment:
    """
    The frames of windows at the policy's rate without a gap, and the action at each.

    A segment too short for a window has all its frames.

    :param frame_index: (T,) int64 rows of the episode's frames, all different.
    :param time_ns: (T,) int64 the frames' own times on the steady clock, strictly increasing.
    :param twist: (T, 6) float64 the action at each frame's time, zero if no command is in force.
    :param windows: (M, window) int64 places of the frames of each window, oldest first; one
        window for each period (``training_windows``).
    :param end_ns: the time of the last frame before a gap.
    :param rate_hz: the rate of the grid.
    :param commands: every command of the episode, for ``actions_ahead``.
    """

    frame_index: np.ndarray
    time_ns: np.ndarray
    twist: np.ndarray
    windows: np.ndarray
    end_ns: int
    rate_hz: float
    commands: CommandLog

    def __len__(self) -> int:
        return len(self.frame_index)


def frame_times(
    stamp_ns: np.ndarray, received_ns: np.ndarray, steady_ns: np.ndarray
) -> tuple[np.ndarray, str]:
    """
    Return when the frames of an episode were taken, on its steady clock.

    That is the time of exposure by the header stamp if the camera's clock is sane
    (``camera_clock.check``), the receipt otherwise.

    :param stamp_ns: (N,) int64; likewise ``received_ns`` and ``steady_ns``
        (``camera_clock.exposure_times``).
    :returns: (N,) int64 times, in order of receipt: not sorted where a frame was overtaken;
        ``'stamp'`` or ``'received'``.
    """
    if len(stamp_ns) and clock.check(stamp_ns, received_ns, steady_ns).sane:
        return clock.exposure_times(stamp_ns, received_ns, steady_ns), 'stamp'
    return np.asarray(steady_ns), 'received'


def times_of(episode: TimedEpisode) -> tuple[np.ndarray, str]:
    """Return the ``frame_times`` of the frames that an episode shows; a trim changes none."""
    times_ns, by = recorded_times(episode.recording)
    return times_ns[episode.recording.rows], by


@functools.lru_cache(maxsize=1)  # called several times for one episode
def recorded_times(recording: RecordedRows) -> tuple[np.ndarray, str]:
    """Return the ``frame_times`` of every frame of a recording."""
    return frame_times(
        recording.frame_stamp_ns, recording.frame_received_ns, recording.frame_steady_ns
    )


def segments(
    episode: RuledEpisode,
    rate_hz: float,
    window: int = 1,
    *,
    command_max_age_s: float | None = None,
) -> list[GridSegment]:
    """
    Return the gapless segments of an episode at the policy's rate, in order.

    :param rate_hz: the policy's rate.
    :param window: frames in its window.
    :param command_max_age_s: the base's timeout, if the episode does not say (``command_rule``).
    """
    time_ns, _ = times_of(episode)
    # A frame that newer ones have overtaken is sorted in by its stamp; receipts are in order.
    place = np.argsort(time_ns, kind='stable')
    # Use commands outside the trim too: they can still be in force in a kept frame, or mark a
    # correction.
    commands = episode.recording.commands
    log = CommandLog(
        commands.steady_ns,
        commands.twist,
        episode.command_rule(command_max_age_s),
        corrections.kinds(commands, episode.recording.events),
    )
    found = []
    for rows in np.split(place, np.searchsorted(time_ns[place], episode.cuts_ns)):
        times_ns = time_ns[rows]
        for own, windows, end_ns in training_windows(times_ns, rate_hz, window):
            twist, _ = log.at(times_ns[own])
            found.append(
                GridSegment(rows[own], times_ns[own], twist, windows, end_ns, rate_hz, log)
            )
    return found


def actions_ahead(segment: GridSegment, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the chunk that each frame of a segment should predict: the actions at t + k / rate.

    :param chunk: steps ahead, including the frame's own.
    :returns: (T, chunk, 6) float64 twists, zero where masked; (T, chunk) bool: the step lies
        inside the segment.
    """
    times_ns = _times_ahead(segment, chunk)
    tolerance_ns = TOLERANCE_PERIODS * NANOSECONDS / segment.rate_hz
    real = times_ns <= max(segment.time_ns[-1] + tolerance_ns, segment.end_ns)
    twist, _ = segment.commands.at(times_ns)
    return np.where(real[..., None], twist, 0.0), real


def actions_before(segment: GridSegment) -> np.ndarray:
    """Return (T, 6) the action one step before each frame of a segment, zero before the first."""
    every = np.arange(len(segment))
    pairs, _ = window_rows(segment.time_ns, every, segment.rate_hz, window=2)
    return np.where((pairs[:, 0] < every)[:, None], segment.twist[pairs[:, 0]], 0.0)


def kinds_ahead(segment: GridSegment, chunk: int) -> np.ndarray:
    """Return (T, chunk) uint8: the kind of each of ``actions_ahead`` (``corrections.kinds``)."""
    return segment.commands.kind_at(_times_ahead(segment, chunk))


def _times_ahead(segment: GridSegment, chunk: int) -> np.ndarray:
    """Return (T, chunk) int64: the times t + k / rate of each frame."""
    ahead_ns = np.round(np.arange(chunk) * (NANOSECONDS / segment.rate_hz)).astype(np.int64)
    return segment.time_ns[:, None] + ahead_ns


@dataclass(frozen=True)
class ArrivalTimes:
    """
    When each frame was captured, and when it was available.

    :param stamp_ns: (N,) int64 frame times, as `frame_times` chooses them.
    :param now_ns: (N,) int64, not decreasing and never before the stamp.
    :param note: a sentence, if the camera's clock cannot be trusted; else empty.
    """

    stamp_ns: np.ndarray
    now_ns: np.ndarray
    note: str = ''


def arrival_times(episode: TimedEpisode) -> ArrivalTimes:
    """Return when an episode's frames were captured and received."""
    stamp_ns, by = times_of(episode)
    now_ns = np.maximum.accumulate(np.maximum(episode.frame_steady_ns, stamp_ns))
    note = ''
    if by != 'stamp':
        whole = episode.recording
        fault = clock.check(
            whole.frame_stamp_ns, whole.frame_received_ns, whole.frame_steady_ns
        ).sentence
        note = f'{fault}: frames are timed by their receipt'
    return ArrivalTimes(stamp_ns, now_ns, note)
