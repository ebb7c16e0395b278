"""scripts/corrections.py: a policy that is corrected live, and what a comparison may claim."""

import corrections
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes


def test_a_drive_is_recorded_with_the_policy_at_the_wheel(ros_domain, tmp_path):
    """The live nodes, one scene (a short one) of the task asked for; who drove is in the take."""
    args = corrections.parse(['--drives', '1', '--out', str(tmp_path), '--suite', 'near'])
    (trial,) = corrections.record(args, tmp_path / 'takes')
    assert trial['takeovers'] >= 0 and trial['trial'] == 1  # near 0 is another task
    with Episode.open(find_episodes(tmp_path / 'takes')[0]) as episode:
        assert episode.instruction == trial['instruction'] and episode.outcome == trial['outcome']
        assert (episode.commands.source == 2).any()
    assert corrections.record(args, tmp_path / 'takes') == [trial]  # not driven twice
