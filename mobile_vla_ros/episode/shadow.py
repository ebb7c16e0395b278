"""
Measure how far a policy that only watches disagrees with the person who drives, and where most.

Each proposal is compared with the command in force when it arrives. The worst window is the ten
seconds with the largest integral of the planar difference; moments without a proposal, or with
nobody driving, add nothing.
"""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.command_rule import ASSUMED, CommandRule
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import AXIS_UNITS, NANOSECONDS, PLANAR_AXES, TWIST_AXES, Command

COLUMNS = [TWIST_AXES.index(axis) for axis in PLANAR_AXES]
FOLDER = 'shadow'
WINDOW_S = 10.0
LIVE_NS = 2 * NANOSECONDS
# A gap between proposals counts for at most this long.
MAX_STEP_NS = 250_000_000
# m/s or rad/s: anything slower has no direction.
MIN_SPEED = 0.05
# Rows kept of each stream: a runaway topic must not fill the memory.
MAX_ROWS = 20_000


@dataclass(frozen=True)
class Window:
    """
    The worst seconds, ready to be written.

    :param score: for comparing windows (``Shadow.min_score``).
    :param mean_mps: mean planar difference between driven and proposed.
    :param frames: (encoded, stamp_ns, received_ns, steady_ns) each.
    :param proposals: (twist, stamp_ns, received_ns, steady_ns) each.
    """

    score: float
    mean_mps: float
    frames: list[tuple[bytes, int, int, int]]
    commands: list[Command]
    proposals: list[tuple[np.ndarray, int, int, int]]


@dataclass
class _Differences:
    """Differences between driven and proposed by axis, in total and over the last two seconds."""

    pairs: int = 0
    total: np.ndarray = field(default_factory=lambda: np.zeros(len(PLANAR_AXES)))
    flips: np.ndarray = field(default_factory=lambda: np.zeros(len(PLANAR_AXES)))
    moved: np.ndarray = field(default_factory=lambda: np.zeros(len(PLANAR_AXES)))
    live: deque[tuple[int, np.ndarray]] = field(default_factory=deque)

    def add(self, driven: np.ndarray, proposed: np.ndarray, steady_ns: int) -> np.ndarray:
        """Add a pair of (3,) speeds; return their absolute difference."""
        apart: np.ndarray = np.abs(driven - proposed)
        moves = np.abs(driven) > MIN_SPEED
        self.pairs += 1
        self.total += apart
        self.moved += moves
        self.flips += moves & (np.abs(proposed) > MIN_SPEED) & (driven * proposed < 0)
        self.live.append((steady_ns, apart))
        return apart

    def values(self, steady_ns: int) -> dict[str, float | None]:
        while self.live and self.live[0][0] <= steady_ns - LIVE_NS:
            self.live.popleft()
        live = np.mean([apart for _, apart in self.live], axis=0) if self.live else None
        found: dict[str, float | None] = {}
        for column, axis in enumerate(PLANAR_AXES):
            unit = 'mps' if AXIS_UNITS[axis] == 'm/s' else 'radps'
            found[f'{axis}_live_{unit}'] = None if live is None else float(live[column])
            found[f'{axis}_mean_{unit}'] = (
                float(self.total[column] / self.pairs) if self.pairs else None
            )
            found[f'{axis}_flips'] = (
                float(self.flips[column] / self.moved[column]) if self.moved[column] else None
            )
        return found


@dataclass
class _RollingArea:
    """Integral of the planar difference over the last ``window_ns``."""

    window_ns: int
    area: float = 0.0  # m/s times ns
    covered_ns: float = 0.0
    steps: deque[tuple[int, float, int]] = field(default_factory=deque)  # steady, area, length

    def add(self, planar_mps: float, steady_ns: int) -> None:
        step_ns = min(steady_ns - self.steps[-1][0], MAX_STEP_NS) if self.steps else 0
        area = planar_mps * step_ns
        self.steps.append((steady_ns, area, step_ns))
        self.area, self.covered_ns = self.area + area, self.covered_ns + step_ns
        while self.steps[0][0] <= steady_ns - self.window_ns:
            _, area, step_ns = self.steps.popleft()
            self.area, self.covered_ns = self.area - area, self.covered_ns - step_ns


@dataclass
class _Recent:
    """The newest frames, commands and proposals, each with its steady time last."""

    max_bytes: int
    rule: CommandRule
    image_bytes: int = 0
    frames: deque[tuple[bytes, int, int, int]] = field(default_factory=deque)
    commands: deque[tuple[Command, int]] = field(default_factory=lambda: deque(maxlen=MAX_ROWS))
    proposals: deque[tuple[np.ndarray, int, int, int]] = field(
        default_factory=lambda: deque(maxlen=MAX_ROWS)
    )

    def between(self, begin_ns: int, end_ns: int, score: float, mean_mps: float) -> Window:
        """Return the window of ``begin_ns`` < time <= ``end_ns``, with the command in force."""
        commands = list(self.commands)[self._first_command(begin_ns) :]
        if commands and not self.rule.in_force(begin_ns - commands[0][-1]):
            del commands[0]
        return Window(
            score,
            mean_mps,
            [row for row in self.frames if begin_ns < row[-1] <= end_ns],
            [row[0] for row in commands if row[-1] <= end_ns],
            [row for row in self.proposals if begin_ns < row[-1] <= end_ns],
        )

    def forget(self, oldest_ns: int) -> None:
        """Drop what is older than a window from ``oldest_ns`` needs, and images over the limit."""
        while self.frames and (
            self.frames[0][-1] <= oldest_ns or self.image_bytes > self.max_bytes
        ):
            self.image_bytes -= len(self.frames.popleft()[0])
        for _ in range(self._first_command(oldest_ns)):
            self.commands.popleft()
        while self.proposals and self.proposals[0][-1] <= oldest_ns:
            self.proposals.popleft()

    def _first_command(self, begin_ns: int) -> int:
        """Return the row of the newest command at ``begin_ns``, or the first after it."""
        rows = 0
        while len(self.commands) > rows + 1 and self.commands[rows + 1][-1] <= begin_ns:
            rows += 1
        return rows


class Shadow:
    """
    Pairs commands with proposals, and keeps the last seconds of both.

    ``steady_ns`` is a clock that never jumps, and does not go back from call to call.

    :param max_bytes: limit of the kept images; the oldest are dropped first.
    :param window_s: length of the worst window.
    :param rule: what the base does when no command comes.
    """

    def __init__(
        self,
        max_bytes: int = 128_000_000,
        window_s: float = WINDOW_S,
        rule: CommandRule = ASSUMED,
    ) -> None:
        self.min_score = 0.0
        self._window_ns = round(window_s * NANOSECONDS)
        self._differences = _Differences()
        self._area = _RollingArea(self._window_ns)
        self._recent = _Recent(max_bytes, rule)
        self._worst: tuple[int, float, float] | None = None  # end, score, mean

    @property
    def pairs(self) -> int:
        """Proposals compared with a command so far."""
        return self._differences.pairs

    def frame(self, encoded: bytes, stamp_ns: int, received_ns: int, steady_ns: int) -> None:
        """Keep one encoded image."""
        self._recent.frames.append((encoded, stamp_ns, received_ns, steady_ns))
        self._recent.image_bytes += len(encoded)
        self._forget(steady_ns)

    def command(self, command: Command, steady_ns: int) -> None:
        """Store the command in force from now on; ignore one with NaN or inf."""
        if np.isfinite(command.twist).all():
            self._recent.commands.append((command, steady_ns))

    def proposal(self, twist: np.ndarray, stamp_ns: int, received_ns: int, steady_ns: int) -> None:
        """
        Store a proposal and compare it with the command in force.

        Without a command in force nobody drives, and there is nothing to compare.
        """
        if not np.isfinite(twist).all():
            return
        self._recent.proposals.append(
            (np.array(twist, np.float64), stamp_ns, received_ns, steady_ns)
        )
        commands = self._recent.commands
        if commands and self._recent.rule.in_force(steady_ns - commands[-1][-1]):
            self._pair(commands[-1][0].twist[COLUMNS], twist[COLUMNS], steady_ns)
        self._forget(steady_ns)

    def _pair(self, driven: np.ndarray, proposed: np.ndarray, steady_ns: int) -> None:
        apart = self._differences.add(driven, proposed, steady_ns)
        self._area.add(float(np.hypot(*apart[:2])), steady_ns)
        score = self._area.area / self._window_ns
        if score > max(self.min_score, self._worst[1] if self._worst else 0.0):
            self._worst = steady_ns, score, self._area.area / max(self._area.covered_ns, 1)

    def differences(self, steady_ns: int) -> dict[str, float | None]:
        """
        Return the difference between driven and proposed by axis, with its unit in the name.

        ``AXIS_live_mps`` (``_radps``) is the mean of the last two seconds, ``AXIS_mean_mps`` that
        since the start. ``AXIS_flips`` is the fraction of the moments driven along the axis in
        which the proposal points the other way. None where there is no data.
        """
        return self._differences.values(steady_ns)

    def worst(self, steady_ns: int, *, at_end: bool = False) -> Window | None:
        """
        Return a window worse than ``min_score`` once its length has passed again; else None.

        ``min_score`` becomes its score; a caller that cannot save the window resets it.

        :param at_end: do not wait, since nothing more follows.
        """
        if self._worst is None or not (at_end or steady_ns - self._worst[0] >= self._window_ns):
            return None
        (end_ns, score, mean_mps), self._worst = self._worst, None
        self.min_score = score
        found = self._recent.between(end_ns - self._window_ns, end_ns, score, mean_mps)
        self._forget(steady_ns)
        return found

    def _forget(self, steady_ns: int) -> None:
        """Drop what no window needs any more."""
        newest_end_ns = min(steady_ns, self._worst[0] if self._worst else steady_ns)
        self._recent.forget(newest_end_ns - self._window_ns)


def prepare_folder(data_dir: str, created_ns: int) -> Path:
    """
    Return the folder for windows below that of the episodes, tested for writing but not created.

    :raises UserError: when nothing can be written there; better known before the drive.
    """
    try:
        folder = Path(data_dir).expanduser() / FOLDER
    except RuntimeError as error:
        raise UserError(
            'data_dir is not a valid folder',
            got=f'{data_dir!r}: {error}',
            remedy='write it without ~',
        ) from None
    EpisodeWriter(folder, EpisodeInfo('a trial'), created_ns, proposals=True).discard()
    with suppress(OSError):  # earlier windows may be in it
        folder.rmdir()
    return folder


def write_window(folder: Path, info: EpisodeInfo, window: Window, created_ns: int) -> Path:
    """
    Write a window as an episode of its own: commands, proposals and images.

    :raises UserError: when it cannot be written; nothing is left behind.
    """
    writer = EpisodeWriter(folder, info, created_ns, proposals=True)
    try:
        times = [(row[3], row[2]) for row in (*window.frames, *window.proposals)]
        (first_steady_ns, first_ns), (last_steady_ns, last_ns) = min(times), max(times)
        writer.add_event('start', first_ns, steady_ns=first_steady_ns)
        for command in window.commands:
            writer.add_command(command)
        for proposal in window.proposals:
            writer.add_proposal(*proposal)
        for frame in window.frames:
            writer.add_frame(*frame)
        writer.add_event(
            'stop',
            last_ns,
            'the worst seconds of a shadow drive: driven and '
            f'proposed are {window.mean_mps:.3f} m/s apart',
            steady_ns=last_steady_ns,
        )
        path = writer.close()
    except BaseException:
        writer.discard()
        raise
    if writer.full is not None:
        path.unlink()
        raise writer.full
    return path
