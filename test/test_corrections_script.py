"""scripts/corrections: a policy that is corrected live, and what a comparison may claim."""

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from mobile_vla_ros.episode.reader import Episode, find_episodes

SCRIPT = Path(__file__).resolve().parent.parent / 'scripts' / 'corrections'


@pytest.fixture
def script():
    """The script as a module."""
    loader = SourceFileLoader('corrections', str(SCRIPT))
    spec = importlib.util.spec_from_loader('corrections', loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_same_scenes_are_set_against_each_other(script):
    """Of 100 scenes 12 are won and 4 lost: 8 points, and 1.96 standard errors to either side."""
    before = {number: number >= 12 for number in range(100)}
    after = {number: number < 96 for number in range(100)}
    rise, low, high = script.compare(before, after)
    assert rise == pytest.approx(0.08)
    assert (
        high - rise
        == pytest.approx(rise - low)
        == pytest.approx(1.96 * (16 - 64 / 100) ** 0.5 / 100)
    )


def test_more_than_twenty_drives_are_refused(script, capsys):
    """The promise is about at most twenty."""
    assert script.main(['--drives', '21']) == 2
    assert '--drives is 21, not 1 to 20' in capsys.readouterr().err


def test_a_drive_is_recorded_with_the_policy_at_the_wheel(script, ros_domain, tmp_path):
    """The live nodes, one scene (a short one) of the task asked for; who drove is in the take."""
    args = script.parse(['--drives', '1', '--out', str(tmp_path), '--suite', 'near'])
    (trial,) = script.record(args, tmp_path / 'takes')
    assert trial['takeovers'] >= 0 and trial['trial'] == 1  # near 0 is another task
    with Episode.open(find_episodes(tmp_path / 'takes')[0]) as episode:
        assert episode.instruction == trial['instruction'] and episode.outcome == trial['outcome']
        assert (episode.commands.source == 2).any()
    assert script.record(args, tmp_path / 'takes') == [trial]  # not driven twice
