"""
Split episodes into a training and a validation side: seeded and stratified by instruction.

Episodes that drive (nearly) the same commands can be kept on one side.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mobile_vla_ros.episode.catalog import coverage
from mobile_vla_ros.errors import UserError

# How far the validation side may exceed its share to include an instruction that it lacks.
MAX_EXCESS = 1.5

# What goes to one side as a whole: a group of near-identical episodes, or a single one.
Unit = tuple[str, ...]
# Instructions of a unit with their counts; units of one kind are interchangeable.
Kind = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Repeats:
    """
    How many distinct command sequences some episodes contain.

    :param driven: number of episodes that move the robot; the others resemble nothing.
    :param groups: ids of near-identical episodes, each group sorted, the largest first.
    """

    driven: int = 0
    groups: list[list[str]] = field(default_factory=list)

    @property
    def distinct(self) -> int:
        """Number of distinct command sequences."""
        return self.driven - sum(len(group) - 1 for group in self.groups)

    def across(self, train: Collection[str]) -> list[list[str]]:
        """Return the groups that a training side separates."""
        train = set(train)
        return [group for group in self.groups if 0 < len(train.intersection(group)) < len(group)]


def find_repeats(signatures: Mapping[str, np.ndarray]) -> Repeats:
    """
    Find near-identical episodes (`episode.catalog.coverage.near_identical`).

    :param signatures: from `episode.catalog.coverage.signature`, by episode id.
    """
    ids = sorted(signatures)
    groups = coverage.near_identical([signatures[one] for one in ids])
    return Repeats(
        sum(len(driven) > 0 for driven in signatures.values()),
        sorted(
            ([ids[index] for index in group] for group in groups),
            key=lambda group: (-len(group), group),
        ),
    )


def split_episodes(
    instructions: Mapping[str, str],
    val_share: float,
    seed: int,
    groups: Iterable[Sequence[str]] = (),
) -> tuple[list[str], list[str]]:
    """
    Split episodes into a training and a validation side.

    Within an instruction, episodes go to validation in the order of a hash of seed and id, so
    that adding an episode moves few others across. First every instruction contributes one, as
    far as the share allows (the most frequent first), then those furthest below their share. An
    instruction with two or more episodes always keeps one for training. Instructions that occur
    once are treated as one instruction.

    :param instructions: instruction of each episode id.
    :param val_share: share of the episodes to validate on, between 0 and 1 (exclusive).
    :param seed: random seed.
    :param groups: ids that must stay on one side together.
    :returns: sorted ids of the training side and of the validation side, neither empty.
    :raises UserError: when there is no such split.
    """
    if not 0 < val_share < 1:
        raise UserError(
            'the validation share is out of range',
            got=val_share,
            expected='more than 0 and less than 1',
        )
    if len(instructions) < 2:
        raise UserError(
            'too few episodes to train and to validate',
            got=len(instructions),
            expected='at least 2',
            remedy='record more episodes',
        )
    units = _units(instructions, groups)
    if len(units) < 2:
        raise UserError(
            f'all {len(instructions)} episodes drive nearly the same commands: kept '
            'together, they leave nothing to validate',
            expected='episodes that differ',
            remedy='record episodes that differ, or do not group duplicates',
        )
    val = _validation(units, _strata(instructions), val_share, seed)
    return sorted(set(instructions) - val), sorted(val)


def _units(instructions: Mapping[str, str], groups: Iterable[Sequence[str]]) -> list[Unit]:
    """Return the groups, and every other episode as a unit of its own."""
    units = [tuple(sorted(set(group) & set(instructions))) for group in groups]
    grouped = {one for unit in units for one in unit}
    return [
        *(unit for unit in units if unit),
        *((one,) for one in instructions if one not in grouped),
    ]


def _strata(instructions: Mapping[str, str]) -> dict[str, str]:
    """Return each episode's instruction; '' if no other episode has the same one."""
    times = Counter(instructions.values())
    return {one: text if times[text] > 1 else '' for one, text in instructions.items()}


def _validation(
    units: list[Unit], strata: Mapping[str, str], val_share: float, seed: int
) -> set[str]:
    """Choose the validation side unit by unit, greedily by worth."""
    # Units of one kind are worth the same: they are queued in the order of the hash.
    queues: dict[Kind, list[Unit]] = defaultdict(list)
    units_of = Counter(text for unit in units for text in {strata[one] for one in unit})
    for unit in sorted(units, key=lambda unit: _hash(seed, unit[0]), reverse=True):
        queues[tuple(sorted(Counter(strata[one] for one in unit).items()))].append(unit)
    tie_breaks = {kind: _hash(seed, repr(kind)) for kind in queues}
    episodes_of = Counter(strata.values())
    training_units, held = Counter(units_of), Counter[str]()
    wanted = min(max(1, round(val_share * len(strata))), len(strata) - 1)
    val: set[str] = set()

    def spares(kind: Kind) -> bool:
        """Return whether every instruction of a unit keeps another unit for training."""
        return all(training_units[text] > 1 or units_of[text] == 1 for text, _ in kind)

    def worth(kind: Kind) -> tuple[int, int, float, float, str]:
        size = sum(count for _, count in kind)
        absent = [episodes_of[text] for text, _ in kind if not held[text] and units_of[text] > 1]
        lacks = [(val_share * episodes_of[text] - held[text], count) for text, count in kind]
        return (
            max(absent, default=0),
            -max(0, len(val) + size - wanted),
            sum(abs(lack) - abs(lack - count) for lack, count in lacks),
            max(lack for lack, _ in lacks),
            tie_breaks[kind],
        )

    def fits(kind: Kind) -> bool:
        size = sum(count for _, count in kind)
        nearer = size < 2 * (wanted - len(val))
        return nearer or (worth(kind)[0] > 0 and len(val) + size <= MAX_EXCESS * wanted)

    left = len(units)
    while left > 1 and len(val) < wanted:
        open_kinds = [kind for kind, queue in queues.items() if queue and spares(kind)]
        fitting = [kind for kind in open_kinds if fits(kind)]
        if not fitting and not val:
            # Every unit is larger than the validation side should be: choose the smallest.
            fitting = sorted(
                open_kinds or [kind for kind, queue in queues.items() if queue],
                key=lambda kind: (sum(count for _, count in kind), kind),
            )[:1]
        if not fitting:
            break
        chosen = max(fitting, key=worth)
        val.update(queues[chosen].pop())
        left -= 1
        for text, count in chosen:
            held[text] += count
            training_units[text] -= 1
    return val


def _hash(seed: int, episode_id: str) -> str:
    return hashlib.sha256(f'{seed}/{episode_id}'.encode()).hexdigest()
