"""Receipts of a clock that was set back, in files without a steady one."""

import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.camera_clock import exposure_times
from mobile_vla_ros.episode.timing.receipts import GAP_NS, without_steps
from mobile_vla_ros.episode.timing.timeline import segments
from mobile_vla_ros.types import Command
from small_episodes import CREATED_NS, encoded

S = 1_000_000_000
MS = S // 1000


@given(st.lists(st.integers(0, 20 * S), max_size=30).map(sorted), st.integers(0, 5 * S))
def test_receipts_that_never_go_back_stay(times, apart_ns):
    """Nothing is moved, whatever the pauses."""
    frames = np.array(times, np.int64)
    kept = without_steps(frames, frames + apart_ns)
    assert np.array_equal(kept[0], frames) and np.array_equal(kept[1], frames + apart_ns)


@given(
    step_ms=st.integers(200, 4000),
    periods_ms=st.tuples(st.integers(30, 150), st.integers(20, 150)),
    at_ms=st.integers(3000, 6000),
)
# In one stream the receipts around the step are all older than those in the other.
@example(step_ms=200, periods_ms=(111, 130), at_ms=4291)
@example(step_ms=200, periods_ms=(110, 131), at_ms=4291)
def test_each_side_of_a_step_back_is_paired_alone(step_ms, periods_ms, at_ms):
    """Of frames and commands, what arrived before the step stays before what arrived after it."""
    true = [np.arange(0, 10_000, period) * MS for period in periods_ms]
    stepped = [stream - np.where(stream >= at_ms * MS, step_ms * MS, 0) for stream in true]
    moved = without_steps(*stepped)
    for stream, found in zip(true, moved, strict=True):
        assert np.all(np.diff(found) >= 0)
        before = stream < at_ms * MS
        assert np.array_equal(found[before], stream[before])
    # After it, the streams keep their distance, one gap behind all that came before.
    frames, commands = (stream[stream >= at_ms * MS] for stream in true)
    shifts = {int(moved[k][-1] - true[k][-1]) for k in (0, 1)}
    assert len(shifts) == 1
    ends = max(int(stream[stream < at_ms * MS][-1]) for stream in true)
    assert min(frames[0], commands[0]) + shifts.pop() == ends + GAP_NS


def test_several_steps_and_streams_that_do_not_show_them():
    """A stream with no row around a step is cut at the same place as the frames."""
    frames = np.array([0, 1, 2, 3, 1, 2, 3, 4, 2, 3]) * S
    commands = np.array([0])
    moved, kept, none = without_steps(frames, commands, np.zeros(0, np.int64))
    assert moved.tolist() == (np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) * S).tolist()
    assert kept.tolist() == [0] and not len(none)


def test_events_that_are_written_late_are_no_step():
    """Drops are written up to a second after the first of them; events move with their side."""
    frames = np.array([0, 1, 2, 3]) * S
    events = np.array([500, 2500, 1900, 3000]) * MS
    assert without_steps(frames, frames, events)[2] is events
    stepped = np.array([10, 11, 12, 13, 4, 5, 6]) * S
    events = np.array([10_000, 12_500, 11_900, 4_100, 6_000]) * MS
    _, _, moved = without_steps(stepped, stepped, events)
    assert moved.tolist() == (np.array([10_000, 12_500, 11_900, 14_100, 16_000]) * MS).tolist()


def stepped(folder, by_s: float, *, steady: bool):
    """
    Write 8 s of frames and commands whose sign changes every 0.7 s; a step comes after 4 s.

    :param steady: whether the receipts have a steady clock beside the one that is set.
    """
    writer = EpisodeWriter(folder, EpisodeInfo('go'), CREATED_NS)
    for tick in range(800):
        wall_ns = CREATED_NS + tick * 10 * MS + (round(by_s * S) if tick >= 400 else 0)
        steady_ns = 9 * S + tick * 10 * MS if steady else None
        if tick % 5 == 0:
            speed = 0.3 if tick // 70 % 2 else -0.3
            writer.add_command(Command([speed] + [0] * 5, wall_ns, wall_ns, steady_ns=steady_ns))
        if tick % 10 == 0:
            writer.add_frame(encoded(tick), wall_ns - 8 * MS, wall_ns, steady_ns)
    return writer.close('success')


@pytest.mark.parametrize('steady', [True, False])
@pytest.mark.parametrize('by_s', [-4.0, -1e6, 4.0])
def test_no_frame_is_paired_with_a_command_from_the_other_side_of_a_step(tmp_path, by_s, steady):
    """A wall clock that is set, or a simulator's that is reset, in mid-episode."""
    with Episode.open(stepped(tmp_path, by_s, steady=steady)) as episode:
        found, wrong = segments(episode, 10.0, 4), 0
        assert len(found) == (1 if steady else 2)
        for segment in found:
            for row, twist in zip(segment.frame_index, segment.twist, strict=True):
                tick = int(row) * 10 - 1  # a frame is exposed just before it arrives
                right = 0.3 if tick // 70 % 2 else -0.3
                wrong += twist[0] == -right
                # The first exposure of each side is older than its first command.
                assert twist[0] == right or (row in (0, 40) and not steady) or row == 0
        assert sum(map(len, found)) == 80
        print(f'\nshown 2: a step of {by_s:g} s: {wrong} of 80 frames have the wrong sign')
        assert episode.health['clock_steps'] == (1 if steady or by_s < 0 else 0)
        assert episode.health['clock'] == 'sane'


def test_receipts_without_any_order_are_bounded_work():
    """A stranger's file with a step at every row neither hangs nor goes back."""
    rows = 20_000
    jumping = np.arange(rows, dtype=np.int64) * 1000 + np.where(np.arange(rows) % 2, 2 * S, 0)
    began = time.process_time()
    frames, commands = without_steps(jumping, jumping)
    steady = np.arange(rows, dtype=np.int64) * 1000
    exposure_times(jumping, jumping, steady)
    assert time.process_time() - began < 1.0
    assert np.all(np.diff(frames) >= 0) and np.all(np.diff(commands) >= 0)
