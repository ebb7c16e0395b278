"""Verdict, coach and trainer agree on when the robot stands still."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla_ros.data.episodes import base_lines, base_record, load_episodes
from mobile_vla_ros.data.segments import Sampling, read_episodes
from mobile_vla_ros.episode.catalog.read import read_row
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.types import ACCEPTED_VERDICTS, VERDICTS, Command
from small_episodes import CREATED_NS, PERIOD_NS, START_NS, encoded
from sparse_episodes import PRESSES, sparse_episode
from velocities import twist

FRAMES = 60
IMAGES = [encoded(index) for index in range(FRAMES)]

streams = st.lists(
    st.tuples(st.integers(0, FRAMES - 1), st.sampled_from([0.0, 0.4])), min_size=1, max_size=9
)


@settings(max_examples=15)
@given(commands=streams, timeout_s=st.sampled_from([None, 0.0, 0.25, 1.95]))
def test_three_users_give_one_share_of_standing(commands, timeout_s):
    """On any stream, with a base that holds, that stops, or that nobody describes."""
    with tempfile.TemporaryDirectory() as folder:
        info = EpisodeInfo('go', base_command_timeout_s=timeout_s)
        writer = EpisodeWriter(folder, info, CREATED_NS, hidden=True)
        for frame, speed in sorted(commands, key=lambda one: one[0]):
            at_ns = START_NS + frame * PERIOD_NS
            writer.add_command(Command(twist(speed), at_ns, at_ns, 'teleop'))
        for index, image in enumerate(IMAGES):
            at_ns = START_NS + index * PERIOD_NS
            writer.add_frame(image, at_ns, at_ns)
        path = writer.close()
        loaded = read_episodes([path], Sampling(chunk=1), VERDICTS)
        row = read_row(path)['row']
        with Episode.open(path) as episode:
            health = episode.health
    taught = np.concatenate([one.ahead[:, 0] for one in loaded.segments])
    assert len(taught) == FRAMES
    standing = float((taught == 0).all(axis=1).mean())
    assert health['idle_share'] == pytest.approx(standing, abs=1e-4)
    # Time has no frame at its end, and a command may expire between two frames.
    edges = (1 + len(commands)) / (FRAMES - 1)
    assert 1 - row['moving_s'] / row['duration_s'] == pytest.approx(standing, abs=edges)
    (use,) = (one.use for one in loaded.facts)
    assert health['expired_share'] == pytest.approx(use.expired_share, abs=1e-4)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Return three episodes: of a base that holds by its images, by its file, and of no one's."""
    path = tmp_path_factory.mktemp('episodes')
    sparse_episode(path, PRESSES)
    sparse_episode(path, PRESSES, pixels_per_m=0.0, base_command_timeout_s=0.0)
    sparse_episode(path, PRESSES, pixels_per_m=0.0)
    return path


def load(folder: Path, **sampling):
    """Load the folder for training."""
    return load_episodes(folder, Sampling(**sampling), ACCEPTED_VERDICTS, 0.4, 0)


def test_the_trainer_says_each_rule_with_its_share(folder):
    """By whom it is known, and the remedy where it is not."""
    found = load(folder)
    lines = sorted(base_lines(found))
    assert [line.split(':')[0] for line in lines] == ['1 episode'] * 3
    words = ('holds the last command (as recorded)', 'holds the last command (by the images)')
    for line, word in zip(lines, (*words, '0.5 s after a command (assumed)'), strict=True):
        assert word in line and '79% of the driven time' in line
    assert '--command_max_age_s' in lines[2]
    rows = {row['base_known_by']: row for row in base_record(found)}
    assert rows['assumed']['expired_share'] == rows['images']['held_share'] == 0.7917


def test_the_flag_speaks_for_episodes_that_do_not(folder):
    """It wins over images and assumptions, and not over what an episode states."""
    rows = base_record(load(folder, command_max_age_s=0.0))
    assert {(row['base_known_by'], row['base_command_timeout_s']) for row in rows} == {
        ('given', 0.0),
        ('recorded', 0.0),
    }
    rows = base_record(load(folder, command_max_age_s=0.5))  # as every older bundle has it
    assert {
        (row['base_known_by'], row['base_command_timeout_s'], row['episodes']) for row in rows
    } == {
        ('given', 0.5, 2),
        ('recorded', 0.0, 1),
    }
