"""The drill's report: what was measured, where, and with which limits."""

import json

import pytest

from browser import dump_dom, needs_chromium
from mobile_vla_ros.drill.row import Row
from mobile_vla_ros.report.builders.drill import write_report

ROWS = [
    Row('estop', 'e-stop pressed', 'it is sent', 'zero in 250 ms', True, False, 4.0, 0.32),
    Row('camera_black', '<b>camera</b>', 'the first one', 'zero in 250 ms', False, True, 900.0),
    Row('teleop', 'teleop takes over', 'it is sent', 'zero in 250 ms'),
]


@pytest.fixture
def report(tmp_path):
    """Write a report of three rows; return the page and its JSON."""
    return write_report(
        tmp_path / 'drill.html',
        [row.as_dict() for row in ROWS],
        policy='builtin:demo',
        params_file='',
    )


def test_the_json_holds_machine_versions_limits_and_rows(report):
    """Enough to compare two machines."""
    _, path = report
    content = json.loads(path.read_text())
    assert (content['kept'], content['faults']) == (1, 3)
    assert content['rows'][0]['zero_ms'] == 4.0
    assert content['rows'][0]['rolled_m'] == 0.32
    assert content['limits']['max_gap_s'] == 0.2
    assert content['versions']['numpy'][0].isdigit()
    assert int(content['machine']['cores']) >= 1


def test_the_page_shows_the_rows_and_marks_those_not_kept(report):
    """Times, metres, verdicts; names stay text."""
    text = report[0].read_text()
    assert '1 of 3 promises kept' in text
    assert text.count('class=highlighted') == 2
    for word in ('BROKEN', 'UNSURE', '&lt;b&gt;camera&lt;/b&gt;', '0.32', 'observation_max_age_s'):
        assert word in text


@needs_chromium
def test_a_browser_shows_it_without_an_error(report, tmp_path):
    """Nothing on the console."""
    _, console = dump_dom(report[0].as_uri(), tmp_path / 'profile')
    assert console == []
