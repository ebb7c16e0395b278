"""
How far a policy that only watches disagrees with the person who drives, and where most.

Each proposal is set beside the command in force when it comes. The worst stretch is the ten
seconds over which the planar difference adds up to most; where nothing is proposed, or nobody
drives, nothing is added.
"""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.timeline import COMMAND_MAX_AGE_S
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import AXIS_UNITS, NANOSECONDS, TWIST_AXES, Command

AXES = ('linear_x', 'linear_y', 'angular_z')
COLUMNS = [TWIST_AXES.index(axis) for axis in AXES]
FOLDER = 'shadow'
WINDOW_S = 10.0
LIVE_NS = 2 * NANOSECONDS
MAX_AGE_NS = round(COMMAND_MAX_AGE_S * NANOSECONDS)
# Proposals further apart than this say nothing of the time between them.
LONGEST_STEP_NS = 250_000_000
# m/s or rad/s: what is slower has no direction.
MOVES = 0.05
# More often than this nothing is kept: a topic gone wild is not to fill the memory.
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Window:
    """
    The worst seconds, as they are written.

    :param score: what windows are compared by; ``Shadow.least_score`` is one.
    :param mean_mps: planar difference of driven and proposed, on average.
    :param frames: (encoded, stamp_ns, received_ns) each.
    :param proposals: (twist, stamp_ns, received_ns) each.
    """

    score: float
    mean_mps: float
    frames: list[tuple[bytes, int, int]]
    commands: list[Command]
    proposals: list[tuple[np.ndarray, int, int]]


class Shadow:
    """
    Pairs what is driven with what is proposed, and keeps the last seconds of both.

    ``steady_ns`` is a clock that never jumps, and does not go back from call to call.

    :param most_bytes: of images that are kept; the oldest go first.
    :param window_s: length of the worst stretch.
    """

    def __init__(self, most_bytes: int = 128_000_000, window_s: float = WINDOW_S):
        self.pairs = 0
        self._window_ns = round(window_s * NANOSECONDS)
        self.least_score = 0.0
        self._most_bytes, self._bytes = most_bytes, 0
        self._frames: deque = deque()
        self._commands: deque = deque(maxlen=MOST_ROWS)
        self._proposals: deque = deque(maxlen=MOST_ROWS)
        self._live: deque = deque()
        self._sum, self._flips, self._moved = np.zeros(3), np.zeros(3), np.zeros(3)
        self._window: deque = deque()  # (steady_ns, planar m/s times ns, ns)
        self._area = self._covered = 0.0
        self._worst: tuple[int, float, float] | None = None  # end, score, mean

    def frame(self, encoded: bytes, stamp_ns: int, received_ns: int, steady_ns: int) -> None:
        """Keep one encoded image."""
        self._frames.append((steady_ns, encoded, stamp_ns, received_ns))
        self._bytes += len(encoded)
        self._forget(steady_ns)

    def command(self, command: Command, steady_ns: int) -> None:
        """Take what is driven from now on; numbers that are none are left out."""
        if np.isfinite(command.twist).all():
            self._commands.append((steady_ns, command))

    def proposal(self, twist: np.ndarray, stamp_ns: int, received_ns: int, steady_ns: int) -> None:
        """
        Take a proposal, and set it beside the command in force.

        Without a command of the last half second nobody drives, and there is nothing to compare.
        """
        if not np.isfinite(twist).all():
            return
        self._proposals.append((steady_ns, np.array(twist, np.float64), stamp_ns, received_ns))
        if self._commands and steady_ns - self._commands[-1][0] <= MAX_AGE_NS:
            self._pair(self._commands[-1][1].twist[COLUMNS], twist[COLUMNS], steady_ns)
        self._forget(steady_ns)

    def _pair(self, driven: np.ndarray, proposed: np.ndarray, steady_ns: int) -> None:
        apart = np.abs(driven - proposed)
        moves = np.abs(driven) > MOVES
        self.pairs += 1
        self._sum += apart
        self._moved += moves
        self._flips += moves & (np.abs(proposed) > MOVES) & (driven * proposed < 0)
        self._live.append((steady_ns, apart))
        step_ns = min(steady_ns - self._window[-1][0], LONGEST_STEP_NS) if self._window else 0
        area = float(np.hypot(*apart[:2])) * step_ns
        self._window.append((steady_ns, area, step_ns))
        self._area, self._covered = self._area + area, self._covered + step_ns
        while self._window[0][0] <= steady_ns - self._window_ns:
            _, area, step_ns = self._window.popleft()
            self._area, self._covered = self._area - area, self._covered - step_ns
        score = self._area / self._window_ns
        if score > max(self.least_score, self._worst[1] if self._worst else 0.0):
            self._worst = steady_ns, score, self._area / max(self._covered, 1)

    def numbers(self, steady_ns: int) -> dict[str, float | None]:
        """
        Return by axis the difference of driven and proposed, with its unit in the name.

        ``AXIS_live_mps`` (``_radps``) is the mean of the last two seconds, ``AXIS_mean_mps`` that
        since the start, and ``AXIS_flips`` the share of the moments driven that way in which the
        proposal points the other way. None where there is nothing to say.
        """
        while self._live and self._live[0][0] <= steady_ns - LIVE_NS:
            self._live.popleft()
        live = np.mean([apart for _, apart in self._live], axis=0) if self._live else None
        found: dict[str, float | None] = {}
        for column, axis in enumerate(AXES):
            unit = 'mps' if AXIS_UNITS[axis] == 'm/s' else 'radps'
            found[f'{axis}_live_{unit}'] = None if live is None else float(live[column])
            found[f'{axis}_mean_{unit}'] = (
                float(self._sum[column] / self.pairs) if self.pairs else None
            )
            found[f'{axis}_flips'] = (
                float(self._flips[column] / self._moved[column]) if self._moved[column] else None
            )
        return found

    def worst(self, steady_ns: int, *, at_end: bool = False) -> Window | None:
        """
        Return a window that is worse than ``least_score``, once as long has passed since.

        From then on ``least_score`` is its own; who cannot save it sets back what it was. None
        while there is no such window.

        :param at_end: do not wait: nothing more will come.
        """
        if self._worst is None or not (at_end or steady_ns - self._worst[0] >= self._window_ns):
            return None
        (end, score, mean), self._worst = self._worst, None
        self.least_score = score

        def within(rows, before_ns: int = 0) -> list:
            return [row for row in rows if end - self._window_ns - before_ns < row[0] <= end]

        found = Window(
            score,
            mean,
            [row[1:] for row in within(self._frames)],
            [row[1] for row in within(self._commands, MAX_AGE_NS)],
            [row[1:] for row in within(self._proposals)],
        )
        self._forget(steady_ns)
        return found

    def _forget(self, steady_ns: int) -> None:
        """Drop what no window needs any more."""
        oldest = min(steady_ns, self._worst[0] if self._worst else steady_ns) - self._window_ns
        while self._frames and (self._frames[0][0] <= oldest or self._bytes > self._most_bytes):
            self._bytes -= len(self._frames.popleft()[1])
        for rows in (self._commands, self._proposals):
            while rows and rows[0][0] <= oldest - MAX_AGE_NS:
                rows.popleft()


def tried_folder(data_dir: str, created_ns: int) -> Path:
    """
    Return the folder below that of the takes in which windows are to be written; nothing is yet.

    :raises UserError: when nothing can be written there: it is better known before the drive.
    """
    try:
        folder = Path(data_dir).expanduser() / FOLDER
    except RuntimeError as error:
        raise UserError(
            'data_dir is no folder', got=f'{data_dir!r}: {error}', remedy='write it without ~'
        ) from None
    EpisodeWriter(folder, EpisodeInfo('a trial'), created_ns, proposals=True).discard()
    with suppress(OSError):  # windows of before are in it
        folder.rmdir()
    return folder


def write_window(folder: Path, info: EpisodeInfo, window: Window, created_ns: int) -> Path:
    """
    Write a window as an episode of its own: commands, proposals and images.

    :raises UserError: when it cannot be written; nothing of it stays.
    """
    writer = EpisodeWriter(folder, info, created_ns, proposals=True)
    try:
        times = [row[2] for row in (*window.frames, *window.proposals)]
        writer.add_event('start', min(times))
        for command in window.commands:
            writer.add_command(command)
        for proposal in window.proposals:
            writer.add_proposal(*proposal)
        for frame in window.frames:
            writer.add_frame(*frame)
        writer.add_event(
            'stop',
            max(times),
            'the worst seconds of a shadow drive: driven and '
            f'proposed are {window.mean_mps:.3f} m/s apart',
        )
        path = writer.close()
    except BaseException:
        writer.discard()
        raise
    if writer.full is not None:
        path.unlink()
        raise writer.full
    return path
