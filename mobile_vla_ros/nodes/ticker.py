"""A steady beat: a thread of its own, and the kernel asked to let it run when its time comes."""

import ctypes
import gc
import os
import platform
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable

from mobile_vla_ros.types import NANOSECONDS

# Above everything of ordinary priority, below what a robot's drivers ask for.
PRIORITY = 5
# A thread that asks for shorter turns than others gets its turn sooner (Linux 6.12 and newer).
SLICE_NS = 500_000
SCHED_SETATTR = {'x86_64': 314, 'aarch64': 274}
# How long one thread of Python may keep the others waiting.
SWITCH_S = 0.001


def ask_for_punctuality() -> str:
    """
    Ask the kernel to let this process run when its time comes; return what came of it, in words.

    Real-time turns where this user may have them (root, CAP_SYS_NICE, or a limit rtprio);
    otherwise short turns of ordinary priority, which need no rights and which older kernels
    ignore. Threads made later inherit either.
    """
    sys.setswitchinterval(SWITCH_S)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
        return f'real-time turns, priority {PRIORITY}'
    except OSError:
        pass
    number = SCHED_SETATTR.get(platform.machine())
    # struct sched_attr: size, policy (SCHED_OTHER), flags, nice, priority, then in ns: runtime, …
    asked = struct.pack('=IIQiIQQQ', 48, 0, 0, 0, 0, SLICE_NS, 0, 0)
    if number is None or ctypes.CDLL(None).syscall(number, 0, asked, 0) != 0:
        return 'ordinary priority'
    return 'short turns of ordinary priority'


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
