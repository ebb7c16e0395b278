"""The benchmark of the guard, cut short: its figures come from live nodes."""

import pytest

from mobile_vla_ros.bench.drive import guard as bench_drive_guard


@pytest.mark.quiet_machine
def test_the_guard_is_started_weighed_and_watched_while_every_core_is_busy(tmp_path):
    """Every figure is there; the weight, which no busy machine changes, is within its promise."""
    figures = {
        one.name.split(',')[0]: one
        for one in bench_drive_guard.measure(tmp_path, quiet=True, starts=1, seconds=1.0)
    }
    assert figures['peak memory'].kept
    assert 0.05 < figures['first command sent'].value <= figures['first command heard'].value
    assert figures['periods watched'].value > 10
    assert 0 <= figures['jitter of its period'].value < 50
