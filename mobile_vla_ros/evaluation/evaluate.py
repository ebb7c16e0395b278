"""Evaluate a policy beside the baselines, and how much it uses the image and the instruction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mobile_vla_ros.data.episodes import (
    EpisodeSet,
    default_scale,
    ids,
    leak_lines,
    load_episodes,
    repeat_record,
    still_lines,
)
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.segments import Sampling, Segment
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.evaluation.ablations import shuffle_frames, swap_instructions
from mobile_vla_ros.evaluation.baselines import baselines, targets
from mobile_vla_ros.evaluation.metrics import huber, measure
from mobile_vla_ros.evaluation.predict import PIECE_FRAMES, Predictions, dataset, predict
from mobile_vla_ros.evaluation.verdict import margin, sentences
from mobile_vla_ros.model.bundle import Bundle, load_bundle
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.types import ACCEPTED_VERDICTS, ActionSpec


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
    actions, _, _ = targets(val, spec.actions, spec.window)
    means = None if trained_on else spec.data.get('blind_means')
    cache = FrameCache(spec.image)

    def ask(segments: Sequence[Segment], *, blank_images: bool = False) -> Predictions:
        data = dataset(
            segments,
            spec,
            policy.tokenizer,
            PIECE_FRAMES,
            tokens=tokens,
            cache=cache,
            blank_images=blank_images,
        )
        return predict(policy.network, data)

    questions: dict[str, Callable[[], Predictions]] = {
        'policy': lambda: ask(val),
        'image_blanked': lambda: ask(val, blank_images=True),
        'frames_shuffled': lambda: ask(shuffle_frames(val)),
    }
    swapped = swap_instructions(val, train)
    if swapped:
        questions['instruction_swapped'] = lambda: ask(swapped)
    # disable=None: no progress bar without a terminal
    bar = tqdm(questions.items(), desc='policy and controls', leave=False, disable=None)
    asked = {name: question() for name, question in bar}
    found = asked.pop('policy')
    if not found.real.any():
        raise UserError(
            'no frame of the episodes to evaluate on can be read',
            got=' | '.join(found.broken[:3]) or None,
            remedy='mobile_vla episodes check names the broken files',
        )
    result = baseline_scores(train, val, spec.actions, spec.window, found.real, means)
    blind = baselines(train, val, spec.actions, spec.window, means)
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
    for name, other in asked.items():
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
    names = [segment.episode_id for segment in segments for _ in segment.windows(spec.window)]
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
    window: int,
    real: np.ndarray | None = None,
    means: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """
    Return `windows`, and `baselines`: the metrics of every baseline by name.

    :param real: (M, window, chunk) bool: the steps to measure; None: those inside an episode.
    :param means: see `baselines`.
    """
    wanted, inside, _ = targets(val, actions, window)
    real = inside if real is None else real
    return {
        'windows': len(wanted),
        'baselines': {
            name: measure(prediction, wanted, real, actions)
            for name, prediction in baselines(train, val, actions, window, means).items()
        },
    }


@dataclass(frozen=True)
class Evaluation:
    """
    The result of `evaluate`.

    :param summary: what `mobile_vla evaluate --json` prints (see `evaluate`).
    :param policy, scored: None if only the baselines were measured.
    """

    summary: dict[str, Any]
    episodes: EpisodeSet
    policy: PolicySpec | None = None
    scored: Scored | None = None


def evaluate(
    data: Path,
    policy: Path | None,
    *,
    sampling: Sampling,
    axes: Sequence[str],
    val_share: float,
    split_seed: int,
    group_duplicates: bool = False,
    device: str = 'auto',
    offline: bool = False,
    accept_verdicts: Sequence[str] | None = None,
) -> Evaluation:
    """
    Evaluate a policy on a folder of episodes, or only the baselines.

    :param sampling: used without a policy; a policy brings its own.
    :param group_duplicates: keep near-identical episodes on one side (`load_episodes`).
    :param accept_verdicts: verdicts of the episodes to measure on; None: those that the policy
        was trained on, or good and poor.
    :returns: its summary is that of `score` (or `baseline_scores`), with the number of
        `episodes` on either side; `rate_hz`, the steps a second; `near_identical`
        (`episodes.repeat_record`); `notes`: sentences about the data; `skipped`: by path, why an
        episode was left out; and `blind`, the data that the baselines are fitted to: `source`,
        `bundle` or `folder`; `takes`, their number (None: not in the bundle); `warning`, a
        sentence if these are too few of the policy's training episodes, or None.
    """
    loaded = load_bundle(policy, device=device, offline=offline) if policy else None
    if loaded:
        spec = loaded.spec
        sampling = Sampling(spec.rate_hz, spec.window, spec.chunk, spec.command_max_age_s)
    known = loaded.spec.data if loaded else {}
    episodes = load_episodes(
        data,
        sampling,
        accept_verdicts or known.get('accept_verdicts') or ACCEPTED_VERDICTS,
        val_share,
        split_seed,
        known=known if loaded else None,
        group_duplicates=group_duplicates,
    )
    actions = loaded.spec.actions if loaded else default_scale(episodes.train, axes)
    scored = None
    if loaded:
        scored = score(loaded, episodes.train, episodes.val, trained_on=episodes.trained_on)
    result = (
        scored.summary
        if scored
        else baseline_scores(episodes.train, episodes.val, actions, sampling.window)
    )
    result['episodes'] = {'train': len(ids(episodes.train)), 'val': len(ids(episodes.val))}
    result['rate_hz'] = sampling.rate_hz
    result['near_identical'] = repeat_record(episodes)
    result['blind'] = _blind(known, episodes)
    warning = result['blind']['warning']
    result['notes'] = [*([warning] if warning else ()), *leak_lines(episodes)]
    if not episodes.few_known:  # a few training episodes do not show what all of them drive
        result['notes'] += still_lines(episodes.train, actions.axes)
    result['skipped'] = episodes.left_out
    return Evaluation(result, episodes, loaded.spec if loaded else None, scored)


def _blind(known: Mapping[str, Any], episodes: EpisodeSet) -> dict[str, Any]:
    """Return what the baselines are fitted to (see `evaluate`)."""
    trained = len(known.get('train_episodes', ())) or None
    if known.get('blind_means') and not episodes.trained_on:
        return {'source': 'bundle', 'takes': trained, 'warning': None}
    here = len(ids(episodes.train))
    warning = None
    if episodes.few_known:
        warning = (
            f'The baselines are fitted to {here} of the episodes here; the policy '
            + (f'was trained on {trained}' if trained else 'does not name its training episodes')
            + ': it may look better beside them than it is.'
        )
    return {'source': 'folder', 'takes': here, 'warning': warning}
