"""
Pair frames with commands and resample them to the policy's rate.

A frame's time is its header stamp, or its receipt if the camera's clock cannot be trusted
(``frame_times``); a frame that newer ones have overtaken is sorted in by its time. The action at
time t is the newest command received at or before t if it is still in force (``command_rule``),
else zero. A grid at the policy's rate starts at the first frame; each of its steps uses the
nearest frame within half a period. A step without such a frame is a gap: it ends the segment, and
a new grid starts at the next frame. A window never spans two segments.
"""

from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.records import TimedEpisode
from mobile_vla_ros.episode.timing import camera_clock as clock
from mobile_vla_ros.episode.timing import corrections
from mobile_vla_ros.episode.timing.command_rule import CommandLog, RuledEpisode
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS


@dataclass(frozen=True)
class GridSegment:
    """
    Frames at the policy's rate without a gap, and the action at each.

    :param frame_index: (T,) int64 rows of the episode's frames, all different.
    :param time_ns: (T,) int64 the frames' own times, strictly increasing.
    :param twist: (T, 6) float64 the action at each frame's time, zero if no command is in force.
    :param rate_hz: the rate of the grid.
    :param commands: every command of the episode, for ``actions_ahead``.
    """

    frame_index: np.ndarray
    time_ns: np.ndarray
    twist: np.ndarray
    rate_hz: float
    commands: CommandLog

    def __len__(self) -> int:
        return len(self.frame_index)


def frame_times(stamp_ns: np.ndarray, received_ns: np.ndarray) -> tuple[np.ndarray, str]:
    """
    Choose the clock of an episode's frames.

    The header stamp, which is the time of exposure, is used if the camera's clock is sane
    (``camera_clock.check``), the time of receipt otherwise.

    :param stamp_ns: (N,) int64; likewise ``received_ns``.
    :returns: (N,) int64 times, in order of receipt: not sorted where a frame was overtaken;
        ``'stamp'`` or ``'received'``.
    """
    if len(stamp_ns) and clock.check(stamp_ns, received_ns).sane:
        return np.asarray(stamp_ns), 'stamp'
    return np.asarray(received_ns), 'received'


def grid_frames(time_ns: np.ndarray, rate_hz: float) -> list[np.ndarray]:
    """
    Sample frames at a rate; return the rows of each segment.

    A frame is within half a period of a step if its distance d satisfies -half < d <= half, so
    that no frame serves two steps. Where time runs backwards, a segment ends as well.

    :param time_ns: (N,) int64 times of the frames, in order of receipt.
    :param rate_hz: the policy's rate, greater than 0.
    :returns: one (T,) int64 array of strictly increasing rows for each segment.
    """
    if not rate_hz > 0:
        raise UserError('a rate must be greater than zero', got=rate_hz)
    times = [int(t) for t in time_ns]
    ends = [row for row in range(1, len(times)) if times[row] < times[row - 1]]
    segments, row = [], 0
    for end in [*ends, len(times)]:
        while row < end:
            rows, row = _one_segment(times, row, end, rate_hz)
            segments.append(np.array(rows, dtype=np.int64))
    return segments


def _one_segment(times: list[int], first: int, end: int, rate_hz: float) -> tuple[list[int], int]:
    """Return the rows of the segment whose grid starts at ``first``, and the next start."""
    half_ns = NANOSECONDS / rate_hz / 2
    rows, row = [first], first
    for step in range(1, end + 1 + int((times[end - 1] - times[first]) / half_ns)):
        due = times[first] + round(step * NANOSECONDS / rate_hz)
        while row + 1 < end and abs(times[row + 1] - due) <= abs(times[row] - due):
            row += 1
        if row == rows[-1] or not -half_ns < times[row] - due <= half_ns:
            break
        rows.append(row)
    # Frames between the last sampled one and the gap were nearest to no step.
    following = rows[-1] + 1
    while following < end and times[following] <= due:
        following += 1
    return rows, following


def segments(
    episode: RuledEpisode, rate_hz: float, *, command_max_age_s: float | None = None
) -> list[GridSegment]:
    """
    Return the gapless segments of an episode at the policy's rate, in order.

    :param rate_hz: the policy's rate.
    :param command_max_age_s: the base's timeout, if the episode does not say (``command_rule``).
    """
    time_ns, by = frame_times(episode.frame_stamp_ns, episode.frame_received_ns)
    # Receipts that go back are a clock fault and end a segment; stamps of a sane clock are sorted.
    place = np.argsort(time_ns, kind='stable') if by == 'stamp' else np.arange(len(time_ns))
    log = CommandLog.of(
        episode.commands.received_ns,
        episode.commands.twist,
        episode.command_rule(command_max_age_s),
        corrections.kinds(episode.commands, episode.events),
    )
    found = []
    for rows in (place[sampled] for sampled in grid_frames(time_ns[place], rate_hz)):
        found.append(GridSegment(rows, time_ns[rows], log.at(time_ns[rows])[0], rate_hz, log))
    return found


def actions_ahead(segment: GridSegment, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the chunk that each frame of a segment should predict: the actions at t + k / rate.

    :param chunk: steps ahead, including the frame's own.
    :returns: (T, chunk, 6) float64 twists, zero where masked; (T, chunk) bool: the step lies
        inside the segment.
    """
    count = len(segment)
    real = np.arange(count)[:, None] + np.arange(chunk) < count
    twist, _ = segment.commands.at(_times_ahead(segment, chunk))
    return np.where(real[..., None], twist, 0.0), real


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
    stamp_ns, by = frame_times(episode.frame_stamp_ns, episode.frame_received_ns)
    now_ns = np.maximum.accumulate(np.maximum(episode.frame_received_ns, stamp_ns))
    note = ''
    if by != 'stamp':
        fault = clock.check(episode.frame_stamp_ns, episode.frame_received_ns).sentence
        note = f'{fault}: frames are timed by their receipt'
    return ArrivalTimes(stamp_ns, now_ns, note)
