"""Says what a set of takes lacks and what to record next, from the rows of its index alone."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mobile_vla_ros.episode.catalog import coverage
from mobile_vla_ros.episode.catalog.row import EpisodeRow
from mobile_vla_ros.types import ACCEPTED_VERDICTS

MAX_ADVICE = 5
ENOUGH_TAKES = 50
EACH_INSTRUCTION = 10
FEWEST_A_SENTENCE = 3  # with fewer takes each, the wording is free and sentences are not counted
FEW = 5  # what is seen less often is not weighed against something else
BALANCE = 2 / 3  # the rarer of a pair, of the more frequent one
DISTINCT_SHARE = 1 / 2
START_SHARE = 1 / 4
STEERING_SHARE = 0.1  # of the time in motion
USED_SHARE = 0.02  # a direction driven for less is one that this robot or task does not use
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
    A set of takes in numbers. What can be trained on is good or poor; only that is surveyed.

    :param takes: everything in the folder; ``usable``: of these, what can be trained on.
    :param minutes: of the usable takes, likewise all that follows but ``verdicts``.
    :param instructions: takes and minutes of each sentence, the most frequent first.
    :param words: takes whose instruction says left, or right.
    :param moving_minutes: told to move; ``directions``: share of it in each direction.
    :param idle_share: of the time, not told to move.
    :param starts: places that takes start from, of ``views`` takes with a picture.
    :param distinct: different sequences of commands, of ``driven`` takes that move at all.
    :param near_identical: names of takes that are alike, the largest group first.
    :param complaints: what poor, bad and unusable takes suffer from, and how many do.
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
    :param have: what there is now; ``want``: the number to reach.
    :param value: 0 to 1, how much the set would gain.
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

    :param rows: of the index, likewise ``traces``: signature and first view by name.
    """
    rows = list(rows)
    usable = [row for row in rows if row.verdict in ACCEPTED_VERDICTS]
    names = [row.name for row in usable if row.name in traces]
    signatures = [traces[name][0] for name in names]
    groups = [[names[index] for index in group] for group in coverage.near_identical(signatures)]
    driven = sum(len(signature) > 0 for signature in signatures)
    views = [view for _, view in map(traces.get, names) if view is not None]
    moving_s, total_s = sum(r.moving_s for r in usable), sum(r.duration_s for r in usable)
    said: dict[str, list[float]] = {}
    for row in usable:
        said.setdefault(row.instruction, []).append(row.duration_s / 60)
    return Survey(
        takes=len(rows),
        usable=len(usable),
        minutes=total_s / 60,
        verdicts=dict(Counter(row.verdict for row in rows).most_common()),
        outcomes=dict(Counter(row.outcome for row in usable).most_common()),
        instructions={
            text: (len(minutes), sum(minutes))
            for text, minutes in sorted(said.items(), key=lambda item: (-len(item[1]), item[0]))
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
    """Return an advice that is worth the more, the more is missing of what is wanted."""
    return Advice(sentence, round(have, 3), round(want, 3), weight * (1 - have / want))


def _amount(found: Survey):
    if found.usable < ENOUGH_TAKES:
        yield _short(
            f'{_takes(ENOUGH_TAKES - found.usable)} more of any kind; '
            f'{found.usable} of {ENOUGH_TAKES} can be trained on',
            found.usable,
            ENOUGH_TAKES,
            0.9,
        )


def _lost(found: Survey):
    lost = found.takes - found.usable
    if lost and lost > LOST_SHARE * found.takes:
        yield _short(
            f'{_takes(lost)} again that cannot be trained on{_because(found)}; '
            f'{found.usable} of {found.takes} can',
            found.usable,
            found.takes,
            1.0,
        )


def _repeated(found: Survey):
    want = math.ceil(DISTINCT_SHARE * found.driven)
    if found.driven >= FEW and found.distinct < want:
        yield _short(
            f'{_takes(want - found.distinct)} that go another way; of {found.driven} '
            f'takes {found.distinct} are distinct, the others repeat their commands; '
            f'reach {want}',
            found.distinct,
            want,
            1.0,
        )


def _words(found: Survey):
    rare, often = sorted(found.words, key=found.words.get)
    have, want = found.words[rare], found.words[often]
    if want >= FEW and have < BALANCE * want:
        yield _short(
            f'{_takes(want - have)} more whose instruction says "{rare}"; {have} of '
            f'{want}, as many as say "{often}"',
            have,
            want,
            0.9,
        )


def _sentences(found: Survey):
    counts = {text: takes for text, (takes, _) in found.instructions.items()}
    if len(counts) < 2 or found.usable < FEWEST_A_SENTENCE * len(counts):
        return
    want = min(EACH_INSTRUCTION, math.ceil(found.usable / len(counts)))
    for text in sorted(counts, key=counts.get)[:2]:
        if counts[text] < BALANCE * want:
            yield _short(
                f'{_takes(want - counts[text])} more of "{text}"; {counts[text]} of {want}',
                counts[text],
                want,
                0.8,
            )


def _balance(found: Survey):
    for pair, doing in PAIRS.items():
        rare, often = sorted(pair, key=found.directions.get)
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


def _steering(found: Survey):
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


def _starts(found: Survey):
    want = min(math.ceil(START_SHARE * found.views), coverage.MAX_STARTS)
    if found.views >= 2 * FEW and found.starts < want:
        yield _short(
            f'{_takes(want - found.starts)} that start from other places; the first '
            f'pictures of {found.views} takes show {found.starts}, reach {want}',
            found.starts,
            want,
            0.7,
        )


def _success(found: Survey):
    have = found.outcomes.get('success', 0)
    known = have + found.outcomes.get('failure', 0)
    if known >= FEW and have < SUCCESS_SHARE * known:
        more = math.ceil((SUCCESS_SHARE * known - have) / (1 - SUCCESS_SHARE))
        yield _short(
            f'{_takes(more)} more that succeed; {have} of {known} did, reach {have + more}',
            have,
            have + more,
            0.7,
        )


def _outcomes(found: Survey):
    have = found.usable - found.outcomes.get('unknown', 0)
    want = math.ceil(OUTCOME_SHARE * found.usable)
    if found.usable >= FEW and have < want:
        yield _short(
            f'takes whose outcome you say (key 1 or 0); {have} of {found.usable} have '
            f'one, reach {want}',
            have,
            want,
            0.3,
        )


def _poor(found: Survey):
    have, want = found.verdicts.get('good', 0), math.ceil(GOOD_SHARE * found.usable)
    if have < want:
        yield _short(
            f'{_takes(want - have)} of verdict good{_because(found)}; {have} of '
            f'{found.usable} are, reach {want}',
            have,
            want,
            0.6,
        )


def _idle(found: Survey):
    if found.idle_share > IDLE_SHARE:
        yield Advice(
            f'takes that begin when the robot sets off and end when it stands; '
            f'{found.idle_share:.0%} of the time it is told nothing, reach '
            f'{IDLE_GOAL:.0%}',
            round(found.idle_share, 3),
            IDLE_GOAL,
            0.5 * (found.idle_share - IDLE_GOAL) / (1 - IDLE_GOAL),
        )


def _because(found: Survey) -> str:
    return f' (most often: {next(iter(found.complaints))})' if found.complaints else ''


def _takes(count: int) -> str:
    return '1 take' if count == 1 else f'{count} takes'


def _time(minutes: float) -> str:
    return f'{minutes:.1f} minutes' if minutes >= 2 else f'{math.ceil(minutes * 60)} seconds'
