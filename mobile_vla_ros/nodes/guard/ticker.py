"""A fixed rate, kept by a thread of its own."""

import gc
import threading
import traceback
from collections.abc import Callable

from mobile_vla_ros.nodes.shared.messages import steady_ns
from mobile_vla_ros.types import NANOSECONDS


class Ticker:
    """
    Calls a function at a fixed rate, and reports when it fails.

    Other work of the process (services, graph queries) delays a call only while it holds the
    interpreter lock.

    :param period_s: from one call to the next; missed calls are not repeated.
    :param work: the function to call.
    :param failed: called after ``work`` has raised and the traceback is printed; the ticker has
        ended then.
    """

    def __init__(self, period_s: float, work: Callable[[], None], failed: Callable[[], None]):
        self._period_ns = round(period_s * NANOSECONDS)
        self._work, self._failed = work, failed
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin with a call at once; all objects that exist now count as permanent."""
        gc.collect()
        gc.freeze()  # or the collector would traverse all of them again and again
        self._thread.start()

    def stop(self) -> None:
        """End, after a call that is under way."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        next_ns = steady_ns()
        try:
            while True:
                self._work()
                now_ns = steady_ns()
                next_ns = max(next_ns + self._period_ns, now_ns)
                if self._closing.wait((next_ns - now_ns) / NANOSECONDS):
                    return
        except Exception:
            traceback.print_exc()
            self._failed()
