"""The benchmark of the guard, cut short: its figures come from live nodes."""

import pytest

from mobile_vla_ros.bench.drive import guard as bench_drive_guard


@pytest.mark.quiet_machine
def test_the_guard_is_started_weighed_and_watched_while_every_core_is_busy(tmp_path):
    """
    Every figure is there, and the weight is near its promise.

    It includes pages of mapped libraries: up to 11 MB more just after an installation.
    """
    figures = {
        one.name.split(',')[0]: one
        for one in bench_drive_guard.measure(tmp_path, quiet=True, starts=1, seconds=1.0)
    }
    assert figures['peak memory'].value < 100
    assert 0.05 < figures['first command sent'].value <= figures['first command received'].value
    assert figures['periods measured'].value > 10
    assert 0 <= figures['period jitter'].value < 50
