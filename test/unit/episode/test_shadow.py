"""A shadow drive: the difference between driver and policy, and its worst seconds."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.shadow import (
    MAX_STEP_NS,
    Shadow,
    Window,
    prepare_folder,
    write_window,
)
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.recovery import recover
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import Command
from small_episodes import CREATED_NS, encoded, write_episode
from velocities import twist

S, TICK_NS = 1_000_000_000, 50_000_000
WINDOW_NS = 10 * S


def watch(one, pairs, first_ns=S, step_ns=TICK_NS):
    """Give a shadow a command, then a proposal, at every tick; return the last time."""
    now_ns = first_ns
    for now_ns, (driven, proposed) in zip(range(first_ns, 10**15, step_ns), pairs, strict=False):
        one.command(Command(driven, now_ns, now_ns, 'teleop'), now_ns)
        one.proposal(proposed, now_ns - S, now_ns, now_ns)
    return now_ns


def test_each_axis_has_its_recent_and_total_difference():
    """Five seconds at 0.1 m/s, then two at 0.3; names have m/s or rad/s."""
    one = Shadow()
    last_ns = watch(
        one,
        [(twist(0.4, 0.2, 0.5), twist(0.3, 0.2, 0.0))] * 100
        + [(twist(0.4, 0.2, 0.5), twist(0.1, 0.2, 0.0))] * 40,
    )
    found = one.differences(last_ns)
    assert found['linear_x_live_mps'] == pytest.approx(0.3)
    assert found['linear_x_mean_mps'] == pytest.approx((100 * 0.1 + 40 * 0.3) / 140)
    assert found['linear_y_live_mps'] == pytest.approx(0.0)
    assert found['angular_z_mean_radps'] == pytest.approx(0.5)


def test_a_flip_is_a_proposal_opposite_to_the_command():
    """A share of the instants with motion along an axis; small speeds have no direction."""
    one = Shadow()
    last_ns = watch(
        one,
        [
            (twist(0.3), twist(-0.3)),
            (twist(-0.1), twist(0.3)),
            (twist(0.3), twist(0.3)),
            (twist(0.3), twist(-0.01)),
            (twist(0.0), twist(-0.3)),
        ],
    )
    found = one.differences(last_ns)
    assert found['linear_x_flips'] == pytest.approx(2 / 4) and found['linear_y_flips'] is None


def test_without_a_driver_nothing_is_compared():
    """A command older than half a second has expired."""
    one = Shadow()
    watch(one, [(twist(0.3), twist())])
    one.proposal(twist(), S, S, 2 * S)
    one.proposal(np.full(6, np.nan), S, S, S + 1)
    assert one.pairs == 1
    assert one.differences(4 * S)['linear_x_live_mps'] is None


speeds = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 1.0]), st.integers(1, 30)), min_size=1, max_size=6
)


@given(phases=speeds, step_ns=st.sampled_from([200_000_000, 333_000_000]))
def test_the_worst_window_has_the_largest_difference(phases, step_ns):
    """No other ten seconds have a larger sum, and the window has all their data."""
    one = Shadow()
    apart = [speed for speed, count in phases for _ in range(count)]
    last_ns = watch(one, [(twist(speed), twist()) for speed in apart], step_ns=step_ns)
    steps = np.array([0, *[min(step_ns, MAX_STEP_NS)] * (len(apart) - 1)])
    times = S + np.arange(len(apart)) * step_ns
    best = (
        max(
            float((apart * steps)[(times > end - WINDOW_NS) & (times <= end)].sum())
            for end in times
        )
        / WINDOW_NS
    )
    window = one.worst(last_ns, at_end=True)
    if best == 0:
        assert window is None
        return
    assert window.score == pytest.approx(best)
    received = [row[2] for row in window.proposals]
    assert received[-1] - received[0] <= WINDOW_NS
    own = np.isin(times, received)
    assert float((apart * steps)[own].sum()) / WINDOW_NS == pytest.approx(best)


def test_a_window_is_returned_once_complete_and_later_only_a_worse_one():
    """Ten seconds after the worst instant; later only a larger difference gives a window."""
    one = Shadow()
    bad, good = (twist(0.5), twist()), (twist(0.5), twist(0.5))
    last_ns = watch(one, [bad] * 100)
    assert one.worst(last_ns) is None
    assert one.worst(last_ns + WINDOW_NS - 1) is None
    first = one.worst(last_ns + WINDOW_NS)
    assert first.mean_mps == pytest.approx(0.5) and len(first.proposals) == 100
    last_ns = watch(one, [good] * 250 + [bad] * 50 + [good] * 250, last_ns + TICK_NS)
    assert one.worst(last_ns, at_end=True) is None
    last_ns = watch(one, [bad] * 150, last_ns + TICK_NS)
    assert one.worst(last_ns, at_end=True).score > first.score


def test_a_window_that_was_not_saved_is_returned_again():
    """After a failed save the maximum is reset, so that the next bad instant counts."""
    one = Shadow()
    last_ns = watch(one, [(twist(0.5), twist())] * 100)
    one.worst(last_ns, at_end=True)
    one.min_score = 0.0
    last_ns = watch(one, [(twist(0.1), twist())] * 20, last_ns + 2 * WINDOW_NS)
    assert one.worst(last_ns, at_end=True).mean_mps == pytest.approx(0.1)


def test_memory_is_bounded_over_hours():
    """Images by bytes, other data by the seconds that a window may still need."""
    one = Shadow(max_bytes=1000)
    for number in range(4000):
        now_ns = number * TICK_NS
        one.frame(bytes(100), now_ns, now_ns, now_ns)
        watch(one, [(twist(number / 4000), twist())], now_ns)
    recent = one._recent
    assert len(recent.frames) <= 10
    assert max(len(recent.proposals), len(recent.commands), len(one._area.steps)) <= 450


# --- on disk ---

INFO = EpisodeInfo('go to the red box')


def a_window(frames=30):
    """Return three seconds in which the policy proposes left and the driver does not follow."""
    times = [CREATED_NS + number * 100_000_000 for number in range(frames)]
    return Window(
        0.3,
        0.25,
        [(encoded(number), now, now, now + 7) for number, now in enumerate(times)],
        [Command(twist(0.4), now, now, 'teleop') for now in times],
        [(twist(0.4, 0.25), now - 1, now, now + 7) for now in times],
    )


def test_the_worst_seconds_are_an_episode_with_both_commands(tmp_path, capsys):
    """Commands as usual, the proposals beside them; the tools can open it."""
    path = write_window(tmp_path, INFO, a_window(), CREATED_NS)
    with Episode.open(path) as episode:
        assert episode.complete and len(episode) == 30
        assert set(episode.commands.source) == {1}
        assert np.array_equal(episode.proposals.twist, np.tile(twist(0.4, 0.25), (30, 1)))
        assert episode.proposals.received_ns[0] == episode.proposals.stamp_ns[0] + 1 == CREATED_NS
        assert '0.250 m/s apart' in episode.events[-1].text
        steady_ns = (episode.frame_received_ns + 7).tolist()
        assert (
            episode.frame_steady_ns.tolist() == episode.proposals.steady_ns.tolist() == steady_ns
        )
        assert [event.steady_ns for event in episode.events] == [steady_ns[0], steady_ns[-1]]
    assert main(['episodes', 'show', str(path)]) == 0
    assert main(['episodes', 'check', str(path)]) == 0
    assert main(['episodes', 'view', str(path)]) == 0
    assert 'poor' not in capsys.readouterr().err


def test_an_older_episode_is_read_as_before(tmp_path):
    """It has no proposals, and none are reported as lost."""
    path = write_episode(tmp_path)
    with Episode.open(path) as episode:
        assert episode.proposals is None
    with h5py.File(path) as file:
        assert 'proposals' not in file


def test_a_window_that_cannot_be_written_leaves_nothing(tmp_path):
    """A broken image stops it half-way."""
    window = a_window()
    window.frames.append((b'', CREATED_NS, CREATED_NS, CREATED_NS))
    with pytest.raises(ValueError, match='at least one byte'):
        write_window(tmp_path, INFO, window, CREATED_NS)
    assert list(tmp_path.iterdir()) == []


def test_proposals_of_a_killed_recording_are_recovered(tmp_path):
    """Like other rows: they are readable in the .part and in the recovered episode."""
    code = (
        'import os, numpy as np\nfrom mobile_vla_ros.episode.storage.writer import EpisodeWriter\n'
        'from test_shadow import INFO, CREATED_NS, a_window\n'
        f'writer = EpisodeWriter({str(tmp_path)!r}, INFO, CREATED_NS, proposals=True)\n'
        'window = a_window()\n'
        'for row in window.frames: writer.add_frame(*row)\n'
        'for row in window.commands: writer.add_command(row)\n'
        'for row in window.proposals: writer.add_proposal(*row)\n'
        'writer.flush()\nos.kill(os.getpid(), 9)\n'
    )
    here = Path(__file__).parent
    helpers, root = here.parents[1] / 'helpers', here.parents[2]
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=here,
        check=False,
        env={**os.environ, 'PYTHONPATH': f'{here}:{helpers}:{root}'},
    )
    assert done.returncode == -9
    (part,) = tmp_path.glob('*.part')
    with Episode.open(part) as episode:
        assert len(episode.proposals) == 30
    result = recover(part, now_ns=CREATED_NS)
    assert result.clean and result.proposals == 30 and '30 proposals' in result.sentence
    with Episode.open(result.path) as episode:
        assert np.array_equal(episode.proposals.twist[7], twist(0.4, 0.25))
    assert not part.exists()


def test_a_recovered_episode_without_proposals_has_none(tmp_path):
    """Recovery adds none."""
    writer = EpisodeWriter(tmp_path, INFO, CREATED_NS)
    writer.add_event('start', CREATED_NS)
    writer.flush()
    writer.abandon()
    result = recover(writer.part_path, now_ns=CREATED_NS)
    assert 'proposals' not in result.sentence
    with Episode.open(result.path) as episode:
        assert episode.proposals is None


def test_a_folder_that_cannot_be_created_is_refused(tmp_path):
    """Files saved before are not changed."""
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot write episodes'):
        write_window(tmp_path / 'file' / 'x', INFO, a_window(), CREATED_NS)


@pytest.mark.parametrize(
    ('data_dir', 'words'),
    [
        ('file', 'cannot write episodes'),
        ('~nobody-of-this-name/x', 'data_dir is not a valid folder'),
    ],
)
def test_a_shadow_does_not_start_without_a_writable_folder(tmp_path, monkeypatch, data_dir, words):
    """Otherwise the failure would appear only after the drive, with the worst seconds lost."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=words):
        prepare_folder(data_dir, CREATED_NS)
    folder = prepare_folder('episodes', CREATED_NS)
    assert not folder.exists()
    kept = write_window(folder, INFO, a_window(), CREATED_NS)
    assert prepare_folder('episodes', CREATED_NS) == folder
    assert kept.exists()
