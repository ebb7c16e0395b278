"""A steady beat from a thread of its own."""

import gc
import threading
import time
import traceback
from collections.abc import Callable

from mobile_vla_ros.types import NANOSECONDS


class Ticker:
    """
    Calls a function at a fixed rate, and tells when it failed.

    What the rest of the process does (services, a look at the graph) cannot delay it for longer
    than that work holds the interpreter.

    :param period_s: from one call to the next; calls that were missed are not made up for.
    :param work: what to do.
    :param failed: called when it raised, after the traceback was printed; nothing is called
        after that.
    """

    def __init__(self, period_s: float, work: Callable[[], None], failed: Callable[[], None]):
        self._period_ns = round(period_s * NANOSECONDS)
        self._work, self._failed = work, failed
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        """Begin, with a first call at once; what the process has made so far is here to stay."""
        gc.collect()
        gc.freeze()  # or the collector would go through all of it again and again
        self._thread.start()

    def stop(self):
        """End, after a call that is under way."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self):
        next_ns = time.monotonic_ns()
        try:
            while True:
                self._work()
                now_ns = time.monotonic_ns()
                next_ns = max(next_ns + self._period_ns, now_ns)
                if self._closing.wait((next_ns - now_ns) / NANOSECONDS):
                    return
        except Exception:
            traceback.print_exc()
            self._failed()
