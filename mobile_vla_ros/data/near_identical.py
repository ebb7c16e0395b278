"""Takes that drive (nearly) the same commands, and whether a split keeps them together."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from mobile_vla_ros.episode.catalog import coverage


@dataclass(frozen=True)
class Repeats:
    """
    How many different sequences of commands some takes hold.

    :param driven: takes that move the robot at all; the others are like nothing.
    :param groups: ids of takes that are near-identical, each group sorted, the largest first.
    """

    driven: int = 0
    groups: list[list[str]] = field(default_factory=list)

    @property
    def distinct(self) -> int:
        """Different sequences of commands."""
        return self.driven - sum(len(group) - 1 for group in self.groups)

    def across(self, train: Collection[str]) -> list[list[str]]:
        """Return the groups that have takes among some ids and takes that are not."""
        train = set(train)
        return [group for group in self.groups if 0 < len(train.intersection(group)) < len(group)]


def find_repeats(signatures: Mapping[str, np.ndarray]) -> Repeats:
    """
    Find near-identical takes (`episode.coverage.near_identical`).

    :param signatures: of `episode.coverage.signature`, by episode id.
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
