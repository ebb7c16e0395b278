"""How long this machine kept the drill and the nodes waiting for a CPU."""

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path

BEAT_S = 0.01
BEATS_PER_SAMPLE = 5


class Load:
    """
    A thread that wakes a hundred times a second and stores by how much it was late.

    For the processes that it follows it also reads how long each of their threads was ready to
    run while others ran, from /proc: psutil does not report it. Times are of the steady clock,
    nanoseconds.
    """

    def __init__(self) -> None:
        self._beats: list[tuple[int, int]] = []
        self._waits: list[tuple[int, int]] = []
        self._followed: dict[str, dict[Path, int]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def follow(self, pids: Mapping[str, int]) -> None:
        """Reset, and follow these processes."""
        files = {
            name: [task / 'schedstat' for task in Path(f'/proc/{pid}/task').glob('*')]
            for name, pid in pids.items()
        }
        with self._lock:
            self._followed = {
                name: {file: wait for file in found if (wait := waited_ns(file)) is not None}
                for name, found in files.items()
            }
            self._beats, self._waits = [], []

    def late_ns(self) -> int:
        """Return the thread's worst lateness since the reset."""
        return max((late for _, late in list(self._beats)), default=0)

    def waited_ns(self, until_ns: int) -> int:
        """Return how long the followed processes waited until a time: the sum over processes."""
        waits = list(self._waits)
        return next(
            (wait for at_ns, wait in waits if at_ns >= until_ns), waits[-1][1] if waits else 0
        )

    def _beat(self) -> None:
        due = time.monotonic_ns()
        count = 0
        while not self._closing.is_set():
            due += round(BEAT_S * 1e9)
            time.sleep(BEAT_S)
            now = time.monotonic_ns()
            self._beats.append((now, max(now - due, 0)))
            due = now
            count += 1
            if count % BEATS_PER_SAMPLE == 0:
                with self._lock:
                    self._waits.append((now, sum(map(_longest, self._followed.values()))))


def waited_ns(schedstat: Path) -> int | None:
    """Return how long a thread has waited for a CPU since it began; None if it has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(schedstat.read_text().split()[1])
    return None


def _longest(threads: Mapping[Path, int]) -> int:
    return max(
        (
            wait - before
            for file, before in threads.items()
            if (wait := waited_ns(file)) is not None
        ),
        default=0,
    )
