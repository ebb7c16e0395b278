"""Episodes in the report of a training: whole drives, the worst windows, coverage."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mobile_vla_ros.data.episodes import EpisodeSet
from mobile_vla_ros.data.segments import Segment
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.score import Scored
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.report.pages.training_view import BadWindow, Coverage, Drive
from mobile_vla_ros.runtime.overlay import DRIVEN, PREDICTED, draw_arrows
from mobile_vla_ros.types import TWIST_AXES

WORST = 6
MAX_FRAMES = 6  # of a window that are shown
SIDE = 240  # pixels of a picture's longer side
MAX_NAMES = 100  # episodes that are listed as left out
STILL = 1e-3  # m/s, rad/s: a command below it is none


@dataclass(frozen=True)
class Newest:
    """
    Every window as the robot would drive it: seen from its newest frame; M windows.

    :param run: (M,) number of its run; row: (M,) place of its newest frame in that run.
    :param driven: (M, chunk, axes) in the axes' units; so is predicted.
    :param real: (M, chunk) bool: steps inside of the episode.
    :param error: (M,) mean absolute error over the real steps and the axes, each divided by its
        scale; nan where no step is real, and for predictions that are no numbers.
    """

    run: np.ndarray
    row: np.ndarray
    driven: np.ndarray
    predicted: np.ndarray
    real: np.ndarray
    error: np.ndarray


def newest(policy: PolicySpec, scored: Scored) -> Newest:
    """Return what a policy says at the newest frame of each window."""
    counts = [len(run.frames) - policy.window + 1 for run in scored.segments]
    actions, predicted, real = scored.actions[:, -1], scored.predicted[:, -1], scored.real[:, -1]
    steps = real.sum(1)
    missed = np.where(real, np.abs(predicted - actions).mean(2), 0).sum(1)
    error = np.where(steps, missed / np.maximum(steps, 1), np.nan)
    scale = np.asarray(policy.actions.scale)
    return Newest(
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([np.arange(count) + policy.window - 1 for count in counts]),
        actions * scale,
        predicted * scale,
        real,
        error,
    )


def drives(policy: PolicySpec, runs: Sequence[Segment], found: Newest) -> list[Drive]:
    """
    Return the best, the median and the worst validation episode, and the longest of the others.

    Episodes that stand still throughout are easy, and say little: they come in only where no other
    is there.
    """
    of_episode: dict[str, list[int]] = {}
    for number, run in enumerate(runs):
        of_episode.setdefault(run.episode_id, []).append(number)
    errors, lengths, moving = {}, {}, []
    for episode, numbers in of_episode.items():
        mine = np.isin(found.run, numbers)
        finite = found.error[mine & np.isfinite(found.error)]
        errors[episode] = finite.mean() if len(finite) else np.inf
        lengths[episode] = mine.sum()
        if (np.abs(found.driven[mine]) > STILL).any():
            moving.append(episode)
    order = sorted(moving or of_episode, key=lambda name: errors[name])
    of = f'of {len(order)}' + (' that move' if 0 < len(moving) < len(of_episode) else '')
    chosen = {
        order[len(order) // 2]: f'The median {of}',
        order[0]: f'The best {of}',
        order[-1]: f'The worst {of}',
    }
    if len(order) == 1:
        chosen = {
            order[0]: 'The only episode that moves'
            if len(of_episode) > 1
            else 'The only validation episode'
        }
    others = sorted(set(order) - set(chosen), key=lambda name: lengths[name])
    if others:
        chosen[others[-1]] = 'The longest of the others'
    return [
        _drive(
            policy,
            [runs[number] for number in of_episode[episode]],
            np.isin(found.run, of_episode[episode]),
            found,
            chosen[episode],
        )
        for episode in order
        if episode in chosen
    ]


def _drive(
    policy: PolicySpec, runs: Sequence[Segment], mine: np.ndarray, found: Newest, what: str
) -> Drive:
    """Join the runs of an episode: one after another, with a break where frames are missing."""
    driven = np.where(found.real[mine, :1], found.driven[mine, 0], np.nan)
    predicted = found.predicted[mine, 0]
    lines, starts, start = [], [], 0
    axes = np.full((1, driven.shape[1]), np.nan)
    at = 0
    for run in runs:
        count = len(run.frames) - policy.window + 1
        seconds = (start + np.arange(count) + policy.window - 1) / policy.rate_hz
        lines += [
            (seconds, driven[at : at + count], predicted[at : at + count]),
            (np.array([np.nan]), axes, axes),
        ]
        at, start = at + count, start + len(run.frames)
        starts.append(start / policy.rate_hz)
    missed = np.abs(driven - predicted)[np.isfinite(driven - predicted).all(1)]
    return Drive(
        title=f'{what}: “{runs[0].instruction}”',
        about=f'{runs[0].episode_id}, {starts[-1]:.1f} s; mean error '
        + (velocity(policy, missed.mean(0), sign='') if len(missed) else 'not finite'),
        seconds=np.concatenate([line[0] for line in lines[:-1]]),
        driven=np.concatenate([line[1] for line in lines[:-1]]),
        predicted=np.concatenate([line[2] for line in lines[:-1]]),
        gaps=starts[:-1],
    )


def velocity(policy: PolicySpec, values: Iterable[float], sign: str = '+') -> str:
    """Return a velocity in words: every axis with its unit."""
    return ', '.join(
        f'{axis} {value:{sign}.2f} {unit}'
        for axis, unit, value in zip(
            policy.actions.axes, policy.actions.units, values, strict=True
        )
    ).replace('-', '−')


def worst(policy: PolicySpec, runs: Sequence[Segment], found: Newest) -> list[BadWindow]:
    """Return the windows of the largest error; no two lie within a second of one episode."""
    chosen: list[int] = []
    seconds: dict[tuple[str, int], list[float]] = {}
    for window in np.argsort(-np.nan_to_num(found.error, nan=-1.0), kind='stable'):
        if len(chosen) == WORST or not np.isfinite(found.error[window]):
            break
        place = (runs[found.run[window]].episode_id, int(found.run[window]))
        second = found.row[window] / policy.rate_hz
        if all(abs(second - other) >= 1 for other in seconds.setdefault(place, [])):
            seconds[place].append(second)
            chosen.append(int(window))
    return [_bad_window(policy, runs[found.run[window]], found, window) for window in chosen]


def _bad_window(policy: PolicySpec, run: Segment, found: Newest, window: int) -> BadWindow:
    real, row = found.real[window], int(found.row[window])
    driven, predicted = (
        values[window][real].mean(0) for values in (found.driven, found.predicted)
    )
    title = f'“{run.instruction}”'
    about = (
        f'{run.episode_id}, second {row / policy.rate_hz:.1f}; mean velocity over the next '
        f'{real.sum() / policy.rate_hz:g} s'
    )
    words = velocity(policy, driven), velocity(policy, predicted)
    try:
        with Episode.open(run.path) as episode:
            places = np.unique(
                np.linspace(row - policy.window + 1, row, min(policy.window, MAX_FRAMES))
                .round()
                .astype(int)
            )
            images = [_fitted(episode.frame(int(run.frames[place])).image) for place in places]
    except (UserError, OSError, IndexError) as error:
        return BadWindow(title, about, *words, problem=f'its frames cannot be shown: {error}')
    twists = [_twist(policy, driven), _twist(policy, predicted)]
    linear = [
        scale
        for axis, scale in zip(policy.actions.axes, policy.actions.scale, strict=True)
        if axis.startswith('linear')
    ]
    # However fast a bad prediction is, its arrow stays in the picture.
    full_speed = max([*linear, *(float(np.hypot(*twist[:2])) for twist in twists)])
    images[-1] = draw_arrows(
        images[-1], list(zip(twists, (DRIVEN, PREDICTED), strict=True)), full_speed
    )
    return BadWindow(
        title,
        about,
        *words,
        [
            (image, 'now' if place == row else f'{(row - place) / policy.rate_hz:.1f} s before')
            for image, place in zip(images, places, strict=True)
        ],
    )


def _fitted(image: np.ndarray) -> np.ndarray:
    """Return an image whose longer side has SIDE pixels, so that arrows are equally fine."""
    height, width = image.shape[:2]
    ratio = SIDE / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _twist(policy: PolicySpec, velocity: np.ndarray) -> np.ndarray:
    twist = np.zeros(len(TWIST_AXES))
    twist[policy.actions.columns] = velocity
    return twist


def coverage(
    policy: PolicySpec, episodes: EpisodeSet, val: Sequence[Segment], broken: Sequence[str]
) -> Coverage:
    """
    Return what was driven on both sides, by instruction; the most frequent first.

    :param broken: sentences that name frames which cannot be read.
    """

    def cells(runs: Sequence[Segment]) -> list[str]:
        if not runs:
            return ['–', '–', '–']
        frames = sum(len(run.frames) for run in runs)
        idle = sum(int((np.abs(run.ahead[:, 0]).max(1) < STILL).sum()) for run in runs)
        return [
            str(len({run.episode_id for run in runs})),
            f'{frames / policy.rate_hz / 60:.2f}',
            f'{idle / frames:.0%}',
        ]

    def driven(runs: Sequence[Segment]) -> np.ndarray:
        columns = policy.actions.columns
        return np.concatenate(
            [np.zeros((0, len(columns))), *(run.ahead[:, 0][:, columns] for run in runs)]
        )

    sides: dict[str, tuple[list[Segment], list[Segment]]] = {}
    for side, runs in enumerate((episodes.train, val)):
        for run in runs:
            sides.setdefault(run.instruction, ([], []))[side].append(run)
    names = sorted(sides, key=lambda name: (-sum(map(len, sides[name])), name))
    rows = [
        [f'all ({len(names)})', *cells(episodes.train), *cells(val)],
        *([name, *cells(sides[name][0]), *cells(sides[name][1])] for name in names),
    ]
    left_out = {
        Path(path).name: reason for path, reason in list(episodes.left_out.items())[:MAX_NAMES]
    }
    if len(episodes.left_out) > MAX_NAMES:
        left_out[f'and {len(episodes.left_out) - MAX_NAMES} more'] = 'named in the log'
    return Coverage(
        rows,
        driven(episodes.train),
        driven(val),
        left_out,
        _groups(getattr(episodes, 'near_identical', ())),
        _groups(getattr(episodes, 'leaks', ())),
        broken,
    )


def _groups(found: Iterable) -> list[list[str]]:
    return [[one] if isinstance(one, str) else [str(name) for name in one] for one in found or ()]
