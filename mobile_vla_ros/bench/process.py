"""CPU time and memory of a process."""

import re
import time
from pathlib import Path

import psutil


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return psutil.Process().memory_info().rss


def peak_bytes(pid: int | str = 'self') -> int:
    """
    Return the peak memory of a process, shared memory included.

    Read /proc: psutil has no peak on Linux, and ``resource`` starts from the parent's.

    :raises OSError: where the kernel does not report it.
    """
    found = re.search(r'VmHWM:\s+(\d+) kB', Path(f'/proc/{pid}/status').read_text())
    if found is None:
        raise OSError(f'/proc/{pid}/status has no VmHWM')
    return int(found[1]) * 1024


def reset_peak() -> None:
    """Reset the peak memory of this process; raises OSError if the kernel cannot."""
    Path('/proc/self/clear_refs').write_text('5')


class Cost:
    """CPU time of a process since construction, and its peak memory."""

    def __init__(self, pid: int):
        self._process = psutil.Process(pid)
        self._began, self._used = time.monotonic(), self._cpu_s()

    def cores(self) -> float:
        """Return the mean number of busy cores."""
        return (self._cpu_s() - self._used) / (time.monotonic() - self._began)

    def peak_mb(self) -> float:
        """Return its peak memory, in 10^6 bytes."""
        return peak_bytes(self._process.pid) / 1e6

    def own_mb(self) -> float:
        """
        Return the memory that is this process's alone, in 10^6 bytes.

        Without pages of mapped files, of which a varying part is resident and shared.
        """
        return self._process.memory_full_info().uss / 1e6

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system
