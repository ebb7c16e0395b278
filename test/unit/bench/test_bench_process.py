"""A process's CPU time and memory for the benchmarks."""

import os
import time

import pytest

from mobile_vla_ros.bench.process import Cost, peak_bytes, reset_peak, resident_bytes

BLOCK = 100_000_000


def test_cpu_time_counts_from_the_start_of_the_measurement():
    """As the share of time in which the process was busy."""
    cost, began = Cost(os.getpid()), time.monotonic()
    busy_until = time.process_time() + 0.3
    while time.process_time() < busy_until:
        pass
    assert cost.cores() * (time.monotonic() - began) == pytest.approx(0.3, abs=0.1)


def test_the_peak_stays_when_memory_is_freed():
    """Resident memory falls again; the peak falls only when it is reset."""
    before = resident_bytes()
    block = bytearray(os.urandom(1)) * BLOCK
    assert resident_bytes() - before > 0.9 * BLOCK
    del block
    assert resident_bytes() - before < 0.5 * BLOCK
    assert peak_bytes() - before > 0.9 * BLOCK
    assert Cost(os.getpid()).peak_mb() == pytest.approx(peak_bytes() / 1e6, rel=0.01)
    try:
        reset_peak()
    except OSError:
        pytest.skip('this kernel keeps the peak')
    assert peak_bytes() - before < 0.5 * BLOCK
