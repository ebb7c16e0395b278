"""The row that stands for an episode in the index; imports no h5py, so that help stays quick."""

from dataclasses import dataclass
from pathlib import Path

from mobile_vla_ros import types

UNREADABLE, UNFINISHED = 'unreadable', 'unfinished'
NO_VERDICT = (UNREADABLE, UNFINISHED)
VERDICTS = (*types.VERDICTS, *NO_VERDICT)


@dataclass(frozen=True)
class EpisodeRow:
    """
    Facts about an episode that are known without opening it.

    :param verdict: one of ``VERDICTS``; ``reasons`` explain it, for an unreadable file its defect.
    :param duration_s: from the first to the last received image.
    :param moving_s: seconds commanded to move; the next six are for each direction, see
        ``coverage.motion``.
    """

    name: str
    episode_id: str
    instruction: str = ''
    outcome: str = ''
    created_utc: str = ''
    origin: str = ''
    recovered: bool = False
    frames: int = 0
    commands: int = 0
    duration_s: float = 0.0
    verdict: str = UNREADABLE
    reasons: tuple[str, ...] = ()
    moving_s: float = 0.0
    forward_s: float = 0.0
    back_s: float = 0.0
    left_s: float = 0.0
    right_s: float = 0.0
    turn_left_s: float = 0.0
    turn_right_s: float = 0.0


def unreadable(path: Path, reason: str) -> EpisodeRow:
    """Return the row of a file that cannot be read, with its sentence."""
    name = path.name.removesuffix('.part').removesuffix('.h5')
    return EpisodeRow(path.name, name, reasons=(reason.replace(str(path), path.name),))
