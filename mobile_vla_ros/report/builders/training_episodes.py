"""Episodes in the report of a training: whole drives, the worst windows, coverage."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mobile_vla_ros.data.episodes import EpisodeSet
from mobile_vla_ros.data.segments import Sampling, Segment
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation import audit
from mobile_vla_ros.evaluation.score import Scored
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.report.pages.training_view import BadWindow, Coverage, PredictedEpisode
from mobile_vla_ros.runtime.overlay import DRIVEN, PREDICTED, draw_arrows
from mobile_vla_ros.types import TWIST_AXES

WORST = 6
MAX_FRAMES = 6  # shown of a window
SIDE = 240  # pixels of an image's longer side
MAX_NAMES = 100  # of episodes listed as left out
STILL = 1e-3  # m/s, rad/s: a smaller command counts as zero


@dataclass(frozen=True)
class Newest:
    """
    The chunks at the newest frame of each of M windows, as for driving.

    :param segment: (M,) number of its segment; places: (M, window) its frames in that segment.
    :param driven, predicted: (M, chunk, axes) in the axes' units.
    :param real: (M, chunk) bool: steps inside the episode.
    :param error: (M,) mean absolute error over real steps and axes, each divided by its scale;
        NaN without a real step and for predictions with NaN or inf.
    """

    segment: np.ndarray
    places: np.ndarray
    driven: np.ndarray
    predicted: np.ndarray
    real: np.ndarray
    error: np.ndarray


def newest(policy: PolicySpec, scored: Scored) -> Newest:
    """Return the chunks at the newest frame of each window."""
    places = [segment.windows for segment in scored.segments]
    actions, predicted, real = scored.actions[:, -1], scored.predicted[:, -1], scored.real[:, -1]
    steps = real.sum(1)
    missed = np.where(real, np.abs(predicted - actions).mean(2), 0).sum(1)
    error = np.where(steps, missed / np.maximum(steps, 1), np.nan)
    scale = np.asarray(policy.actions.scale)
    return Newest(
        np.repeat(np.arange(len(places)), [len(one) for one in places]),
        np.concatenate(places),
        actions * scale,
        predicted * scale,
        real,
        error,
    )


def drives(
    policy: PolicySpec, segments: Sequence[Segment], found: Newest
) -> list[PredictedEpisode]:
    """
    Return the best, median and worst validation episode, and the longest of the others.

    Episodes without motion are easy and show little: they are used only if there are no others.
    """
    of_episode: dict[str, list[int]] = {}
    for number, segment in enumerate(segments):
        of_episode.setdefault(segment.episode_id, []).append(number)
    errors, lengths, moving = {}, {}, []
    for episode, numbers in of_episode.items():
        own = np.isin(found.segment, numbers)
        finite = found.error[own & np.isfinite(found.error)]
        errors[episode] = finite.mean() if len(finite) else np.inf
        lengths[episode] = own.sum()
        if (np.abs(found.driven[own]) > STILL).any():
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
            [segments[number] for number in of_episode[episode]],
            np.isin(found.segment, of_episode[episode]),
            found,
            chosen[episode],
        )
        for episode in order
        if episode in chosen
    ]


def _drive(
    policy: PolicySpec, segments: Sequence[Segment], own: np.ndarray, found: Newest, rank: str
) -> PredictedEpisode:
    """Join the segments of an episode, with a break where frames are missing."""
    driven = np.where(found.real[own, :1], found.driven[own, 0], np.nan)
    predicted = found.predicted[own, 0]
    lines, starts, start_s = [], [], 0.0
    axes = np.full((1, driven.shape[1]), np.nan)
    at = 0
    for segment in segments:
        count = len(segment.windows)
        seconds = start_s + segment.seconds[segment.windows[:, -1]]
        lines += [
            (seconds, driven[at : at + count], predicted[at : at + count]),
            (np.array([np.nan]), axes, axes),
        ]
        at, start_s = at + count, start_s + duration_s(policy, [segment])
        starts.append(start_s)
    missed = np.abs(driven - predicted)[np.isfinite(driven - predicted).all(1)]
    return PredictedEpisode(
        title=f'{rank}: “{segments[0].instruction}”',
        about=f'{segments[0].episode_id}, {starts[-1]:.1f} s; mean error '
        + (velocity(policy, missed.mean(0), sign='') if len(missed) else 'not finite'),
        seconds=np.concatenate([line[0] for line in lines[:-1]]),
        driven=np.concatenate([line[1] for line in lines[:-1]]),
        predicted=np.concatenate([line[2] for line in lines[:-1]]),
        gaps=starts[:-1],
    )


def duration_s(policy: PolicySpec, segments: Sequence[Segment]) -> float:
    """Return the seconds of some segments; each counts to a period after its last frame."""
    return sum(float(one.seconds[-1]) + 1 / policy.rate_hz for one in segments)


def velocity(policy: PolicySpec, values: Iterable[float], sign: str = '+') -> str:
    """Return a velocity in words: every axis with its unit."""
    return ', '.join(
        f'{axis} {value:{sign}.2f} {unit}'
        for axis, unit, value in zip(
            policy.actions.axes, policy.actions.units, values, strict=True
        )
    ).replace('-', '−')


def worst(policy: PolicySpec, segments: Sequence[Segment], found: Newest) -> list[BadWindow]:
    """Return the windows with the largest errors, at least a second apart in an episode."""
    chosen: list[int] = []
    seconds: dict[tuple[str, int], list[float]] = {}
    for window in np.argsort(-np.nan_to_num(found.error, nan=-1.0), kind='stable'):
        if len(chosen) == WORST or not np.isfinite(found.error[window]):
            break
        place = (segments[found.segment[window]].episode_id, int(found.segment[window]))
        second = _second(segments[found.segment[window]], found, window)
        if all(abs(second - other) >= 1 for other in seconds.setdefault(place, [])):
            seconds[place].append(second)
            chosen.append(int(window))
    return [
        _bad_window(policy, segments[found.segment[window]], found, window) for window in chosen
    ]


def _second(segment: Segment, found: Newest, window: int) -> float:
    """Return the second of a window's newest frame."""
    return float(segment.seconds[found.places[window, -1]])


def _bad_window(policy: PolicySpec, segment: Segment, found: Newest, window: int) -> BadWindow:
    real, now_s = found.real[window], _second(segment, found, window)
    driven, predicted = (
        values[window][real].mean(0) for values in (found.driven, found.predicted)
    )
    title = f'“{segment.instruction}”'
    about = (
        f'{segment.episode_id}, second {now_s:.1f}; mean velocity over the next '
        f'{real.sum() / policy.rate_hz:g} s'
    )
    words = velocity(policy, driven), velocity(policy, predicted)
    try:
        with segment.open() as episode:
            shown = np.linspace(0, policy.window - 1, min(policy.window, MAX_FRAMES)).round()
            places = found.places[window][shown.astype(int)]
            images = [_fitted(episode.frame(int(segment.frames[place])).image) for place in places]
    except (UserError, OSError, IndexError) as error:
        return BadWindow(title, about, *words, error=f'cannot show its frames: {error}')
    twists = [_twist(policy, driven), _twist(policy, predicted)]
    linear = [
        scale
        for axis, scale in zip(policy.actions.axes, policy.actions.scale, strict=True)
        if axis.startswith('linear')
    ]
    # The arrow of a fast prediction stays inside the image.
    full_speed = max([*linear, *(float(np.hypot(*twist[:2])) for twist in twists)])
    images[-1] = draw_arrows(
        images[-1], list(zip(twists, (DRIVEN, PREDICTED), strict=True)), full_speed
    )
    return BadWindow(
        title,
        about,
        *words,
        [
            (image, f'{now_s - second:.1f} s before' if second < now_s else 'now')
            for image, second in zip(images, segment.seconds[places], strict=True)
        ],
    )


def _fitted(image: np.ndarray) -> np.ndarray:
    """Return an image whose longer side has SIDE pixels, for arrows of equal width."""
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
    Return the coverage of both sides by instruction, the most frequent first.

    :param broken: errors that name unreadable frames.
    """

    def cells(segments: Sequence[Segment]) -> list[str]:
        if not segments:
            return ['–', '–', '–']
        frames = sum(len(one.frames) for one in segments)
        idle = sum(int((np.abs(one.ahead[:, 0]).max(1) < STILL).sum()) for one in segments)
        return [
            str(len({one.episode_id for one in segments})),
            f'{duration_s(policy, segments) / 60:.2f}',
            f'{idle / frames:.0%}',
        ]

    def driven(segments: Sequence[Segment]) -> np.ndarray:
        columns = policy.actions.columns
        return np.concatenate(
            [np.zeros((0, len(columns))), *(one.ahead[:, 0][:, columns] for one in segments)]
        )

    sampling = Sampling.of(policy)
    learned = audit.audit(episodes, sampling, policy.actions.axes)
    sides: dict[str, tuple[list[Segment], list[Segment]]] = {}
    for side, segments in enumerate((episodes.train, val)):
        for segment in segments:
            sides.setdefault(segment.instruction, ([], []))[side].append(segment)
    names = sorted(sides, key=lambda name: (-sum(map(len, sides[name])), name))
    rows = [
        [f'all ({len(names)})', *cells(episodes.train), *cells(val)],
        *([name, *cells(sides[name][0]), *cells(sides[name][1])] for name in names),
    ]
    left_out = {
        Path(path).name: reason for path, reason in list(episodes.left_out.items())[:MAX_NAMES]
    }
    if len(episodes.left_out) > MAX_NAMES:
        left_out[f'and {len(episodes.left_out) - MAX_NAMES} more'] = 'see the log'
    return Coverage(
        rows,
        driven(episodes.train),
        driven(val),
        left_out,
        episodes.near_identical,
        episodes.leaks,
        broken,
        audit.table(learned),
        audit.summary(learned),
    )
