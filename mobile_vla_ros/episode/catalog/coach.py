"""Find what a set of episodes lacks and what to record next, from the rows of its index."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.catalog import coverage
from mobile_vla_ros.episode.catalog.index_table import EpisodeRow
from mobile_vla_ros.episode.quality.further_camera import CAMERA
from mobile_vla_ros.types import ACCEPTED_VERDICTS

MAX_ADVICE = 5
ENOUGH_EPISODES = 50
EACH_INSTRUCTION = 10
MIN_PER_SENTENCE = 3  # with fewer episodes each, the wording is free and not balanced
FEW = 5  # anything rarer is not compared
BALANCE = 2 / 3  # rarer to more frequent of a pair
DISTINCT_SHARE = 1 / 2
START_SHARE = 1 / 4
STEERING_SHARE = 0.1  # of the time in motion
USED_SHARE = 0.02  # this robot or task does not use a direction driven for less
SUCCESS_SHARE = 0.7
OUTCOME_SHARE = 0.5
GOOD_SHARE = 0.5
LOST_SHARE = 0.1
IDLE_SHARE, IDLE_GOAL = 0.3, 0.2

WORDS = {
    'left': re.compile(r'\bleft(most)?\b', re.IGNORECASE),
    'right': re.compile(r'\bright(most)?\b', re.IGNORECASE),
}
PAIRS = {('left', 'right'): 'driving to the', ('turn_left', 'turn_right'): 'turning'}


@dataclass(frozen=True)
class Survey:
    """
    A set of episodes in numbers; all but ``takes`` and ``verdicts`` are of the usable ones.

    The fields are keys of ``episodes coach --json``.

    :param takes: episodes in the folder.
    :param usable: episodes that are good or poor, and so can be trained on.
    :param minutes: their duration.
    :param instructions: episodes and minutes of each sentence, the most frequent first.
    :param words: episodes with left, or right, in their instruction.
    :param moving_minutes: time commanded to move; ``directions``: its share in each direction.
    :param idle_share: share of the time without a command to move.
    :param starts: different places at the start of the ``views`` episodes that have an image.
    :param distinct: different sequences of commands in the ``driven`` episodes that move at all.
    :param near_identical: names of episodes that are alike, the largest group first.
    :param complaints: reasons of the verdicts on all episodes, with their number.
    """

    takes: int
    usable: int
    minutes: float
    verdicts: dict[str, int]
    outcomes: dict[str, int]
    instructions: dict[str, tuple[int, float]]
    words: dict[str, int]
    moving_minutes: float
    directions: dict[str, float]
    idle_share: float
    starts: int
    views: int
    distinct: int
    driven: int
    near_identical: list[list[str]]
    complaints: dict[str, int]


@dataclass(frozen=True)
class Advice:
    """
    One thing to record next.

    :param sentence: follows "record next: ".
    :param have: the present number; ``want``: the number to reach.
    :param value: the gain for the set, 0 to 1.
    """

    sentence: str
    have: float
    want: float
    value: float


def survey(
    rows: Iterable[EpisodeRow], traces: Mapping[str, tuple[np.ndarray, np.ndarray | None]]
) -> Survey:
    """
    Measure a set.

    :param rows: rows of the index.
    :param traces: signature and start view of each episode, by name.
    """
    rows = list(rows)
    usable = [row for row in rows if row.verdict in ACCEPTED_VERDICTS]
    names = [row.name for row in usable if row.name in traces]
    signatures = [traces[name][0] for name in names]
    groups = [[names[index] for index in group] for group in coverage.near_identical(signatures)]
    driven = sum(len(signature) > 0 for signature in signatures)
    views = [view for _, view in (traces[name] for name in names) if view is not None]
    moving_s, total_s = sum(r.moving_s for r in usable), sum(r.duration_s for r in usable)
    minutes_of: dict[str, list[float]] = {}
    for row in usable:
        minutes_of.setdefault(row.instruction, []).append(row.duration_s / 60)
    return Survey(
        takes=len(rows),
        usable=len(usable),
        minutes=total_s / 60,
        verdicts=dict(Counter(row.verdict for row in rows).most_common()),
        outcomes=dict(Counter(row.outcome for row in usable).most_common()),
        instructions={
            text: (len(minutes), sum(minutes))
            for text, minutes in sorted(
                minutes_of.items(), key=lambda item: (-len(item[1]), item[0])
            )
        },
        words={
            word: sum(bool(pattern.search(row.instruction)) for row in usable)
            for word, pattern in WORDS.items()
        },
        moving_minutes=moving_s / 60,
        directions={
            name: sum(getattr(row, f'{name}_s') for row in usable) / (moving_s or 1.0)
            for name in coverage.DIRECTIONS
        },
        idle_share=max(0.0, 1 - moving_s / total_s) if total_s else 0.0,
        starts=coverage.distinct_views(views),
        views=len(views),
        distinct=driven - sum(len(group) - 1 for group in groups),
        driven=driven,
        near_identical=sorted(groups, key=len, reverse=True),
        complaints=dict(
            Counter(
                re.sub(r'\d[\d.]*', '…', reason) for row in rows for reason in row.reasons
            ).most_common()
        ),
    )


def advise(found: Survey) -> list[Advice]:
    """Return at most five things to record next, the most valuable first."""
    rules = (
        _amount,
        _lost,
        _cameras,
        _repeated,
        _words,
        _sentences,
        _balance,
        _steering,
        _starts,
        _success,
        _outcomes,
        _poor,
        _idle,
    )
    advice = [one for rule in rules for one in rule(found)]
    return sorted(advice, key=lambda one: -one.value)[:MAX_ADVICE]


def _short(sentence: str, have: float, want: float, weight: float) -> Advice:
    """Return an advice whose value grows with the missing fraction."""
    return Advice(sentence, round(have, 3), round(want, 3), weight * (1 - have / want))


def _amount(found: Survey) -> Iterator[Advice]:
    if found.usable < ENOUGH_EPISODES:
        yield _short(
            f'{_episodes(ENOUGH_EPISODES - found.usable)} more of any kind; '
            f'{found.usable} of {ENOUGH_EPISODES} can be trained on',
            found.usable,
            ENOUGH_EPISODES,
            0.9,
        )


def _lost(found: Survey) -> Iterator[Advice]:
    lost = found.takes - found.usable
    if lost and lost > LOST_SHARE * found.takes:
        yield _short(
            f'{_episodes(lost)} again that cannot be trained on{_because(found)}; '
            f'{found.usable} of {found.takes} can',
            found.usable,
            found.takes,
            1.0,
        )


def _cameras(found: Survey) -> Iterator[Advice]:
    broken = ((why, count) for why, count in found.complaints.items() if why.startswith(CAMERA))
    for why, count in list(broken)[:1]:
        yield _short(
            f'{_episodes(count)} again if a policy is to learn from it: {why}; '
            f'{found.takes - count} of {found.takes} are without that',
            found.takes - count,
            found.takes,
            0.9,
        )


def _repeated(found: Survey) -> Iterator[Advice]:
    want = math.ceil(DISTINCT_SHARE * found.driven)
    if found.driven >= FEW and found.distinct < want:
        yield _short(
            f'{_episodes(want - found.distinct)} that go another way; of {found.driven} '
            f'episodes {found.distinct} are distinct, the others repeat their commands; '
            f'reach {want}',
            found.distinct,
            want,
            1.0,
        )


def _words(found: Survey) -> Iterator[Advice]:
    rare, often = sorted(found.words, key=found.words.__getitem__)
    have, want = found.words[rare], found.words[often]
    if want >= FEW and have < BALANCE * want:
        yield _short(
            f'{_episodes(want - have)} more with "{rare}" in the instruction; {have} of '
            f'{want}, the number with "{often}"',
            have,
            want,
            0.9,
        )


def _sentences(found: Survey) -> Iterator[Advice]:
    counts = {text: episodes for text, (episodes, _) in found.instructions.items()}
    if len(counts) < 2 or found.usable < MIN_PER_SENTENCE * len(counts):
        return
    want = min(EACH_INSTRUCTION, math.ceil(found.usable / len(counts)))
    for text in sorted(counts, key=counts.__getitem__)[:2]:
        if counts[text] < BALANCE * want:
            yield _short(
                f'{_episodes(want - counts[text])} more of "{text}"; {counts[text]} of {want}',
                counts[text],
                want,
                0.8,
            )


def _balance(found: Survey) -> Iterator[Advice]:
    for pair, doing in PAIRS.items():
        rare, often = sorted(pair, key=found.directions.__getitem__)
        have, want = (found.directions[name] * found.moving_minutes for name in (rare, often))
        if found.directions[often] > USED_SHARE and have < BALANCE * want:
            side, other = (name.removeprefix('turn_') for name in (rare, often))
            yield _short(
                f'{_time(want - have)} more of {doing} {side}; {_time(have)} of '
                f'{_time(want)}, as long as {other}',
                have,
                want,
                0.8,
            )


def _steering(found: Survey) -> Iterator[Advice]:
    have = sum(found.directions[name] for pair in PAIRS for name in pair)
    if found.driven and have < STEERING_SHARE:
        missing = (STEERING_SHARE - have) * found.moving_minutes
        yield _short(
            f'{_time(missing)} of steering to either side; {have:.0%} of the time in '
            f'motion, reach {STEERING_SHARE:.0%}',
            have,
            STEERING_SHARE,
            0.9,
        )


def _starts(found: Survey) -> Iterator[Advice]:
    want = min(math.ceil(START_SHARE * found.views), coverage.MAX_STARTS)
    if found.views >= 2 * FEW and found.starts < want:
        yield _short(
            f'{_episodes(want - found.starts)} that start from other places; the first '
            f'images of {found.views} episodes show {found.starts}, reach {want}',
            found.starts,
            want,
            0.7,
        )


def _success(found: Survey) -> Iterator[Advice]:
    have = found.outcomes.get('success', 0)
    known = have + found.outcomes.get('failure', 0)
    if known >= FEW and have < SUCCESS_SHARE * known:
        more = math.ceil((SUCCESS_SHARE * known - have) / (1 - SUCCESS_SHARE))
        yield _short(
            f'{_episodes(more)} more that succeed; {have} of {known} did, reach {have + more}',
            have,
            have + more,
            0.7,
        )


def _outcomes(found: Survey) -> Iterator[Advice]:
    have = found.usable - found.outcomes.get('unknown', 0)
    want = math.ceil(OUTCOME_SHARE * found.usable)
    if found.usable >= FEW and have < want:
        yield _short(
            f'episodes that you end with an outcome (key 1 or 0); {have} of {found.usable} '
            f'have one, reach {want}',
            have,
            want,
            0.3,
        )


def _poor(found: Survey) -> Iterator[Advice]:
    have, want = found.verdicts.get('good', 0), math.ceil(GOOD_SHARE * found.usable)
    if have < want:
        yield _short(
            f'{_episodes(want - have)} of verdict good{_because(found)}; {have} of '
            f'{found.usable} are, reach {want}',
            have,
            want,
            0.6,
        )


def _idle(found: Survey) -> Iterator[Advice]:
    if found.idle_share > IDLE_SHARE:
        yield Advice(
            f'episodes that begin when the robot sets off and end when it stops; '
            f'{found.idle_share:.0%} of the time it has no command to move, reach '
            f'{IDLE_GOAL:.0%}',
            round(found.idle_share, 3),
            IDLE_GOAL,
            0.5 * (found.idle_share - IDLE_GOAL) / (1 - IDLE_GOAL),
        )


def _because(found: Survey) -> str:
    return f' (most often: {next(iter(found.complaints))})' if found.complaints else ''


def _episodes(count: int) -> str:
    return '1 episode' if count == 1 else f'{count} episodes'


def _time(minutes: float) -> str:
    return f'{minutes:.1f} minutes' if minutes >= 2 else f'{math.ceil(minutes * 60)} seconds'
