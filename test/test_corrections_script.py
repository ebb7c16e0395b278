"""scripts/corrections.py: a policy that is corrected live, and what a comparison may claim."""

import pytest

import corrections
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes


def test_the_same_scenes_are_set_against_each_other():
    """Of 100 scenes 12 are won and 4 lost: 8 points, and 1.96 standard errors to either side."""
    before = {number: number >= 12 for number in range(100)}
    after = {number: number < 96 for number in range(100)}
    rise, low, high = corrections.compare(before, after)
    assert rise == pytest.approx(0.08)
    assert (
        high - rise
        == pytest.approx(rise - low)
        == pytest.approx(1.96 * (16 - 64 / 100) ** 0.5 / 100)
    )


def test_more_than_twenty_drives_are_refused(capsys):
    """The promise is about at most twenty."""
    assert corrections.main(['--drives', '21']) == 2
    assert '--drives is 21, not 1 to 20' in capsys.readouterr().err


def test_a_drive_is_recorded_with_the_policy_at_the_wheel(ros_domain, tmp_path):
    """The live nodes, one scene (a short one) of the task asked for; who drove is in the take."""
    args = corrections.parse(['--drives', '1', '--out', str(tmp_path), '--suite', 'near'])
    (trial,) = corrections.record(args, tmp_path / 'takes')
    assert trial['takeovers'] >= 0 and trial['trial'] == 1  # near 0 is another task
    with Episode.open(find_episodes(tmp_path / 'takes')[0]) as episode:
        assert episode.instruction == trial['instruction'] and episode.outcome == trial['outcome']
        assert (episode.commands.source == 2).any()
    assert corrections.record(args, tmp_path / 'takes') == [trial]  # not driven twice
