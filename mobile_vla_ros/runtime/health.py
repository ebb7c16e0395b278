"""Whether what a policy proposes may be driven, as the guard is told."""

from dataclasses import dataclass
from enum import IntEnum

# Of an instruction. Kosmos-2 reads 2048 tokens, at the worst four of a letter, and the work grows
# with their square.
MOST_LETTERS = 500


class Level(IntEnum):
    """How bad it is; the guard stops at a hold and goes on by itself, a fault disarms it."""

    OK = 0
    HOLD = 1  # nothing is proposed, for an innocent reason
    FAULT = 2  # what is seen or thought must not be driven


@dataclass(frozen=True)
class Health:
    """
    What is told on `policy/health`.

    :param reason: in words; empty while there are proposals.
    """

    level: Level
    reason: str = ''

    @classmethod
    def ok(cls) -> 'Health':
        """There are proposals."""
        return cls(Level.OK)

    @classmethod
    def hold(cls, reason: str) -> 'Health':
        """Nothing is proposed, and nobody is to blame."""
        return cls(Level.HOLD, reason)

    @classmethod
    def fault(cls, reason: str) -> 'Health':
        """Something is wrong with what is seen or thought."""
        return cls(Level.FAULT, reason)
