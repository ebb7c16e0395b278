"""Read an episode into its row of the index."""

import dataclasses
from pathlib import Path

from mobile_vla_ros.episode.catalog import coverage
from mobile_vla_ros.episode.catalog.index_table import UNFINISHED, EpisodeRow
from mobile_vla_ros.episode.quality.verdict import Health
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError


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
                'reasons': ['the episode is unfinished'],
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
