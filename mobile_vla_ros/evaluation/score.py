"""Measure a policy beside the baselines, and how much it uses the image and the instruction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.segments import Segment
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.ablations import shuffle_frames, swap_instructions
from mobile_vla_ros.evaluation.baselines import baselines, targets
from mobile_vla_ros.evaluation.metrics import huber, measure
from mobile_vla_ros.evaluation.predict import PIECE_FRAMES, Predictions, policy_dataset, predict
from mobile_vla_ros.evaluation.verdict import margin, sentences
from mobile_vla_ros.model.bundle import Bundle
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.types import ActionSpec


@dataclass(frozen=True)
class Scored:
    """
    A policy measured on validation segments.

    :param summary: what `mobile_vla evaluate --json` prints (see `score`).
    :param segments: the validation segments; the arrays hold their windows in this order.
    :param actions: (M, window, chunk, axes) driven actions, normalised.
    :param predicted: (M, window, chunk, axes) the policy's actions, normalised.
    :param real: (M, window, chunk) bool: the steps measured.
    """

    summary: dict[str, Any]
    segments: Sequence[Segment]
    actions: np.ndarray
    predicted: np.ndarray
    real: np.ndarray


def score(
    policy: Bundle,
    train: Sequence[Segment],
    val: Sequence[Segment],
    tokens: ImageTokens | None = None,
    *,
    trained_on: bool = False,
) -> Scored:
    """
    Measure a policy on validation segments beside baselines that see no image.

    The baselines are those in its bundle (`data.blind_means`), and `train` may be empty; they are
    fitted to `train` if the bundle has none or the policy was trained on the validation segments.

    Everything is measured over the same steps: those inside an episode with readable frames. Only
    the shuffled frames of a broken episode may leave fewer.

    :param tokens: image tokens of the validation segments.
    :param trained_on: whether the policy was trained on the validation segments.
    :returns: its summary has `windows`; `baselines`: metrics (`metrics.measure`) by name; and
        `policy`: its metrics and

        - `image_blanked`, `frames_shuffled`, `instruction_swapped`: metrics of the same policy
          with mean-colour images, with the frames of each segment in random order, and with the
          instruction of another episode (None if there is only one), each with its `margin`
          over the policy itself;
        - `change` and `change_share`: for each of these, the mean change of the action, for each
          axis in its unit, and overall as a share of the mean driven action;
        - `better_than`: the baselines with a higher loss; `best_baseline`; `better`: whether it
          beats all; `margin` over the best one (`verdict.margin`);
        - `trained_on`; `broken`: errors that name unreadable frames; `verdict`: sentences that
          explain the numbers.
    :raises UserError: when no frame can be read.
    """
    spec = policy.spec
    actions, _, _ = targets(val, spec.actions)
    means = None if trained_on else spec.data.get('blind_means')
    cache = FrameCache(spec.image)

    def predicted(segments: Sequence[Segment], *, blank_images: bool = False) -> Predictions:
        data = policy_dataset(
            segments,
            spec,
            policy.tokenizer,
            PIECE_FRAMES,
            tokens=tokens,
            cache=cache,
            blank_images=blank_images,
        )
        return predict(policy.network, data)

    variants: dict[str, Callable[[], Predictions]] = {
        'policy': lambda: predicted(val),
        'image_blanked': lambda: predicted(val, blank_images=True),
        'frames_shuffled': lambda: predicted(shuffle_frames(val)),
    }
    swapped = swap_instructions(val, train)
    if swapped:
        variants['instruction_swapped'] = lambda: predicted(swapped)
    # disable=None: no progress bar without a terminal
    bar = tqdm(variants.items(), desc='policy and controls', leave=False, disable=None)
    results = {name: variant() for name, variant in bar}
    found = results.pop('policy')
    if not found.real.any():
        raise UserError(
            'no frame of the episodes to evaluate on can be read',
            got=' | '.join(found.broken[:3]) or None,
            remedy='mobile_vla episodes check names the broken files',
        )
    result = baseline_scores(train, val, spec.actions, found.real, means)
    blind = baselines(train, val, spec.actions, means)
    scored = measure(found.motion, actions, found.real, spec.actions)
    best = min(blind, key=lambda name: result['baselines'][name]['loss'])
    scored |= {
        'instruction_swapped': None,
        'change': {},
        'change_share': {},
        'better_than': [
            name
            for name, entry in result['baselines'].items()
            if scored['loss'] is not None and scored['loss'] < entry['loss']
        ],
        'best_baseline': best,
        'margin': _margin(val, spec, actions, found.real, found.motion, blind[best]),
        'trained_on': trained_on,
        'broken': found.broken,
    }
    scored['better'] = len(scored['better_than']) == len(blind)
    for name, other in results.items():
        real = found.real & other.real
        scored[name] = {
            **measure(other.motion, actions, real, spec.actions),
            'margin': _margin(val, spec, actions, real, other.motion, found.motion),
        }
        scored['change'][name], scored['change_share'][name] = _change(
            found.motion, other.motion, actions, real, spec.actions
        )
    scored['verdict'] = sentences(scored, result['baselines'], spec.blank)
    result['policy'] = scored
    return Scored(result, val, actions, found.motion[..., : len(spec.actions.axes)], found.real)


def _change(
    one: np.ndarray, other: np.ndarray, actions: np.ndarray, real: np.ndarray, spec: ActionSpec
) -> tuple[dict[str, float | None], float | None]:
    """Return the mean change of each axis in its unit, and overall as a share of the mean."""
    axes = len(spec.axes)
    moved = np.abs(one - other)[..., :axes][real].astype(np.float64)
    if not len(moved) or not np.isfinite(moved).all():
        return dict.fromkeys(spec.axes), None
    size = float(np.abs(actions[real]).mean())
    return (
        {
            axis: float(change * scale)
            for axis, change, scale in zip(spec.axes, moved.mean(0), spec.scale, strict=True)
        },
        float(moved.mean()) / size if size else None,
    )


def _margin(
    segments: Sequence[Segment],
    spec: PolicySpec,
    actions: np.ndarray,
    real: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
) -> dict[str, Any]:
    """Return the `margin` of one prediction's loss over another's, summed by episode."""
    names = [segment.episode_id for segment in segments for _ in segment.windows]
    _, episode = np.unique(names, return_inverse=True)

    def by_episode(values: np.ndarray) -> np.ndarray:
        return np.bincount(episode, values.sum((1, 2)))

    def losses(prediction: np.ndarray) -> np.ndarray:
        errors = prediction[..., : actions.shape[-1]] - actions
        return by_episode(np.where(real, huber(errors).mean(-1), 0.0))

    return margin(losses(one), losses(other), by_episode(real.astype(float)))


def baseline_scores(
    train: Sequence[Segment],
    val: Sequence[Segment],
    actions: ActionSpec,
    real: np.ndarray | None = None,
    means: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """
    Return `windows`, and `baselines`: the metrics of every baseline by name.

    :param real: (M, window, chunk) bool: the steps to measure; None: those inside an episode.
    :param means: see `baselines`.
    """
    wanted, inside, _ = targets(val, actions)
    real = inside if real is None else real
    return {
        'windows': len(wanted),
        'baselines': {
            name: measure(prediction, wanted, real, actions)
            for name, prediction in baselines(train, val, actions, means).items()
        },
    }
