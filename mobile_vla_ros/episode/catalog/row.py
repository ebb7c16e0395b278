"""The row that stands for an episode in the index."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from mobile_vla_ros import types
from mobile_vla_ros.episode.catalog import coverage
from mobile_vla_ros.episode.quality.verdict import Health
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError

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


def read_row(path: Path) -> tuple[EpisodeRow, bytes, bytes]:
    """
    Read an episode for the table.

    :returns: its row; its signature and its start view as little-endian float16, empty if there is
        none. The row of an unreadable file holds the reason.
    """
    blank = EpisodeRow(path.name, schema.episode_name(path))
    try:
        with Episode.open(path) as episode:
            received_ns, commands = episode.frame_received_ns, episode.commands
            health: Health = episode.health or {
                'verdict': UNFINISHED,
                'reasons': ['the episode was never finished'],
            }
            duration_s = float(received_ns[-1] - received_ns[0]) / 1e9 if len(episode) else 0.0
            driven = coverage.motion(commands.received_ns, commands.twist)
            signature = coverage.signature(commands.received_ns, commands.twist)
            row = EpisodeRow(
                path.name,
                episode.episode_id,
                episode.instruction,
                episode.outcome,
                episode.attributes['created_utc'],
                episode.origin,
                episode.recovered,
                len(episode),
                len(commands),
                round(max(duration_s, 0.0), 3),
                UNFINISHED if path.name.endswith('.part') else health['verdict'],
                tuple(health['reasons']),
                **{f'{name}_s': round(seconds, 3) for name, seconds in driven.items()},
            )
            return row, signature.clip(-6e4, 6e4).astype('<f2').tobytes(), _start_view(episode)
    except UserError as error:
        reason = str(error).replace(str(path), path.name)
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = f'{path.name} lacks parts of an episode; got {type(error).__name__}: {error}.'
    return dataclasses.replace(blank, reasons=(reason,)), b'', b''


def _start_view(episode: Episode) -> bytes:
    if not len(episode):
        return b''
    try:
        return coverage.start_view(episode.encoded(0)).astype('<f2').tobytes()
    except (OSError, UserError):
        return b''
