"""Read an episode into its row of the index, in a ``file_worker``."""

import base64
import dataclasses
from pathlib import Path
from typing import Any

from mobile_vla_ros.episode.catalog import coverage
from mobile_vla_ros.episode.catalog.index_table import EXCLUDED, UNFINISHED, EpisodeRow
from mobile_vla_ros.episode.catalog.inspect import judged
from mobile_vla_ros.episode.quality.further_camera import CAMERA
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
        steady_ns, commands = episode.frame_steady_ns, episode.commands
        health: Health = judged(episode) or {
            'verdict': UNFINISHED,
            'reasons': ['the episode is unfinished'],
        }
        verdict, reasons = health['verdict'], [*health['reasons']]
        reasons += [one for one in health.get('notes', ()) if one.startswith(CAMERA)]
        if episode.excluded:
            verdict, reasons = EXCLUDED, [f'excluded: {episode.excluded}', *reasons]
        first_ns, last_ns = map(int, steady_ns[[0, -1]] if len(episode) else (0, 0))
        duration_s = (last_ns - first_ns) / 1e9
        log = episode.command_log()
        driven = coverage.motion(log, first_ns, last_ns)
        signature = coverage.signature(log, last_ns)
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
            round(duration_s, 3),
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
