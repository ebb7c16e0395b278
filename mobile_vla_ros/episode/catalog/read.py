"""Read an episode into its row of the index, in a ``file_worker``."""

import base64
import dataclasses
from pathlib import Path
from typing import Any

from mobile_vla_ros.episode.catalog import coverage
from mobile_vla_ros.episode.catalog.index_table import EXCLUDED, UNFINISHED, EpisodeRow
from mobile_vla_ros.episode.catalog.inspect import judged
from mobile_vla_ros.episode.quality.verdict import Health
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.errors import UserError


def read_row(path: Path) -> dict[str, Any]:
    """
    Read an episode for the table.

    :returns: ``row``: the fields of its ``EpisodeRow``; ``signature`` and ``view``: its signature
        and its start view as little-endian float16 in base64, empty if there is none.
    :raises UserError: when it cannot be read.
    """
    with Episode.open(path) as episode:
        received_ns, commands = episode.frame_received_ns, episode.commands
        health: Health = judged(episode) or {
            'verdict': UNFINISHED,
            'reasons': ['the episode is unfinished'],
        }
        verdict, reasons = health['verdict'], health['reasons']
        if episode.excluded:
            verdict, reasons = EXCLUDED, [f'excluded: {episode.excluded}', *reasons]
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
            UNFINISHED if path.name.endswith('.part') else verdict,
            tuple(reasons),
            edits=len(episode.edits.standing),
            **{f'{name}_s': round(seconds, 3) for name, seconds in driven.items()},
        )
        return {
            'row': dataclasses.asdict(row),
            'signature': _text(signature.clip(-6e4, 6e4).astype('<f2').tobytes()),
            'view': _text(_start_view(episode)),
        }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _start_view(episode: Episode) -> bytes:
    if not len(episode):
        return b''
    try:
        return coverage.start_view(episode.encoded(0)).astype('<f2').tobytes()
    except UserError:
        return b''
