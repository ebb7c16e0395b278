"""scripts/corrections.py: an episode in which a policy is corrected live."""

import corrections
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes


def test_a_drive_of_a_policy_is_recorded(ros_domain, tmp_path):
    """Live nodes, a short scene of the given task; the episode has the source of commands."""
    args = corrections.parse(['--drives', '1', '--out', str(tmp_path), '--suite', 'near'])
    (trial,) = corrections.record(args, tmp_path / 'episodes')
    assert trial['takeovers'] >= 0 and trial['trial'] == 1  # index 0 is another task
    with Episode.open(find_episodes(tmp_path / 'episodes')[0]) as episode:
        assert episode.instruction == trial['instruction'] and episode.outcome == trial['outcome']
        assert (episode.commands.source == 2).any()
    assert corrections.record(args, tmp_path / 'episodes') == [trial]  # not driven again
