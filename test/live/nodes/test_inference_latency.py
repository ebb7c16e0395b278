"""`mobile_vla bench drive latency`: the live camera and inference node of the benchmark."""

import pytest

from mobile_vla_ros.bench.drive.latency import measure


@pytest.mark.quiet_machine
def test_the_benchmark_times_frames_from_camera_to_proposal(tmp_path):
    """Nearly every image gives a proposal; from the camera it takes longer than from receipt."""
    figures = {one.name: one for one in measure(tmp_path, quiet=True, seconds=1.0)}
    sent = figures['images 1280x720 raw at 30 Hz'].value
    assert 10 <= sent <= 32
    assert sent / 2 < figures['answered by a proposal'].value <= sent
    own, from_camera = (
        figures[f'{what}, median'].value
        for what in ('callback to proposal', 'sent to proposal received')
    )
    assert 0 < own < from_camera < 1000
    assert {name for name, one in figures.items() if one.promise} == {
        'callback to proposal, p99',
        'sent to proposal received, p99',
    }
