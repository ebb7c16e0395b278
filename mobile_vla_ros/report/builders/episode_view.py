"""Read what the page of `mobile_vla episodes view` shows of an episode."""

import base64
import dataclasses
import hashlib
import io
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros.episode.catalog.edit import log_lines
from mobile_vla_ros.episode.catalog.index_table import EXCLUDED, UNFINISHED
from mobile_vla_ros.episode.catalog.inspect import judged
from mobile_vla_ros.episode.quality.verdict import WORST_GAP_PERIODS, WORST_GAP_S
from mobile_vla_ros.episode.records import Commands
from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.timing.command_rule import ASSUMED, CommandRule
from mobile_vla_ros.episode.timing.timeline import times_of
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.stored import load, read_header
from mobile_vla_ros.report.pages.episodes_page import SOURCES, EpisodeView

BASE64 = 4 / 3
MAX_MADE = 1000
JPEG_QUALITY = 62
ROW_BYTES = 30  # a command as JSON
MAX_PARTS = 200  # of an episode with too many commands; each part keeps its extremes
# Measures of the verdict: key, name, format.
MEASURES = (
    ('frame_rate_hz', 'frames a second', '{:.1f}'),
    ('expected_rate_hz', 'expected', '{:.1f}'),
    ('command_rate_hz', 'commands a second', '{:.1f}'),
    ('worst_gap_s', 'worst gap', '{:.2f} s'),
    ('skew_s', 'camera clock lag', '{:.3f} s'),
    ('clock', 'camera clock', '{}'),
    ('drops', 'frames dropped', '{}'),
    ('idle_share', 'idle', '{:.0%}'),
    ('frozen_share', 'frozen', '{:.0%}'),
    ('held_share', 'driven on old commands', '{:.0%}'),
    ('expired_share', 'driven, counted as idle', '{:.0%}'),
    ('dark_share', 'dark', '{:.0%}'),
    ('blurred_share', 'blurred', '{:.0%}'),
)
FACTS = (
    ('created_utc', 'recorded'),
    ('robot', 'robot'),
    ('operator', 'operator'),
    ('image_topic', 'camera'),
    ('command_topic', 'commands'),
    ('origin', 'imported from'),
)

# Images of earlier pages, by hash and side: an episode is shown again after each edit.
_made: dict[tuple[bytes, int], tuple[bytes, str]] = {}


def read_view(path: Path, most: int, side: int, budget: int, camera: str = '') -> EpisodeView:
    """
    Read what the page shows of an episode.

    :param most: maximum number of images; side: pixels of their longer side.
    :param budget: bytes on the page; a small one reduces the number of images.
    :param camera: whose images, as of ``Episode.open``.
    :raises UserError: if the file cannot be read as an episode, or has no such camera.
    """
    with Episode.open(path, camera=camera) as episode:
        frames_ns, _ = times_of(episode)
        commands = episode.commands
        ends = (
            [(times.min(), times.max()) for times in (frames_ns, commands.steady_ns) if len(times)]
            or [(event.steady_ns,) * 2 for event in episode.events]
            or [(0, 0)]
        )
        if episode.edits.trim is not None:  # a command in force at its start may be older
            ends = ends[:1]
        begin_ns = min(first for first, _ in ends)
        origin_ns = episode.start_ns if len(frames_ns) else begin_ns
        begin_s = _seconds(begin_ns, origin_ns)
        span_s = _seconds(max(last for _, last in ends), origin_ns)
        times_s = _seconds(frames_ns, origin_ns)
        rule, proposed_s = episode.command_rule(), ASSUMED.timeout_s
        proposals: list[list] = []
        rows, max_age_s = _rows(commands, rule, origin_ns, budget)
        if rule.holds:
            max_age_s = span_s - min((row[0] for row in rows), default=0.0)
        if episode.proposals is not None:  # the guard plays none of them for long
            proposals, proposed_s = _rows(episode.proposals, ASSUMED, origin_ns, budget)
        index, images, size = _images(
            episode,
            most,
            side,
            (budget - ROW_BYTES * len(rows + proposals)) / BASE64,
            np.argsort(frames_ns, kind='stable'),
        )  # frames may have arrived out of order
        health = judged(episode) or {}
        reasons = [
            *([f'excluded: {episode.excluded}'] if episode.excluded else []),
            *health.get('reasons', ['the episode is unfinished']),
            *health.get('notes', ()),
        ]
        lost = sum(not image for image in images)
        if lost:
            reasons.append(f'{lost} of {len(images)} images on this page cannot be read')
        return EpisodeView(
            name=schema.episode_name(path),
            instruction=episode.instruction,
            outcome=episode.outcome,
            verdict=_verdict(episode, health),
            reasons=reasons,
            duration_s=float(np.ptp(times_s)) if len(times_s) else 0.0,
            frames=len(episode),
            span=(float(begin_s), float(span_s)),
            times=[round(float(times_s[row]), 3) for row in index],
            index=index,
            images=images,
            max_age_s=max_age_s,
            proposal_max_age_s=proposed_s,
            rows=rows,
            proposals=proposals,
            gaps=_gaps(times_s, begin_s, span_s),
            events=_events(episode, origin_ns),
            measures=_measures(episode, health, size),
            edits=episode.edits.words(),
            log=log_lines(episode.edits),
        )


def read_plain(path: Path, most: int, side: int, budget: int, camera: str = '') -> dict[str, Any]:
    """Return the fields of ``read_view`` in a ``FileWorker``, with images in base64."""
    view = read_view(path, most, side, budget, camera)
    images = [base64.b64encode(image).decode() for image in view.images]
    return dataclasses.asdict(view) | {'images': images}


def from_plain(fields: dict[str, Any]) -> EpisodeView:
    """Return what ``read_plain`` read."""
    images = [base64.b64decode(image) for image in fields['images']]
    return EpisodeView(**fields | {'images': images, 'span': tuple(fields['span'])})


def _seconds(time_ns, origin_ns):
    return (time_ns - origin_ns) / 1e9


def _rows(
    stream: Commands, rule: CommandRule, origin_ns: int, budget: int
) -> tuple[list[list], float]:
    """Return the commands or proposals to show, and for how many seconds one is in force."""
    finite = np.isfinite(stream.twist).all(axis=1)  # a policy may propose NaN or inf
    rows = np.column_stack(
        [_seconds(stream.steady_ns, origin_ns), stream.twist[:, [0, 1, 5]], stream.source]
    )[finite]
    rows, apart_s = _extremes(rows[np.argsort(rows[:, 0], kind='stable')], budget // 3)
    return [
        [round(float(value), 3) for value in row[:4]] + [_source(row[4])] for row in rows
    ], max(rule.timeout_s, apart_s)


def _source(number: float) -> int:
    return int(number) if number < len(SOURCES) else 0


def _verdict(episode: Episode, health: Mapping) -> str:
    if episode.path.suffix == '.part':
        return UNFINISHED
    return EXCLUDED if episode.excluded else health.get('verdict', UNFINISHED)


def _events(episode: Episode, origin_ns: int) -> list[list]:
    """Return [t, name, text] of the events, and of the edits that have a place among them."""
    found: list[list] = [
        [round(float(_seconds(event.steady_ns, origin_ns)), 3), event.name, event.text]
        for event in episode.events
    ]
    found += [[at, 'split', 'no training window spans it'] for at in episode.edits.splits]
    if episode.edits.trim is not None:
        rows, last = episode.recording.rows, len(episode.recording.frame_stamp_ns) - 1
        ends = zip(episode.edits.trim, (rows[0] > 0, rows[-1] < last), strict=True)
        found += [[at, 'trim', 'the recording has more'] for at, hides in ends if hides]
    return sorted(found, key=lambda event: event[0])


def _extremes(rows: np.ndarray, budget: int) -> tuple[np.ndarray, float]:
    """
    Thin out commands if there are too many.

    :returns: the rows with the extremes of each axis in each part of the episode, and the
        seconds of a part; 0 if all rows are kept.
    """
    parts = min(MAX_PARTS, max(10, budget // (6 * ROW_BYTES)))
    if len(rows) <= 6 * parts:
        return rows, 0.0
    kept = {0, len(rows) - 1}
    for part in np.array_split(np.arange(len(rows)), parts):
        for axis in (1, 2, 3):
            kept |= {part[rows[part, axis].argmin()], part[rows[part, axis].argmax()]}
    return rows[sorted(kept)], float(np.ptp(rows[:, 0])) / parts


def _gaps(times_s: np.ndarray, begin_s: float, span_s: float) -> list[list[float]]:
    """Return [from, to] where frames are missing, by the rule of the verdict."""
    times_s = np.sort(times_s)
    period_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    edges = np.concatenate([[begin_s], times_s, [span_s]])
    return [
        [round(float(edges[row]), 3), round(float(edges[row + 1]), 3)]
        for row in np.flatnonzero(np.diff(edges) > max(WORST_GAP_S, WORST_GAP_PERIODS * period_s))
    ]


def _images(episode: Episode, most: int, side: int, budget: float, order: np.ndarray):
    """
    Select images at equal distances: as many as the budget allows, but at least one.

    :param order: (N,) rows of the frames, sorted by time.
    :returns: their rows in the episode, JPEG files (empty if unreadable), and the size of the
        camera's image as text.
    """
    if not len(episode):
        return [], [], ''
    middle, size = _reduced(episode, len(episode) // 2, side)
    count = int(max(1, min(most, len(episode), budget / max(len(middle), 1000))))
    if count == 1:
        return [len(episode) // 2], [middle], size
    rows = order[np.unique(np.linspace(0, len(episode) - 1, count).round().astype(int))].tolist()
    return rows, [_reduced(episode, row, side)[0] for row in rows], size


def _reduced(episode: Episode, row: int, side: int) -> tuple[bytes, str]:
    from PIL import Image

    try:
        encoded = episode.encoded(row)
        key = hashlib.blake2b(encoded).digest(), side
        if key in _made:
            return _made[key]
        width, height, _ = read_header(encoded)
        # A JPEG is decoded at a lower scale, of twice the size that is left.
        share = 2 * side / max(width, height)
        image = load(encoded, min_size=(ceil(width * share), ceil(height * share)))
    except UserError:
        return b'', ''
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=JPEG_QUALITY)
    while len(_made) >= MAX_MADE:
        _made.pop(next(iter(_made)))  # the oldest
    _made[key] = buffer.getvalue(), f'{width} × {height}'
    return _made[key]


def _measures(episode: Episode, health: Mapping, size: str) -> dict[str, str]:
    measures = {
        name: str(episode.attributes[key]) for key, name in FACTS if episode.attributes.get(key)
    }
    if not episode.by_main_camera:
        measures['camera'] = episode.camera
    if size:
        measures['image'] = size
    if episode.topics:
        measures['other topics'] = ', '.join(episode.topics)
    if episode.attributes.get('recovered'):
        measures['recovered'] = 'yes'
    measures |= {
        name: form.format(health[key])
        for key, name, form in MEASURES
        if health.get(key) not in (None, '')
    }
    return measures
