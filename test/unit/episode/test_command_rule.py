"""What a base does between two commands: who says so, and how the images tell."""

import h5py
import numpy as np
import pytest

from driven_bases import Base, odometry_of
from mobile_vla_ros.episode.catalog.edit import edit
from mobile_vla_ros.episode.catalog.inspect import judge_episode, judged
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.recovery import recover
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.base_estimate import estimate
from mobile_vla_ros.episode.timing.command_rule import (
    ASSUMED,
    HOLDS,
    SETTING,
    CommandLog,
    CommandRule,
    KnownBy,
    StaleTime,
)
from mobile_vla_ros.errors import UserError
from small_episodes import CREATED_NS, START_NS, write_rows
from sparse_episodes import ALWAYS, PRESSES, sparse_episode
from velocities import twist

S = 1_000_000_000


@pytest.mark.parametrize(
    ('presses', 'stops_after_s', 'found_s', 'held', 'expired'),
    [
        (PRESSES, np.inf, HOLDS, 0.79, 0.0),
        (PRESSES, 0.5, 0.5, 0.0, 0.79),
        (PRESSES, 1.5, 1.5, 0.42, 0.38),
        (ALWAYS, np.inf, HOLDS, 0.75, 0.0),
        (ALWAYS, 0.5, 0.5, 0.0, 0.75),
        (ALWAYS, 1.0, 1.0, 0.25, 0.5),
    ],
)
def test_the_images_tell_what_the_base_does(
    tmp_path, presses, stops_after_s, found_s, held, expired
):
    """Whether it holds or stops, and when; the verdict counts by it, and says the share."""
    path = sparse_episode(tmp_path, presses, stops_after_s=stops_after_s)
    with Episode.open(path) as episode:
        assert episode.command_rule() == CommandRule(found_s, KnownBy.IMAGES)
        health = episode.health
        assert judge_episode(episode) == health
    assert (health[SETTING], health['base_known_by']) == (found_s, 'images')
    assert health['held_share'] == pytest.approx(held, abs=0.01)
    assert health['expired_share'] == pytest.approx(expired, abs=0.01)
    driven = 0.75 if presses is PRESSES else 1.0
    assert health['idle_share'] == pytest.approx(1 - driven * (1 - expired), abs=0.01)
    assert any(f'{max(held, expired):.0%} of the driven time' in one for one in health['notes'])


@pytest.mark.parametrize('real_s', [np.inf, 0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    'base',
    [{}, {'noise': 0.03, 'slip': 0.06}, {'acceleration': 0.5, 'lag_s': 0.3, 'tau_s': 0.2}],
    ids=['quick', 'noisy', 'slow'],
)
def test_the_odometry_tells_what_the_base_does(base, real_s):
    """Whether it holds or stops, and when, without the time in which it follows; no image."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        at_s = np.cumsum(rng.uniform(2, 6, 10))
        told = np.zeros((10, 6))
        told[np.arange(10), rng.choice([0, 1, 5], 10)] = rng.choice([0.0, 0.3, -0.4, 0.5], 10)
        drive = Base(stops_after_s=real_s, **base).drive(at_s, told, 45.0, seed)
        rule = estimate(
            np.arange(0, 45 * S, S // 10),
            (at_s * S).astype(np.int64),
            told,
            lambda _: pytest.fail('decoded'),
            odometry_of(drive),
        )
        assert rule.known_by == KnownBy.ODOMETRY
        expected = HOLDS if real_s == np.inf else real_s
        assert rule.timeout_s == pytest.approx(expected, abs=0.0 if rule.holds else 0.35)


def test_odometry_that_does_not_move_leaves_it_to_the_images(tmp_path):
    """A base whose odometry is dead still has a camera."""
    path = sparse_episode(tmp_path, PRESSES)
    with Episode.open(path) as episode:
        arguments = (
            episode.frame_steady_ns,
            episode.commands.steady_ns,
            episode.commands.twist,
            episode.encoded,
        )
        times = np.arange(0, 16, 0.05)
        still = odometry_of((times, np.zeros((320, 3)), np.zeros((320, 3))), START_NS)
        assert estimate(*arguments, still) == CommandRule(HOLDS, KnownBy.IMAGES)


def test_a_trim_does_not_change_what_the_base_does(tmp_path):
    """Too little is left to tell by the images; the recording has told."""
    path = sparse_episode(tmp_path, PRESSES)
    edit({path: {'trim': [0.0, 2.0]}}, by='anna', time_ns=0)
    with Episode.open(path) as episode:
        rule, health = episode.command_rule(), judged(episode)
    assert rule == CommandRule(HOLDS, KnownBy.IMAGES)
    assert (health[SETTING], health['base_known_by']) == (HOLDS, 'images')


def test_images_that_do_not_tell_are_an_assumption_with_a_remedy(tmp_path):
    """A camera that sees no motion: half a second, as poor, with the share and the setting."""
    path = sparse_episode(tmp_path, PRESSES, pixels_per_m=0.0)
    with Episode.open(path) as episode:
        health = episode.health
        assert episode.command_rule() == ASSUMED and ASSUMED.timeout_s == 0.5
        assert episode.command_rule(HOLDS) == CommandRule(HOLDS, KnownBy.GIVEN)
    assert (health['verdict'], health['expired_share']) == ('poor', 0.7917)
    assert any('79% of the driven time' in one and SETTING in one for one in health['reasons'])


def test_an_episode_that_states_its_base_needs_no_image(tmp_path, monkeypatch):
    """The attribute wins over images and flags, is judged by, and survives a recovery."""
    monkeypatch.setattr('mobile_vla_ros.episode.storage.writer.estimate', None)
    path = sparse_episode(tmp_path, PRESSES, pixels_per_m=0.0, base_command_timeout_s=HOLDS)
    stated = CommandRule(HOLDS, KnownBy.RECORDED)
    with Episode.open(path) as episode:
        assert episode.attributes[SETTING] == 0.0
        assert episode.command_rule() == episode.command_rule(3.0) == stated
        assert episode.health['expired_share'] == 0 and episode.health['held_share'] > 0.7
        assert judge_episode(episode) == episode.health
    info = EpisodeInfo('go', base_command_timeout_s=0.2)
    writer = EpisodeWriter(tmp_path, info, CREATED_NS + S)
    write_rows(writer, 20)
    writer.flush()
    writer.abandon()
    with Episode.open(recover(writer.part_path, now_ns=CREATED_NS).path) as episode:
        assert episode.command_rule() == CommandRule(0.2, KnownBy.RECORDED)


@pytest.mark.parametrize('value', [-1.0, 61.0, float('nan'), 'holds'])
def test_a_timeout_that_is_none_is_refused(tmp_path, value):
    """By the writer with the range, and in a file with its name."""
    if value != 'holds':
        with pytest.raises(UserError, match='out of range'):
            EpisodeInfo('go', base_command_timeout_s=value)
    path = sparse_episode(tmp_path, ALWAYS, seconds=0.5, base_command_timeout_s=1.0)
    with h5py.File(path, 'r+') as file:
        file.attrs[SETTING] = value
    with pytest.raises(UserError, match=path.name):
        Episode.open(path)


def test_a_stream_that_repeats_needs_no_image():
    """With few old commands any rule gives the same episode: nothing is decoded."""
    times = np.arange(0, 30 * S, S // 10)
    driving = np.tile(twist(0.3), (len(times), 1))
    assert estimate(times, times, driving, lambda row: pytest.fail('decoded')) == ASSUMED
    pause = times < 29 * S  # the last second has no command: 1.7 % of the time
    assert estimate(times, times[pause], driving[pause], lambda _: pytest.fail('read')) == ASSUMED


def test_broken_images_and_short_episodes_are_assumed(tmp_path):
    """Nothing to compare is no error."""

    def broken(_):
        raise UserError('an image is broken')

    times = np.arange(0, 4 * S, S // 10)
    driving = np.array([twist(0.3)] * 2)
    assert estimate(times, times[[0, 20]], driving, broken) == ASSUMED
    assert estimate(times[:2], times[:2] - 3 * S, driving, broken) == ASSUMED
    assert estimate(times[:0], times[:2], driving, broken) == ASSUMED


def test_a_log_ends_its_spans_with_the_base():
    """A span ends at the next command or the timeout."""
    received_ns = np.array([0, 2, 5]) * S
    log = CommandLog(received_ns, np.array([twist(), twist(0.2), twist(0.5)]), CommandRule(1.0))
    assert log.spans(10 * S).tolist() == [S, S, S]
    held = CommandLog(log.received_ns, log.twist, CommandRule(HOLDS))
    assert held.spans(10 * S).tolist() == [2 * S, 3 * S, 5 * S]
    use = held.use(np.arange(10) * S)
    assert (use.driven, use.held, use.expired) == (8, 6, 0)
    use = log.use(np.arange(10) * S)
    assert (use.driven, use.held, use.expired) == (8, 2, 4)


def test_old_commands_are_counted_while_they_arrive():
    """Only after a command that moves the robot, beyond half a second, and once they matter."""
    stale = StaleTime()
    assert stale.until(9 * S) == (0.0, 0.0)
    for at_s in (0, 2, 4):
        assert stale.notable(at_s * S) == (at_s > 0)
        stale.command(twist(0.3), at_s * S)
    assert stale.until(4 * S) == (4.0, 3.0)
    stale.command(twist(), 4 * S)
    assert stale.until(90 * S) == (4.0, 3.0)
