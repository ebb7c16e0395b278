"""Complete a LeRobot set whose rows are written: tables, statistics, description."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mobile_vla_ros.interop.lerobot import layout, statistics
from mobile_vla_ros.interop.lerobot.writing import Setup


def finish(hidden: Path, setup: Setup, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write the tables of episodes and tasks, the statistics and the description of a set."""
    found = setup.features()
    episodes: list[dict[str, Any]] = []
    index = 0
    for number, entry in enumerate(entries):
        place, seconds = layout.place(number), 0.0
        for one in entry['episodes']:
            row = {
                'episode_index': len(episodes),
                'tasks': [one['task']],
                'length': one['length'],
                **{f'data/{name}': value for name, value in place.items()},
                'dataset_from_index': index,
                'dataset_to_index': index + one['length'],
                layout.ABOUT: one['about'],
                'meta/episodes/chunk_index': 0,
                'meta/episodes/file_index': 0,
            }
            index += one['length']
            if setup.video:
                until = seconds + one['length'] / setup.fps
                times = {'from_timestamp': seconds, 'to_timestamp': until}
                row |= {
                    f'videos/{layout.IMAGE}/{name}': value
                    for name, value in (place | times).items()
                }
                seconds = until
            row |= {
                f'stats/{feature}/{name}': value
                for feature, values in one['stats'].items()
                for name, value in values.items()
            }
            episodes.append(row)
    lengths = [row['length'] for row in episodes]
    tasks = [*dict.fromkeys(row['tasks'][0] for row in episodes)]
    table = hidden / layout.EPISODES.format(**layout.place(0))
    table.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(episodes), table)
    pq.write_table(layout.tasks_table(tasks), hidden / layout.TASKS)
    texts = {
        layout.STATS: statistics.plain(_whole_statistics(hidden, found, entries)),
        layout.INFO: layout.info(found, setup.fps, lengths, len(tasks), setup.robot),
    }
    for name, content_ in texts.items():
        (hidden / name).write_text(json.dumps(content_, indent=4) + '\n', encoding='utf-8')


def _whole_statistics(
    hidden: Path, found: layout.Features, entries: Sequence[Mapping[str, Any]]
) -> dict[str, statistics.Statistics]:
    """Return the statistics of a set: of its numbers as they were written, and of all pixels."""
    names = [name for name, one in found.items() if one['dtype'] not in layout.NO_NUMBERS]
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for number in range(len(entries)):
        file = hidden / layout.DATA.format(**layout.place(number))
        table = pq.read_table(file, columns=names)
        for name in names:
            pieces[name] += map(layout.values, table.column(name).chunks)
    stats = {name: statistics.of_values(np.concatenate(pieces.pop(name))) for name in names}
    episodes = [one for entry in entries for one in entry['episodes']]
    histogram = np.sum([one['histogram'] for one in episodes], axis=0)
    frames = sum(one['length'] for one in episodes)
    return {layout.IMAGE: statistics.of_histogram(histogram, frames), **stats}
