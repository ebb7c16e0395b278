"""Segments without images, and episodes with a chosen verdict."""

import numpy as np

from mobile_vla_ros.data.segments import Sampling, Segment, load_segments
from mobile_vla_ros.episode.catalog.inspect import judge_episode
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.types import ActionSpec, Command
from small_episodes import CREATED_NS, encoded

SPEC = ActionSpec(('linear_x', 'linear_y'), (0.5, 0.25))


def sliding(count: int, window: int = 4, first: int = 0) -> np.ndarray:
    """Return (count - window + 1, window) consecutive places from `first` on."""
    return first + np.arange(count - window + 1)[:, None] + np.arange(window)


def segment_of(twists, chunk=2, instruction='go', window=4) -> Segment:
    """Return a segment of frames at 10 Hz with these commands and no images."""
    twists = np.asarray(twists, dtype=float)
    count = len(twists)
    ahead = np.zeros((count, chunk, 6))
    real = np.zeros((count, chunk), bool)
    for step in range(chunk):
        ahead[: count - step, step] = twists[step:]
        real[: count - step, step] = True
    return Segment(
        'x',
        'x',
        instruction,
        np.arange(count),
        np.arange(count) * 100_000_000,
        sliding(count, window),
        ahead,
        real,
        np.vstack([np.zeros((1, 6)), twists[:-1]]),
    )


def first_segments(folder, count: int = 2) -> list[Segment]:
    """Load the segments of the first episodes of a folder."""
    return load_segments(find_episodes(folder)[:count], Sampling())[0]


def twists(xs, ys):
    """Return commands with these speeds in x and y."""
    result = np.zeros((len(xs), 6))
    result[:, 0], result[:, 1] = xs, ys
    return result


def write_worth(folder, verdict, number=0, *, finished=True):
    """Write an episode of twenty frames that has this verdict; return its path."""
    created_ns = CREATED_NS + number * 60_000_000_000
    writer = EpisodeWriter(
        folder, EpisodeInfo(f'go to the {("red", "blue")[number % 2]} box'), created_ns
    )
    for index in range(20):
        now_ns = (
            created_ns
            + index * 100_000_000
            + (600_000_000 if verdict == 'poor' and index > 9 else 0)
        )
        writer.add_frame(encoded(0 if verdict == 'bad' else index), now_ns, now_ns)
        writer.add_command(Command([0.1 + index / 100, 0, 0, 0, 0, 0], now_ns, now_ns, 'teleop'))
    if finished:
        path = writer.close('success')
    else:
        writer.flush()
        writer.abandon()
        path = writer.part_path.rename(writer.final_path)
    with Episode.open(path) as episode:
        assert judge_episode(episode)['verdict'] == verdict
    return path
