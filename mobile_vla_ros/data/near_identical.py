"""Find episodes that drive (nearly) the same commands, and splits that separate them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from mobile_vla_ros.episode.catalog import coverage


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
