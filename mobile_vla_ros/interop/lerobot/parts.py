"""
Which frames of an episode go into a LeRobot set, and what is known at each.

Frames and commands are chosen as for training (``episode.timing.timeline.segments``, one frame a
window). LeRobot's episodes have no gaps, so that each segment becomes one of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.catalog.inspect import judge_episode, judged, refusal
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.timing.command_rule import CommandLog
from mobile_vla_ros.episode.timing.corrections import CORRECTED
from mobile_vla_ros.episode.timing.timeline import actions_before, segments, times_of
from mobile_vla_ros.episode.timing.windows import median_rate_hz
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.stored import BrokenImage, read_header
from mobile_vla_ros.interop.lerobot import layout
from mobile_vla_ros.types import TWIST_AXES

# Of the rate of a set: a slower camera would stretch the time, since rows are 1 / fps apart.
SLOWEST = 0.95
MIN_FRAMES = 2


class LeftOut(UserError):
    """An episode that can be read, and does not belong into a set; the reason is about "it"."""


@dataclass(frozen=True)
class Content:
    """
    What an episode has, of which the features of the whole set depend.

    :param rate_hz: the camera's own.
    :param size: width and height of its first image.
    :param axes: those on which the command at some frame is not zero.
    :param proposals: whether it has any; robot: its name, or ''.
    :param cameras: those beside the main one.
    """

    rate_hz: float
    size: tuple[int, int]
    axes: tuple[str, ...]
    proposals: bool
    robot: str
    cameras: tuple[str, ...]


def content(episode: Episode, *, excluded: bool = False) -> Content:
    """
    Return what an episode has.

    :param excluded: accept it although somebody excluded it.
    :raises LeftOut: when it is not to be learned from.
    """
    reason = refusal(episode, excluded=excluded)
    if reason:
        raise LeftOut(reason)
    try:
        header = read_header(episode.encoded(0))
    except BrokenImage as error:
        raise UserError(
            f'{episode.path} is broken at frame 0', got=error.reason, expected='an image'
        ) from None
    time_ns, _ = times_of(episode)
    used = (episode.command_log().at(time_ns)[0] != 0).any(axis=0)
    return Content(
        median_rate_hz(time_ns),
        (header.width, header.height),
        tuple(axis for axis, is_used in zip(TWIST_AXES, used, strict=True) if is_used),
        episode.proposals is not None and len(episode.proposals) > 0,
        str(episode.attributes.get('robot', '')),
        tuple(episode.cameras)[1:],
    )


@dataclass(frozen=True)
class Part:
    """
    Frames of an episode without a gap, an episode of the set.

    :param rows: (T,) int64 the episode's frames.
    :param columns: (T,) or (T, n) values of the features, except images and indexes.
    """

    rows: np.ndarray
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.rows)


def parts_of(
    episode: Episode, fps: int, actions: Mapping[str, str], *, state: str, proposals: bool
) -> tuple[list[Part], int]:
    """
    Return the parts of an episode in order, and how many single frames belong to none.

    :param fps: of the set.
    :param actions: the name of each axis that is exported.
    :param state: ``odom``: with odometry, and frames without any are a gap; ``command``: with the
        command one frame before; '': with neither.
    :param proposals: with the policy's proposals: NaN where none is younger than half a second.
    :raises LeftOut: when nothing is left.
    """
    rate_hz = median_rate_hz(times_of(episode)[0])
    if rate_hz < SLOWEST * fps:
        raise LeftOut(f'its camera has {rate_hz:.3g} frames a second, fewer than {fps}')
    odometry = episode.odometry if state == layout.ODOMETRY else None
    if state == layout.ODOMETRY and odometry is None:
        raise LeftOut('it has no odometry')
    columns = [TWIST_AXES.index(axis) for axis in actions]
    found, single = [], 0
    for segment in segments(episode, fps):
        known, states = np.ones(len(segment), bool), actions_before(segment)[:, columns]
        if odometry is not None:
            states = odometry.state(segment.time_ns)
            known = np.isfinite(states).all(axis=1)
        proposed = _proposals(episode, segment.time_ns)[:, columns]
        takeover = segment.commands.kind_at(segment.time_ns) == CORRECTED
        for first, last in _spans(known):
            own, rows = slice(first, last), segment.frame_index[first:last]
            if len(rows) < MIN_FRAMES:
                single += len(rows)
                continue
            values = {
                layout.ACTION: segment.twist[own, columns].astype(np.float32),
                layout.COMMAND: segment.twist[own],
                layout.TAKEOVER: takeover[own],
                'stamp_ns': episode.frame_stamp_ns[rows],
                'received_ns': episode.frame_received_ns[rows],
                'steady_ns': episode.frame_steady_ns[rows],
                'timestamp': (np.arange(len(rows)) / fps).astype(np.float32),
                'frame_index': np.arange(len(rows)),
            }
            if state:
                values[layout.STATE] = states[own].astype(np.float32)
            if proposals:
                values[layout.PROPOSAL] = proposed[own].astype(np.float32)
            found.append(Part(rows, values))
    if not found:
        raise LeftOut(
            f'it has no {MIN_FRAMES} consecutive frames at {fps} a second'
            + (' with odometry' if odometry is not None else '')
        )
    return found, single


def verdict_of(episode: Episode) -> str:
    """Return the verdict on an episode as it is shown."""
    return str((judged(episode) or judge_episode(episode))['verdict'])


def _proposals(episode: Episode, time_ns: np.ndarray) -> np.ndarray:
    """Return (T, 6) what the policy proposed last, NaN where that is old."""
    found = np.full((len(time_ns), len(TWIST_AXES)), np.nan)
    if episode.proposals is not None:
        log = CommandLog(episode.proposals.steady_ns, episode.proposals.twist)
        twist, fresh = log.at(time_ns)
        found[fresh] = twist[fresh]
    return found


def _spans(known: np.ndarray) -> list[tuple[int, int]]:
    """Return first and last + 1 of each span of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
