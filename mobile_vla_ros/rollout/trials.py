"""Trials: drive scenes of a suite in process, and summarise the results."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from statistics import mean
from typing import Protocol

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import COLLISION, RUNNING, SUCCESS, TIMEOUT, WRONG, Arena
from mobile_vla_ros.sim.expert import Expert
from mobile_vla_ros.sim.scene import KINDS, STOP, Scene
from mobile_vla_ros.types import NANOSECONDS, Frame

# As in the live nodes: camera at 10 Hz, guard at 20 Hz.
CAMERA_PERIOD_NS = 100_000_000
COMMAND_PERIOD_NS = 50_000_000
PATH_PERIOD_NS = 100_000_000
Z_95 = 1.96  # standard normal quantile of a 95 % interval
OUTCOMES = (SUCCESS, WRONG, COLLISION, TIMEOUT)
BLANK = np.zeros((1, 1, 3), np.uint8)
ADDED = ('change_mps2', 'change_radps2')  # what older logs of trials lack

Path = Sequence[Sequence[float]]


class Driver(Protocol):
    """
    A driver.

    :ivar wants_images: whether to render the camera; otherwise each frame is one black pixel.
    """

    wants_images: bool

    def reset(self, instruction: str) -> None:
        """Begin a scene."""

    def see(self, frame: Frame) -> None:
        """Receive a camera frame."""

    def command(self, now_ns: int) -> np.ndarray:
        """Return the (6,) twist for a time, in nanoseconds since the scene began."""


class ExpertDriver:
    """The expert, which reads the pose of its arena and needs no image."""

    wants_images = False

    def __init__(self, arena: Arena):
        self._arena = arena
        self._expert: Expert | None = None

    def reset(self, instruction: str) -> None:
        """Begin the scene of the arena."""
        assert self._arena.scene is not None, 'the arena was reset before'
        self._expert = Expert(self._arena.scene)

    def see(self, frame: Frame) -> None:
        """Ignore the frame."""

    def command(self, now_ns: int) -> np.ndarray:
        """Return the (6,) twist for the current pose."""
        assert self._expert is not None, 'reset() comes first'
        return self._expert.command(self._arena.pose, self._arena.velocity, now_ns)


class ConstantDriver:
    """A control: a constant command."""

    wants_images = False

    def __init__(self, twist: np.ndarray):
        self.twist = np.asarray(twist, dtype=np.float64)

    def reset(self, instruction: str) -> None:
        """Do nothing: there is no state."""

    def see(self, frame: Frame) -> None:
        """Ignore the frame."""

    def command(self, now_ns: int) -> np.ndarray:
        """Return the (6,) twist."""
        return self.twist


@dataclass(frozen=True)
class Drive:
    """
    One scene driven.

    :param scene: index in the suite.
    :param kind: of the task, one of ``KINDS``.
    :param outcome: success, wrong, collision or timeout.
    :param path: rows [x (m), y (m), yaw (rad)] every 0.1 s and at the end; without the yaw if it
        is unknown.
    :param length_m: length of the path.
    :param min_gap_m: smallest distance from an object; None if not measured.
    :param expert_s: the expert's time for the same scene; None unless it succeeds.
    :param expert_length_m: length of the expert's path.
    :param expert_path: rows [x, y, yaw] of the expert's path.
    :param change_mps2: change of the commanded velocity, m/s a second, its mean over the drive;
        ``change_radps2``: of the commanded turn, rad/s a second. None: not measured, as live or in
        older logs.
    """

    suite: str
    scene: int
    instruction: str
    kind: str
    outcome: str
    elapsed_s: float
    path: Path
    length_m: float
    min_gap_m: float | None
    expert_s: float | None = None
    expert_length_m: float | None = None
    expert_path: Path = ()
    change_mps2: float | None = None
    change_radps2: float | None = None

    @classmethod
    def from_json(cls, content: Mapping) -> 'Drive':
        """Read the result of ``to_json``; raises ValueError if fields are missing or unknown."""
        names = {field.name for field in fields(cls)}
        if not isinstance(content, Mapping) or {*content, *ADDED} != names:
            raise ValueError(f'a drive has {", ".join(sorted(names))}')
        return cls(**content)

    def to_json(self, *, paths: bool = True) -> dict:
        """Return plain values, with or without both paths."""
        content = asdict(self)
        if not paths:
            del content['path'], content['expert_path']
        return content


@dataclass(frozen=True)
class Trial:
    """One or more drives: all must succeed for a success; one collision is a collision."""

    number: int
    drives: tuple[Drive, ...]

    @classmethod
    def from_json(cls, content: Mapping) -> 'Trial':
        """Read the result of ``to_json``; raises KeyError or ValueError for another content."""
        return cls(content['trial'], tuple(map(Drive.from_json, content['drives'])))

    def to_json(self) -> dict:
        """Return plain values."""
        return {'trial': self.number, 'drives': [drive.to_json() for drive in self.drives]}

    @property
    def success(self) -> bool:
        """Whether every drive succeeded."""
        return all(drive.outcome == SUCCESS for drive in self.drives)

    @property
    def collision(self) -> bool:
        """Whether any drive ended in a collision."""
        return any(drive.outcome == COLLISION for drive in self.drives)


def scenes_of(suite: str, number: int) -> range:
    """
    Return the indices of a trial's scenes.

    :raises UserError: for an unknown suite or trial.
    """
    suites.scene(suite, 0)
    drives = suites.SUITES[suite].drives
    count = suites.SEEDS_PER_SUITE // drives
    if not 0 <= number < count:
        raise UserError(
            f'the suite {suite} has no such trial', got=number, expected=f'0 to {count - 1}'
        )
    return range(number * drives, (number + 1) * drives)


def run_trial(arena: Arena, suite: str, number: int, driver: Driver) -> Trial:
    """Drive the scenes of a trial, each also with the expert."""
    return Trial(
        number,
        tuple(drive_scene(arena, suite, index, driver) for index in scenes_of(suite, number)),
    )


def drive_scene(arena: Arena, suite: str, index: int, driver: Driver) -> Drive:
    """Drive a scene of a suite, also with the expert."""
    scene = suites.scene(suite, index)
    return _beside(
        _run(arena, suite, index, scene, driver),
        _run(arena, suite, index, scene, ExpertDriver(arena)),
    )


def live_drive(arena: Arena, suite: str, record: Mapping) -> Drive:
    """
    Return a drive of live nodes; drive its scene with the expert here.

    :param record: trial (the scene's index), outcome, elapsed_s, instruction, and path of rows
        [x, y] or [x, y, yaw].
    """
    index = int(record['trial'])
    scene = suites.scene(suite, index)
    path = [[float(value) for value in row] for row in record['path']]
    drive = Drive(
        suite,
        index,
        record['instruction'],
        scene.task.kind,
        record['outcome'],
        float(record['elapsed_s']),
        path,
        sum(math.dist(a[:2], b[:2]) for a, b in pairwise(path)),
        None,
    )
    return _beside(drive, _run(arena, suite, index, scene, ExpertDriver(arena)))


def _beside(drive: Drive, expert: Drive) -> Drive:
    if expert.outcome != SUCCESS:
        return drive
    return replace(
        drive, expert_s=expert.elapsed_s, expert_length_m=expert.length_m, expert_path=expert.path
    )


def _run(arena: Arena, suite: str, index: int, scene: Scene, driver: Driver) -> Drive:
    arena.reset(scene)
    driver.reset(scene.instruction)
    in_transit: list[Frame] = []
    path = [_row(arena.pose)]
    length = 0.0
    commanded, changes = np.zeros(6), np.zeros(2)
    while arena.state == RUNNING:
        now_ns = arena.time_ns
        if now_ns % CAMERA_PERIOD_NS == 0:
            delay_ns = scene.disturbance.delay_of(scene.seed, now_ns)
            if delay_ns is not None:
                image = arena.render() if driver.wants_images else BLANK
                in_transit.append(Frame(image, now_ns, now_ns + delay_ns))
        in_transit.sort(key=lambda frame: frame.received_ns)
        while in_transit and in_transit[0].received_ns <= now_ns:
            driver.see(in_transit.pop(0))
        before, command = arena.pose, driver.command(now_ns)
        changes += [np.linalg.norm(part) for part in np.split(command - commanded, 2)]
        commanded = command
        arena.step(command, COMMAND_PERIOD_NS)
        length += math.dist(before[:2], arena.pose[:2])
        if arena.time_ns % PATH_PERIOD_NS == 0 or arena.state != RUNNING:
            path.append(_row(arena.pose))
    elapsed_s = arena.elapsed_ns / NANOSECONDS
    linear, angular = (round(float(change), 4) for change in changes / elapsed_s)
    return Drive(
        suite,
        index,
        scene.instruction,
        scene.task.kind,
        arena.state,
        elapsed_s,
        path,
        round(length, 4),
        round(arena.min_gap, 4),
        change_mps2=linear,
        change_radps2=angular,
    )


def _row(pose: tuple[float, float, float]) -> list[float]:
    return [round(value, 4) for value in pose]


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """
    Return the 95 % interval of a share (Wilson).

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    Journal of the American Statistical Association 22, 1927.
    """
    if trials == 0:
        return 0.0, 1.0
    share, z = successes / trials, Z_95
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low, high = (middle - half) / (1 + z * z / trials), (middle + half) / (1 + z * z / trials)
    return max(0.0, low), min(1.0, high)


def summarise(suite: str, trials: Sequence[Trial]) -> dict:
    """
    Return a summary of the trials of one suite, as plain values.

    Intervals are those of `wilson`. Times and lengths are means over the drives in which driver
    and expert both succeeded, and their ratio; None without such drives. ``spl`` is that of all
    drives, and ``change_mps2`` and ``change_radps2`` are means over them, None if one lacks it.
    """
    count = len(trials)
    good = sum(trial.success for trial in trials)
    bad = sum(trial.collision for trial in trials)
    drives = [drive for trial in trials for drive in trial.drives]
    ends = Counter(drive.outcome for drive in drives)
    kinds = {}
    for kind in KINDS:
        of_kind = [drive.outcome for drive in drives if drive.kind == kind]
        if of_kind:
            kinds[kind] = {'drives': len(of_kind), **{end: of_kind.count(end) for end in OUTCOMES}}
    both = [
        (drive, drive.expert_s, drive.expert_length_m)
        for drive in drives
        if drive.outcome == SUCCESS
        and drive.expert_s is not None
        and drive.expert_length_m is not None
    ]
    return {
        'suite': suite,
        'suites_version': suites.VERSION,
        'trials': count,
        'success_rate': good / count,
        'success_interval': list(wilson(good, count)),
        'collision_rate': bad / count,
        'collision_interval': list(wilson(bad, count)),
        'ends': {end: ends[end] for end in OUTCOMES},
        'kinds': kinds,
        'time_s': _against([(drive.elapsed_s, expert_s) for drive, expert_s, _ in both]),
        'length_m': _against([(drive.length_m, expert_m) for drive, _, expert_m in both]),
        'spl': spl(drives),
        **{name: mean_of([getattr(drive, name) for drive in drives]) for name in ADDED},
        'outcomes': [
            {'trial': trial.number, **drive.to_json(paths=False)}
            for trial in trials
            for drive in trial.drives
        ],
    }


def spl(drives: Sequence[Drive]) -> float | None:
    """
    Return the success weighted by path length: 1 if all succeed on paths as short as the expert's.

    The reference is the expert's path, which goes around what stands in the way. Drives whose task
    is to stop, or that the expert fails, do not count; None without another one. Source: P.
    Anderson et al., On evaluation of embodied navigation agents, 2018.
    """
    weighted = [
        (drive.outcome == SUCCESS)
        * drive.expert_length_m
        / max(drive.length_m, drive.expert_length_m)
        for drive in drives
        if drive.kind != STOP and drive.expert_length_m
    ]
    return mean(weighted) if weighted else None


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean; None without a value, or if one is missing."""
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def _against(pairs: Sequence[tuple[float, float]]) -> dict:
    """Return the mean of the driver, that of the expert, and their ratio."""
    if not pairs:
        return {'mean': None, 'expert': None, 'ratio': None}
    driven, expert = (mean(values) for values in zip(*pairs, strict=True))
    return {'mean': driven, 'expert': expert, 'ratio': driven / expert if expert else None}
