"""What the numbers of a policy mean, in sentences that a newcomer understands."""

from collections.abc import Mapping, Sequence

import numpy as np

# Fewer validation takes than this tell no difference from chance.
FEW_TAKES = 5
RESAMPLES = 1000
# A control whose loss is not higher by this share is no worse.
WORSE_SHARE = 0.01
# What moves the action by less than this share of what is driven is not heeded.
MOVED_SHARE = 0.01


def margin(policy: np.ndarray, baseline: np.ndarray, steps: np.ndarray, seed: int = 0) -> dict:
    """
    Return how far a policy's loss lies from a baseline's, and how sure that is.

    Takes are drawn with replacement, policy and baseline together, as windows of one take say
    much the same; the interval holds 95 % of the draws.

    :param policy: (N,) sums of the loss over each take; so is baseline.
    :param steps: (N,) steps of each take that the sums are over.
    :returns: `difference`, policy less baseline: below zero the policy is better; `low`, `high`,
        None for a single take; `takes`, those with a step.
    """
    there = steps > 0
    apart, steps = (policy - baseline)[there], steps[there]
    result = {
        'difference': _finite(apart.sum() / max(steps.sum(), 1)),
        'low': None,
        'high': None,
        'takes': len(steps),
    }
    if len(steps) > 1 and result['difference'] is not None:
        rng = np.random.default_rng(seed)
        times = rng.multinomial(len(steps), np.full(len(steps), 1 / len(steps)), RESAMPLES)
        low, high = np.percentile((times @ apart) / (times @ steps), [2.5, 97.5])
        result |= {'low': float(low), 'high': float(high)}
    return result


def sure(found: Mapping) -> bool:
    """Whether enough takes say, and say alike, which of two losses is lower (`margin`)."""
    return _enough(found) and not found['low'] <= 0 <= found['high']


def _enough(found: Mapping) -> bool:
    return found['takes'] >= FEW_TAKES and found['low'] is not None


def heeds(policy: Mapping, control: str) -> bool | None:
    """
    Return whether a policy is worse for what a control does to it; None: it cannot be told.

    :param policy: the entry of `training.evaluate.score`; control: a name in it.
    """
    loss, share = policy[control]['loss'], policy['change_share'][control]
    found = policy[control]['margin']
    if loss is None and found['takes']:
        return True
    if share is not None and share < MOVED_SHARE:
        return False  # however few the takes: there is no difference to be sure of
    if not _enough(found):
        return None
    if loss <= (1 + WORSE_SHARE) * policy['loss']:
        return False
    return True if sure(found) else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def sentences(policy: Mapping, baselines: Mapping[str, Mapping], blank: str = '') -> list[str]:
    """
    Say what the numbers of a policy mean, the most important first.

    :param policy: the entry of `training.evaluate.score`; baselines: theirs.
    :param blank: what the policy was trained without, as a control.
    """
    if policy['loss'] is None:
        return ['The policy predicts numbers that are not finite: it cannot be used.']
    said = []
    if policy['trained_on']:
        said.append(
            'The policy was trained on all of these takes: the numbers tell what it '
            'remembers, not how well it drives. Measure on takes that it has not seen.'
        )
    return [
        *said,
        _beside_the_blind(policy, baselines),
        _certainty(policy['margin']),
        _image(policy, blank),
        *_pictures(policy, blank),
        _instruction(policy, blank),
    ]


def _beside_the_blind(policy: Mapping, baselines: Mapping[str, Mapping]) -> str:
    best = policy['best_baseline']
    losses = f'its loss is {policy["loss"]:.5f}, that of {best} {baselines[best]["loss"]:.5f}'
    if policy['better']:
        return (
            f'The policy is better than every predictor that sees no image: {losses}, the '
            'best of them.'
        )
    others = [name for name in baselines if name not in policy['better_than'] and name != best]
    return f'The policy is NOT better than a predictor that sees no image: {losses}.' + (
        f' Nor is it better than {listed(others)}.' if others else ''
    )


def _certainty(found: Mapping) -> str:
    takes = found['takes']
    if takes < FEW_TAKES:
        return (
            f'Only {takes} {"takes validate" if takes > 1 else "take validates"}: too few to '
            'tell that difference from chance.'
        )
    low, high = found['low'], found['high']
    draws = (
        f'in 95 % of {RESAMPLES} draws from these {takes} takes that difference lies between '
        f'{low:+.5f} and {high:+.5f}'
    )
    return f'It is more than chance: {draws}.' if sure(found) else f'It may be chance: {draws}.'


def _image(policy: Mapping, blank: str) -> str:
    if blank == 'image':
        return 'It was trained without images, as a control.'
    return _control(
        policy,
        'image_blanked',
        'without the image',
        (
            'It looks at the image',
            'It does not look at the image, or gains nothing by it',
            'Whether it looks at the image cannot be told',
        ),
    )


def _pictures(policy: Mapping, blank: str) -> Sequence[str]:
    if blank == 'image':
        return []
    return [
        _control(
            policy,
            'frames_shuffled',
            "with each take's pictures in random order",
            (
                'It tells one picture of a take from another',
                'It does not tell one picture of a take from another',
                'Whether it tells one picture of a take from another cannot be told',
            ),
        )
    ]


def _instruction(policy: Mapping, blank: str) -> str:
    if blank == 'instruction':
        return 'It was trained without instructions, as a control.'
    if policy['instruction_swapped'] is None:
        return 'Whether it listens to the instruction cannot be told: all takes have the same one.'
    return _control(
        policy,
        'instruction_swapped',
        'told something else',
        (
            'It listens to the instruction',
            'It does not listen to the instruction, or gains nothing by it',
            'Whether it listens to the instruction cannot be told',
        ),
    )


def _control(policy: Mapping, control: str, when: str, words: tuple[str, str, str]) -> str:
    """Say whether a policy is worse for what was done to it: yes, no, or it cannot be told."""
    answer = dict(zip((True, False, None), words, strict=True))[heeds(policy, control)]
    loss, share = policy[control]['loss'], policy['change_share'][control]
    return (
        f'{answer}: {when} its loss is {"no number" if loss is None else f"{loss:.5f}"}'
        + (
            ''
            if share is None
            else f' and its action changes by {share:.0%} of what is driven on average'
        )
        + '.'
    )


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them: a, b and c."""
    return ' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))
