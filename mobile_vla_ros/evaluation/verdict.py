"""Explain the metrics of a policy in sentences for newcomers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# With fewer validation episodes no difference is significant.
MIN_EPISODES = 5
RESAMPLES = 1000
# A control is worse only if its loss is higher by more than this share.
WORSE_SHARE = 0.01
# A policy ignores an input that changes its action by less than this share of the driven action.
MOVED_SHARE = 0.01


def margin(policy: np.ndarray, baseline: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
    """
    Return the difference of two losses with its 95 % bootstrap interval.

    Episodes are resampled, policy and baseline together, because windows of one episode are
    correlated.

    :param policy, baseline: (N,) sums of the loss over each episode.
    :param steps: (N,) number of steps in each sum.
    :returns: `difference`, policy minus baseline (negative: the policy is better); `low`, `high`,
        None for a single episode; `takes`, the number of episodes with a step.
    """
    there = steps > 0
    apart, steps = (policy - baseline)[there], steps[there]
    result = {
        'difference': _finite(apart.sum() / max(steps.sum(), 1)),
        'low': None,
        'high': None,
        'takes': len(steps),  # key in files
    }
    if len(steps) > 1 and result['difference'] is not None:
        rng = np.random.default_rng(0)
        times = rng.multinomial(len(steps), np.full(len(steps), 1 / len(steps)), RESAMPLES)
        low, high = np.percentile((times @ apart) / (times @ steps), [2.5, 97.5])
        result |= {'low': float(low), 'high': float(high)}
    return result


def sure(found: Mapping[str, Any]) -> bool:
    """Return whether a `margin` is significant: enough episodes, and 0 outside the interval."""
    return _enough(found) and not found['low'] <= 0 <= found['high']


def _enough(found: Mapping[str, Any]) -> bool:
    return found['takes'] >= MIN_EPISODES and found['low'] is not None


def heeds(policy: Mapping[str, Any], control: str) -> bool | None:
    """
    Return whether a control makes a policy worse; None: not significant.

    :param policy: the entry `policy` from `score.score`.
    :param control: name of a control in it.
    """
    loss, share = policy[control]['loss'], policy['change_share'][control]
    found = policy[control]['margin']
    if loss is None and found['takes']:
        return True
    if share is not None and share < MOVED_SHARE:
        return False  # even with few episodes: there is no difference to be sure of
    if not _enough(found):
        return None
    if loss <= (1 + WORSE_SHARE) * policy['loss']:
        return False
    return True if sure(found) else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def sentences(
    policy: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], blank: str = ''
) -> list[str]:
    """
    Return sentences that explain the metrics of a policy, the most important first.

    :param policy, baselines: the entries from `score.score`.
    :param blank: input that the policy was trained without, as a control.
    """
    if policy['loss'] is None:
        return ['The policy predicts NaN or inf: it cannot be used.']
    found = []
    if policy['trained_on']:
        found.append(
            'The policy was trained on all of these episodes: the metrics show what it '
            'remembers, not how well it drives. Measure on episodes that it was not trained on.'
        )
    return [
        *found,
        _beside_baselines(policy, baselines),
        _certainty(policy['margin']),
        _image(policy, blank),
        *_frames(policy, blank),
        _instruction(policy, blank),
    ]


def _beside_baselines(
    policy: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> str:
    best = policy['best_baseline']
    losses = f'its loss is {policy["loss"]:.5f}, that of {best} {baselines[best]["loss"]:.5f}'
    if policy['better']:
        return (
            f'The policy is better than every baseline that sees no image: {losses}, the best of '
            'them.'
        )
    others = [name for name in baselines if name not in policy['better_than'] and name != best]
    return f'The policy is NOT better than a baseline that sees no image: {losses}.' + (
        f' Nor is it better than {listed(others)}.' if others else ''
    )


def _certainty(found: Mapping[str, Any]) -> str:
    count = found['takes']
    if count < MIN_EPISODES:
        return (
            f'Only {count} {"episodes validate" if count > 1 else "episode validates"}: too few '
            'to distinguish that difference from chance.'
        )
    low, high = found['low'], found['high']
    draws = (
        f'in 95 % of {RESAMPLES} resamples of these {count} episodes that difference lies between '
        f'{low:+.5f} and {high:+.5f}'
    )
    return f'It is significant: {draws}.' if sure(found) else f'It may be chance: {draws}.'


def _image(policy: Mapping[str, Any], blank: str) -> str:
    if blank == 'image':
        return 'It was trained without images, as a control.'
    return _control(
        policy,
        'image_blanked',
        'without the image',
        (
            'It uses the image',
            'It does not use the image, or gains nothing from it',
            'It is uncertain whether it uses the image',
        ),
    )


def _frames(policy: Mapping[str, Any], blank: str) -> Sequence[str]:
    if blank == 'image':
        return []
    return [
        _control(
            policy,
            'frames_shuffled',
            "with each episode's images in random order",
            (
                'It distinguishes the images of an episode',
                'It does not distinguish the images of an episode',
                'It is uncertain whether it distinguishes the images of an episode',
            ),
        )
    ]


def _instruction(policy: Mapping[str, Any], blank: str) -> str:
    if blank == 'instruction':
        return 'It was trained without instructions, as a control.'
    if policy['instruction_swapped'] is None:
        return 'It is uncertain whether it uses the instruction: all episodes have the same one.'
    return _control(
        policy,
        'instruction_swapped',
        'with another instruction',
        (
            'It uses the instruction',
            'It does not use the instruction, or gains nothing from it',
            'It is uncertain whether it uses the instruction',
        ),
    )


def _control(
    policy: Mapping[str, Any], control: str, when: str, answers: tuple[str, str, str]
) -> str:
    """Return the sentence for a control: the policy is worse, is not, or it is uncertain."""
    answer = dict(zip((True, False, None), answers, strict=True))[heeds(policy, control)]
    loss, share = policy[control]['loss'], policy['change_share'][control]
    return (
        f'{answer}: {when} its loss is {"NaN or inf" if loss is None else f"{loss:.5f}"}'
        + (
            ''
            if share is None
            else f' and its action changes by {share:.0%} of the mean driven action'
        )
        + '.'
    )


def listed(names: Sequence[str]) -> str:
    """Return names as an enumeration: a, b and c."""
    return ' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))


def refusal(result: Mapping[str, Any]) -> str | None:
    """
    Return why a policy is not shown to beat every baseline; None if it is.

    :param result: the summary from `evaluate.evaluate`.
    """
    policy = result['policy']
    if policy['trained_on']:
        return 'not shown to be better: the policy was trained on all of these episodes'
    if not policy['better']:
        return f'the policy is not better than {policy["best_baseline"]}, which sees no image'
    if result['blind']['warning']:
        return (
            'not shown to be better: the baselines are fitted to other episodes than the policy, '
            'or to fewer; add its training episodes to the folder, or train it again, so that '
            'its bundle has them'
        )
    return None
