"""Evaluate a policy, or only the baselines, on a folder of episodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobile_vla_ros.data.episodes import (
    EpisodeSet,
    base_lines,
    ids,
    leak_lines,
    load_episodes,
    repeat_record,
)
from mobile_vla_ros.data.scale import default_scale, scale_lines
from mobile_vla_ros.data.segments import Sampling
from mobile_vla_ros.evaluation import audit
from mobile_vla_ros.evaluation.score import Scored, baseline_scores, score
from mobile_vla_ros.model.bundle import load_bundle
from mobile_vla_ros.model.device import PRECISIONS, check_precision, pick_precision
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.types import ACCEPTED_VERDICTS


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
    precision: str = 'auto',
    offline: bool = False,
    backbone: str = '',
    accept_verdicts: Sequence[str] | None = None,
) -> Evaluation:
    """
    Evaluate a policy on a folder of episodes, or only the baselines.

    :param sampling: used without a policy; a policy brings its own.
    :param group_duplicates: keep near-identical episodes on one side (`load_episodes`).
    :param backbone: folder or hub id of the policy's backbone, instead of the usual places.
    :param accept_verdicts: verdicts of the episodes to measure on; None: those that the policy
        was trained on, or good and poor.
    :returns: its summary is that of `score` (or `baseline_scores`), with the number of
        `episodes` on either side; `rate_hz`, the steps a second; `near_identical`
        (`episodes.repeat_record`); `notes`: sentences about the data; `skipped`: by path, why an
        episode was left out; and `blind`, the data that the baselines are fitted to: `source`,
        `bundle` or `folder`; `takes`, their number (None: not in the bundle); `warning`, a
        sentence if these are too few of the policy's training episodes, or None.
    """
    loaded = None
    check_precision(precision)
    if policy:
        dtype = PRECISIONS[pick_precision(precision, device)]
        loaded = load_bundle(
            policy, device=device, dtype=dtype, offline=offline, backbone=backbone
        )
        sampling = Sampling.of(loaded.spec)
    known = loaded.spec.data if loaded else {}
    episodes = load_episodes(
        data,
        sampling,
        accept_verdicts or known.get('accept_verdicts') or ACCEPTED_VERDICTS,
        val_share,
        split_seed,
        known=known if loaded else None,
        group_duplicates=group_duplicates,
        images=loaded is not None,
    )
    actions = loaded.spec.actions if loaded else default_scale(episodes.train, axes)
    scored = None
    if loaded:
        scored = score(loaded, episodes.train, episodes.val, trained_on=episodes.trained_on)
    result = scored.summary if scored else baseline_scores(episodes.train, episodes.val, actions)
    result['episodes'] = {'train': len(ids(episodes.train)), 'val': len(ids(episodes.val))}
    result['rate_hz'] = sampling.rate_hz
    result['near_identical'] = repeat_record(episodes)
    result['blind'] = _blind(known, episodes)
    warning = result['blind']['warning']
    result['notes'] = [
        *([warning] if warning else ()),
        *base_lines(episodes),
        *leak_lines(episodes),
    ]
    if loaded and loaded.spec.blank != 'instruction':
        instructions = {one.instruction for one in (*episodes.train, *episodes.val)}
        result['notes'] += audit.word_lines(instructions, loaded.tokenizer)
    if not episodes.few_known:  # a few training episodes do not show what all of them drive
        result['notes'] += scale_lines(episodes.train, actions.axes)
    result['skipped'] = episodes.left_out
    return Evaluation(result, episodes, loaded.spec if loaded else None, scored)


def _blind(known: Mapping[str, Any], episodes: EpisodeSet) -> dict[str, Any]:
    """Return what the baselines are fitted to (see `evaluate`)."""
    trained = len(known.get('train_episodes', ())) or None
    if known.get('blind_means') and not episodes.trained_on:
        return {'source': 'bundle', 'takes': trained, 'warning': None}  # keys in files
    here = len(ids(episodes.train))
    warning = None
    if episodes.few_known:
        warning = (
            f'The baselines are fitted to {here} of the episodes here; the policy '
            + (f'was trained on {trained}' if trained else 'does not name its training episodes')
            + ': it may look better beside them than it is.'
        )
    return {'source': 'folder', 'takes': here, 'warning': warning}
