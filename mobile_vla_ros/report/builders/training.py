"""`report.html` of a training or an evaluation, from what it left: numbers, runs and settings."""

import platform
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from mobile_vla_ros import __version__
from mobile_vla_ros.data.episodes import EpisodeSet
from mobile_vla_ros.data.segments import Segment
from mobile_vla_ros.evaluation.score import Scored
from mobile_vla_ros.evaluation.verdict import heeds, listed, sure
from mobile_vla_ros.model.policy_spec import PolicySpec
from mobile_vla_ros.report.builders import training_episodes as of_episodes
from mobile_vla_ros.report.pages import page
from mobile_vla_ros.report.pages.training_page import number, training_page
from mobile_vla_ros.report.pages.training_view import TrainingView

POLICY = 'policy'
# A predictor that sees no image: its name in words, and what it does.
BLIND = {
    'zero': ('stand still', 'always zero'),
    'mean_action': ('mean action', 'always the mean of the training episodes'),
    'mean_per_step': (
        'mean of each step',
        'for each chunk step its mean over the training episodes',
    ),
    'mean_per_position_and_step': (
        'mean of each place and step',
        'for each place in the window and each chunk step its mean over the training episodes',
    ),
    'repeat_last': (
        'repeat the last command',
        'the command before the frame, for the whole chunk; it is told what was '
        'driven a moment ago, which no policy is',
    ),
}
# The same policy deprived of something: in words; when, and what a loss that stays would show, for
# a card; and what is done.
CONTROLS = {
    'image_blanked': (
        'no image',
        'without its images',
        'would not look',
        'shown the mean colour for every image',
    ),
    'frames_shuffled': ('frames shuffled', '', '', "shown each episode's images in random order"),
    'instruction_swapped': (
        'another instruction',
        'told something else',
        'would not listen',
        'told what another episode was told',
    ),
}
# An error along an axis has no sign.
ALONG = {'linear_x': 'forward', 'linear_y': 'sideways', 'angular_z': 'in turning'}
PACKAGES = ('torch', 'transformers', 'peft', 'accelerate', 'numpy', 'h5py')


def write(
    path: Path,
    policy: PolicySpec,
    scored: Scored,
    episodes: EpisodeSet,
    *,
    history: Sequence[dict] = (),
    config: Mapping | None = None,
) -> Path:
    """
    Write the page of a training, or of an evaluation where there is no history.

    Frames are read from the episodes; one that cannot be read is named on the page.

    :param path: the page; what was there before is replaced by a whole one.
    :param episodes: the training side gives the coverage; the validation side is that of `scored`.
    :param history: rows of `history.json`.
    :param config: the settings as they were; a mapping `parameters` in it is shown as counts.
    """
    return page.write(path, training_page(_view(policy, scored, episodes, history, config or {})))


def _view(
    policy: PolicySpec,
    scored: Scored,
    episodes: EpisodeSet,
    history: Sequence[dict],
    config: Mapping,
) -> TrainingView:
    summary, ours = scored.summary, scored.summary['policy']
    best = ours.get('best_baseline') or min(
        summary['baselines'], key=lambda name: summary['baselines'][name]['loss']
    )
    warning = summary.get('blind', {}).get('warning')
    headline, mood = _headline(
        ours, warning, ours.get('better', _less(ours['loss'], summary['baselines'][best]['loss']))
    )
    found = of_episodes.newest(policy, scored)
    finite = found.real & np.isfinite(found.predicted).all(-1)
    metrics = {POLICY: ours} | {
        f'policy, {words}': ours[name] for name, (words, *_) in CONTROLS.items() if ours.get(name)
    }
    blind = {_words(name): entry for name, entry in summary['baselines'].items()}
    return TrainingView(
        title=f'{"Training" if history else "Evaluation"}: {headline}',
        subtitle=f'mobile_vla {"train" if history else "evaluate"}, {policy.backbone.id}, '
        f'window {policy.window}, chunk {policy.chunk}, {policy.rate_hz:g} Hz',
        lead=[_lead(policy, scored, episodes, history), *_beside(policy, summary, best)],
        verdict=[*([warning] if warning else ()), *map(_in_words, ours.get('verdict', ()))],
        mood=mood,
        cards=_cards(policy, summary, best),
        axes=list(zip(policy.actions.axes, policy.actions.units, strict=True)),
        rate_hz=policy.rate_hz,
        metrics=metrics | blind,
        blind=list(blind),
        meaning={
            f'policy, {words}': text
            for words, *_, text in CONTROLS.values()
            if f'policy, {words}' in metrics
        }
        | {words: f'{text} ({name})' for name, (words, text) in BLIND.items() if words in blind},
        change={
            CONTROLS.get(name, (name,))[0]: moved
            for name, moved in (ours.get('change') or {}).items()
        },
        history=history,
        chosen=(policy.metrics.get('epoch') or {}).get('epoch'),
        driven=found.driven[finite],
        predicted=found.predicted[finite],
        chunk_errors=_chunk_errors(policy, summary),
        drives=of_episodes.drives(policy, scored.segments, found),
        worst=of_episodes.worst(policy, scored.segments, found),
        coverage=of_episodes.coverage(policy, episodes, scored.segments, ours.get('broken') or ()),
        facts=_facts(policy, summary, config),
    )


def _headline(ours: Mapping, warning: str | None, better: bool) -> tuple[str, str]:
    """Return the page's title and its mood: `good`, `bad`, or '' where nobody can be sure."""
    than = 'better than predictors without an image'
    if ours.get('trained_on'):
        return 'episodes that it was trained on', ''
    if not better:
        return f'NOT {than}', 'bad'
    if warning or (ours.get('margin') and not sure(ours['margin'])):
        return f'perhaps {than}', ''
    return than, 'good'


def _words(name: str) -> str:
    return BLIND.get(name, (name,))[0]


def _in_words(sentence: str) -> str:
    """Return a sentence with the baselines called as everywhere on the page."""
    names = '|'.join(name for name in BLIND if '_' in name)
    return re.sub(rf'\b({names})\b', lambda found: f'“{_words(found[0])}”', sentence)


def _less(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and one < other


def _amount(policy: PolicySpec, runs: Sequence[Segment]) -> str:
    episodes = {run.episode_id for run in runs}
    kinds = {run.instruction for run in runs}
    minutes = sum(len(run.frames) for run in runs) / policy.rate_hz / 60
    return (
        f'{len(episodes)} episode{"" if len(episodes) == 1 else "s"} ({minutes:.1f} minutes, '
        f'{len(kinds)} instruction{"" if len(kinds) == 1 else "s"})'
    )


def _lead(
    policy: PolicySpec, scored: Scored, episodes: EpisodeSet, history: Sequence[dict]
) -> str:
    """Say what was trained, on how much, and what it is measured on."""
    what = {
        '': 'A policy',
        'image': 'A control that is shown no image',
        'instruction': 'A control that is told no instruction',
    }[policy.blank]
    known = len(policy.data.get('train_episodes', []))
    trained = f' on {known} episode{"" if known == 1 else "s"}' if known else ''
    if history:
        trained = (
            f' for {len(history)} epoch{"" if len(history) == 1 else "s"} on '
            f'{_amount(policy, episodes.train)}'
        )
    unseen = '' if scored.summary['policy'].get('trained_on') else ' that it did not train on'
    return (
        f'{what} on top of {policy.backbone.id} was trained{trained}, and is '
        f'measured on {_amount(policy, scored.segments)}{unseen}.'
    )


def _beside(policy: PolicySpec, summary: Mapping, best: str) -> list[str]:
    """Say by how much, in physical units, the policy errs beside the best blind predictor."""
    ours, theirs, apart = [], [], []
    for axis, unit in zip(policy.actions.axes, policy.actions.units, strict=True):
        mine, other = summary['policy'][axis]['mae'], summary['baselines'][best][axis]['mae']
        if mine is None or other is None:
            return []
        ours.append(f'{mine:.3f} {unit} {ALONG.get(axis, axis)}')
        theirs.append(f'{other:.3f} {unit}')
        apart.append(f'{abs(mine - other):.3f} {unit} {"better" if mine < other else "worse"}')
    return [
        f'On average it errs by {listed(ours)}; the best predictor that sees no image, '
        f'“{_words(best)}”, by {listed(theirs)}. That is {listed(apart)}.'
    ]


def _cards(policy: PolicySpec, summary: Mapping, best: str) -> list[tuple[str, str, str]]:
    ours, other = summary['policy'], summary['baselines'][best]

    def mood(good: bool) -> str:
        return 'good' if good else 'bad'

    cards = []
    for axis, unit in zip(policy.actions.axes, policy.actions.units, strict=True):
        mine, theirs = ours[axis]['mae'], other[axis]['mae']
        cards.append(
            (
                f'{number(mine)} {unit}',
                f'mean error {ALONG.get(axis, axis)}; best without an '
                f'image: {number(theirs)} {unit}',
                mood(_less(mine, theirs)),
            )
        )
    cards.append(
        (
            number(ours['loss_arm_act'], 4),
            'loss_arm_act, as the seed run counts it; best '
            f'without an image: {number(other["loss_arm_act"], 4)}',
            mood(_less(ours['loss_arm_act'], other['loss_arm_act'])),
        )
    )
    for name, (_, when, deaf, _) in CONTROLS.items():
        entry = ours.get(name) or {}
        given = not policy.blank or not name.startswith(policy.blank)
        if when and given and entry.get('loss') and ours['loss']:
            told = heeds(ours, name)
            cards.append(
                (
                    f'{entry["loss"] / ours["loss"]:.1f} ×',
                    f'its loss {when}; at 1.0 × it {deaf}',
                    '' if told is None else mood(told),
                )
            )
    return cards


def _chunk_errors(policy: PolicySpec, summary: Mapping) -> dict[str, dict[str, np.ndarray]]:
    """Return MAE and RMSE of each chunk step, of the policy first and then of the baselines."""
    entries = {POLICY: summary['policy']} | {
        _words(name): entry for name, entry in summary['baselines'].items()
    }
    return {
        kind.upper(): {
            name: np.array(
                [entry[axis]['per_step'][kind] for axis in policy.actions.axes], float
            ).T
            for name, entry in entries.items()
            if all('per_step' in entry[axis] for axis in policy.actions.axes)
        }
        for kind in ('mae', 'rmse')
    }


def _facts(policy: PolicySpec, summary: Mapping, config: Mapping) -> dict[str, dict[str, str]]:
    spec = policy.actions
    counts = config.get('parameters') or policy.data.get('parameters') or {}
    model = {
        'backbone': policy.backbone.id,
        'revision': policy.backbone.revision or '–',
        'sha256 of its weights': policy.backbone.sha256,
        **{f'parameters, {name}': f'{count:,}' for name, count in counts.items()},
        'axes': ', '.join(
            f'{axis} (1.0 is {scale:.4g} {unit})'
            for axis, scale, unit in zip(spec.axes, spec.scale, spec.units, strict=True)
        ),
        'window, chunk, rate': f'{policy.window} frames, {policy.chunk} steps, '
        f'{policy.rate_hz:g} Hz',
        'image': f'{policy.image.size} × {policy.image.size} pixels',
        'told as': policy.instruction_template,
        'trained without': policy.blank or 'nothing: it has images and instructions',
        'fingerprint of the episodes': str(policy.data.get('fingerprint', '–')),
        'validation windows': str(summary.get('windows', '–')),
    }
    versions = {'mobile_vla_ros': __version__, 'Python': platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    settings = {name: str(value) for name, value in config.items() if name != 'parameters'}
    return {'The policy': model, 'Settings': settings, 'Versions': versions}
