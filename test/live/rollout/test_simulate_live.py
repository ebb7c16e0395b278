"""The printed summary of `mobile_vla simulate`, and the arena's speed."""

import re

import pytest

from command_line import run_main


@pytest.mark.quiet_machine
def test_the_summary_has_rates_intervals_tasks_and_speed(capsys):
    """Without --json; the arena itself is at least ten times faster than real time."""
    status, out, _ = run_main(capsys, 'simulate', '--suite', 'unseen_layouts', '--trials', 3)
    assert status == 0
    assert 'unseen_layouts: 100% success (44% to 100%), 0% collisions' in out
    assert '1.00 x expert' in out
    assert float(re.search(r'the arena (\d+) x real time', out)[1]) >= 10
