"""
Which command is in force at a time: the one rule of verdict, coach, page, replay and training.

Some bases hold the last command until another arrives; others stop when none has arrived for a
while. Many teleops publish only on a change, so that the same stream means driving to the one and
standing still to the other. Nothing else in this package computes the age of a command.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mobile_vla_ros.episode.records import TimedEpisode
from mobile_vla_ros.episode.timing import corrections
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import NANOSECONDS, StrEnum

HOLDS = 0.0  # as a timeout: the base never stops by itself
USUAL_TIMEOUT_S = 0.5  # of a base that nobody describes
MAX_TIMEOUT_S = 60.0
# An older command drives the robot only if the base holds it: teleops that repeat are faster.
STALE_S = 0.5
# With stale commands in a smaller share of the driven time, the rule makes no difference.
NOTABLE_SHARE = 0.02
SETTING = 'base_command_timeout_s'  # of the recorder, the import and the episode


class KnownBy(StrEnum):
    """Who says what the base does."""

    RECORDED = 'recorded'  # the episode: a parameter of the recorder, or a flag of the import
    GIVEN = 'given'  # whoever reads the episode
    ODOMETRY = 'odometry'
    IMAGES = 'images'
    ASSUMED = 'assumed'


WORDS = {
    KnownBy.RECORDED: 'as recorded',
    KnownBy.GIVEN: 'as given',
    KnownBy.ODOMETRY: 'by the odometry',
    KnownBy.IMAGES: 'by the images',
    KnownBy.ASSUMED: 'assumed',
}


@dataclass(frozen=True)
class CommandRule:
    """
    What a base does when no further command arrives.

    :param timeout_s: it stops this long after a command; 0: it holds the command.
    :raises UserError: for a timeout that is negative, too long or NaN.
    """

    timeout_s: float = USUAL_TIMEOUT_S
    known_by: KnownBy = KnownBy.ASSUMED

    def __post_init__(self) -> None:
        if not HOLDS <= self.timeout_s <= MAX_TIMEOUT_S:
            raise UserError(
                f'{SETTING} is out of range',
                got=self.timeout_s,
                expected=f'0 (the base holds the last command) to {MAX_TIMEOUT_S:g} s',
            )

    @property
    def holds(self) -> bool:
        """Whether a command is in force until the next one."""
        return self.timeout_s == HOLDS

    @property
    def sentence(self) -> str:
        """What the base does, and who says so."""
        does = (
            'the base holds the last command'
            if self.holds
            else f'the base stops {self.timeout_s:g} s after a command'
        )
        return f'{does} ({WORDS[self.known_by]})'

    def in_force(self, age_ns: np.ndarray | int) -> np.ndarray | bool:
        """Return (…) bool: a newest command of this age still drives the base."""
        young = age_ns <= round(self.timeout_s * NANOSECONDS)
        return young | self.holds


ASSUMED = CommandRule()


def known_rule(timeout_s: float | None) -> CommandRule | None:
    """Return the rule that an episode states, None if it states none."""
    return None if timeout_s is None else CommandRule(timeout_s, KnownBy.RECORDED)


class RuledEpisode(TimedEpisode, Protocol):
    """An episode that knows its base; ``storage.reader.Episode`` is one."""

    def command_rule(self, unknown_s: float | None = None) -> CommandRule:
        """Return what the base does; ``unknown_s``: the timeout if the episode does not say."""


@dataclass(frozen=True)
class CommandUse:
    """
    How much of an episode depends on the rule.

    :param driven: frames whose newest command, however old, is not zero.
    :param held: those of them that are driven on a command older than ``STALE_S``.
    :param expired: those of them that count as standing still: the command is no longer in force.
    """

    rule: CommandRule
    driven: int
    held: int
    expired: int

    @property
    def held_share(self) -> float:
        """Share of the driven frames."""
        return self.held / self.driven if self.driven else 0.0

    @property
    def expired_share(self) -> float:
        """Share of the driven frames."""
        return self.expired / self.driven if self.driven else 0.0

    @property
    def notable(self) -> bool:
        """Whether another rule would give another episode."""
        return self.held_share + self.expired_share > NOTABLE_SHARE

    @property
    def sentence(self) -> str:
        """The rule and its share, in words."""
        shares = [
            f'{share:.0%} of the driven time {what}'
            for share, what in (
                (self.held_share, f'is on commands older than {STALE_S:g} s'),
                (self.expired_share, 'counts as standing still'),
            )
            if share
        ]
        return ': '.join([self.rule.sentence, *([' and '.join(shares)] if shares else [])])


def total(uses: Sequence[CommandUse]) -> CommandUse:
    """Return the use of several episodes of one rule."""
    return CommandUse(
        uses[0].rule,
        sum(one.driven for one in uses),
        sum(one.held for one in uses),
        sum(one.expired for one in uses),
    )


@dataclass(frozen=True)
class CommandLog:
    """
    Every command of an episode in order of receipt, and what the base does between them.

    :param received_ns: (M,) int64 receipts on the steady clock, not decreasing.
    :param twist: (M, 6) float64, m/s and rad/s.
    :param kind: (M,) uint8 kind of each command (``corrections.kinds``); None: all are plain.
    """

    received_ns: np.ndarray
    twist: np.ndarray
    rule: CommandRule = ASSUMED
    kind: np.ndarray | None = None

    def at(self, time_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the action at each time.

        :param time_ns: (…) int64.
        :returns: (…, 6) float64 twist, zero without a command in force; (…) bool: there is one.
        """
        rows, known, age_ns = self._newest(time_ns)
        active = known & self.rule.in_force(age_ns)
        twist = np.zeros((*rows.shape, 6))
        twist[active] = self.twist[rows[active]]
        return twist, active

    def kind_at(self, time_ns: np.ndarray) -> np.ndarray:
        """Return (…) uint8: the kind of the action at each time (``corrections.kinds``)."""
        kind = np.full(np.shape(time_ns), corrections.PLAIN, np.uint8)
        if self.kind is None or (self.kind == corrections.PLAIN).all():  # nearly every episode
            return kind
        rows, known, age_ns = self._newest(time_ns)
        active = known & self.rule.in_force(age_ns)
        kind[active] = self.kind[rows[active]]
        return kind

    def newest_at(self, time_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Return the newest command at each time, in force or not.

        :returns: (…) int64 its row, -1 before the first; (…) int64 its age, nanoseconds; (…) bool:
            it is not zero.
        """
        rows, known, age_ns = self._newest(time_ns)
        drives = np.zeros(rows.shape, bool)
        drives[known] = (self.twist[rows[known]] != 0).any(axis=-1)
        return np.where(known, rows, -1), age_ns, drives

    def use(self, time_ns: np.ndarray) -> CommandUse:
        """Return how much of the frames at these times depends on the rule."""
        _, age_ns, drives = self.newest_at(time_ns)
        active, stale = self.rule.in_force(age_ns), age_ns > round(STALE_S * NANOSECONDS)
        return CommandUse(
            self.rule,
            int(drives.sum()),
            int((drives & active & stale).sum()),
            int((drives & ~active).sum()),
        )

    def spans(self, until_ns: int) -> np.ndarray:
        """Return (M,) int64: how long each command is in force, the last until ``until_ns``."""
        following = np.append(self.received_ns[1:], until_ns)[: len(self.received_ns)]
        spans = np.maximum(following - self.received_ns, 0)
        if not self.rule.holds:
            spans = np.minimum(spans, round(self.rule.timeout_s * NANOSECONDS))
        return np.asarray(spans, np.int64)

    def _newest(self, time_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (…) int64 the newest row, 0 if there is none; (…) bool: there is; (…) its age."""
        time_ns = np.asarray(time_ns, dtype=np.int64)
        if not len(self.received_ns):
            return np.zeros_like(time_ns), np.zeros(time_ns.shape, bool), np.zeros_like(time_ns)
        rows = np.searchsorted(self.received_ns, time_ns, side='right') - 1
        known, rows = rows >= 0, np.maximum(rows, 0)
        return rows, known, np.where(known, time_ns - self.received_ns[rows], 0)


@dataclass
class StaleTime:
    """
    Counts, while commands arrive, how long a robot is driven on an old one.

    :ivar driven_s: seconds with a last command that is not zero; ``stale_s``: of these, those in
        which it was older than ``STALE_S``. Both end with the newest command.
    """

    driven_s: float = 0.0
    stale_s: float = 0.0
    since_ns: int | None = None  # of the newest command, if it is not zero

    def command(self, twist: np.ndarray, now_ns: int) -> None:
        """Count the time up to a new command; ``now_ns`` is a clock that never jumps."""
        self.driven_s, self.stale_s = self.until(now_ns)
        self.since_ns = now_ns if np.any(twist) else None

    def until(self, now_ns: int) -> tuple[float, float]:
        """Return ``driven_s`` and ``stale_s`` up to now."""
        since_s = 0.0 if self.since_ns is None else (now_ns - self.since_ns) / NANOSECONDS
        return self.driven_s + since_s, self.stale_s + max(0.0, since_s - STALE_S)

    def notable(self, now_ns: int) -> bool:
        """Whether the verdict will depend on what the base does."""
        driven_s, stale_s = self.until(now_ns)
        return stale_s > max(2 * STALE_S, NOTABLE_SHARE * driven_s)
