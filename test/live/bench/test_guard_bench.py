"""A short run of the guard's benchmark with live nodes."""

import pytest

from mobile_vla_ros.bench.drive import guard as bench_drive_guard


@pytest.mark.quiet_machine
def test_start_memory_and_period_of_the_guard_are_measured(tmp_path):
    """All figures exist, and the memory is near its promise."""
    figures = {
        one.name.split(',')[0]: one
        for one in bench_drive_guard.measure(tmp_path, quiet=True, starts=1, seconds=1.0)
    }
    assert 20 < figures['memory of its own'].value < 60
    assert 0.05 < figures['first command sent'].value <= figures['first command received'].value
    assert figures['periods measured'].value > 10
    assert 0 <= figures['period jitter'].value < 50
