"""What a training would really learn from: what is kept and lost of the episodes, and why."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros import text_table
from mobile_vla_ros.data import scale
from mobile_vla_ros.data.episodes import EpisodeSet
from mobile_vla_ros.data.facts import EpisodeFacts, share_a_view
from mobile_vla_ros.data.segments import NEARLY, Sampling, read_episodes
from mobile_vla_ros.data.split import find_repeats
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone import Tokenizer, load_tokenizer, unknown_words
from mobile_vla_ros.types import ACCEPTED_VERDICTS, AXIS_UNITS

BAD_LOST, POOR_LOST = 0.5, 0.1  # share of the driven frames
SIDE_TIMES, SIDE_S = 2.0, 0.5  # one side is driven so much more than the other, and so long
MIN_AGAINST, MOSTLY = 3, 0.8  # episodes that drive against the words of their instruction
MOST = 5  # names in a line
LEFT_OUT, GAPS = 'left_out', 'gaps'
LOST = {LEFT_OUT: 'in episodes left out', GAPS: 'at gaps of the camera'}
SCALE = 'scale '  # begins a row of the table
RENAME = 'import or record the episodes with instructions that tell them apart'
REWORD = (
    'give them words that it knows (mobile_vla episodes edit FILE --instruction), or use another '
    '--backbone'
)


def audit(
    episodes: EpisodeSet,
    sampling: Sampling,
    axes: Sequence[str],
    tokenizer: Tokenizer | None = None,
) -> dict[str, Any]:
    """
    Return what is learned from a set of episodes (both sides of its split).

    Shares are between 0 and 1. ``frames`` of all readable episodes; ``windows`` that are learned;
    ``window_share`` of those that the episodes would give without refusals, gaps and slow cameras;
    ``losses``: key of ``LOST`` → windows. ``target_share`` of the chunk steps inside an episode.

    Of the driven frames (the newest command, however old, moves the robot) ``held_share`` on a
    command older than 0.5 s that the base holds, ``stale_share`` with a command that is too old
    for the base and taught as zero; of the driven seconds, ``lost_share`` not learned as driven.
    Each of the ``unreadable`` files counts there like the mean of the others, and as lost.
    ``zero_share`` of the learned frames that are taught as standing still.

    ``scale`` by axis: ``scale``, ``max``, ``percentile``, ``frames``, ``outliers``, ``drift``.
    ``unknown_words`` and ``equal_instructions`` (groups that the tokenizer does not tell apart):
    None without a tokenizer. ``against_words``: instructions of a side whose episodes drive to the
    other; ``opposite_drives``: instructions with opposite drives from one start view. ``verdict``:
    good, poor or bad, with ``reasons`` and ``remedies``.

    :param tokenizer: of the policy's backbone; None: words are not checked.
    """
    segments = list({id(one): one for one in [*episodes.train, *episodes.val]}.values())
    facts = list(episodes.facts)
    kept: dict[str, int] = defaultdict(int)
    for segment in segments:
        kept[segment.episode_id] += len(segment.windows)
    windows, possible = sum(kept.values()), max(1, sum(one.possible for one in facts))
    real = [segment.real[segment.windows] for segment in segments]
    still = [(segment.ahead[:, 0] == 0).all(1) for segment in segments]
    used = [one for one in facts if kept[one.episode_id]]
    driven = sum(one.use.driven for one in facts)
    driven_s = sum(one.use.driven / one.camera_hz for one in facts if one.camera_hz)
    driven_s *= 1 + episodes.unreadable / max(1, len(facts))
    learned_s = sum(
        (one.use.driven - one.use.expired)
        / one.camera_hz
        * min(1.0, kept[one.episode_id] / one.possible)
        for one in used
        if one.possible and one.camera_hz
    )
    words = _words((one.instruction for one in facts), tokenizer) if tokenizer else (None, None)
    found: dict[str, Any] = {
        'rate_hz': sampling.rate_hz,
        'episodes': len(facts),
        'left_out': dict(episodes.left_out),
        'unreadable': episodes.unreadable,
        'frames': sum(one.frames for one in facts),
        'windows': windows,
        'window_share': round(min(1.0, windows / possible), 4),
        'target_share': _mean(real),
        'losses': _losses(facts, kept),
        'held_share': _share(sum(one.use.held for one in used), driven),
        'stale_share': _share(sum(one.use.expired for one in used), driven),
        'lost_share': round(1 - learned_s / driven_s, 4) if driven_s else 0.0,
        'zero_share': _mean(still),
        'scale': {
            one.axis: {
                'scale': one.scale,
                'max': one.max,
                'percentile': one.percentile,
                'frames': one.frames,
                'outliers': [vars(outlier) for outlier in one.outliers],
                'drift': one.drift,
            }
            for one in (scale.measure(segments, axes) if segments else [])
        },
        'camera_hz': _median([one.camera_hz for one in facts]),
        'command_hz': _median([one.command_hz for one in facts]),
        'command_age_s': _median(
            [one.command_age_s for one in facts if one.command_age_s is not None]
        ),
        'clock_steps': sum(one.clock_steps for one in facts),
        'unknown_words': words[0],
        'equal_instructions': words[1],
        'against_words': _against_words(facts),
        'opposite_drives': _opposite_drives(facts),
        'near_identical': [list(group) for group in episodes.near_identical],
        'instructions': _counts(facts, kept, lambda one: one.instruction),
        'outcomes': _counts(facts, kept, lambda one: one.outcome),
    }
    return found | _verdict(found)


def audit_paths(
    paths: Sequence[Path],
    sampling: Sampling,
    axes: Sequence[str],
    accept: Sequence[str] = ACCEPTED_VERDICTS,
    backbone: str | None = None,
) -> dict[str, Any]:
    """
    Return the `audit` of some episodes, also if none of them can be learned from.

    :param backbone: whose tokenizer checks the words, in a folder or the hub's cache.
    """
    tokenizer = load_tokenizer(backbone) if backbone else None
    loaded = read_episodes(paths, sampling, accept)
    everything = EpisodeSet(
        loaded.segments,
        [],
        loaded.skipped,
        find_repeats(loaded.signatures),
        facts=loaded.facts,
        unreadable=loaded.unreadable,
    )
    return audit(everything, sampling, axes, tokenizer)


def check_losses(found: Mapping[str, Any]) -> None:
    """Raise UserError if more than half of what was driven would not be learned."""
    if found['lost_share'] > BAD_LOST:
        raise UserError(
            f'{found["lost_share"]:.0%} of what was driven would be lost or taught as standing '
            'still',
            got='; '.join(found['reasons']),
            expected=f'at most {BAD_LOST:.0%}',
            remedy='; '.join([*found['remedies'], '--accept_losses trains all the same']),
        )


def lines(found: Mapping[str, Any], *, scales: bool = True) -> list[str]:
    """
    Return the audit as a table, its verdict and its remedies, for a terminal or a log.

    :param scales: with those of the axes.
    """
    rows = [row for row in table(found) if scales or not row[0].startswith(SCALE)]
    return [
        *text_table.table(rows).splitlines(),
        summary(found),
        *(f'  remedy: {remedy}' for remedy in found['remedies']),
    ]


def summary(found: Mapping[str, Any]) -> str:
    """Return the verdict and its reasons."""
    return '; '.join([f'audit: {found["verdict"]}', *found['reasons']])


def word_lines(instructions: Iterable[str], tokenizer: Tokenizer) -> list[str]:
    """Return sentences on words that a tokenizer does not know, or does not tell apart."""
    unknown, equal = _words(instructions, tokenizer)
    return [text for text in (_unknown(unknown), _equal(equal)) if text]


def check_words(instructions: Iterable[str], tokenizer: Tokenizer) -> None:
    """Raise UserError if a tokenizer makes the same tokens of two instructions."""
    unknown, equal = _words(instructions, tokenizer)
    if equal:
        raise UserError(
            _equal(equal), got=_unknown(unknown), expected='tokens that differ', remedy=REWORD
        )


def table(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of the audit: what, and how much."""
    lost = ', '.join(f'{count} {LOST[key]}' for key, count in found['losses'].items() if count)
    rows = [
        ('episodes', f'{found["episodes"]}, {len(found["left_out"])} left out'),
        (
            'windows',
            f'{found["windows"]} of {found["frames"]} frames, {found["window_share"]:.0%} of the '
            'possible ones' + (f' (lost: {lost})' if lost else ''),
        ),
        ('chunk steps', f'{found["target_share"]:.0%} inside an episode'),
        (
            'driven frames',
            f'{found["lost_share"]:.0%} lost; {found["held_share"]:.0%} on a held command, '
            f'{found["stale_share"]:.0%} taught as zero',
        ),
        ('standing still', f'{found["zero_share"]:.0%} of the learned frames'),
        (
            'rates',
            f'policy {found["rate_hz"]:g} Hz, camera {found["camera_hz"]:.3g} Hz, commands '
            f'{found["command_hz"]:.3g} Hz, {found["command_age_s"]:.2f} s old',
        ),
    ]
    rows += [
        (
            f'{SCALE}{axis}',
            f'{one["scale"]:.3g} {AXIS_UNITS[axis]} (fastest {one["max"]:.3g}, '
            f'{scale.TOP_PERCENTILE:g} % below {one["percentile"]:.3g}, {one["frames"]} frames'
            + (', drift' if one['drift'] else '')
            + ')',
        )
        for axis, one in found['scale'].items()
    ]
    if found['clock_steps']:
        rows.append(('clock', f'set {found["clock_steps"]} times in mid-episode'))
    for name, kinds in (('instruction', found['instructions']), ('outcome', found['outcomes'])):
        shown = sorted(kinds.items(), key=lambda one: -one[1]['windows'])
        rows += [
            (
                name,
                f'{text!r}: {_count(one["episodes"], "episode")}, '
                + _count(one['windows'], 'window'),
            )
            for text, one in shown[:MOST]
        ]
        if len(shown) > MOST:
            rows.append((name, f'and {len(shown) - MOST} more'))
    return rows


def _losses(facts: Sequence[EpisodeFacts], kept: Mapping[str, int]) -> dict[str, int]:
    """Return key of ``LOST`` → windows lost."""
    left_out = sum(one.possible for one in facts if not kept[one.episode_id])
    gaps = sum(max(0, one.possible - kept[one.episode_id]) for one in facts) - left_out
    return {LEFT_OUT: left_out, GAPS: gaps}


def _counts(
    facts: Sequence[EpisodeFacts], kept: Mapping[str, int], key: Callable[[EpisodeFacts], str]
) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for one in facts:
        row = found.setdefault(key(one), {'episodes': 0, 'windows': 0})
        row['episodes'] += 1
        row['windows'] += kept[one.episode_id]
    return found


def _words(instructions: Iterable[str], tokenizer: Tokenizer) -> tuple[list[str], list[list[str]]]:
    """Return the words that a tokenizer does not know, and the instructions it confuses."""
    texts = sorted(set(instructions))
    alike = defaultdict(list)
    # Capitals and spaces make no other instruction.
    for text in {' '.join(text.casefold().split()): text for text in texts}.values():
        alike[tuple(tokenizer(text, add_special_tokens=False)['input_ids'])].append(text)
    return (
        sorted(unknown_words(tokenizer, ' '.join(texts))),
        [group for group in alike.values() if len(group) > 1],
    )


def _side(one: EpisodeFacts) -> int:
    """Return 1 for an episode that drives to the left, -1 to the right, 0 to neither."""
    sides = ((one.left_s, one.right_s, 1), (one.right_s, one.left_s, -1))
    return next(
        (sign for own, other, sign in sides if own > SIDE_S and own > SIDE_TIMES * other), 0
    )


def _against_words(facts: Sequence[EpisodeFacts]) -> dict[str, int]:
    """
    Return the instructions of one side whose episodes nearly all drive to the other.

    A few may: "stop to the right of the box" is also said where the box is on the left.
    """
    found = {}
    for instruction in sorted({one.instruction for one in facts}):
        words = set(re.findall(r'[a-z]+', instruction.lower()))
        named = ('left' in words) - ('right' in words)
        sides = [_side(one) for one in facts if one.instruction == instruction]
        against = sum(side == -named for side in sides) if named else 0
        if against >= MIN_AGAINST and against >= MOSTLY * len(sides):
            found[instruction] = against
    return found


def _opposite_drives(facts: Sequence[EpisodeFacts]) -> list[str]:
    """Return the instructions under which one start view leads to both sides."""
    found = []
    for instruction in sorted({one.instruction for one in facts}):
        own = [one for one in facts if one.instruction == instruction and one.view.any()]
        left, right = ([one.view for one in own if _side(one) == sign] for sign in (1, -1))
        if share_a_view(left, right):
            found.append(instruction)
    return found


def _verdict(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return `verdict`, `reasons` and `remedies`."""
    reasons: list[str] = []
    remedies: list[str] = []

    def note(condition: object, reason: str, *advice: str) -> None:
        if condition:
            reasons.append(reason)
            remedies.extend(one for one in advice if one not in remedies)

    check = 'mobile_vla episodes check DIR says why episodes are left out'
    losses = found['losses']
    note(
        found['unreadable'],
        f'{_count(found["unreadable"], "file")} cannot be read',
        'mobile_vla episodes recover DIR saves what is left of them',
    )
    note(
        losses[LEFT_OUT] > POOR_LOST * (found['windows'] + 1),
        f'{_count(len(found["left_out"]), "episode")} left out',
        check,
    )
    note(
        losses[GAPS] > POOR_LOST * (found['windows'] + 1),
        f'the camera ({found["camera_hz"]:.3g} Hz) has gaps or is too slow for '
        f'{found["rate_hz"]:g} Hz',
        *(
            [f'--rate_hz {max(1, int(found["camera_hz"]))} trains at the rate of the camera']
            if found['camera_hz'] < NEARLY * found['rate_hz']
            else []
        ),
    )
    note(
        found['stale_share'] > POOR_LOST,
        f'{found["stale_share"]:.0%} of the driven frames are taught as standing still, because '
        'their command is old',
        'if the base holds the last command: --command_max_age_s 0',
    )
    outliers = [
        f'{axis} {outlier["speed"]:.3g} in {outlier["episode_id"]} frame {outlier["frame"]}'
        for axis, one in found['scale'].items()
        for outlier in one['outliers']
    ]
    note(outliers, f'speeds beyond all others: {", ".join(outliers[:MOST])}', check)
    for reason in (_unknown(found['unknown_words']), _equal(found['equal_instructions'])):
        note(reason, reason, REWORD)
    note(
        found['against_words'],
        f'driven to the other side than its words: {_some(found["against_words"])}',
        RENAME,
    )
    note(
        found['opposite_drives'],
        f'opposite drives from one view under one sentence: {_some(found["opposite_drives"])}',
        RENAME,
    )
    bad = found['lost_share'] > BAD_LOST or not found['windows']
    poor = bool(reasons) or found['lost_share'] > POOR_LOST
    return {
        'verdict': 'bad' if bad else 'poor' if poor else 'good',
        'reasons': reasons,
        'remedies': remedies,
    }


def _unknown(words: Sequence[str] | None) -> str:
    return f'words that the tokenizer does not know: {_some(words)}' if words else ''


def _equal(groups: Sequence[Sequence[str]] | None) -> str:
    if not groups:
        return ''
    return 'instructions that are the same to the policy: ' + _some(
        [' = '.join(map(repr, group)) for group in groups]
    )


def _some(names: Sequence[str] | Mapping[str, Any] | None) -> str:
    shown = list(names or ())
    return ', '.join(shown[:MOST]) + (f' and {len(shown) - MOST} more' if shown[MOST:] else '')


def _count(number: int, name: str) -> str:
    return f'{number} {name}' + ('' if number == 1 else 's')


def _mean(parts: Sequence[np.ndarray]) -> float:
    values = np.concatenate([np.zeros(0), *(part.ravel() for part in parts)])
    return round(float(values.mean()), 4) if len(values) else 0.0


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 4) if values else 0.0
