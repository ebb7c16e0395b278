"""`report.html` of a training or an evaluation, from its results, segments and settings."""

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
# Predictors that see no image: name in words, and description.
BLIND = {
    'zero': ('stand still', 'zero'),
    'mean_action': ('mean action', 'the mean of the training episodes'),
    'mean_per_step': (
        'mean of each step',
        'the mean of each chunk step over the training episodes',
    ),
    'mean_per_position_and_step': (
        'mean of each position and step',
        'the mean of each position in the window and chunk step over the training episodes',
    ),
    'repeat_last': (
        'repeat the last command',
        'the command before the frame, for the whole chunk; unlike a policy, it knows the '
        'driven command',
    ),
}
# Controls of the policy: name in words; for a card: condition, and the meaning of an unchanged
# loss; description.
CONTROLS = {
    'image_blanked': (
        'no image',
        'without images',
        'would not use the image',
        'every image replaced by the mean colour',
    ),
    'frames_shuffled': ('frames shuffled', '', '', "each episode's images in random order"),
    'instruction_swapped': (
        'another instruction',
        'with another instruction',
        'would not use the instruction',
        'the instruction of another episode',
    ),
}
# Errors have no sign: the words have no direction.
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
    Write the page of a training, or without a history of an evaluation.

    Frames are read from the episodes; unreadable ones are named on the page.

    :param path: the page; an existing one is replaced atomically.
    :param episodes: the training side gives the coverage; the validation side is that of `scored`.
    :param history: rows of `history.json`.
    :param config: the settings; a mapping `parameters` in it is shown as counts.
    """
    return page.write(path, training_page(_view(policy, scored, episodes, history, config or {})))


def _view(
    policy: PolicySpec,
    scored: Scored,
    episodes: EpisodeSet,
    history: Sequence[dict],
    config: Mapping,
) -> TrainingView:
    summary, own = scored.summary, scored.summary['policy']
    best = own.get('best_baseline') or min(
        summary['baselines'], key=lambda name: summary['baselines'][name]['loss']
    )
    warning = summary.get('blind', {}).get('warning')
    headline, mood = _headline(
        own, warning, own.get('better', _less(own['loss'], summary['baselines'][best]['loss']))
    )
    found = of_episodes.newest(policy, scored)
    finite = found.real & np.isfinite(found.predicted).all(-1)
    metrics = {POLICY: own} | {
        f'policy, {words}': own[name] for name, (words, *_) in CONTROLS.items() if own.get(name)
    }
    blind = {_words(name): entry for name, entry in summary['baselines'].items()}
    return TrainingView(
        title=f'{"Training" if history else "Evaluation"}: {headline}',
        subtitle=f'mobile_vla {"train" if history else "evaluate"}, {policy.backbone.label}, '
        f'window {policy.window}, chunk {policy.chunk}, {policy.rate_hz:g} Hz',
        lead=[_lead(policy, scored, episodes, history), *_beside(policy, summary, best)],
        verdict=[*([warning] if warning else ()), *map(_in_words, own.get('verdict', ()))],
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
            for name, moved in (own.get('change') or {}).items()
        },
        history=history,
        chosen=(policy.metrics.get('epoch') or {}).get('epoch'),
        driven=found.driven[finite],
        predicted=found.predicted[finite],
        chunk_errors=_chunk_errors(policy, summary),
        drives=of_episodes.drives(policy, scored.segments, found),
        worst=of_episodes.worst(policy, scored.segments, found),
        coverage=of_episodes.coverage(policy, episodes, scored.segments, own.get('broken') or ()),
        facts=_facts(policy, summary, config),
    )


def _headline(own: Mapping, warning: str | None, better: bool) -> tuple[str, str]:
    """Return the page's title and its mood: `good`, `bad`, or '' if uncertain."""
    than = 'better than predictors without an image'
    if own.get('trained_on'):
        return 'episodes that it was trained on', ''
    if not better:
        return f'NOT {than}', 'bad'
    if warning or (own.get('margin') and not sure(own['margin'])):
        return f'perhaps {than}', ''
    return than, 'good'


def _words(name: str) -> str:
    return BLIND.get(name, (name,))[0]


def _in_words(sentence: str) -> str:
    """Return a sentence with the baselines named as elsewhere on the page."""
    names = '|'.join(name for name in BLIND if '_' in name)
    return re.sub(rf'\b({names})\b', lambda found: f'“{_words(found[0])}”', sentence)


def _less(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and one < other


def _amount(policy: PolicySpec, segments: Sequence[Segment]) -> str:
    episodes = {segment.episode_id for segment in segments}
    kinds = {segment.instruction for segment in segments}
    minutes = of_episodes.duration_s(policy, segments) / 60
    return (
        f'{len(episodes)} episode{"" if len(episodes) == 1 else "s"} ({minutes:.1f} minutes, '
        f'{len(kinds)} instruction{"" if len(kinds) == 1 else "s"})'
    )


def _lead(
    policy: PolicySpec, scored: Scored, episodes: EpisodeSet, history: Sequence[dict]
) -> str:
    """Return a sentence on the policy, its training data and its validation data."""
    kind = {
        '': 'A policy',
        'image': 'A control without images',
        'instruction': 'A control without instructions',
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
        f'{kind} on top of {policy.backbone.label} was trained{trained}, and is '
        f'measured on {_amount(policy, scored.segments)}{unseen}.'
    )


def _beside(policy: PolicySpec, summary: Mapping, best: str) -> list[str]:
    """Return a sentence on the mean errors of the policy and of the best baseline, in units."""
    errors, baseline_errors, differences = [], [], []
    for axis, unit in zip(policy.actions.axes, policy.actions.units, strict=True):
        own, other = summary['policy'][axis]['mae'], summary['baselines'][best][axis]['mae']
        if own is None or other is None:
            return []
        errors.append(f'{own:.3f} {unit} {ALONG.get(axis, axis)}')
        baseline_errors.append(f'{other:.3f} {unit}')
        differences.append(f'{abs(own - other):.3f} {unit} {"better" if own < other else "worse"}')
    return [
        f'Its mean error is {listed(errors)}; that of the best predictor that sees no image, '
        f'“{_words(best)}”, is {listed(baseline_errors)}. The policy is {listed(differences)}.'
    ]


def _cards(policy: PolicySpec, summary: Mapping, best: str) -> list[tuple[str, str, str]]:
    own, other = summary['policy'], summary['baselines'][best]

    def mood(good: bool) -> str:
        return 'good' if good else 'bad'

    cards = []
    for axis, unit in zip(policy.actions.axes, policy.actions.units, strict=True):
        error, baseline = own[axis]['mae'], other[axis]['mae']
        cards.append(
            (
                f'{number(error)} {unit}',
                f'mean error {ALONG.get(axis, axis)}; best without an '
                f'image: {number(baseline)} {unit}',
                mood(_less(error, baseline)),
            )
        )
    cards.append(
        (
            number(own['loss_arm_act'], 4),
            'loss_arm_act, as in the reference run; best '
            f'without an image: {number(other["loss_arm_act"], 4)}',
            mood(_less(own['loss_arm_act'], other['loss_arm_act'])),
        )
    )
    for name, (_, when, meaning, _) in CONTROLS.items():
        entry = own.get(name) or {}
        given = not policy.blank or not name.startswith(policy.blank)
        if when and given and entry.get('loss') and own['loss']:
            used = heeds(own, name)
            cards.append(
                (
                    f'{entry["loss"] / own["loss"]:.1f} ×',
                    f'its loss {when}; at 1.0 × it {meaning}',
                    '' if used is None else mood(used),
                )
            )
    return cards


def _chunk_errors(policy: PolicySpec, summary: Mapping) -> dict[str, dict[str, np.ndarray]]:
    """Return MAE and RMSE of each chunk step: the policy first, then the baselines."""
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
        'sha256 of the weights': policy.backbone.sha256,
        **{f'parameters, {name}': f'{count:,}' for name, count in counts.items()},
        'axes': ', '.join(
            f'{axis} (1.0 is {scale:.4g} {unit})'
            for axis, scale, unit in zip(spec.axes, spec.scale, spec.units, strict=True)
        ),
        'window, chunk, rate': f'{policy.window} frames, {policy.chunk} steps, '
        f'{policy.rate_hz:g} Hz',
        'image': f'{policy.image.size} × {policy.image.size} pixels',
        'camera': policy.camera or 'the main one',
        'prompt': policy.instruction_template,
        'trained without': policy.blank or '– (images and instructions)',
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
