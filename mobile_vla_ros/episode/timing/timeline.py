"""
Pairs frames with commands and resamples them to the policy's rate: the only place that does.

The law. A frame's time is its header stamp, or its receipt where the camera's clock cannot be
trusted (``frame_times``); one that newer frames have overtaken takes its place in time. The
action at time t is the newest command received at or before t if it is no older than
``command_max_age_s``, else zero. A grid at the policy's rate starts at the first frame; every
step of it takes the nearest frame within half a period; a step with no such frame is a gap: it
ends the segment, and a new grid starts at the next frame. A window never spans two segments.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mobile_vla_ros.episode.quality import camera_clock as clock
from mobile_vla_ros.episode.timing import corrections
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS

if TYPE_CHECKING:
    from mobile_vla_ros.episode.storage.reader import Episode

COMMAND_MAX_AGE_S = 0.5


@dataclass(frozen=True)
class CommandLog:
    """
    Every command of a take, in the order of its receipt.

    :param received_ns: (M,) int64, not decreasing.
    :param twist: (M, 6) float64, m/s and rad/s.
    :param max_age_s: a command older than this means zero.
    :param kind: (M,) uint8 what each is to who learns from corrections (``corrections.kinds``);
        None: all are plain.
    """

    received_ns: np.ndarray
    twist: np.ndarray
    max_age_s: float = COMMAND_MAX_AGE_S
    kind: np.ndarray | None = None

    def at(self, time_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the action at each time.

        :param time_ns: (…) int64.
        :returns: (…, 6) float64 twist, zero where no command is fresh; (…) bool: one is.
        """
        rows, fresh = self._in_force(time_ns)
        twist = np.zeros((*rows.shape, 6))
        twist[fresh] = self.twist[rows[fresh]]
        return twist, fresh

    def kind_at(self, time_ns: np.ndarray) -> np.ndarray:
        """Return (…) uint8: what the action at each time is to who learns from corrections."""
        kind = np.full(np.shape(time_ns), corrections.PLAIN, np.uint8)
        if self.kind is None or (self.kind == corrections.PLAIN).all():  # as of nearly every take
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
class Segment:
    """
    A run of frames at the policy's rate with no gap in it, and the action at each.

    :param frame_index: (T,) int64 rows of the episode's frames, each another one.
    :param time_ns: (T,) int64 the frames' own times, strictly increasing.
    :param twist: (T, 6) float64 the action at each frame's time.
    :param command_valid: (T,) bool: False where no command was fresh and the twist is zero so.
    :param rate_hz: the rate of the grid.
    :param commands: what ``actions_ahead`` reads.
    """

    frame_index: np.ndarray
    time_ns: np.ndarray
    twist: np.ndarray
    command_valid: np.ndarray
    rate_hz: float
    commands: CommandLog

    def __len__(self) -> int:
        return len(self.frame_index)


def newest_at(time_ns: np.ndarray, received_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Find the newest row received at or before each time.

    :param time_ns: (…) int64; received_ns: (M,) int64, not decreasing, M > 0.
    :returns: (…) int64 rows, 0 where there is none; (…) bool: there is one.
    """
    rows = np.searchsorted(received_ns, time_ns, side='right') - 1
    return np.maximum(rows, 0), rows >= 0


def frame_times(stamp_ns: np.ndarray, received_ns: np.ndarray) -> tuple[np.ndarray, str]:
    """
    Decide once for a take which clock its frames are timed by.

    The header stamp says when the light fell in and is taken if the camera's clock is sane
    (``clock.check``). Else the time of receipt is taken.

    :param stamp_ns: (N,) int64; likewise ``received_ns``.
    :returns: (N,) int64 times, not increasing where a frame was overtaken on its way;
        ``'stamp'`` or ``'received'``.
    """
    if len(stamp_ns) and clock.check(stamp_ns, received_ns).sane:
        return np.asarray(stamp_ns), 'stamp'
    return np.asarray(received_ns), 'received'


def grid_frames(time_ns: np.ndarray, rate_hz: float) -> list[np.ndarray]:
    """
    Sample frames to a rate: the rows that each segment takes.

    A frame is within half a period of a step when its distance d fulfils -half < d <= half, so
    that no frame serves two steps. Where time runs backwards, a segment ends as well.

    :param time_ns: (N,) int64 times of the frames, in the order of their receipt.
    :param rate_hz: the policy's rate, more than 0.
    :returns: one (T,) int64 array of strictly increasing rows for each segment.
    """
    if not rate_hz > 0:
        raise UserError('a rate must be more than zero', got=rate_hz)
    times = [int(t) for t in time_ns]
    ends = [row for row in range(1, len(times)) if times[row] < times[row - 1]]
    segments, row = [], 0
    for end in [*ends, len(times)]:
        while row < end:
            rows, row = _one_segment(times, row, end, rate_hz)
            segments.append(np.array(rows, dtype=np.int64))
    return segments


def _one_segment(times: list[int], first: int, end: int, rate_hz: float):
    """Return the rows of the segment whose grid starts at ``first``, and where the next starts."""
    half_ns = NANOSECONDS / rate_hz / 2
    rows, row = [first], first
    for step in range(1, end + 1 + int((times[end - 1] - times[first]) / half_ns)):
        due = times[first] + round(step * NANOSECONDS / rate_hz)
        while row + 1 < end and abs(times[row + 1] - due) <= abs(times[row] - due):
            row += 1
        if row == rows[-1] or not -half_ns < times[row] - due <= half_ns:
            break
        rows.append(row)
    # Frames between the last one taken and the gap were nearest to no step of their own.
    following = rows[-1] + 1
    while following < end and times[following] <= due:
        following += 1
    return rows, following


def segments(
    episode: 'Episode', rate_hz: float, *, command_max_age_s: float = COMMAND_MAX_AGE_S
) -> list[Segment]:
    """
    Return the gapless segments of an episode at the policy's rate, in order.

    :param rate_hz: the policy's rate.
    :param command_max_age_s: see the law at the head of this module.
    """
    time_ns, by = frame_times(episode.frame_stamp_ns, episode.frame_received_ns)
    # Receipts that go back are a clock's fault, and end a segment; stamps of a sane clock are not.
    place = np.argsort(time_ns, kind='stable') if by == 'stamp' else np.arange(len(time_ns))
    # A clock that was set back leaves receipts out of order; a stable sort keeps their sequence.
    order = np.argsort(episode.commands.received_ns, kind='stable')
    kind = corrections.kinds(episode.commands, episode.events)
    log = CommandLog(
        episode.commands.received_ns[order],
        episode.commands.twist[order],
        command_max_age_s,
        kind[order],
    )
    found = []
    for rows in (place[taken] for taken in grid_frames(time_ns[place], rate_hz)):
        twist, valid = log.at(time_ns[rows])
        found.append(Segment(rows, time_ns[rows], twist, valid, rate_hz, log))
    return found


def actions_ahead(segment: Segment, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Return what each frame of a segment should predict: the actions at t + k / rate.

    :param chunk: steps ahead, the frame's own included.
    :returns: (T, chunk, 6) float64 twists, zero where masked; (T, chunk) bool: the step lies
        inside the segment.
    """
    count = len(segment)
    real = np.arange(count)[:, None] + np.arange(chunk) < count
    twist, _ = segment.commands.at(_times_ahead(segment, chunk))
    return np.where(real[..., None], twist, 0.0), real


def kinds_ahead(segment: Segment, chunk: int) -> np.ndarray:
    """Return (T, chunk) uint8: what each of ``actions_ahead`` is (``corrections.kinds``)."""
    return segment.commands.kind_at(_times_ahead(segment, chunk))


def _times_ahead(segment: Segment, chunk: int) -> np.ndarray:
    """Return (T, chunk) int64: the times t + k / rate of each frame."""
    ahead_ns = np.round(np.arange(chunk) * (NANOSECONDS / segment.rate_hz)).astype(np.int64)
    return segment.time_ns[:, None] + ahead_ns


@dataclass(frozen=True)
class Came:
    """
    When each frame was taken, and when it could be known.

    :param stamp_ns: (N,) int64; the receipts where the camera's clock cannot be trusted, as
        `timeline.frame_times` decides.
    :param now_ns: (N,) int64, not decreasing and nowhere before the stamp.
    :param note: what was mended of the times, in words; empty: nothing.
    """

    stamp_ns: np.ndarray
    now_ns: np.ndarray
    note: str = ''


def came(episode: 'Episode') -> Came:
    """Return the times at which a take's frames came."""
    stamp_ns, by = frame_times(episode.frame_stamp_ns, episode.frame_received_ns)
    now_ns = np.maximum.accumulate(np.maximum(episode.frame_received_ns, stamp_ns))
    note = ''
    if by != 'stamp':
        wrong = clock.check(episode.frame_stamp_ns, episode.frame_received_ns).sentence
        note = f'{wrong}: the frames are timed by their receipt'
    return Came(stamp_ns, now_ns, note)
