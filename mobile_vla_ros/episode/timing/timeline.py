"""
Pair frames with commands and resample them to the policy's rate.

A frame's time is its header stamp, or its receipt if the camera's clock cannot be trusted
(``frame_times``); a frame that newer ones have overtaken is sorted in by its time. The action at
time t is the newest command received at or before t if it is no older than ``command_max_age_s``,
else zero. A segment is a chain of frames at the policy's rate without a gap, and says in which of
them a window ends, by the rule that drives (``windows``). A window never spans two segments, and a
segment never spans a time at which somebody split the episode.
"""

from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.records import TimedEpisode
from mobile_vla_ros.episode.timing import camera_clock as clock
from mobile_vla_ros.episode.timing import corrections
from mobile_vla_ros.episode.timing.windows import TOLERANCE_PERIODS, frame_chains, window_rows
from mobile_vla_ros.types import NANOSECONDS

COMMAND_MAX_AGE_S = 0.5


@dataclass(frozen=True)
class CommandLog:
    """
    Every command of an episode, in order of receipt.

    :param received_ns: (M,) int64, not decreasing.
    :param twist: (M, 6) float64, m/s and rad/s.
    :param max_age_s: a command older than this means zero.
    :param kind: (M,) uint8 kind of each command (``corrections.kinds``); None: all are plain.
    """

    received_ns: np.ndarray
    twist: np.ndarray
    max_age_s: float = COMMAND_MAX_AGE_S
    kind: np.ndarray | None = None

    def at(self, time_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the action at each time.

        :param time_ns: (…) int64.
        :returns: (…, 6) float64 twist, zero without a fresh command; (…) bool: there is one.
        """
        rows, fresh = self._in_force(time_ns)
        twist = np.zeros((*rows.shape, 6))
        twist[fresh] = self.twist[rows[fresh]]
        return twist, fresh

    def kind_at(self, time_ns: np.ndarray) -> np.ndarray:
        """Return (…) uint8: the kind of the action at each time (``corrections.kinds``)."""
        kind = np.full(np.shape(time_ns), corrections.PLAIN, np.uint8)
        if self.kind is None or (self.kind == corrections.PLAIN).all():  # nearly every episode
            return kind
        rows, fresh = self._in_force(time_ns)
        kind[fresh] = self.kind[rows[fresh]]
        return kind

    def _in_force(self, time_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (…) int64 the row of the newest command at each time, (…) bool: it is fresh."""
        time_ns = np.asarray(time_ns, dtype=np.int64)
        if not len(self.received_ns):
            return np.zeros_like(time_ns), np.zeros(time_ns.shape, dtype=bool)
        rows, known = newest_at(time_ns, self.received_ns)
        return rows, known & (
            time_ns - self.received_ns[rows] <= round(self.max_age_s * NANOSECONDS)
        )


@dataclass(frozen=True)
class GridSegment:
    """
    Frames at the policy's rate without a gap, and the action at each.

    :param frame_index: (T,) int64 rows of the episode's frames, all different.
    :param time_ns: (T,) int64 the frames' own times, strictly increasing.
    :param twist: (T, 6) float64 the action at each frame's time, zero where no command is fresh.
    :param accepted: (T,) bool: a window ends in the frame, so that driving would plan there.
    :param rate_hz: the rate of the grid.
    :param commands: every command of the episode, for ``actions_ahead``.
    """

    frame_index: np.ndarray
    time_ns: np.ndarray
    twist: np.ndarray
    accepted: np.ndarray
    rate_hz: float
    commands: CommandLog

    def __len__(self) -> int:
        return len(self.frame_index)


def newest_at(time_ns: np.ndarray, received_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Find the newest row received at or before each time.

    :param time_ns: (…) int64; received_ns: (M,) int64, not decreasing, M > 0.
    :returns: (…) int64 rows, 0 if there is none; (…) bool: there is one.
    """
    rows = np.searchsorted(received_ns, time_ns, side='right') - 1
    return np.maximum(rows, 0), rows >= 0


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


def segments(
    episode: TimedEpisode,
    rate_hz: float,
    window: int = 1,
    *,
    command_max_age_s: float = COMMAND_MAX_AGE_S,
) -> list[GridSegment]:
    """
    Return the gapless segments of an episode at the policy's rate, in order.

    :param rate_hz: the policy's rate.
    :param window: frames in its window.
    :param command_max_age_s: see the head of this module.
    """
    time_ns, by = frame_times(episode.frame_stamp_ns, episode.frame_received_ns)
    # Receipts that go back are a clock fault and end a segment; stamps of a sane clock are sorted.
    place = np.argsort(time_ns, kind='stable') if by == 'stamp' else np.arange(len(time_ns))
    # What a trim cuts off may say what is in force in a frame that is left, or who was wrong.
    commands = episode.recording.commands
    # A clock that was set back leaves receipts out of order; a stable sort keeps their sequence.
    order = np.argsort(commands.received_ns, kind='stable')
    kind = corrections.kinds(commands, episode.recording.events)
    log = CommandLog(
        commands.received_ns[order],
        commands.twist[order],
        command_max_age_s,
        kind[order],
    )
    found = []
    backwards = np.flatnonzero(np.diff(time_ns[place]) < 0) + 1
    stretches = [
        part
        for whole in np.split(place, backwards)
        for part in np.split(whole, np.searchsorted(time_ns[whole], episode.cuts_ns))
        if len(part)
    ]
    for stretch in stretches:
        _, accepted = window_rows(time_ns[stretch], np.arange(len(stretch)), rate_hz, window)
        for chain in frame_chains(time_ns[stretch], rate_hz, accepted):
            rows, times = stretch[chain], time_ns[stretch[chain]]
            twist, _ = log.at(times)
            found.append(GridSegment(rows, times, twist, accepted[chain], rate_hz, log))
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
    real = times_ns <= segment.time_ns[-1] + tolerance_ns
    twist, _ = segment.commands.at(times_ns)
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
