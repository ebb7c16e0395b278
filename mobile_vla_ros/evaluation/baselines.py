"""Baselines that see no image; a policy that does not beat them has learned nothing from it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mobile_vla_ros.data.segments import Segment
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ActionSpec


def targets(
    segments: Sequence[Segment], spec: ActionSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return the targets of every window of some segments, in order.

    :returns: actions (M, window, chunk, axes) normalised, real (M, window, chunk) bool, and the
        command before each frame (M, window, axes) normalised.
    :raises UserError: when there are no segments.
    """
    if not segments:
        raise UserError('no windows to evaluate', expected='at least one episode')
    return (
        np.concatenate([spec.normalise(one.ahead[one.windows]) for one in segments]),
        np.concatenate([one.real[one.windows] for one in segments]),
        np.concatenate([spec.normalise(one.before[one.windows]) for one in segments]),
    )


def blind_means(segments: Sequence[Segment], spec: ActionSpec) -> dict[str, list[Any]]:
    """
    Return the constant predictions of the baselines; a bundle stores them as `data.blind_means`.

    :param segments: the training side.
    :returns: normalised numbers as JSON lists: `mean_action` [axes], `mean_per_step`
        [chunk][axes], and `mean_per_position_and_step` [window][chunk][axes].
    :raises UserError: when there are no segments.
    """
    actions, real, _ = targets(segments, spec)
    weight = real[..., None]

    def mean(dims: tuple[int, ...]) -> list[Any]:
        return ((actions * weight).sum(dims) / np.maximum(weight.sum(dims), 1)).tolist()

    return {
        'mean_action': mean((0, 1, 2)),
        'mean_per_step': mean((0, 1)),
        'mean_per_position_and_step': mean((0,)),
    }


def baselines(
    train: Sequence[Segment],
    val: Sequence[Segment],
    spec: ActionSpec,
    means: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, np.ndarray]:
    """
    Return the predictions of every baseline for the validation windows.

    `repeat_last` holds the command before each frame.

    :param means: from `blind_means`; None: fit them to `train`, which may be empty otherwise.
    :returns: (M, window, chunk, axes) normalised, by name.
    :raises UserError: when there are no segments to validate on or to fit to, or when the given
        means have the wrong shape.
    """
    means = means or blind_means(train, spec)
    _, real, before = targets(val, spec)
    shape = (*real.shape, len(spec.axes))
    return {
        'zero': np.zeros(shape, np.float32),
        **{
            name: np.broadcast_to(_checked(means, name, of), shape)
            for name, of in (
                ('mean_action', shape[3:]),
                ('mean_per_step', shape[2:]),
                ('mean_per_position_and_step', shape[1:]),
            )
        },
        'repeat_last': np.broadcast_to(before[:, :, None], shape),
    }


def _checked(means: Mapping[str, Sequence[Any]], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mean as float32, the dtype of the actions."""
    try:
        found = np.asarray(means.get(name), np.float32)
    except (AttributeError, TypeError, ValueError):  # not a mapping, not numbers, or ragged
        found = np.asarray(np.nan)
    if found.shape != shape or not np.isfinite(found).all():
        raise UserError(
            f"the policy's data.blind_means.{name} is invalid",
            got=f'shape {" × ".join(map(str, found.shape)) or "()"}',
            expected=f'finite numbers of shape {" × ".join(map(str, shape))}',
            remedy='use the bundle as training wrote it',
        )
    return found


def mean_action(segments: Sequence[Segment], spec: ActionSpec) -> list[float]:
    """Return the mean command of some segments, one number an axis in its unit."""
    actions = np.concatenate([spec.normalise(segment.ahead[:, 0]) for segment in segments])
    return [float(mean * scale) for mean, scale in zip(actions.mean(0), spec.scale, strict=True)]
