"""A policy beside the baselines, and how far it heeds the image and the instruction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mobile_vla_ros.data.episodes import (
    Takes,
    default_scale,
    leak_lines,
    load_takes,
    repeat_record,
    still_lines,
)
from mobile_vla_ros.data.frame_cache import FrameCache
from mobile_vla_ros.data.image_tokens import ImageTokens
from mobile_vla_ros.data.runs import Run, Sampling
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
    A policy measured on validation runs.

    :param summary: what `mobile_vla evaluate --json` prints (see `score`).
    :param runs: the validation runs; the arrays hold their windows in this order.
    :param actions: (M, window, chunk, axes) what was driven, normalised.
    :param predicted: (M, window, chunk, axes) what the policy says, normalised.
    :param real: (M, window, chunk) bool: steps that count.
    """

    summary: dict
    runs: Sequence[Run]
    actions: np.ndarray
    predicted: np.ndarray
    real: np.ndarray


def score(
    policy: Bundle,
    train: Sequence[Run],
    val: Sequence[Run],
    tokens: ImageTokens | None = None,
    *,
    trained_on: bool = False,
) -> Scored:
    """
    Measure a policy on validation runs beside predictors that see no image.

    These are the ones that its bundle carries (`data.blind_means`), and `train` may be empty; or
    they are fitted to `train` where it carries none, or was trained on the validation runs.

    Everything is measured over the same steps: those inside a take whose frames can be read. Of
    the shuffled frames alone, a take that is broken may leave fewer.

    :param tokens: image tokens of the validation runs, computed before.
    :param trained_on: the policy was trained on the validation runs too.
    :returns: its summary has `windows`; `baselines`: name to metrics (`metrics.measure`); and
        `policy`: its metrics and

        - `image_blanked`, `frames_shuffled` and `instruction_swapped`: metrics of the same policy
          shown the mean colour, shown the frames of each run in random order, and told another
          take's instruction (None when there is but one), each with the `margin` by which it is
          worse than the policy as it is;
        - `change` and `change_share`: for each of these, how far the action moves on average, of
          each axis in its unit, and in all as a share of the mean action driven;
        - `better_than`: the baselines that it beats in loss; `best_baseline`; `better`: it beats
          them all; `margin`: the difference to the best (`verdict.margin`);
        - `trained_on`; `broken`: sentences that name frames which cannot be read; `verdict`:
          sentences that say what all this means.
    :raises UserError: when no frame can be read.
    """
    spec = policy.spec
    actions, _, _ = targets(val, spec.actions, spec.window)
    means = None if trained_on else spec.data.get('blind_means')
    cache = FrameCache(spec.image)

    def ask(runs: Sequence[Run], tokens=tokens, **options) -> Predictions:
        return predict(
            policy.network,
            dataset(
                runs, spec, policy.tokenizer, PIECE_FRAMES, tokens=tokens, cache=cache, **options
            ),
        )

    questions = {
        'policy': lambda: ask(val),
        'image_blanked': lambda: ask(val, blank_images=True),
        'frames_shuffled': lambda: ask(shuffle_frames(val)),
    }
    swapped = swap_instructions(val, train)
    if swapped:
        questions['instruction_swapped'] = lambda: ask(swapped)
    # Without a terminal there is no bar.
    bar = tqdm(questions.items(), desc='policy and controls', leave=False, disable=None)
    asked = {name: question() for name, question in bar}
    found = asked.pop('policy')
    if not found.real.any():
        raise UserError(
            'no frame of the takes to evaluate on can be read',
            got=' | '.join(found.broken[:3]) or None,
            remedy='mobile_vla episodes check names what is broken',
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
        'margin': margin(*_by_take(val, spec, actions, found.real, found.motion, blind[best])),
        'trained_on': trained_on,
        'broken': found.broken,
    }
    scored['better'] = len(scored['better_than']) == len(blind)
    for name, other in asked.items():
        real = found.real & other.real
        scored[name] = {
            **measure(other.motion, actions, real, spec.actions),
            'margin': margin(*_by_take(val, spec, actions, real, other.motion, found.motion)),
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
    """Return the mean change of each axis in its unit, and that of all as a share of the mean."""
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


def _by_take(
    runs: Sequence[Run],
    spec: PolicySpec,
    actions: np.ndarray,
    real: np.ndarray,
    *predictions: np.ndarray,
) -> list[np.ndarray]:
    """Return (N,) sums of the loss of each prediction over each take, and (N,) its steps."""
    takes = [run.episode_id for run in runs for _ in run.windows(spec.window)]
    _, take = np.unique(takes, return_inverse=True)
    losses = [
        np.where(real, huber(prediction[..., : actions.shape[-1]] - actions).mean(-1), 0.0)
        for prediction in predictions
    ]
    return [np.bincount(take, values.sum((1, 2))) for values in (*losses, real.astype(float))]


def baseline_scores(
    train: Sequence[Run],
    val: Sequence[Run],
    actions: ActionSpec,
    window: int,
    real: np.ndarray | None = None,
    means: Mapping | None = None,
) -> dict:
    """
    Return `windows`, and `baselines`: the metrics of every predictor that sees no image.

    :param real: (M, window, chunk) bool: steps that count; None: those inside a take.
    :param means: as `baselines` takes them.
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
    A folder of takes, measured.

    :param summary: what `mobile_vla evaluate --json` prints (see `evaluate`).
    :param policy, scored: of the policy; None where the baselines were measured alone.
    """

    summary: dict
    takes: Takes
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
    Evaluate a policy on a folder of takes, or the baselines alone.

    :param sampling: used without a policy; a policy brings its own.
    :param group_duplicates: keep near-identical takes on one side of the split (`load_takes`).
    :param accept_verdicts: verdicts of the takes that are measured on; None: those that the
        policy was trained on, or good and poor.
    :returns: its summary is what `score` gives, with `episodes` on either side; `rate_hz`, the
        steps a second; `near_identical` (`takes.repeat_record`); `notes`, sentences on the data;
        the takes that were left out, with the reason, under `skipped`; and `blind`: what the
        predictors that see no image are fitted to: `source`, `bundle` or `folder`; `takes`, how
        many (None: the bundle does not say); `warning`, a sentence where these are too few of
        those that the policy was trained on, or None.
    """
    loaded = load_bundle(policy, device=device, offline=offline) if policy else None
    if loaded:
        spec = loaded.spec
        sampling = Sampling(spec.rate_hz, spec.window, spec.chunk, spec.command_max_age_s)
    known = loaded.spec.data if loaded else {}
    takes = load_takes(
        data,
        sampling,
        accept_verdicts or known.get('accept_verdicts') or ACCEPTED_VERDICTS,
        val_share,
        split_seed,
        known=known if loaded else None,
        group_duplicates=group_duplicates,
    )
    actions = loaded.spec.actions if loaded else default_scale(takes.train, axes)
    scored = None
    if loaded:
        scored = score(loaded, takes.train, takes.val, trained_on=takes.trained_on)
    result = (
        scored.summary
        if scored
        else baseline_scores(takes.train, takes.val, actions, sampling.window)
    )
    result['episodes'] = {
        'train': len({run.episode_id for run in takes.train}),
        'val': len({run.episode_id for run in takes.val}),
    }
    result['rate_hz'] = sampling.rate_hz
    result['near_identical'] = repeat_record(takes)
    result['blind'] = _blind(known, takes)
    warning = result['blind']['warning']
    result['notes'] = [*([warning] if warning else ()), *leak_lines(takes)]
    if not takes.few_known:  # a few of the training takes do not tell what all of them drive
        result['notes'] += still_lines(takes.train, actions.axes)
    result['skipped'] = takes.left_out
    return Evaluation(result, takes, loaded.spec if loaded else None, scored)


def _blind(known: Mapping, takes: Takes) -> dict:
    """Return what predictors that see no image are fitted to (`evaluate`)."""
    trained = len(known.get('train_episodes', ())) or None
    if known.get('blind_means') and not takes.trained_on:
        return {'source': 'bundle', 'takes': trained, 'warning': None}
    here = len({run.episode_id for run in takes.train})
    return {
        'source': 'folder',
        'takes': here,
        'warning': (
            f'The predictors that see no image are fitted to {here} of the takes here; the policy '
            + (f'was trained on {trained}' if trained else 'does not say on which it was trained')
            + ': beside them it may look better than it is.'
        )
        if takes.few_known
        else None,
    }
