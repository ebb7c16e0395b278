"""The speed of each axis that maps to 1.0, and what it stands on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mobile_vla_ros.data.segments import Segment
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import AXIS_UNITS, TWIST_AXES, ActionSpec

# A speed beyond so many times this percentile of an axis's moving frames is an outlier.
TOP_PERCENTILE, OUTLIER_TIMES = 95.0, 4.0
# More of them than both a few held commands and this share of the moving frames are none.
MAX_OUTLIERS, MAX_OUTLIER_SHARE = 12, 0.002
# An axis below this share of another one in the same unit drifts; in another unit, only if it is
# below this speed (m/s or rad/s) as well.
DRIFT_SHARE, DRIFT_SPEED = 0.02, 0.01
MAX_NAMES = 3  # outliers that a line names


@dataclass(frozen=True)
class Outlier:
    """A frame whose command is far beyond all others: its episode, its row and the speed."""

    episode_id: str
    frame: int
    speed: float


@dataclass(frozen=True)
class AxisScale:
    """
    The scale of one axis.

    :param scale: the largest speed without outliers, in the axis's unit; 1.0 for an axis that
        never moves, or only drifts.
    :param max: the largest speed, with outliers; likewise ``percentile``, of the moving frames.
    :param frames: how many frames move along the axis.
    :param drift: another axis moves so much faster that this one is no motion of its own.
    """

    axis: str
    scale: float
    max: float
    percentile: float
    frames: int
    outliers: tuple[Outlier, ...] = ()
    drift: bool = False

    @property
    def moves(self) -> bool:
        """Whether there is a motion to learn."""
        return self.frames > 0 and not self.drift


def measure(segments: Sequence[Segment], axes: Sequence[str] = TWIST_AXES) -> list[AxisScale]:
    """
    Return the scale of each axis.

    :param segments: of the training side only, so that nothing leaks from validation.
    """
    spec = ActionSpec(tuple(axes), (1.0,) * len(axes))
    speeds = np.abs(np.concatenate([segment.ahead[:, 0] for segment in segments]))[:, spec.columns]
    found = [
        _axis(axis, column, segments) for axis, column in zip(spec.axes, speeds.T, strict=True)
    ]
    return [_without_drift(one, found) for one in found]


def _axis(axis: str, speeds: np.ndarray, segments: Sequence[Segment]) -> AxisScale:
    moving = speeds[speeds > 0]
    if not len(moving):
        return AxisScale(axis, 1.0, 0.0, 0.0, 0)
    # An actual speed, so that a handful of frames has a top as well.
    percentile = float(np.percentile(moving, TOP_PERCENTILE, method='lower'))
    usual = speeds <= OUTLIER_TIMES * percentile
    if (~usual).sum() > max(MAX_OUTLIERS, MAX_OUTLIER_SHARE * len(moving)):
        usual[:] = True  # so many frames are a motion of their own
    ends = np.cumsum([len(segment.frames) for segment in segments])
    outliers = []
    for place in np.flatnonzero(~usual).tolist():
        number = int(np.searchsorted(ends, place, side='right'))
        segment = segments[number]
        row = segment.frames[place - ends[number] + len(segment.frames)]
        outliers.append(Outlier(segment.episode_id, int(row), float(speeds[place])))
    top = float(speeds[usual].max())
    return AxisScale(axis, top, float(moving.max()), percentile, len(moving), tuple(outliers))


def _without_drift(one: AxisScale, others: Sequence[AxisScale]) -> AxisScale:
    """Return the scale of an axis, 1.0 if it drifts beside another one."""
    unit = AXIS_UNITS[one.axis]
    drift = one.frames > 0 and any(
        other.frames
        and one.scale < DRIFT_SHARE * other.scale
        and (AXIS_UNITS[other.axis] == unit or one.scale < DRIFT_SPEED)
        for other in others
    )
    return replace(one, scale=1.0, drift=True) if drift else one


def default_scale(segments: Sequence[Segment], axes: Sequence[str]) -> ActionSpec:
    """
    Return axes with their scales (`measure`).

    :param segments: of the training side only, so that nothing leaks from validation.
    :raises UserError: when none of the axes moves.
    """
    found = measure(segments, axes)
    if not any(one.frames for one in found):
        raise UserError(
            f'the robot never moves along {" or ".join(axes)}',
            got=f'{len({one.episode_id for one in segments})} training episodes of zeros there',
            expected='episodes that drive',
            remedy=_other_axes(segments, axes) or 'record some',
        )
    return ActionSpec(tuple(axes), tuple(one.scale for one in found))


def scale_lines(segments: Sequence[Segment], axes: Sequence[str]) -> list[str]:
    """Return log lines on the scale of each axis: what it stands on, outliers, drift, zeros."""
    remedy = _other_axes(segments, axes)
    lines = []
    for one in measure(segments, axes):
        unit = AXIS_UNITS[one.axis]
        if not one.frames:
            lines.append(
                f'{one.axis} is zero in every training episode: its metrics are meaningless'
                + (f'; {remedy}' if remedy else '')
            )
            continue
        if one.drift:
            lines.append(
                f'{one.axis} drifts: at most {one.max:.3g} {unit} beside other axes, so it is not '
                'learned (scale 1.0); --scale learns it'
            )
            continue
        lines.append(
            f'scale: {one.axis} {one.scale:.3g} {unit}, the fastest of {one.frames} frames that '
            f'move along it ({TOP_PERCENTILE:g} % of them up to {one.percentile:.3g})'
        )
        if one.outliers:
            named = ', '.join(
                f'{outlier.episode_id} frame {outlier.frame}: {outlier.speed:.3g}'
                for outlier in one.outliers[:MAX_NAMES]
            )
            lines.append(
                f'{len(one.outliers)} frames are far beyond it and do not count for the scale: '
                + named
                + (', …' if len(one.outliers) > MAX_NAMES else '')
            )
    return lines


def _other_axes(segments: Sequence[Segment], axes: Sequence[str]) -> str | None:
    """Return advice to choose the axes that move, None if it would not help."""
    moving = [one.axis for one in measure(segments) if one.moves]
    if not set(moving) - set(axes):
        return None
    return f'these episodes drive {", ".join(moving)}: --axes {" ".join(moving)}'
